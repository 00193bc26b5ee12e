"""Prepare and check video data sets.

python -m tools.dataset kinetics --csv train.csv --videos videos/ --out data/dataset/kinetics
python -m tools.dataset check --config configs/stnet.yaml --mode train
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from stnet import cli
from stnet.tools.dataset import check, folder, hmdb51, kinetics, pack, show, ucf101

COMMANDS = (kinetics, ucf101, hmdb51, folder, check, pack, show)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.argv[0] = "python -m tools.dataset"  # what the usage line says
    sys.exit(cli.run(main))
