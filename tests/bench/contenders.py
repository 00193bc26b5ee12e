"""Factories for the tests of bench.measure, found through PYTHONPATH by the processes that it starts."""

import os
import time

from bench.child import Work


def counting(add):
    """Counts its iterations."""
    done = []

    def run(case):
        done.append(case)
        return len(done) + add

    return Work(run, lambda found: found)


def bad(how, number):
    """Works, and misbehaves in its iteration `number`."""
    done = []

    def run(_):
        done.append(1)
        if len(done) == number:
            print("it was not me", flush=True)
            {"die": os.abort, "raise": _raise, "hang": lambda: time.sleep(60)}[how]()

    return Work(run)


def _raise():
    raise ValueError("no such number\nand more")
