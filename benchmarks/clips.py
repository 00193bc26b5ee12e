"""Clips about as costly to decode as real ones: ffmpeg's moving test picture with grain, as H.264 mp4 files."""

from __future__ import annotations

import subprocess
import sys


def ffmpeg(*arguments: str) -> None:
    """Run ffmpeg."""
    try:
        import imageio_ffmpeg
    except ImportError:
        sys.exit("error: clips are drawn by ffmpeg: pip install imageio-ffmpeg")
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments], check=True)


def draw_clip(path: str, size: tuple[int, int], frames: int, seed: int = 0, options: str = "") -> str:
    """Draw a clip of (width, height) with the grain of `seed`, by libx264 with `options`."""
    picture = f"testsrc2=size={size[0]}x{size[1]}:rate=25,noise=alls=6:allf=t:all_seed={seed}"
    ffmpeg("-f", "lavfi", "-i", picture, "-frames:v", str(frames), "-x264-params", options, path)
    return path


def draw_clips(folder: str, count: int, size: tuple[int, int], frames: int) -> list[str]:
    """Draw different clips of (width, height)."""
    return [draw_clip(f"{folder}/{size[0]}x{size[1]}_{i:03d}.mp4", size, frames, seed=i) for i in range(count)]


def draw_kinds(folder: str, size: tuple[int, int], frames: int) -> dict[str, str]:
    """Draw files that are hard to seek in: a cut by copying, open GOPs, one ten times as long."""
    paths = {kind: f"{folder}/{kind}.mp4" for kind in ("cut", "open GOP", "long")}
    whole = draw_clip(f"{folder}/whole.mp4", size, 2 * frames)
    ffmpeg("-ss", f"{frames / 3 / 25}", "-i", whole, "-t", f"{frames / 25}", "-c", "copy", paths["cut"])
    draw_clip(paths["open GOP"], size, frames, options="open-gop=1:keyint=50")
    draw_clip(paths["long"], size, 10 * frames, options="keyint=50")
    return paths


def write_list(path: str, clips: list[str], count: int) -> str:
    """Write a list of `count` lines, the clips repeated. Returns the path."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{clips[i % len(clips)]} {i % 400}\n" for i in range(count))
    return path
