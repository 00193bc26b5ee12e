"""The right frames of a video: those that OpenCV decodes in order, as the original reader does.

OpenCV's wheel cannot decode AV1, and from 4.13 on it makes each interlaced frame the same black picture. There, ffmpeg
decodes, with OpenCV's conversion to RGB.
"""

import hashlib
import subprocess

import cv2
import imageio_ffmpeg

# OpenCV converts to BGR, bicubic; going on from BGR to RGB only swaps bytes. To RGB at once gives other bits.
_TO_RGB = "scale=flags=bicubic,format=bgr24,format=rgb24"


def right_frames(path, tags):
    """(count, hashes) of a file of the corpus, by the program that can tell, given its recipe's tags."""
    return frames_by_ffmpeg(path) if {"av1", "interlaced"} & set(tags) else frames_in_order(path)


def frames_in_order(path):
    """(count, SHA-1 of each frame's RGB bytes), as OpenCV decodes the file from its start to its end."""
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        found.append(hash_of(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))
    capture.release()
    return len(found), found


def frames_by_ffmpeg(path):
    """As `frames_in_order`, decoded by the ffmpeg program."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-i", str(path), "-map", "0:v:0"]
    command += ["-vf", _TO_RGB, "-fps_mode", "passthrough", "-f", "framehash", "-hash", "sha160", "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [line.rsplit(",", 1)[1].strip() for line in text.splitlines() if not line.startswith("#")]
    return len(found), found


def hash_of(frame):
    """SHA-1 of a frame's bytes, uint8 [H, W, 3] RGB."""
    return hashlib.sha1(frame.tobytes()).hexdigest()
