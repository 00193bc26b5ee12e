"""Standard output and error that are closed, full, or read by nobody any more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CLOSED = "<&- >&- 2>&-"
LEFT = "2>&1 | true"  # which reads nothing


def shell(line):
    """(exit code, output) of a line of bash; $python runs Python, and finds this checkout."""
    words = ["bash", "-o", "pipefail", "-c", f"python='{sys.executable}'; cd '{PROJECT}'; {line}"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("entry", "streams"),
    [
        ("eval", LEFT),
        ("predict", CLOSED),
        pytest.param("eval", CLOSED, marks=pytest.mark.long),
        pytest.param("predict", LEFT, marks=pytest.mark.long),
    ],
)
def test_results_are_written_though_nobody_reads_what_is_printed(clip_set, trained, root, entry, streams):
    words = f"'{clip_set}' --output '{root}/out/r.jsonl'" if entry == "predict" else ""
    words += f" --config '{clip_set}/tiny.yaml' --weights '{trained}/STNET_final.pdparams' --engine=paddle"
    assert shell(f'"$python" {entry}.py {words} --save_dir "{root}/out" {streams}') == (0, "")
    if entry == "predict":
        assert len((root / "out/r.jsonl").read_text().splitlines()) == 16
    else:
        assert json.loads((root / "out/eval_results.json").read_text())["count"] == 6
        assert (root / "out/report.html").exists()


@pytest.mark.long
@pytest.mark.parametrize("streams", [LEFT, CLOSED])
def test_two_ranks_are_trained_though_nobody_reads_what_is_printed(clip_set, root, streams):
    words = f"bash run.sh train STNET '{clip_set}/tiny.yaml' --pretrain=none --log_interval=1 --save_dir='{root}/out'"
    assert shell(f"nproc=2 use_gpu=False {words} {streams}") == (0, "")
    assert (root / "out/STNET_final.pdparams").exists()


@pytest.mark.parametrize(
    "command", ["-m stnet --help", "-m stnet data check --help", "-m tools.demo_clips --help", "predict.py --help"]
)
@pytest.mark.parametrize("streams", [LEFT, CLOSED])
def test_programs_end_quietly_where_nobody_reads(root, command, streams):
    assert shell(f'"$python" {command} {streams}') == (0, "")


@pytest.mark.long
def test_what_prints_alone_ends_where_its_reader_does(clip_set, trained, root):
    words = f"--config '{clip_set}/tiny.yaml' --weights '{trained}/STNET_final.pdparams' --save_dir '{root}/out'"
    assert shell(f'"$python" inference_model.py {words} {CLOSED}') == (0, "")
    code, shown = shell(f'"$python" -m tools.run_deployed "{root}/out" "{clip_set}"/val*.mp4 | true')
    assert (code, "Traceback" in shown) == (141, False)


MAIN = """
import sys
from stnet import cli
def main(argv):
    print("a" * 100_000, flush=True)
    open(sys.argv[1], "w").write("written")
    print("b")
sys.exit(cli.run(main))
"""


@pytest.mark.parametrize(
    ("streams", "code", "says"),
    [
        ("> /dev/full", 1, "error: cannot write to standard output: No space left on device\n"),
        ("2> /dev/full | tail -n 1", 0, "b\n"),
        ("| head -c 3", 0, "aaa"),
        (CLOSED, 0, ""),
    ],
)
def test_files_are_written_and_a_full_disk_is_said(root, streams, code, says):
    (root / "main.py").write_text(MAIN)
    assert shell(f'PYTHONPATH=. "$python" "{root}/main.py" "{root}/file" {streams}') == (code, says)
    assert (root / "file").read_text() == "written"


def test_a_file_does_not_get_the_number_of_a_closed_stream(root):
    (root / "main.py").write_text(MAIN.replace('"written"', "str(open(__file__).fileno())"))
    shell(f'PYTHONPATH=. "$python" "{root}/main.py" "{root}/file" {CLOSED}')
    assert int((root / "file").read_text()) > 2


def test_what_is_held_back_needs_no_standard_output(monkeypatch):
    from stnet.utils.progress import on_terminal
    from stnet.utils.streams import stdout_held_back

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with stdout_held_back():
        print("as a library in a program without a console")
    assert not on_terminal()
