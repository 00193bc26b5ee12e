"""Videos of which packets are lost, as network cameras record them: the same ones each time, for one version of ffmpeg.

python tests/corpus/lost.py FOLDER [PATTERN]
"""

import fnmatch
import random
import subprocess
import sys
from pathlib import Path

import av
import imageio_ffmpeg

_X264 = "-c:v libx264 -preset veryfast -x264-params threads=1:scenecut=0:b-adapt=0:"
_X265 = "-c:v libx265 -preset ultrafast -x265-params pools=none:frame-threads=1:scenecut=0:log-level=none:"
ENCODINGS = {
    "h264_p": _X264 + "keyint=30:bframes=0:ref=1",
    "h264_p_one_key": _X264 + "keyint=infinite:bframes=0:ref=1",
    "h264_refs": _X264 + "keyint=30:bframes=0:ref=5",
    "h264_b": _X264 + "keyint=30:bframes=2:b-pyramid=none",
    "h264_b_one_key": _X264 + "keyint=250:bframes=3:b-pyramid=none",
    "h264_pyramid": _X264 + "keyint=30:bframes=5:b-pyramid=normal:ref=4",
    "h264_pyramid_strict": _X264 + "keyint=12:bframes=3:b-pyramid=strict",
    "h264_open_gop": _X264 + "keyint=12:bframes=3:open-gop=1",
    "h264_intra_refresh": _X264 + "keyint=20:intra-refresh=1:bframes=0",
    "h264_every_second_key": _X264 + "keyint=2:bframes=0",
    "h264_key_only": _X264 + "keyint=1",
    "h264_slices": _X264 + "keyint=30:bframes=0:slices=4",
    "h264_weighted": _X264 + "keyint=30:bframes=2:weightp=2:weightb=1",
    "h264_cavlc": "-c:v libx264 -profile:v baseline -preset veryfast -x264-params threads=1:scenecut=0:keyint=30",
    "h264_interlaced": _X264 + "keyint=20:bframes=2:tff=1 -vf setfield=tff",
    "hevc_p": _X265 + "keyint=30:bframes=0:open-gop=0",
    "hevc_b": _X265 + "keyint=30:bframes=3:open-gop=0",
    "hevc_every_second_key": _X265 + "keyint=2:bframes=0:open-gop=0",
    "hevc_layers": _X265 + "keyint=30:temporal-layers=3:bframes=3:open-gop=0",
    "vp8": "-c:v libvpx -deadline realtime -cpu-used 8 -g 30 -auto-alt-ref 0",
    "vp9": "-c:v libvpx-vp9 -deadline good -cpu-used 8 -g 30 -auto-alt-ref 1 -lag-in-frames 16",
    "av1": "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 30",
    "mpeg4": "-c:v mpeg4 -g 30 -bf 2",
}
LOSSES = ("whole", "noise", "one", "key", "burst", "sixteen", "some", "reference", "unreferenced", "tail")


def encode(folder, encoding, extension="mp4", frames=90, size="96x64"):
    """A whole video, each frame unlike all others. Returns its path."""
    path = Path(folder) / f"{encoding}.{extension}"
    if not path.exists():
        picture = f"testsrc2=s={size}:r=25,trim=end_frame={frames},noise=alls=24:allf=t:all_seed=1,format=yuv420p"
        _ffmpeg("-f", "lavfi", "-i", picture, *ENCODINGS[encoding].split(), path)
    return path


def lose(whole, loss, path, seed=0):
    """Write the video `path`, the video `whole` without some of its packets, by the kind of loss. Returns the path."""
    if loss == "noise":
        _ffmpeg("-i", whole, "-c", "copy", "-bsf:v", f"noise=drop='gt(n,0)*lt(random({seed}),0.06)'", path)
        return path
    with av.open(str(whole)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    gone = chosen(packets, loss, random.Random(f"{whole.name}/{loss}/{seed}"))
    without(whole, gone, path)
    return path


def chosen(packets, loss, rng):
    """The numbers of the packets that are lost, never the first."""
    count, keys = len(packets), [i for i, packet in enumerate(packets) if packet.is_keyframe and i]
    some = range(1, count)
    sizes = sorted(some, key=lambda i: packets[i].size)
    start = rng.randrange(1, count - 20)
    return {
        "whole": lambda: [],
        "one": lambda: [rng.choice(some)],
        "key": lambda: [rng.choice(keys or some)],
        "burst": lambda: range(start, start + rng.randint(2, 9)),
        "sixteen": lambda: range(start, start + 16),  # frame_num of x264 often counts to 15
        "some": lambda: rng.sample(some, 5),
        "reference": lambda: [rng.choice(sizes[count // 2 :])],
        "unreferenced": lambda: [rng.choice(sizes[: count // 4])],
        "tail": lambda: range(count - 5, count),
    }[loss]()


def without(whole, gone, path):
    """Copy a video but for the packets of some numbers."""
    drop = "+".join(f"eq(n,{number})" for number in gone) or "0"
    _ffmpeg("-i", whole, "-c", "copy", "-bsf:v", f"noise=drop='{drop}'", path)


def make_lost(folder, pattern="*", extensions=("mp4", "mkv"), losses=LOSSES):
    """Make every loss of every encoding whose name matches. Returns {name: path}."""
    whole, made = Path(folder) / "whole", {}
    whole.mkdir(parents=True, exist_ok=True)
    for encoding in fnmatch.filter(ENCODINGS, pattern):
        for number, loss in enumerate(losses):
            extension = extensions[number % len(extensions)]
            if encoding == "vp8" and extension == "mp4":
                extension = "mkv"
            path = Path(folder) / f"{encoding}_{loss}.{extension}"
            made[path.name] = path
            if not path.exists():
                lose(encode(whole, encoding, extension), loss, path)
    return made


def _ffmpeg(*words):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-loglevel", "error", *map(str, words)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    print(f"{len(make_lost(*sys.argv[1:3]))} files in {sys.argv[1]}")
