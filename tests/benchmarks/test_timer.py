import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.timer import ROOT, Contender, Timer, Times

HERE = str(Path(__file__).parent)
sys.path.append(HERE)  # as contenders' processes have it, too

import contenders  # noqa: E402


@pytest.fixture
def timer(tmp_path):
    return Timer(rounds=3, quick=True, folder=str(tmp_path))


def test_contenders_take_turns_and_the_first_result_is_kept(timer):
    timed = timer.time({"one": partial(contenders.counting, 0), "ten": partial(contenders.counting, 9)}, warm=2)
    assert {name: (len(one.seconds), len(one.cpu), one.result) for name, one in timed.items()} == {
        "one": (3, 3, 1),
        "ten": (3, 3, 10),
    }
    assert all(0 <= value < 60 for one in timed.values() for value in one.seconds)


@pytest.mark.parametrize(
    ("how", "number", "message"),
    [
        ("die", 2, "bad: RuntimeError: its process died"),
        ("raise", 1, "bad: ValueError: no such number"),
    ],
)
def test_who_misbehaves_is_named_and_the_others_go_on(timer, capfd, how, number, message):
    timed = timer.time({"good": partial(contenders.counting, 0), "bad": partial(contenders.bad, how, number)})
    assert list(timed) == ["good"]
    assert len(timed["good"].seconds) == 3
    assert timer.failures == [message]
    said = capfd.readouterr()
    assert f"FAILED: {message}" in said.out
    assert "it was not me" in said.err


def test_a_contender_that_hangs_is_given_up(timer):
    with contextlib.closing(Contender(partial(contenders.bad, "hang", 2), timer.folder, 60)) as contender:
        contender.turn()
        assert contender.turn(1)[0] < 60
        contender.timeout = 1
        with pytest.raises(RuntimeError, match="no answer in 1 s; it was ended"):
            contender.turn(1)
    assert not _runs(contender.process.result())


def test_a_function_is_called_in_a_process_of_its_own(timer):
    assert timer.call(contenders.double, 4) == 8
    with pytest.raises(TypeError):
        timer.call(contenders.double, None)


def test_a_contender_ends_when_its_parent_is_killed(tmp_path):
    program = (
        "import functools, sys, time\n"
        "import contenders\n"
        "from benchmarks.timer import Contender\n"
        "contender = Contender(functools.partial(contenders.counting, 0), sys.argv[1], 60)\n"
        "contender.turn()\n"
        "print(contender.process.result(), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(ROOT)])}
    command = [sys.executable, "-c", program, str(tmp_path)]
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process):
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def test_a_ratio_is_the_median_of_the_rounds():
    slowing = Times([1.0, 2.0, 8.0], [1, 2, 8])
    assert slowing.ratio(Times([2.0, 4.0, 4.0], [2, 4, 4])) == 0.5
    assert slowing.per(2).seconds == [0.5, 1.0, 4.0]


def test_a_table_has_ratios_to_the_first(timer, capsys):
    timed = {"ours": Times([1.0, 3.0], [1, 3]), "peer": Times([20.0, 60.0], [2, 6])}
    timer.table("small", timed)
    timer.ratio(timed, "ours", "peer", "at most 1")
    timer.ratio(timed, "ours", "somebody who failed", "at most 1")
    title, ours, peer, ratio = capsys.readouterr().out.strip().splitlines()
    assert title.split() == ["small", "median", "cpu", "ratio"]
    assert ours.split() == ["ours", "2000.0", "ms", "2000.0", "ms", "1.00"]
    assert peer.split() == ["peer", "40.00", "s", "4000.0", "ms", "20.00"]
    assert ratio.strip() == "ours / peer = 0.05 (aim: at most 1)"


def test_results_that_disagree_are_a_failure(timer):
    timer.agree("logits", 1e-5, 1e-4)
    assert not timer.failures
    timer.agree("logits", float("nan"), 1e-4)
    assert timer.failures == ["logits: nan"]
