import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bench.contender import ROOT, Failed
from bench.part import Part, Timed

HERE = str(Path(__file__).parent)
sys.path.append(HERE)  # as contenders' processes have it, too

import contenders  # noqa: E402


@pytest.fixture
def part(tmp_path):
    return Part("test", rounds=3, quick=True, threads=1, folder=str(tmp_path))


def test_contenders_take_turns_and_the_first_result_is_kept(part):
    timed = part.time({"one": partial(contenders.counting, 0), "ten": partial(contenders.counting, 9)}, warm=2)
    assert {name: (len(one.seconds), len(one.cpu), one.result) for name, one in timed.items()} == {
        "one": (3, 3, 1),
        "ten": (3, 3, 10),
    }
    assert all(0 <= value < 60 for one in timed.values() for value in one.seconds)


@pytest.mark.parametrize(
    ("how", "number", "message"),
    [
        ("die", 2, r"bad: its process died \(it printed last: .*"),
        ("raise", 1, r"bad: ValueError: no such number \(it printed last: it was not me\)"),
    ],
)
def test_who_misbehaves_is_reported_and_the_others_go_on(part, how, number, message):
    timed = part.time({"good": partial(contenders.counting, 0), "bad": partial(contenders.bad, how, number)})
    assert list(timed) == ["good"]
    assert len(timed["good"].seconds) == 3
    assert len(part.failures) == 1
    assert re.fullmatch(message, part.failures[0]), part.failures
    assert not part.good


def test_a_contender_that_hangs_is_given_up(part):
    with contextlib.closing(part.contender(partial(contenders.bad, "hang", 2))) as contender:
        contender.ready()
        assert contender.step().seconds < 60
        contender.timeout = 1
        with pytest.raises(Failed, match=r"no answer in 1 s; it was ended \(it printed last: it was not me\)"):
            contender.step()
    assert not _runs(contender.process.result())


def test_a_function_is_called_in_a_process_of_its_own(part):
    assert part.call(contenders.double, 4) == 8
    with pytest.raises(Failed, match="TypeError"):
        part.call(contenders.double, None)


def test_a_contender_ends_when_its_parent_is_killed(tmp_path):
    program = (
        "import functools, sys, time\n"
        "import contenders\n"
        "from bench.contender import Contender\n"
        "contender = Contender(functools.partial(contenders.counting, 0), sys.argv[1], 60)\n"
        "contender.ready()\n"
        "contender.step()\n"
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
    slowing = Timed([1.0, 2.0, 8.0], [1, 2, 8])
    assert slowing.ratio(Timed([2.0, 4.0, 4.0], [2, 4, 4])) == 0.5
    assert slowing.per(2).seconds == [0.5, 1.0, 4.0]


def test_a_part_is_printed_with_ratios_and_aims(part):
    timed = {"ours": Timed([1.0, 3.0], [1, 3]), "peer": Timed([2.0, 6.0], [2, 6])}
    part.notes.append("torch is left out")
    part.add("small", timed, base="ours")
    part.aim_ratio(timed, ("ours", "peer"), "small", 1.0)
    part.aim_ratio(timed, ("peer", "ours"), "small", 6.0, least=True)
    part.aim_ratio(timed, ("ours", "somebody who failed"), "small", 1.0)
    assert part.good
    part.aim("logits", 0.5, 1e-4, must=True)
    assert not part.good
    text = "\n".join(part.lines())
    assert "peer" in text and "2.00 x ours" in text
    assert "small: ours / peer = 0.5 (aim at most 1: met)" in text
    assert "small: peer / ours = 2 (aim at least 6: missed)" in text
    assert "logits = 0.5 (must be at most 0.0001: missed)" in text
    assert [row["ratio"] for row in part.rows] == [1.0, 2.0]
