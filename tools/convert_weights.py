"""Write StNet weights in another format.

python -m tools.convert_weights STNET_final.pdparams OUT --format combined --num_layers 50

Formats: combined (release 1.6), pickle (1.7, 1.8) and folder (one file a tensor), all with the original's names;
structured (this project's names, as paddle.save writes). The input may have any of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stnet import cli
from stnet.models.stnet.depths import DEPTHS
from stnet.models.stnet.names import original_to_structured
from stnet.utils.atomic import write_atomically
from stnet.utils.errors import UserError
from stnet.weights.formats import combined_bytes, pickle_bytes, read_weights
from stnet.weights.lod_tensor import tensor_bytes

FORMATS = ("combined", "pickle", "folder", "structured")


def convert(source: str, target: str, form: str, depth: int) -> None:
    """Read weights of any format and write them as `form`.

    Raises:
        UserError: the source is damaged or not a StNet of this depth, or the target cannot be written.
    """
    names = original_to_structured(depth)
    tensors = read_weights(source, names).tensors
    unexpected = sorted(set(tensors) ^ set(names.values()))
    if unexpected:
        raise UserError(f"weights {source}: not a StNet of {depth} layers, for example {unexpected[0]}")
    original = {theirs: tensors[ours] for theirs, ours in names.items()}
    if form == "folder":
        if os.path.isdir(target) and os.listdir(target):
            raise UserError(f"{target} is a folder with files in it; give a new one")
        for name, tensor in original.items():
            _write(os.path.join(target, name), tensor_bytes(tensor))
    else:
        encode = combined_bytes if form == "combined" else pickle_bytes
        _write(target, encode(tensors if form == "structured" else original))


def _write(path: str, data: bytes) -> None:
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(data))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--num_layers", type=int, choices=sorted(DEPTHS), default=50)
    args = parser.parse_args(argv)
    convert(args.source, args.target, args.format, args.num_layers)


if __name__ == "__main__":
    sys.exit(cli.run(main))
