"""run.sh, as users type it: real processes, from other folders, with spaces in paths."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import paddle
import pytest
import yaml

RUN = Path(__file__).parents[1] / "run.sh"


def bash(*words, folder=None, **environment):
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", **environment}
    return subprocess.run(
        ["bash", str(RUN), *map(str, words)], cwd=folder, env=made, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def trained(clip_set, tmp_path_factory):
    """A run of train from another folder, settings from the environment, and its folder."""
    folder = tmp_path_factory.mktemp("run sh")
    done = bash(
        "train",
        "STNET",
        clip_set / "tiny.yaml",
        "--log_interval=1",
        folder=folder,
        epoch="1",
        save_dir="my checkpoints",
        pretrain="none",
        fix_random_seed="True",
        resume="",
    )
    return done, folder


def test_train_resume_eval_and_predict(clip_set, trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    checkpoint = folder / "my checkpoints" / "STNET_final.pdparams"
    assert checkpoint.exists()
    assert "epoch 0 step 3/3 loss" in done.stderr
    assert done.stdout.startswith("last validation: TOP1_ACC")

    resumed = bash(
        "train",
        "stnet",
        clip_set / "tiny.yaml",
        "--log_interval=1",
        folder=folder,
        epoch="2",
        save_dir="more",
        resume="my checkpoints/STNET_final.pdparams",
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "1 epochs and 3 steps done" in resumed.stderr
    assert re.search(r"epoch 1 step 3/3", resumed.stderr)
    assert not re.search(r"epoch 0 step", resumed.stderr)

    evaluated = bash("eval", "STNET", clip_set / "tiny.yaml", folder=folder, weights=str(checkpoint))
    assert evaluated.returncode == 0, evaluated.stderr
    results = json.loads((folder / "results" / "eval_results.json").read_text())
    assert results["count"] == 6
    for name in results["files"]:
        assert (folder / "results" / name).stat().st_size > 0, name
        assert name in evaluated.stderr
    with open(folder / "results" / "per_class.csv", encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    assert [(row["name"], row["clips"]) for row in classes] == [("a", "2"), ("b", "2"), ("c", "1"), ("d", "1")]
    assert sum(int(row["correct"]) for row in classes) == round(6 * results["TOP1_ACC"])
    calibration = json.loads((folder / "results" / "calibration.json").read_text())
    assert calibration["ece"] == results["ECE"]
    assert sum(row["clips"] for row in calibration["bins"]) == 6

    predicted = bash(
        "predict",
        "STNET",
        clip_set / "tiny.yaml",
        f"--video_path={clip_set}/val 1.mp4",
        "-o",
        "MODEL.topk=3",
        folder=folder,
        weights=str(checkpoint),
        save_dir="out put",
    )
    assert predicted.returncode == 0, predicted.stderr
    result = json.loads((folder / "out put" / "predict_results.json").read_text())["results"][0]
    assert len(result["predictions"]) == 3


def next_command(done):
    """The command that a run's last line says, as the shell reads it."""
    (line,) = [line for line in done.stderr.splitlines() if " next: " in line]
    assert done.stderr.endswith(line + "\n")
    return line.partition(" next: ")[2]


def test_each_action_says_the_next_one_and_prints_its_results_alone(clip_set, trained):
    done, folder = trained
    variables = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "engine": "paddle"}

    def typed(words):
        return subprocess.run(words, shell=True, cwd=folder, env=variables, capture_output=True, text=True, check=True)

    scored = typed(next_command(done))
    assert re.fullmatch(r"TOP1_ACC 0\.\d{4}, TOP5_ACC 1.0000, loss \d\.\d{4}, 6 clips\n", scored.stdout)
    words = next_command(scored)
    assert words.endswith("--video_path=a.mp4")
    predicted = typed(words.replace("a.mp4", f"'{clip_set}/val 1.mp4'"))
    assert re.fullmatch(r".*/val 1.mp4(\n    [abcd], 0\.\d{6}){2}\n", predicted.stdout)
    exported = typed(words.replace("predict", "inference").partition("--video_path")[0])
    assert exported.stdout == ""
    ran = typed(next_command(exported).replace("a.mp4", f"'{clip_set}/val 1.mp4'"))
    assert re.fullmatch(r".*/val 1.mp4(\n    0\.\d{6}  [abcd]){2}\n", ran.stdout)
    for run in (done, scored, predicted, exported):
        assert [line for line in run.stderr.splitlines() if not re.match(r"\[INFO \d\d:\d\d:\d\d\] ", line)] == []
        assert "seg_num" not in run.stderr


