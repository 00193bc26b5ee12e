import gc
import os
import signal
import time

import pytest

from core.errors import UserError
from core.processes import Child


def act(word):
    """What a child may be asked."""
    if word == "refuse":
        raise UserError("no good", "out")
    if word == "bug":
        raise ZeroDivisionError("a bug")
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "sleep":
        time.sleep(60)
    return word.upper()


@pytest.fixture
def child():
    made = Child(act)
    yield made
    if made.pipe.closed:
        return
    made.kill()


def test_answers_come_in_order_however_many_are_asked_for_at_once(child):
    child.send(["a", "b"])
    child.send(["c"])
    assert [child.receive(10) for _ in range(3)] == ["A", "B", "C"]


def test_what_the_function_raises_is_raised_here_a_bug_with_its_traceback(child):
    child.send(["refuse", "bug", "a"])
    with pytest.raises(UserError, match="^no good$") as refusal:
        child.receive(10)
    assert refusal.value.topic == "out"
    with pytest.raises(RuntimeError, match="(?s)at 'bug':.*Traceback.*in act.*ZeroDivisionError: a bug"):
        child.receive(10)
    assert child.receive(10) == "A"


def test_a_crash_is_told_from_silence(child):
    child.send(["sleep"])
    with pytest.raises(TimeoutError):
        child.receive(0.05)
    child.kill()
    other = Child(act)
    other.send(["crash"])
    with pytest.raises(EOFError):
        other.receive(10)
    other.send(["a"])  # to nobody
    assert other.how_it_ended() == "crashed (SIGSEGV)"
    with pytest.raises(ProcessLookupError):
        os.kill(other.pid, 0)


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
