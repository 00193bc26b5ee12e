"""Reading in a process that can be killed: a decoder that hangs or crashes costs one clip, not the run."""

import mmap
import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
from multiprocessing import util

import numpy as np

from core.processes import die_with_parent

_HEAD = struct.Struct("<I")  # bytes of the pickled message that follows


class ReaderDied(Exception):
    """The reading process hung and was killed, or crashed; the message says which."""


class IsolatedReader:
    """Calls `read` in a forked process of its own; a new one is forked after it died.

    Args:
        read: function of one argument that returns (uint8 array of `shape`, label) or raises.
        shape: of the array; it travels through shared memory.
        timeout: seconds that one call may take.

    Used from one process only; the child ends when that process does.
    """

    def __init__(self, read, shape, timeout):
        self.read, self.shape, self.timeout = read, shape, timeout
        self.buffer = mmap.mmap(-1, int(np.prod(shape)))
        self.array = np.frombuffer(self.buffer, np.uint8).reshape(shape)
        self.child = None

    def __call__(self, argument):
        """What `read(argument)` returns or raises. Raises ReaderDied when the child had to be given up."""
        if self.child is None:
            self._start()
        try:
            _send(self.requests, argument)
            kind, value = _receive(self.answers, self.timeout)
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            raise ReaderDied(self._give_up(isinstance(error, TimeoutError))) from None
        if kind == "raised":
            raise value
        return self.array.copy(), value

    def close(self):
        """End the child."""
        if self.child is not None:
            self._give_up(timed_out=True)

    def _start(self):
        request_read, request_write = os.pipe()
        answer_read, answer_write = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(request_write)
            os.close(answer_read)
            self._serve(request_read, answer_write, parent)
        os.close(request_read)
        os.close(answer_write)
        self.child, self.requests, self.answers = child, request_write, answer_read
        util.Finalize(None, self.close, exitpriority=10)  # a worker that ends takes its child along

    def _serve(self, requests, answers, parent):
        """The child's whole life."""
        try:
            die_with_parent(parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT):
                signal.signal(number, signal.SIG_DFL)  # Paddle's handlers would print a report for the decoder's crash
            while True:
                argument = _receive(requests, None)
                try:
                    array, label = self.read(argument)
                    self.array[...] = array
                    answer = ("read", label)
                except Exception as error:
                    answer = ("raised", _portable(error))
                _send(answers, answer)
        except (EOFError, BrokenPipeError):
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _give_up(self, timed_out):
        """Kill and reap the child; says why it had to go."""
        os.close(self.requests)
        os.close(self.answers)
        if timed_out:
            os.kill(self.child, signal.SIGKILL)
        _, status = os.waitpid(self.child, 0)
        self.child = None
        if timed_out:
            return f"reading took more than {self.timeout:g} s; the decoder was stopped"
        if os.WIFSIGNALED(status):
            return f"the decoder crashed ({signal.Signals(os.WTERMSIG(status)).name})"
        return f"the decoder ended itself (exit code {os.WEXITSTATUS(status)})"


def _portable(error):
    """An exception that can be pickled, with the traceback in its message unless it is one of the reader's own."""
    if getattr(error, "expected", False):
        return error
    return RuntimeError("".join(traceback.format_exception(type(error), error, error.__traceback__)))


def _send(pipe, message):
    data = pickle.dumps(message)
    os.write(pipe, _HEAD.pack(len(data)))
    sent = 0
    while sent < len(data):
        sent += os.write(pipe, data[sent:])


def _receive(pipe, timeout):
    """The next message. Raises TimeoutError, or EOFError when the other side is gone."""
    deadline = None if timeout is None else time.monotonic() + timeout
    (size,) = _HEAD.unpack(_read_exactly(pipe, _HEAD.size, deadline))
    return pickle.loads(_read_exactly(pipe, size, deadline))


def _read_exactly(pipe, size, deadline):
    data = b""
    while len(data) < size:
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
        block = os.read(pipe, size - len(data))
        if not block:
            raise EOFError
        data += block
    return data
