import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stnet.utils.errors import UserError
from stnet.utils.processes import Child, ChildDied

fresh_child = functools.partial(Child, fresh=True)


def act(word):
    """What a child may be asked."""
    if word == "refuse":
        raise UserError("no good", "out")
    if word == "bug":
        raise ZeroDivisionError("a bug")
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "allocate":
        return len(np.ones(1 << 28, np.uint8))
    if word == "sleep":
        time.sleep(60)
    return word.upper()


both = pytest.mark.parametrize("kind", [Child, fresh_child], ids=["forked", "fresh"])


@pytest.fixture(params=[Child, fresh_child], ids=["forked", "fresh"])
def child(request):
    made = request.param(act)
    yield made
    made.kill()


def test_answers_come_in_order_however_many_are_asked_for_at_once(child):
    child.send(["a", "b"])
    child.send(["c"])
    assert [child.receive(10) for _ in range(3)] == ["A", "B", "C"]


def test_what_the_function_raises_is_raised_here_a_bug_with_its_traceback(child):
    child.send(["refuse", "bug", "a"])
    with pytest.raises(UserError, match="^no good$") as refusal:
        child.receive(10)
    assert refusal.value.hint == "out"
    with pytest.raises(RuntimeError, match="(?s)at 'bug':.*Traceback.*in act.*ZeroDivisionError: a bug"):
        child.receive(10)
    assert child.receive(10) == "A"


@both
def test_a_crash_is_told_from_silence(kind):
    child = kind(act)
    child.send(["sleep"])
    with pytest.raises(ChildDied, match="^reading took more than 0.05 s; the decoder was stopped$"):
        child.receive(0.05)
    other = kind(act)
    other.send(["crash"])
    with pytest.raises(ChildDied, match="^the decoder crashed .SIGSEGV.$"):
        other.receive(10)
    other.send(["a"])  # to nobody
    for dead in (child, other):
        assert dead.ended
        dead.kill()  # to no effect
        with pytest.raises(ProcessLookupError):
            os.kill(dead.pid, 0)


@both
def test_a_child_is_ready_once_it_answers_and_not_if_it_was_killed(kind):
    child = kind(act)
    child.wait_until_ready(30)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildDied, match="crashed .SIGKILL"):
        child.wait_until_ready(30)


class Garbage:
    """An object that only the collector frees, which it notes."""

    freed: list = []

    def __init__(self):
        self.itself = self

    def __del__(self):
        self.freed.append(os.getpid())


def collected(_):
    gc.collect()
    return Garbage.freed


def test_a_child_does_not_free_what_was_garbage_before_it_began():
    gc.collect()
    Garbage()
    child = Child(collected)
    child.send([None])
    assert child.receive(10) == []
    child.kill()
    assert collected(None) == [os.getpid()]


def test_a_fresh_child_takes_no_more_memory_than_it_may():
    child = fresh_child(act, memory=128 << 20)
    child.send(["allocate", "a"])
    with pytest.raises(RuntimeError, match="MemoryError"):
        child.receive(10)
    assert child.receive(10) == "A"
    child.kill()


def test_a_fresh_child_leaves_the_signals_of_a_terminal_to_its_parent():
    child = fresh_child(act)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child.pid, number)
    child.send(["a"])
    assert child.receive(10) == "A"
    child.kill()


def test_a_fresh_child_can_be_ended_from_another_thread():
    child = fresh_child(act)
    child.send(["sleep"])
    threading.Timer(0.05, child.stop).start()
    with pytest.raises(ChildDied, match="crashed .SIGKILL"):
        child.receive(30)


def test_threads_that_start_children_at_once_leave_the_main_module_where_it_is():
    main = sys.modules["__main__"]
    with ThreadPoolExecutor(8) as threads:
        for child in threads.map(lambda _: fresh_child(act), range(32)):
            child.kill()
    assert sys.modules["__main__"] is main


PARENT = """
import os, signal, sys, time
from stnet.utils.processes import Child
if __name__ == "__main__":
    child = Child(time.sleep, fresh=True)
    child.send([60])
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_fresh_child_ends_with_its_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    variables = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, tmp_path / "parent.py"], env=variables, capture_output=True, check=False)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_a_fresh_child_starts_below_a_temporary_folder_whose_path_no_socket_can_have(tmp_path):
    (tmp_path / "parent.py").write_text(
        PARENT.replace("os.kill(", "child.kill(); os.kill(").replace("SIGKILL", "SIGTERM")
    )
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    variables = {**os.environ, "PYTHONPATH": os.getcwd(), "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, tmp_path / "parent.py"], env=variables, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, b"")
    assert int(done.stdout) > 0


def test_the_folder_of_a_killed_parent_is_removed_by_the_next_and_no_other(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # a short path: see above
    (folder / "pymp-others").mkdir()
    variables = {**os.environ, "PYTHONPATH": os.getcwd(), "TMPDIR": str(folder)}
    left = []
    for _ in range(2):
        subprocess.run([sys.executable, tmp_path / "parent.py"], env=variables, capture_output=True, check=False)
        left.append({path.name for path in folder.iterdir()})
    shutil.rmtree(folder)
    assert [len(names) for names in left] == [2, 2]
    assert left[0] & left[1] == {"pymp-others"}


UNGUARDED = """
import operator
from stnet.utils.processes import Child
print("begun", flush=True)
child = Child(operator.neg, fresh=True)
child.send([3])
print(child.receive(30))
child.kill()
"""


def test_a_fresh_child_does_not_run_the_main_script_anew(tmp_path):
    (tmp_path / "main.py").write_text(UNGUARDED)
    variables = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, tmp_path / "main.py"], env=variables, capture_output=True, check=False)
    assert done.stdout.split() == [b"begun", b"-3"], done.stderr


ASKED = """
from stnet.utils.processes import Child
child = Child(operator.neg)
child.send([3])
answer = child.receive(30)
child.kill()
open(sys.argv[1], "w").write(str(answer))
"""


@pytest.mark.parametrize("before", ["os.closerange(1, 3)", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_a_child_answers_in_a_program_without_streams_and_in_one_that_waits_for_no_child(tmp_path, before):
    script = f"import operator, os, signal, sys\n{before}\n{ASKED}"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "answer"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "answer").read_text() == "-3"
