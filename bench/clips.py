"""Clips that cost about what real ones cost to decode: a texture and a patch that move differently, and grain."""

import os

import av
import cv2
import numpy as np

_GRAIN = 3  # levels, up or down


def draw_clips(folder, count, size, frames):
    """Draw different clips as mp4 files.

    They are H.264 with libx264's own settings.

    Args:
        folder: where they go.
        count: of clips.
        size: (width, height).
        frames: of each clip.

    Returns:
        (paths, a line on codec, key frames and size).
    """
    paths = []
    for number in range(count):
        paths.append(os.path.join(folder, f"{size[0]}x{size[1]}x{frames}_{number:03d}.mp4"))
        _write(paths[-1], _draw(np.random.RandomState(number), size, frames))
    return paths, _about(paths)


def _draw(rng, size, frames):
    width, height = size
    ground = _texture(rng, size, 8)
    patch = _texture(rng, (width // 3, height // 3), 4)
    place = rng.uniform(0, 2 * np.pi, 2)
    for i in range(frames):
        image = np.roll(ground, (i, 2 * i), (0, 1)).astype(np.int16)
        left = int((1 + np.sin(place[0] + i / 20)) / 2 * (width - width // 3))
        top = int((1 + np.sin(place[1] + i / 15)) / 2 * (height - height // 3))
        image[top : top + height // 3, left : left + width // 3] = patch
        image += rng.randint(-_GRAIN, _GRAIN + 1, (height, width, 1)).astype(np.int16)
        yield np.clip(image, 0, 255).astype(np.uint8)


def _texture(rng, size, cell):
    noise = rng.randint(0, 256, (size[1] // cell + 1, size[0] // cell + 1, 3)).astype(np.uint8)
    return cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)


def draw_kinds(folder, size, frames):
    """Draw one file of each kind that a seek must take care of.

    Returns:
        name -> path: a cut by copying packets, open groups of pictures, and ten times as many frames in short groups.
    """
    paths = {kind: os.path.join(folder, f"{kind}.mp4") for kind in ("whole", "cut", "open GOP", "long")}
    _write(paths["whole"], _draw(np.random.RandomState(0), size, 2 * frames))
    _write(paths["open GOP"], _draw(np.random.RandomState(1), size, frames), {"x264-params": "open-gop=1:keyint=50"})
    _write(paths["long"], _draw(np.random.RandomState(2), size, 10 * frames), {"x264-params": "keyint=50"})
    _copy(paths.pop("whole"), paths["cut"], frames // 3, frames)
    return paths


def _copy(path, target, start, count):
    """Cut as `ffmpeg -ss -c copy` does: from the key frame before, stamps counted from the first frame shown."""
    with av.open(path) as source, av.open(target, "w", options={"avoid_negative_ts": "disabled"}) as file:
        stream = source.streams.video[0]
        copied = file.add_stream_from_template(stream)
        step = int(1 / (25 * stream.time_base))
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts < (start + count) * step:
                packet.pts, packet.dts, packet.stream = packet.pts - start * step, packet.dts - start * step, copied
                file.mux(packet)


def _write(path, images, options=None):
    with av.open(path, "w") as file:
        stream = None
        for image in images:
            if stream is None:
                stream = file.add_stream("libx264", rate=25, options=options)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        file.mux(stream.encode())


def _about(paths):
    import decord

    capture = cv2.VideoCapture(paths[0])
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")
    capture.release()
    video = decord.VideoReader(paths[0], num_threads=1)
    height, width = video[0].shape[:2]
    keys = video.get_key_indices()
    every = keys[1] - keys[0] if len(keys) > 1 else len(video)
    size = sum(map(os.path.getsize, paths)) / len(paths) / 1000
    return f"{width} x {height}: {len(video)} frames, codec {codec}, a key frame every {every}, {size:.0f} kB a clip"
