import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.measure import ROOT, Contender, Failed, Settings, Timed, interleave, machine, ratio, versions
from bench.results import Part, lines

HERE = str(Path(__file__).parent)


@pytest.fixture
def settings(tmp_path):
    return Settings(1, True, 1, str(tmp_path), {**os.environ, "PYTHONPATH": HERE})


def contender(settings, name, factory, timeout=60, **arguments):
    return Contender(name, f"contenders:{factory}", arguments, settings.environment, settings.folder, timeout)


def test_contenders_take_turns_and_the_first_result_is_kept(settings):
    factories = {name: ("contenders:counting", {"add": add}) for name, add in (("one", 0), ("ten", 9))}
    with settings.crew(factories) as crew:
        timed = interleave(crew, rounds=3, warm=2)
        assert [one.process.poll() for one in crew] == [None, None]
    assert {name: (len(one.seconds), len(one.cpu), one.facts) for name, one in timed.items()} == {
        "one": (3, 3, 1),
        "ten": (3, 3, 10),
    }
    assert all(0 <= value < 60 for one in timed.values() for value in one.seconds)
    assert all(one.process.poll() is not None for one in crew)


@pytest.mark.parametrize(
    ("how", "number", "message"),
    [
        ("die", 2, r"bad: its process died \(SIGABRT\): .*"),
        ("raise", 1, r"bad: ValueError: no such number"),
        ("hang", 3, r"bad: no answer in 1 s; it was ended"),
    ],
)
def test_who_misbehaves_is_reported_and_the_others_go_on(settings, how, number, message):
    failures = []
    crew = [
        contender(settings, "good", "counting", add=0),
        contender(settings, "bad", "bad", timeout=1, how=how, number=number),
    ]
    crew[1].timeout = 30  # for its start
    crew[1].ready()
    crew[1].timeout = 1
    try:
        timed = interleave(crew, rounds=2, failures=failures)
        assert [one.name for one in crew] == ["good"]
    finally:
        for one in crew:
            one.close()
    assert list(timed) == ["good"]
    assert len(timed["good"].seconds) == 2
    assert len(failures) == 1
    assert re.fullmatch(message, failures[0]), failures


def test_a_factory_that_cannot_be_had_is_reported(settings):
    with pytest.raises(Failed, match="AttributeError: module 'contenders' has no attribute 'missing'"):
        settings.call("contenders:missing")
    with pytest.raises(Failed, match="TypeError"):
        settings.call("contenders:counting", wrong=1)


def test_a_contender_ends_when_its_parent_is_killed(settings):
    program = (
        "import os, sys, time\n"
        "from bench.measure import Contender\n"
        "made = Contender('c', 'contenders:counting', {'add': 0}, dict(os.environ), sys.argv[1])\n"
        "made.step()\n"
        "print(made.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, str(ROOT)])}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, settings.folder], env=environment, stdout=subprocess.PIPE, text=True
    )
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
    slowing = Timed([1.0, 2.0, 8.0], [1, 2, 8], None)
    other = Timed([2.0, 4.0, 4.0], [2, 4, 4], None)
    assert ratio(slowing, other) == 0.5
    assert ratio(slowing, other, scale=3) == 1.5
    assert slowing.shared_by(2).seconds == [0.5, 1.0, 4.0]


def test_a_part_is_printed_with_ratios_aims_and_checks():
    part = Part("forward", "a test", notes=["torch is left out"])
    part.add("small", {"ours": Timed([1.0, 3.0], [1, 3], None), "peer": Timed([2.0, 6.0], [2, 6], None)}, base="ours")
    part.aim("ours / peer", 0.5, 1.0)
    part.aim("peer / ours", 2.0, 6.0, least=True)
    part.check("logits", 0.5, 1e-4)
    assert not part.good
    text = "\n".join(lines(part))
    assert "peer" in text and "2.00 x ours" in text
    assert "ours / peer = 0.50 (aim at most 1: met)" in text
    assert "peer / ours = 2.00 (aim at least 6: missed)" in text
    assert "DIFFER: logits: by 0.5" in text
    assert [row["ratio"] for row in part.as_dict()["rows"]] == [1.0, 2.0]


def test_machine_and_versions_are_said():
    assert machine()["cores"] >= 1 and machine()["memory_gb"] > 0 and machine()["cpu"]
    assert {"python", "numpy", "pillow"} <= set(versions())
