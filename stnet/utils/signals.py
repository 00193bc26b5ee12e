"""SIGINT, SIGTERM, SIGHUP and the end of a launcher ask for an orderly stop; a second SIGINT or SIGTERM is at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Sequence
from typing import Any

_LOOK = 1000  # milliseconds between looks at the processes above


class StopRequest:
    """Notices signals, and the end of the processes that started this one, while it is entered as a context.

    Python runs a handler only between two of its own instructions, and one training step can be a single long call.
    So a thread listens, too: it hears of each signal when it comes.

    SIGHUP comes when a terminal is closed, often twice: from the system and from the shell; so a second one is no sign
    of impatience. One that was ignored at the start (nohup) stays so.

    Args:
        parents: the end of one of them is taken as a SIGTERM.

    Attributes:
        number: the signal that came, 0 before.
    """

    def __init__(self, parents: Sequence[Process] = ()) -> None:
        self.number = 0
        self.before: dict[int, Any] = {}
        self.parents = parents

    def __enter__(self) -> StopRequest:
        """Take over the signals."""
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
        """Give them back."""
        signal.set_wakeup_fd(self.old_wakeup)
        os.close(self.wake)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _listen(self, pipe: int) -> None:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while True:
            if poll.poll(_LOOK if self.parents else None):
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
    """Another process, told from a later one of the same number by when it started. Knows nothing without /proc."""

    def __init__(self, number: int | str) -> None:
        self.number = number
        self.started = self._started()

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._started() == self.started != "" or not os.path.exists("/proc/self/stat")

    def _started(self) -> str:
        try:
            with open(f"/proc/{self.number}/stat", encoding="utf-8", errors="replace") as file:
                state, *fields = file.read().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else fields[18]


def exit_on_interrupt() -> None:
    """Have Ctrl-C end this process at once, until `interrupt_normally`: there must be nothing to tidy up.

    For imports: native modules turn a KeyboardInterrupt into an ImportError.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _exit_now)


def interrupt_normally() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, and SIGTERM Terminated, after `exit_on_interrupt`.

    Paddle, once imported, answers SIGTERM with a traceback of its own.
    """
    if signal.getsignal(signal.SIGINT) is _exit_now:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _terminate)


def leave() -> None:
    """Give the signals back at the end of a program that has called `exit_on_interrupt`."""
    interrupt_normally()
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _: object) -> None:
    raise Terminated(number)


def _exit_now(*_: object) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, b"interrupted\n")
    os._exit(128 + signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """SIGTERM has come, which ends a program as Ctrl-C does."""


class Stopped(Exception):
    """A run was stopped in order by a signal; `code` is the exit code, 128 + signal.

    Args:
        number: of the signal.
        command: what goes on with it, if anything does.
    """

    def __init__(self, number: int, command: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}" + (f"; to go on: {command}" if command else ""))
        self.number, self.code = number, 128 + number