def test_the_configuration_is_saved_with_the_results_and_taken_again(clip_set, trained):
    _, folder = trained
    saved = yaml.safe_load((folder / "my checkpoints" / "train_config.yaml").read_text(encoding="utf-8"))
    assert (saved["TRAIN"]["epoch"], saved["TRAIN"]["pretrain"], saved["TRAIN"]["use_gpu"]) == (1, "none", False)
    flags = [f"--config={folder}/my checkpoints/train_config.yaml", "--weights=my checkpoints/STNET_final.pdparams"]
    words = [sys.executable, RUN.parent / "eval.py", *flags, "--engine=paddle", "--save_dir=again", "--debug"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    again = (folder / "again" / "eval_config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(again) == saved
    assert again in done.stderr  # --debug


def test_results_of_a_first_export_to_onnx_stand_alone(clip_set, trained, tmp_path):
    pytest.importorskip("paddle2onnx")
    _, folder = trained
    weights = f"--weights={folder}/my checkpoints/STNET_final.pdparams"
    done = bash("eval", "STNET", clip_set / "tiny.yaml", weights, "--engine=onnxruntime",
                folder=tmp_path, STNET_WEIGHTS_HOME=str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "exporting the network" in done.stderr
    assert re.fullmatch(r"TOP1_ACC .* 6 clips\n", done.stdout)


@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "interrupted\n"), ("SIGTERM", 143, "stopped by SIGTERM\n")]
)
def test_a_signal_while_paddle_is_imported_is_one_line(name, code, said, clip_set, tmp_path):
    plugin = "import os, signal, sys\nclass AtPaddle:\n    def find_spec(name, *_):\n"
    plugin += f"        if name == 'paddle.base':\n            os.kill(os.getpid(), signal.{name})\n"
    (tmp_path / "interrupting.py").write_text(f"{plugin}sys.meta_path.insert(0, AtPaddle)\n", encoding="utf-8")
    for action in ("train", "eval", "predict", "inference", "serve"):
        done = bash(action, "STNET", clip_set / "tiny.yaml", "--plugin=interrupting.py", folder=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_exit_codes_and_messages_are_the_programs(clip_set, tmp_path):
    missing = bash("train", "STNET", "none.yaml", folder=tmp_path)
    assert (missing.returncode, missing.stderr) == (1, "error: config file not found: none.yaml\n")
    wrong_flag = bash("eval", "STNET", clip_set / "tiny.yaml", "--no_such_flag", folder=tmp_path)
    assert wrong_flag.returncode == 2
    assert "unrecognized arguments: --no_such_flag" in wrong_flag.stderr
    assert "Traceback" not in wrong_flag.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "unknown action 'fit'"),
        (["train"], "expected: bash run.sh train NAME CONFIG"),
        (["train", "STNET"], "expected: bash run.sh train NAME CONFIG"),
        (
            ["setup", "onxx"],
            "unknown extra 'onxx'; known: browser cpu gpu onnx openvino parquet serve test visualdl dev",
        ),
    ],
)
def test_a_wrong_call_explains_itself(words, message, tmp_path):
    done = bash(*words, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (("two", "0", "1.2.3.4:5"), "nnodes: expected the number of machines, found 'two'"),
        (("2", "", "1.2.3.4:5"), "node_rank: expected the number of this machine, 0 to 1, found ''"),
        (("2", "2", "1.2.3.4:5"), "node_rank: expected the number of this machine, 0 to 1, found '2'"),
        (("2", "1", ""), "master: expected IP:PORT, the address of machine 0 and a free port on it, found ''"),
        (("2", "1", "a.host:5"), "master: expected IP:PORT, .* found 'a.host:5'"),
    ],
)
def test_a_wrong_description_of_several_machines_is_one_line(clip_set, tmp_path, nodes, message):
    made = dict(zip(("nnodes", "node_rank", "master"), nodes))
    done = bash("train", "STNET", clip_set / "tiny.yaml", folder=tmp_path, **made)
    assert done.returncode == 2
    assert re.fullmatch(f"error: {message}\n", done.stderr)


