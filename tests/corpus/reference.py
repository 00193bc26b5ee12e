"""The right frames of a video: those that OpenCV decodes in order, as the original reader does.

OpenCV's wheel cannot decode AV1, and from 4.13 on it makes each interlaced frame the same black picture. There, ffmpeg
decodes, with OpenCV's conversion to RGB.
"""

import contextlib
import re
import subprocess

import av
import cv2
import imageio_ffmpeg
import numpy as np

from stnet.reader.containers import opened
from stnet.reader.decoders import Converter
from stnet.reader.index import read_index

# OpenCV converts to BGR, bicubic; going on from BGR to RGB only swaps bytes. To RGB at once gives other bits.
_TO_RGB = "scale=flags=bicubic,format=bgr24,format=rgb24"


def right_frames(path, tags=()):
    """List of all frames of a file of the corpus, uint8 [H, W, 3] RGB, by the program that can tell, given its tags."""
    return frames_by_ffmpeg(path) if {"av1", "interlaced"} & set(tags) else frames_in_order(path)


def frames_in_order(path):
    """List of frames, as OpenCV decodes the file from its start to its end."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    return frames


def frames_by_pyav(path):
    """List of frames, as PyAV decodes the file from its start to its end, whatever errors come on the way."""
    with opened(str(path)) as (container, stream):
        index = read_index(container, stream)
    frames = []
    with opened(str(path)) as (container, stream):
        converter = Converter(stream, index)
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                frames += map(converter.rgb, packet.decode())
    return frames


def frames_by_ffmpeg(path):
    """List of frames, decoded by the ffmpeg program."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-i", str(path), "-map", "0:v:0"]
    command += ["-vf", _TO_RGB, "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    frames, place = [], 0
    while place < len(data):
        header = re.compile(rb"P6\n(\d+) (\d+)\n255\n").match(data, place)
        width, height = map(int, header.groups())
        pixels = np.frombuffer(data, np.uint8, 3 * width * height, header.end())
        frames.append(pixels.reshape(height, width, 3))
        place = header.end() + pixels.size
    return frames
