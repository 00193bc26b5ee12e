"""What a decoder may do, by the first word of the file: functions for decoding processes, which import no Paddle."""

import ctypes
import os
import time

from stnet.serve.decoding import read


def acting(job):
    """As `read`, unless the file says something else."""
    with open(job.path, "rb") as file:
        word = file.read(8).split()[:1]
    if word == [b"hang"]:
        ctypes.PyDLL(None).sleep(60)  # holding the GIL, as decord does
    if word == [b"sleep"]:
        time.sleep(60)
    if word == [b"crash"]:
        ctypes.string_at(0)
    if word == [b"bug"]:
        raise ZeroDivisionError("a bug")
    if word == [b"memory"]:
        return bytearray(1 << 40)
    return read(job)


def pid(job):
    """Number of the process."""
    return os.getpid()