def test_help_shows_the_commands(tmp_path):
    done = bash("help", folder=tmp_path)
    assert done.returncode == 0
    assert "bash run.sh predict" in done.stdout
    assert "bash run.sh demo" in done.stdout


def test_data_is_prepared_from_another_folder_that_has_tools_of_its_own(clip_set, tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise RuntimeError('the user's own')\n")
    lists = ["--list", clip_set / "val.list", "--config", clip_set / "tiny.yaml", "--mode", "valid", "--workers", "1"]
    done = bash("data", "check", *lists, "--out", "checked", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "checked" / "val.clean.list").read_text(encoding="utf-8").count("\n") == 6


@pytest.mark.parametrize("entry", ["train", "eval", "predict", "inference_model", "serve_model"])
def test_help_of_the_entries_needs_no_paddle(entry, tmp_path):
    code = "import sys; sys.modules['paddle'] = sys.modules['decord'] = sys.modules['cv2'] = None"
    code += f"; import {entry}; {entry}.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=RUN.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--model_name" in done.stdout


@pytest.fixture
def edited(tmp_path):
    """A function that runs a run.sh with other lines for its settings, whose entry shows what it is given."""
    (tmp_path / "predict.py").write_text(
        "import os\nfor name in ('epoch', 'use_gpu', 'weights'):\n"
        "    if f'STNET_SET_{name}' in os.environ:\n        print(name, os.environ[f'STNET_SET_{name}'])\n"
    )
    original = RUN.read_text(encoding="utf-8")

    def shown(old, new, **environment):
        assert original.count(old) == 1
        (tmp_path / "run.sh").write_text(original.replace(old, new), encoding="utf-8")
        made = {**os.environ, "PYTHON": sys.executable, **environment}
        words = ["bash", str(tmp_path / "run.sh"), "predict", "STNET", "c.yaml"]
        return subprocess.run(words, cwd=tmp_path, env=made, capture_output=True, text=True, check=False)

    return shown


EPOCH = 'epoch="${epoch-}"                     # epochs\n'


@pytest.mark.parametrize(
    "line",
    [
        "epoch=1\n",
        "epoch='1'\n",
        'epoch="1"  # epoch=9 was too many\n',
        "  export epoch=1\n",
        "declare -x epoch=1\n",
        "true && epoch=1; true\n",
        "if true; then epoch=1; fi\n",
        'epoch=""\nepoch+=1\n',
        "one=1 && epoch=$one\n",
    ],
)
def test_however_a_setting_of_run_sh_is_assigned_it_counts(edited, line):
    for environment in ({}, {"epoch": "5"}):
        done = edited(EPOCH, line, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "epoch 1\nuse_gpu auto\nweights \n"


def test_the_environment_wins_where_the_line_says_so_and_nowhere_else(edited):
    for line, given in (("", ""), (EPOCH, "epoch 5\n"), (': "${epoch:=1}"\n', "epoch 5\n"), (f"# {EPOCH}", "")):
        assert edited(EPOCH, line, epoch="5").stdout == f"{given}use_gpu auto\nweights \n"
    assert edited(EPOCH, ': "${epoch:=1}"\n').stdout == "epoch 1\nuse_gpu auto\nweights \n"


def test_an_assignment_with_spaces_ends_the_run(edited):
    done = edited(EPOCH, "epoch = 1\n")
    assert done.returncode == 127
    assert done.stdout == ""
    assert re.fullmatch(r".*run.sh: line \d+: epoch: command not found\n", done.stderr)


def test_weights_that_run_sh_names_plainly_are_those_that_predict_reads(clip_set, tmp_path):
    line = 'weights="${weights-}"                 # default: the released ones\n'
    for name in ("stnet", "models", "reader", "tools", "configs", "data", "predict.py"):
        (tmp_path / name).symlink_to(RUN.parent / name)
    text = RUN.read_text(encoding="utf-8").replace(line, 'weights="../mine.pdparams"\n')
    (tmp_path / "run.sh").write_text(text, encoding="utf-8")
    words = ["bash", str(tmp_path / "run.sh"), "predict", "STNET", clip_set / "tiny.yaml", clip_set / "val 0.mp4"]
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False"}
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=made, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("error: weights ../mine.pdparams: no such file\n")


@pytest.mark.parametrize("use_gpu", ["auto", "True"])
def test_several_cards_without_a_gpu_are_one_process_and_one_line(use_gpu, clip_set, tmp_path):
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle is built for GPUs")
    words = ["eval", "STNET", clip_set / "tiny.yaml"]
    done = bash(*words, folder=tmp_path, CUDA_VISIBLE_DEVICES="0,1", use_gpu=use_gpu, weights="w")
    *log, error = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(log)) == (1, "", use_gpu == "auto")
    assert ("running on the CPU (this Paddle" in log[0]) if log else error.startswith("error: use_gpu is True, but ")
    assert not list(tmp_path.glob("*/log"))


@pytest.mark.parametrize("given", [{"use_gpu": "false"}, {"use_gpu": "auto", "flag": "--use_gpu=False"}])
def test_several_cards_on_the_cpu_are_one_process(given, clip_set, tmp_path):
    flags = [given["flag"]] if "flag" in given else []
    words = ["eval", "STNET", clip_set / "tiny.yaml", *flags]
    done = bash(*words, folder=tmp_path, CUDA_VISIBLE_DEVICES="0,1", use_gpu=given["use_gpu"], weights="none.pdparams")
    assert (done.returncode, done.stderr) == (1, "error: weights none.pdparams: no such file\n")
    assert not list(tmp_path.glob("*/log"))


def test_lines_of_settings_that_are_commented_out_are_settings_that_are_not_given(clip_set, tmp_path, monkeypatch):
    script = RUN.read_text(encoding="utf-8").replace('here="$(cd', f'here="{RUN.parent}" # "$(cd', 1)
    commented = re.sub(r"^(?=(?:use_gpu|save_dir|nproc|PADDLE_PACKAGE|node_rank)=)", "# ", script, flags=re.M)
    assert commented.count("\n# ") > script.count("\n# ") + 4
    (tmp_path / "run.sh").write_text(commented, encoding="utf-8")
    words = ["train", "STNET", clip_set / "tiny.yaml", "--use_gpu=False", "--dry_run", "--pretrain=none"]
    done = subprocess.run(
        ["bash", str(tmp_path / "run.sh"), *map(str, words)],
        cwd=tmp_path, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unbound" not in done.stderr


def test_a_number_of_processes_that_is_none_is_one_line(clip_set, tmp_path):
    for number in ("two", "2.5", "0"):
        done = bash("eval", "STNET", clip_set / "tiny.yaml", folder=tmp_path, nproc=number)
        assert (done.returncode, done.stderr) == (
            2,
            f"error: nproc: expected a number of processes, found '{number}'\n",
        )


def test_a_python_without_the_packages_says_how_to_take_the_one_that_has_them(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    for words in (["predict.py", "a.mp4"], ["-m", "tools.dataset"]):
        done = subprocess.run(
            [tmp_path / "bare" / "bin" / "python", *words], cwd=RUN.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "filelock is not installed for this Python: . .venv/bin/activate, after bash run.sh" in done.stderr
