"""SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once."""

import os
import signal
import threading


class StopRequest:
    """Notices SIGINT and SIGTERM while it is entered as a context.

    Python runs a handler only between two of its own instructions, and one training step can be a single long call.
    So a thread listens, too: it hears of each signal when it comes.

    Attributes:
        number: the signal that came, 0 before.
    """

    def __init__(self):
        self.number = 0
        self.before = {}

    def __enter__(self):
        """Take over both signals."""
        listen, wake = os.pipe()
        os.set_blocking(wake, False)
        self.old_wakeup = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.wake = wake
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(listen,), daemon=True).start()
        return self

    def __exit__(self, *_):
        """Give them back."""
        signal.set_wakeup_fd(self.old_wakeup)
        os.close(self.wake)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _listen(self, pipe):
        from paddle.base import core

        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number not in self.before:
                    continue
                if self.number:
                    core._cleanup_mmap_fds()  # segments in /dev/shm that this process holds
                    os._exit(128 + number)
                self.number = number
                name = signal.Signals(number).name
                os.write(2, f"{name}: finishing this step, then saving; once more to stop at once\n".encode())
        os.close(pipe)


class Stopped(Exception):
    """Training was stopped in order; `code` is the exit code, 128 + signal."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number
