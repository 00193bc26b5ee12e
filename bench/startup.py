"""How long a program takes to say how it is used."""

import os
import sys

from bench.child import Work, check_ended, start_command
from bench.measure import ROOT, interleave
from bench.results import Part

SECONDS = 0.5


def measure(settings):
    """The Part of this module.

    Args:
        settings: bench.measure.Settings.
    """
    part = Part("startup", "wall time of whole programs")
    name = "predict.py --help"
    commands = {
        name: [str(ROOT / "predict.py"), "--help"],
        "python -c 'import paddle'": ["-c", "import paddle"],
        "python -c pass": ["-c", "pass"],
    }
    factories = {name: ("bench.startup:program", {"arguments": arguments}) for name, arguments in commands.items()}
    with settings.crew(factories) as contenders:
        timed = interleave(contenders, settings.rounds, failures=part.failures)
    part.add("one program", timed)
    if name in timed:
        part.aim(name, timed[name].median, SECONDS, unit=" s")
    return part


def program(arguments):
    """Factory: run Python with these arguments."""

    def run(_):
        command, log = [sys.executable, *arguments], os.path.abspath(f"program-{os.getpid()}.log")
        check_ended(start_command(command, log).wait(), command, log)

    return Work(run)
