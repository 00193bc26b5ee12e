"""Draw a small labelled set of video clips whose classes differ only in motion.

python -m tools.demo_clips demo --train 240 --val 20 --seed 0

Shapes of random form, colour, size and angle move on textured backgrounds: left or right, up or down, growing or
shrinking. The two classes of a pair are the same clip forwards and backwards: no single frame shows the class.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence

import av
import cv2
import numpy as np

from stnet import cli

CLASSES = ("left", "right", "up", "down", "grow", "shrink")
SIZE = 48  # pixels
FRAMES = 24
RATE = 12  # frames a second
OUTLINES = {  # corner points of shapes without rotational symmetry, within the unit circle: a bar, a triangle, a star
    2: [[-1, -0.35], [1, -0.2], [1, 0.2], [-1, 0.35]],
    3: [[1, 0], [-0.7, 0.6], [-0.4, -0.6]],
    4: [[1, 0], [0.2, 0.25], [-0.2, 0.9], [-0.9, 0], [-0.2, -0.6], [0.2, -0.25]],
}


def draw_clip(name: str, rng: random.Random, count: int = FRAMES) -> np.ndarray:
    """Frames of one clip.

    Args:
        name: one of CLASSES.
        rng: the same state gives the same clip for both classes of a pair, one reversed.
        count: frames; a longer clip continues at the same speed, except growing and shrinking.

    Returns:
        uint8 [count, SIZE, SIZE, 3], BGR.
    """
    pair, backwards = divmod(CLASSES.index(name), 2)
    noise = np.random.RandomState(rng.randrange(2**31)).uniform(0, 110, (6, 6, 3))
    background = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)  # dark and smooth
    colour = np.array([rng.uniform(150, 255) for _ in range(3)])
    corners = rng.choice((2, 3, 4))
    half = 0.5 * (count - 1) / (FRAMES - 1)
    time = np.linspace(-half, half, count)
    travel = rng.uniform(0.9, 1.5) * SIZE * (pair < 2)
    x, y = rng.uniform(0, SIZE), rng.uniform(0, SIZE)
    radius = np.full(count, rng.uniform(7, 13))
    if pair == 2:
        radius = np.linspace(rng.uniform(12, 15), rng.uniform(5, 8), count)[::-1]
    angle = rng.uniform(0, 2 * np.pi)
    frames = []
    for i, moment in enumerate(time):
        centre = (x - moment * travel * (pair == 0), y - moment * travel * (pair == 1))
        mask = shape_mask(centre, radius[i], angle, corners)[..., None]
        frames.append(background * (1 - mask) + colour * mask)
    frames = np.clip(np.stack(frames), 0, 255).astype(np.uint8)
    return frames[::-1] if backwards else frames


def shape_mask(centre: tuple[float, float], radius: float, angle: float, corners: int) -> np.ndarray:
    """Antialiased bar (2), triangle (3) or star (4), in [0, 1]; it wraps around at the borders."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    shift = 4  # fractional bits of the coordinates
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for dx in (-SIZE, 0, SIZE):
        for dy in (-SIZE, 0, SIZE):
            centre_here = np.array([centre[0] % SIZE + dx, centre[1] % SIZE + dy])
            points = centre_here + np.array(OUTLINES[corners]) @ turn * radius
            cv2.fillPoly(mask, [np.round(points * 2**shift).astype(np.int32)], 255, cv2.LINE_AA, shift)
    return mask / 255.0


def write_clip(path: str, frames: np.ndarray) -> None:
    """Write frames (uint8 [T, H, W, 3], BGR) as an mp4 file that browsers play: H.264. Raises OSError."""
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "fast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")))
        file.mux(stream.encode())


def write_set(folder: str, train: int, val: int, seed: int) -> None:
    """Draw `train` and `val` clips of each class, with lists and labels.json, into a folder."""
    rng = random.Random(seed)
    os.makedirs(os.path.join(folder, "clips"), exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        lines = []
        for i in range(count):
            for label, name in enumerate(CLASSES):
                path = os.path.join("clips", f"{split}_{name}_{i:03d}.mp4")
                write_clip(os.path.join(folder, path), draw_clip(name, rng))
                lines.append(f"{path} {label}\n")
        with open(os.path.join(folder, f"{split}.list"), "w", encoding="utf-8") as file:
            file.writelines(lines)
    with open(os.path.join(folder, "infer.list"), "w", encoding="utf-8") as file:
        file.writelines(line.rsplit(" ", 1)[0] + "\n" for line in lines[: len(CLASSES)])
    with open(os.path.join(folder, "labels.json"), "w", encoding="utf-8") as file:
        json.dump(CLASSES, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--train", type=int, default=240, help="training clips a class (default: %(default)s)")
    parser.add_argument("--val", type=int, default=20, help="held-out clips a class (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    write_set(args.folder, args.train, args.val, args.seed)
    print(f"drew {args.train + args.val} clips of each of {len(CLASSES)} classes in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
