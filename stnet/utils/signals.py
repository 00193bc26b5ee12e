"""Orderly stop at SIGINT, SIGTERM, SIGHUP and the end of a launcher; immediate at a second SIGINT or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Sequence
from typing import Any

_POLL_MS = 1000  # between checks of the parents


class StopRequest:
    """Context that records signals, and the end of the processes that started this one.

    Python runs a handler only between two instructions, and a training step can be one long call: so a thread listens
    for signals. A terminal that is closed often sends SIGHUP twice, so a second one does not stop at once; one that
    is ignored at the start (nohup) stays ignored.

    Args:
        parents: the end of one of them counts as a SIGTERM.

    Attributes:
        number: the signal received, 0 before.
    """

    def __init__(self, parents: Sequence[Process] = ()) -> None:
        self.number = 0
        self.before: dict[int, Any] = {}
        self.parents = parents

    def __enter__(self) -> StopRequest:
        """Install the handlers."""
        listen, wake = os.pipe()
        os.set_blocking(wake, False)
        self.old_wakeup = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.wake = wake
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self.before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(listen,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers."""
        signal.set_wakeup_fd(self.old_wakeup)
        os.close(self.wake)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _listen(self, pipe: int) -> None:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while True:
            if poll.poll(_POLL_MS if self.parents else None):
                numbers = os.read(pipe, 64)
                if not numbers:
                    break
                for number in numbers:
                    self._take(number)
            elif not self.number and not all(parent.is_alive() for parent in self.parents):
                self._ask(signal.SIGTERM, "the process that started this one has ended")
        os.close(pipe)

    def _take(self, number: int) -> None:
        if number in self.before and not self.number:
            self._ask(number, signal.Signals(number).name)
        elif number in self.before and number != signal.SIGHUP:
            import paddle.base

            paddle.base.core._cleanup_mmap_fds()  # segments in /dev/shm that this process holds
            os._exit(128 + number)

    def _ask(self, number: int, reason: str) -> None:
        self.number = number
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, f"{reason}: finishing this step, then saving; SIGTERM or Ctrl-C to stop at once\n".encode())


class Process:
    """Another process, identified by ID and start time, so that a reused ID is noticed. Needs /proc."""

    def __init__(self, number: int | str) -> None:
        self.number = number
        self.started = self._started()

    def is_alive(self) -> bool:
        """True while it runs, or without /proc."""
        return self._started() == self.started != "" or not os.path.exists("/proc/self/stat")

    def _started(self) -> str:
        try:
            with open(f"/proc/{self.number}/stat", encoding="utf-8", errors="replace") as file:
                state, *fields = file.read().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else fields[18]


def exit_on_interrupt() -> None:
    """Have Ctrl-C and SIGTERM end this process at once, without clean-up, until `interrupt_normally`.

    For imports: native modules turn a KeyboardInterrupt into an ImportError.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _exit_now)
        signal.signal(signal.SIGTERM, _exit_now)


def interrupt_normally() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, and SIGTERM Terminated, after `exit_on_interrupt`.

    Paddle, once imported, answers SIGTERM with a traceback of its own.
    """
    if signal.getsignal(signal.SIGINT) is _exit_now:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _terminate)


def leave() -> None:
    """Restore the signals at the end of a program that has called `exit_on_interrupt`."""
    interrupt_normally()
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _: object) -> None:
    raise Terminated(number)


def _exit_now(number: int, _: object) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, b"interrupted\n" if number == signal.SIGINT else b"stopped by SIGTERM\n")
    os._exit(128 + number)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a program as Ctrl-C does."""


class Stopped(Exception):
    """Orderly stop of a run by the signal `number`; `code` is the exit code, 128 + signal.

    Args:
        number: of the signal.
        command: the one that resumes the run, if any.
    """

    def __init__(self, number: int, command: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}" + (f"; to go on: {command}" if command else ""))
        self.number, self.code = number, 128 + number
