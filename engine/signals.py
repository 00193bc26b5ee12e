"""SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the process at once."""

import os
import signal


class StopRequest:
    """Notices SIGINT and SIGTERM while it is entered as a context.

    Attributes:
        number: the signal that came, 0 before.
    """

    def __init__(self):
        self.number = 0
        self.before = {}

    def __enter__(self):
        """Take over both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *_):
        """Give them back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _notice(self, number, _):
        if self.number:
            os._exit(128 + number)
        self.number = number
        name = signal.Signals(number).name
        os.write(2, f"{name}: finishing this step, then saving; once more to stop at once\n".encode())


class Stopped(Exception):
    """Training was stopped in order; `code` is the exit code, 128 + signal."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number
