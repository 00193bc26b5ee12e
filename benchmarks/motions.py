"""Clips of four motions that the demo's network has not seen: diagonal, circle, zigzag, blink.

Shapes and backgrounds are those of tools.demo_clips; only the motion shows the class.
"""

from __future__ import annotations

import os
import random

import cv2
import numpy as np

from stnet.tools.demo_clips import FRAMES, SIZE, shape_mask, write_clip

MOTIONS = ("diagonal", "circle", "zigzag", "blink")


def draw_motion(name: str, rng: random.Random) -> np.ndarray:
    """Draw the frames of a clip of one of MOTIONS: uint8 [FRAMES, SIZE, SIZE, 3], BGR."""
    noise = np.random.RandomState(rng.randrange(2**31)).uniform(0, 110, (6, 6, 3))
    background = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    colour = np.array([rng.uniform(150, 255) for _ in range(3)])
    corners, angle, radius = rng.choice((2, 3, 4)), rng.uniform(0, 2 * np.pi), rng.uniform(7, 13)
    time = np.linspace(-0.5, 0.5, FRAMES)
    x = y = np.zeros(FRAMES)
    brightness = np.ones(FRAMES)
    travel, sign = rng.uniform(0.9, 1.5) * SIZE, [rng.choice((-1, 1)) for _ in range(2)]
    if name == "diagonal":
        x, y = time * travel, time * travel
    elif name == "circle":
        turns, size = rng.uniform(1.0, 1.6), rng.uniform(8, 14)
        x, y = size * np.cos(2 * np.pi * turns * time), size * np.sin(2 * np.pi * turns * time)
    elif name == "zigzag":
        teeth = rng.uniform(1.5, 2.5)
        x, y = time * travel, SIZE / 2 * np.abs(2 * (teeth * (time + 0.5) % 1) - 1)
    else:
        brightness = 0.65 + 0.35 * np.cos(2 * np.pi * rng.uniform(2, 4) * time + rng.uniform(0, 2 * np.pi))
    start = rng.uniform(0, SIZE), rng.uniform(0, SIZE)
    frames = []
    for i in range(FRAMES):
        mask = shape_mask((start[0] + sign[0] * x[i], start[1] + sign[1] * y[i]), radius, angle, corners)[..., None]
        frames.append(background * (1 - mask) + colour * brightness[i] * mask)
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def write_motions(folder: str, name: str, count: int, seed: int) -> str:
    """Draw `count` clips of each motion into FOLDER/clips. Returns the path of their list, FOLDER/NAME.list."""
    rng = random.Random(f"{name}/{seed}")
    os.makedirs(os.path.join(folder, "clips"), exist_ok=True)
    lines = []
    for number in range(count):
        for label, motion in enumerate(MOTIONS):
            path = os.path.join(folder, "clips", f"{name}_{motion}_{number:03d}.mp4")
            write_clip(path, draw_motion(motion, rng))
            lines.append(f"{os.path.abspath(path)} {label}\n")
    path = os.path.join(folder, f"{name}.list")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path
