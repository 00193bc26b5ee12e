"""Runtime environment: environment variables, threads, device, seeds."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import re
import sys
import threading
import time
import warnings
from types import ModuleType
from typing import Literal

from stnet.utils import signals
from stnet.utils.errors import UserError, last_line

logger = logging.getLogger("stnet")
_MKL_AVX2, _MKL_AVX512 = "5", "7"  # values of MKL_DEBUG_CPU_TYPE, used on AMD processors only
_AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}  # required by the second
_SETTING = "STNET_SET_"  # prefix of run.sh's settings
OWN_SETTINGS = ("nproc", "nnodes", "node_rank", "master", "PYTHON", "PADDLE_PACKAGE", "CUDA_VISIBLE_DEVICES")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_COMPUTING: set[int] = set()  # native IDs of the threads that have computed
_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def prepare() -> None:
    """Set variables and filters before paddle, decord or OpenCV are imported; variables the user has set stay."""
    disable_telemetry()
    cpu = processor()
    if "AuthenticAMD" in cpu:  # where MKL's default kernels are slow
        kernels = _MKL_AVX512 if set(cpu.split()) >= _AVX512 else _MKL_AVX2
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kernels)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the reader reports damaged files
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("GLOG_minloglevel", "2")
    if "STNET_THREADS" not in os.environ:
        # The user's value; importing paddle sets OMP_NUM_THREADS to 1, in the launcher of several ranks, too.
        launched = "PADDLE_TRAINER_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
        os.environ["STNET_THREADS"] = "" if launched else os.environ.get("OMP_NUM_THREADS", "")
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="When training, we now always track global mean")
    warnings.filterwarnings("ignore", message="You are using GPU version Paddle")
    warnings.filterwarnings("ignore", message="To copy construct from a tensor")  # Paddle's layers do so themselves


def disable_telemetry() -> None:
    """Turn off the telemetry of ONNX Runtime and OpenVINO, before they are imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed


def settings() -> dict[str, str]:
    """Values of run.sh's variables by name; {} without run.sh."""
    return {name[len(_SETTING) :]: value for name, value in os.environ.items() if name.startswith(_SETTING)}


def given() -> dict[str, str]:
    """Values of run.sh's variables that the user has set in its environment, by name."""
    return {name: value for name, value in settings().items() if name in os.environ}


def typed() -> str:
    """The user's words before the action, such as "bash run.sh"; "" without run.sh."""
    return os.environ.get("STNET_TYPED", "")


def set_weights_source(home: str, url: str) -> None:
    """Export --weights_home and --weights_url to stnet.weights.download and to child processes."""
    if home:
        os.environ["STNET_WEIGHTS_HOME"] = home
    if url:
        os.environ["STNET_WEIGHTS_URL"] = url


def start(use_gpu: bool | Literal["auto"]) -> None:
    """Set threads and device; "auto" is the GPU if one works.

    Raises:
        UserError: use_gpu is True, but the build, the driver or the card does not support it.
    """
    import paddle

    signals.interrupt_normally()
    if _C_LIBRARY is not None and hasattr(_C_LIBRARY, "mallopt"):
        # Keep freed memory: fetching it anew page by page took half of a forward pass at 25 x 256 x 256.
        _C_LIBRARY.mallopt(_M_MMAP_MAX, 0)
        _C_LIBRARY.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    paddle.disable_static()  # the mode is per thread, and Paddle may have been imported in another
    paddle.base.core.set_num_threads(threads())
    problem = _gpu_problem(paddle) if use_gpu else "use_gpu is False"
    if use_gpu is True and problem:
        raise UserError(f"use_gpu is True, but {problem}", "set use_gpu to False to run on the CPU")
    paddle.set_device("cpu" if problem else "gpu")
    if use_gpu:
        logger.info("running on the %s", f"CPU ({problem})" if problem else "GPU")


def gpu_works() -> bool:
    """Check that Paddle computes on a GPU here."""
    import paddle

    return _gpu_problem(paddle) is None


def start_thread() -> None:
    """Apply the threads and the device of `start` to another thread that computes."""
    import paddle

    paddle.disable_static()
    paddle.base.core.set_num_threads(threads())
    paddle.set_device(paddle.get_device())
    _COMPUTING.add(threading.get_native_id())


