"""Damaged copies of the corpus: the same ones for the same sources, count and seed.

python tests/corpus/damaged.py FOLDER_OF_THE_CORPUS FOLDER
"""

import random
import sys
from pathlib import Path


def make_damaged(sources, folder, count=400, seed=0):
    """Writes `count` damaged files, one kind of damage after the other.

    Args:
        sources: paths of the intact files.
        folder: where the damaged ones go; made if missing.

    Returns:
        {name: path}; a name is number, damage and source, as in 017_zeroed_h264_b2.mkv.
    """
    sources, folder = sorted(map(Path, sources), key=lambda path: path.name), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number in range(count):
        damage = DAMAGES[number % len(DAMAGES)]
        rng = random.Random(f"{seed}/{number}")
        source, other = rng.choice(sources), rng.choice(sources)
        name = f"{number:03d}_{damage.__name__}_{source.name}"
        made[name] = folder / name
        made[name].write_bytes(damage(bytearray(source.read_bytes()), rng, other))
    return made


def truncated(data, rng, _):
    """The first 5 to 99 % of the file."""
    return data[: int(len(data) * rng.uniform(0.05, 0.99))]


def header_flipped(data, rng, _):
    """1 to 20 other bytes among the first 2000."""
    return _flip(data, rng, 0, 2000)


def middle_flipped(data, rng, _):
    """1 to 20 other bytes in the middle half."""
    return _flip(data, rng, len(data) // 4, len(data) * 3 // 4)


def index_flipped(data, rng, _):
    """1 to 20 other bytes among the last 2000, where mp4, mkv and avi have their index."""
    return _flip(data, rng, len(data) - 2000, len(data))


def zeroed(data, rng, _):
    """Up to a fifth of the file is zeros."""
    start, end = _range(data, rng)
    data[start:end] = bytes(end - start)
    return data


def removed(data, rng, _):
    """Up to a fifth of the file is missing."""
    start, end = _range(data, rng)
    del data[start:end]
    return data


def overwritten(data, rng, other):
    """Up to a fifth of the file is another file's bytes from the same place."""
    start, end = _range(data, rng)
    foreign = other.read_bytes()[start:end]
    data[start : start + len(foreign)] = foreign
    return data


DAMAGES = [truncated, header_flipped, middle_flipped, index_flipped, zeroed, removed, overwritten]


def _flip(data, rng, start, end):
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(max(start, 0), min(end, len(data)))] ^= rng.randint(1, 255)
    return data


def _range(data, rng):
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.randint(1, max(1, len(data) // 5)))


if __name__ == "__main__":
    intact = [path for path in Path(sys.argv[1]).iterdir() if path.is_file()]
    print(f"{len(make_damaged(intact, sys.argv[2]))} files in {sys.argv[2]}")
