"""Contenders for the tests of benchmarks.timer."""

import os
import time


def counting(add):
    """Counts its iterations."""
    done = []

    def run():
        done.append(1)
        return lambda: len(done) + add

    return run


def bad(how, number):
    """Works, and misbehaves in its iteration `number`."""
    done = []

    def run():
        done.append(1)
        if len(done) == number:
            print("it was not me", flush=True)
            {"die": os.abort, "raise": _raise, "hang": lambda: time.sleep(60)}[how]()

    return run


def _raise():
    raise ValueError("no such number\nand more")


def double(number):
    return 2 * number
