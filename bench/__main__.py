"""Measure this project against its peers on this machine.

python -m bench                                    # every part
python -m bench forward reader --rounds 7 --json bench.json
python -m bench scaling                            # more and more processes, on a machine with many cores

Ours and its peers take turns, each in a process of its own with the same number of threads; see bench/measure.py.
Peers are no dependencies: what is not installed is left out. For all of them:

pip install onnxruntime openvino paddle2onnx torch av

It ends with 0 if nobody failed and all results agree, whether or not the aims are met.
"""

import argparse
import functools
import importlib
import os
import sys
import tempfile

from bench import measure, results
from core import cli, runtime
from core.atomic import write_json

PARTS = ("reader", "forward", "train_step", "pipeline", "startup")
ON_REQUEST = ("scaling",)


def main(argv=None):
    """Command line; returns the exit code."""
    environment = dict(os.environ)  # as it is here: contenders set up their surroundings themselves
    return cli.run(functools.partial(_main, environment), argv)


def _main(environment, argv):
    args = parse_args(argv)
    found = {
        "machine": measure.machine(),
        "versions": measure.versions(),
        "threads": runtime.threads(),
        "rounds": args.rounds or (2 if args.quick else 5),
        "quick": args.quick,
        "parts": {},
    }
    print("\n".join(_heading(found)), flush=True)
    for name in args.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            settings = measure.Settings(found["rounds"], args.quick, found["threads"], folder, environment)
            part = _measure(name, settings)
        print("", *results.lines(part), sep="\n", flush=True)
        found["parts"][name] = part.as_dict()
        if args.json:
            write_json(args.json, found)
    return 0 if all(part["good"] for part in found["parts"].values()) else 1


def parse_args(argv):
    """Flags."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", type=_part, metavar="PART", help=f"{', '.join(PARTS)}; default: all of these; or scaling"
    )
    parser.add_argument("--rounds", type=cli.positive_int, help="of each measurement (default: 5, with --quick 2)")
    parser.add_argument("--json", default="", metavar="FILE", help="write everything there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run? The times mean nothing")
    return parser.parse_args(argv)


def _part(text):
    if text not in PARTS + ON_REQUEST:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PARTS + ON_REQUEST)}, found {text!r}")
    return text


def _measure(name, settings):
    try:
        return importlib.import_module(f"bench.{name}").measure(settings)
    except measure.Failed as error:
        return results.Part(name, "not measured", failures=[str(error)])


def _heading(found):
    machine = found["machine"]
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB memory, {machine['system']}, "
        f"load {machine['load']:g}"
    )
    yield ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"{found['threads']} threads, {found['rounds']} rounds, ratios are medians over the rounds"
    if found["quick"]:
        yield "quick: tiny sizes, the times mean nothing"


if __name__ == "__main__":
    sys.exit(main())
