"""Child processes that end with their parent, and one that can be killed while it works."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import Pipe, current_process, get_context, parent_process, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from stnet.utils.folders import lock, sweep

# Garbage at a fork may be an engine: freeing it in the child would wait for threads that do not exist there.
os.register_at_fork(after_in_child=gc.freeze)
_PR_SET_PDEATHSIG = 1
_LONGEST_FOLDER = 72  # bytes; a socket below it has at most 108
_CRASHES = (signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
_FOR_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STARTING = threading.Lock()  # guards sys.modules["__main__"]
_OURS = "stnet"  # marker file in the temporary folders of multiprocessing that this project made
_LOCKS: dict[str, int | None] = {}  # of these folders


def set_parent_death_signal(parent: int, number: int = signal.SIGKILL) -> None:
    """On Linux, have this process receive the signal `number` when its parent, the process `parent`, dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def may_start_workers() -> bool:
    """Check that Paddle can start workers here: in the main thread, whose signals it uses, and not in a daemon."""
    return threading.current_thread() is threading.main_thread() and not current_process().daemon


class ChildDied(Exception):
    """A child took too long and was killed, or died; the message says which: "the decoder crashed (SIGSEGV)"."""


class _Ping:
    """An item that a child answers at once, without calling its function."""


class Child:
    """A process that calls a function with each item it is sent, and can be killed meanwhile.

    It is forked from this process, also where that is a worker of a DataLoader, a daemon, which multiprocessing lets
    start none, and then ends with the thread that made it. A fresh one is forked from multiprocessing's forkserver,
    without the memory, files and threads of this process, and blocks SIGINT, SIGTERM and SIGHUP, which are for its
    parent. Either ends with its parent.

    Its stderr is dropped, as decoders report damaged files there.

    Args:
        function: of one item; items and results are sent through a pipe: keep them small. A fresh child gets it
            pickled, so it is of a module that can be imported, not of the main script.
        fresh: start a fresh one.
        memory: bytes of address space of a fresh one beyond those at its start; 0: no limit.
        preload: modules that the forkserver imports once, before the first child.

    Attributes:
        pid: process ID.
        pipe: for multiprocessing.connection.wait: ready when a result has come, or the child has ended.
        ended: it was killed, or `receive` has raised ChildDied.
    """

    def __init__(
        self, function: Callable[[Any], Any], fresh: bool = False, memory: int = 0, preload: Sequence[str] = ()
    ) -> None:
        self.pipe, theirs = _pipe()
        self.ended = False
        self.process: BaseProcess | None = None
        if fresh:
            self.process = _start_fresh(function, theirs, memory, preload)
            self.pid = self.process.pid or 0
        else:
            self.pid = _fork(function, self.pipe, theirs)
        theirs.close()
        self._at_exit = util.Finalize(None, self.kill, exitpriority=10)  # a loader's worker kills its child at exit

    def send(self, items: Iterable[Any]) -> None:
        """Send items; `receive` returns an answer for each, or raises ChildDied."""
        with contextlib.suppress(OSError):
            self.pipe.send(list(items))

    def receive(self, timeout: float) -> Any:
        """Return or raise what the function did for the next item.

        Raises:
            ChildDied: no answer within `timeout` seconds, then the child is killed; or it has died.
        """
        if not self.pipe.poll(max(0.0, timeout)):
            self.kill()
            raise ChildDied(f"reading took more than {timeout:g} s; the decoder was stopped")
        try:
            value, error = self.pipe.recv()
        except (EOFError, OSError):
            raise ChildDied(f"the decoder {self._wait()}") from None
        if error is not None:
            raise error
        return value

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until the child has started and answered all items. Raises ChildDied as `receive`."""
        self.send([_Ping()])
        self.receive(timeout)

    def stop(self) -> None:
        """Kill the child from another thread than the one that receives, which then gets a ChildDied."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):  # the forkserver has waited for it
                os.kill(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the child and wait for its end."""
        if not self.ended:
            self.stop()
            self._wait()

    def _wait(self) -> str:
        """Wait for the child's end. Returns, for example, "crashed (SIGSEGV)"."""
        self.ended = True
        self._at_exit.cancel()
        self.pipe.close()
        if self.process is None:
            try:
                code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:  # a program that ignores SIGCHLD learns of no exit codes
                return "ended"
        else:
            self.process.join()
            code = self.process.exitcode or 0
        return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended itself (exit code {code})"


def _pipe() -> tuple[Connection, Connection]:
    """Open a pipe, not as standard stream, even where these are closed: others write there."""
    one, other = (Connection(fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)) for end in Pipe())
    return one, other


def _fork(function: Callable[[Any], Any], pipe: Connection, theirs: Connection) -> int:
    parent = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        if stream:  # a program may have none
            stream.flush()
    pid = os.fork()
    if pid == 0:
        pipe.close()
        _serve(function, theirs, parent)
    return pid


def _start_fresh(
    function: Callable[[Any], Any], theirs: Connection, memory: int, preload: Sequence[str]
) -> BaseProcess:
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    process = context.Process(target=_serve_fresh, args=(function, theirs, memory), daemon=True)
    resource_tracker.ensure_running()  # first, as its start unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_PARENT)
    try:
        with _without_main():
            _mark_folder()
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module from multiprocessing, which would run it again in a process that it starts."""
    with _STARTING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _mark_folder() -> None:
    """Lock the folder of the forkserver's socket, and remove those of killed processes."""
    settings: dict[str, Any] = vars(current_process())["_config"]
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER and "tempdir" not in settings:
        short = tempfile.mkdtemp(prefix="pymp-", dir="/tmp")  # as multiprocessing itself does from Python 3.14 on
        util.Finalize(None, shutil.rmtree, args=(short, True), exitpriority=-100)
        settings["tempdir"] = short
    path = util.get_temp_dir()
    if path not in _LOCKS:
        sweep("pymp-*", _OURS, os.path.dirname(path))
        _LOCKS[path] = lock(path)
        with contextlib.suppress(OSError), open(os.path.join(path, _OURS), "wb"):
            pass


def _serve_fresh(function: Callable[[Any], Any], pipe: Connection, memory: int) -> None:
    _end_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory and sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    _serve(function, pipe, os.getppid())


def _end_with_parent() -> None:
    """On Linux, end with the process that made this one, not with its parent, the forkserver, alone."""
    maker = parent_process()
    if maker is None or sys.platform != "linux":
        return
    fcntl.fcntl(maker.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(maker.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(maker.sentinel, fcntl.F_SETFL, os.O_ASYNC)  # SIGKILL at the pipe's end
    if not maker.is_alive():
        os._exit(0)


def _serve(function: Callable[[Any], Any], pipe: Connection, parent: int) -> None:
    """Run a child: answer items until the parent ends."""
    code = 1
    try:
        set_parent_death_signal(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in _CRASHES:
            signal.signal(number, signal.SIG_DFL)  # Paddle's handlers would report the decoder's crash
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while True:
            for item in pipe.recv():
                pipe.send(_call(function, item))
    except (EOFError, OSError):  # the parent is gone
        code = 0
    finally:
        os._exit(code)


def _call(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    """(result, None), or (None, error); the message of an unexpected error is its traceback."""
    try:
        return None if isinstance(item, _Ping) else function(item), None
    except Exception as error:
        if getattr(error, "expected", False):
            return None, error
        return None, RuntimeError(f"at {item!r:.300}:\n{traceback.format_exc()}")