def _wait_for_ended_threads() -> None:
    """Before a fork, wait until threads that have computed and ended are gone from the process.

    While it goes, such a thread holds the locks of Paddle's memory statistics, which the child would wait for.
    """
    running = {thread.native_id for thread in threading.enumerate()}
    deadline = time.monotonic() + 1
    for number in _COMPUTING - running:
        while os.path.exists(f"/proc/self/task/{number}") and time.monotonic() < deadline:
            time.sleep(0.001)
        _COMPUTING.discard(number)


os.register_at_fork(before=_wait_for_ended_threads)


def threads() -> int:
    """Number of computing threads of a process: STNET_THREADS, or else its share of the cores."""
    if os.environ.get("STNET_THREADS"):
        return int(os.environ["STNET_THREADS"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = int(os.environ.get("PADDLE_LOCAL_SIZE") or 1)  # ranks that share this machine
    return max(1, cores // here)


def release_memory() -> None:
    """Return freed memory to the system, between steps that need much of it."""
    gc.collect()
    if _C_LIBRARY is not None and hasattr(_C_LIBRARY, "malloc_trim"):
        _C_LIBRARY.malloc_trim(0)


def _gpu_problem(paddle: ModuleType) -> str | None:
    """The reason that the GPU cannot be used, or None."""
    if not paddle.is_compiled_with_cuda():
        return f"this Paddle ({paddle.__version__}) is built for the CPU (install paddlepaddle-gpu for GPUs)"
    try:
        count = paddle.device.cuda.device_count()
    except Exception as error:  # a broken driver raises many types
        return f"the GPU driver answers: {last_line(error)}"
    if count == 0:
        return "no GPU is visible"
    return _gpu_arithmetic_problem(paddle)


def _gpu_arithmetic_problem(paddle: ModuleType) -> str | None:
    """Compare a small convolution with the CPU's: a build without code for the card returns zeros, or fails."""
    card = "the GPU"
    try:
        paddle.set_device("gpu")
        name = paddle.device.cuda.get_device_name()
        capability = ".".join(map(str, paddle.device.cuda.get_device_capability()))
        card = f"{name} (compute capability {capability})"
        image = paddle.arange(2 * 3 * 8 * 8, dtype="float32").reshape([2, 3, 8, 8]) / 100
        kernel = paddle.arange(4 * 3 * 3 * 3, dtype="float32").reshape([4, 3, 3, 3]) / 100
        on_gpu = paddle.nn.functional.relu(paddle.nn.functional.conv2d(image, kernel)).cpu().numpy()
        paddle.set_device("cpu")
        on_cpu = paddle.nn.functional.relu(paddle.nn.functional.conv2d(image.cpu(), kernel.cpu())).numpy()
        if abs(on_gpu - on_cpu).max() <= 1e-2 * abs(on_cpu).max():
            return None
        problem = "a small convolution on it gives wrong numbers"
    except Exception as error:  # paddle raises many types here
        problem = f"a small convolution on it fails: {last_line(error)}"
    cuda = paddle.version.cuda()
    return f"this Paddle ({paddle.__version__}, CUDA {cuda}) does not work on {card}: {problem}"


def processor() -> str:
    """Vendor, model and instruction sets of the first processor on Linux; "" elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read(16384).split("\n\n")[0].splitlines(True)
        return "".join(line for line in lines if not re.match("(?i)cpu mhz|bogomips", line))  # measured at each start
    except OSError:
        return ""


def seed_everything(fixed: bool) -> int:
    """Seed Python, NumPy and Paddle. Returns the seed: 0 if `fixed`, else one drawn from the system."""
    import paddle

    seed = 0 if fixed else random.SystemRandom().randrange(2**31)
    seed_step(seed, 0, 0)
    if fixed and paddle.is_compiled_with_cuda():
        paddle.set_flags({"FLAGS_cudnn_deterministic": True})
    return seed


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make the global generators depend on seed, step and rank alone, so that a resumed run draws the same numbers."""
    import numpy as np
    import paddle

    mixed = random.Random(f"{seed}/{step}/{rank}").randrange(2**31)
    random.seed(mixed)
    np.random.seed(mixed)
    paddle.seed(mixed)


def memory_mb() -> int:
    """Peak GPU memory, or the resident memory of this process on the CPU, in MB."""
    import paddle

    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated() >> 20
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except OSError:
        return 0
