"""stnet.reader.joined: times that begin anew within a file."""

import random

import pytest

from stnet.reader.joined import is_disordered, joined, parts_of


def times(frames, step=1, begin=0):
    """Times of a part in the order of decoding: each P-frame before the two B-frames that it follows."""
    order = [0, *(place for key in range(3, frames, 3) for place in (key, key - 2, key - 1))]
    return [begin + step * place for place in order]


@pytest.mark.parametrize(
    "parts",
    [
        [times(100), times(100)],
        [times(25)] * 8,  # a second each
        [times(40), times(40, begin=20), times(40, begin=40)],  # less far back than a part is long
        [times(31, step=60), times(241), times(101, step=2), times(40, step=15)],  # other rates: a slow one last
        [times(100, begin=10**7), times(40), times(40)],
    ],
)
def test_parts_are_told_apart_and_go_on_from_each_other(parts):
    found = parts_of([time for part in parts for time in part], "mpegts")
    assert [list(part.timestamps) for part in found] == parts
    assert sorted(joined(found))[0] == parts[0][0] and not is_disordered(joined(found))
    for (before, step, shift), after in zip(found, found[1:]):
        assert min(after.timestamps) + after.shift == max(before) + shift + step


@pytest.mark.parametrize("wrong", [-5, 5, 5000, 1 << 40])
@pytest.mark.parametrize("count", [1, 2])
def test_single_wrong_times_begin_no_part(wrong, count):
    for place in (40, 41, 60):
        stamps = times(100)
        stamps[place : place + count] = [wrong + number for number in range(count)]
        assert len(parts_of(stamps, "mov,mp4,m4a,3gp,3g2,mj2")) == 1


def test_times_without_order_are_one_part():
    stamps = list(range(300))
    random.Random(1).shuffle(stamps)
    assert [part.timestamps for part in parts_of(stamps, "mpegts")] == [stamps]
