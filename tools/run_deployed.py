#!/usr/bin/env python
"""Classify videos with what `inference` wrote, as a server would: by deploy.yaml alone.

python run_deployed.py FOLDER VIDEO [VIDEO ...]

This file stands alone: copy it. It needs NumPy, Pillow, PyYAML, PyAV 14.2 or later, and what runs the model:
onnxruntime for an .onnx file, else paddlepaddle.

Its probabilities are predict's, within 1e-5 on the CPU, for files that PyAV decodes to the end without an error: any
codec, container and colours, with edit lists, rotated or interlaced. All frames are decoded; twice, where the header
has not their number.
A damaged file is refused; predict takes the frames that OpenCV decodes. A file that lacks frames, such as the first
key frame, is classified by the others; predict's scores may differ. A line on standard error warns of it for MP4 and
MOV, and of some edit lists that cut frames out.

Exit code: 0; 3: some videos could not be read; 1: none could, or the model cannot be used.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np
import yaml
from av.video.reformatter import VideoReformatter
from PIL import Image

SCHEMA = 1  # of deploy.yaml, the newest that is known here
SAMPLED_AS_VIDEOS = ("mp4", "pkl", "frames")  # clip formats; others may sample differently
MATRICES = (0, 1, 4, 5, 6, 7, 9)  # FFmpeg's numbers of the colour matrices that its scaler knows
BT601, BT2020, BT2020_CONSTANT, UNSPECIFIED, FULL_RANGE = 5, 9, 10, 2, 2  # FFmpeg's numbers, too
# Demuxers that open no other file, as playlists do; the same as in reader/containers.py.
DEMUXERS = (
    "3dostr,amv,apng,asf,av1,avi,avs2,avs3,cavsvideo,dirac,dnxhd,dv,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,jpeg_pipe,live_flv,m4v,"
    "matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,smk,swf,vc1,vc1test,"
    "vvc,wtv,yuv4mpegpipe,aac,ac3,aiff,amr,flac,mp3,w64,wav"
)
FEWEST, AGREEMENT, DIFFERENCE = 200, 0.99, 0.2  # of a validation report, as in stnet/quantize/report.py
MOST_CLASSES, MOST_FRAMES, LARGEST_SIDE = 65536, 16384, 4096  # as in stnet/config.py: frames of a clip, pixels
MOST_PIXELS = 1 << 26  # of all frames of a clip
MOST_BYTES, MOST_VALUES, LONGEST, DEEPEST = 1 << 20, 1 << 18, 4096, 50  # of deploy.yaml, as in stnet/utils/parsing.py
LONGEST_NAME, LONGEST_ERROR = 200, 1000  # characters printed of a class name and of an error
# Characters that move a terminal's cursor, end a line or change the direction of writing.
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
TURNS = {90: 1, 180: 2, 270: 3}  # degrees counter-clockwise -> quarters


class Unusable(Exception):
    """A video that cannot be read, or a folder that cannot be used; the message is the reason."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="with deploy.yaml and the model")
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files to classify")
    parser.add_argument("--topk", type=int, metavar="K", help="classes shown; default: what deploy.yaml says")
    args = parser.parse_args(argv)
    if args.topk is not None and args.topk < 1:
        parser.error(f"--topk: expected at least 1, found {args.topk}")
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: a file or a socket would take its number
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8, and labels not ASCII
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        description = read_description(args.folder)
        warn_of_precision(args.folder, description)
        classify = load(args.folder, description)
        topk = args.topk or description["output"].get("topk", 5)
        unread = sum(not show(video, description, classify, topk) for video in args.videos)
    except Unusable as error:
        print(f"error: {printable(str(error), LONGEST_ERROR)}", file=sys.stderr)
        return 1
    return 0 if not unread else 1 if unread == len(args.videos) else 3


def show(video: str, description: dict[str, Any], classify: Callable[[np.ndarray], np.ndarray], topk: int) -> bool:
    """Print the first classes of a video. Returns False where it cannot be read; raises Unusable if the model fails."""
    try:
        clip = read_clip(video, description)
    except Unusable as error:
        print(printable(f"{video}: {error}", LONGEST_ERROR), file=sys.stderr)
        return False
    probabilities = classify(clip[None])[0]
    say(printable(video))
    for number in np.argsort(-probabilities, kind="stable")[:topk]:
        label = printable(str(description["labels"][number]), LONGEST_NAME)
        say(f"    {probabilities[number]:.6f}  {label}")
    return True


def say(line: str) -> None:
    """Print a line at once. Raises Unusable where it cannot be written, as on a full disk."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where what is still buffered goes
        raise Unusable(f"cannot write to standard output: {error.strerror}") from None


def printable(text: str, longest: int = 0) -> str:
    """Escape control characters of a text, and cut it to `longest` characters, unless that is 0."""
    if longest and len(text) > longest:
        text = f"{text[:longest]}..."
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def read_description(folder: str) -> dict[str, Any]:
    """Read deploy.yaml as plain data. Raises Unusable."""
    path = os.path.join(folder, "deploy.yaml")
    try:
        with open(path, "rb") as file:
            description = parse_yaml(file.read(MOST_BYTES + 1))
        schema = description.get("schema", 1)
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise Unusable(f"{path} has schema {schema!r:.20}, this program knows 1 to {SCHEMA}; update it")
        check(description)
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}; inference writes it") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise Unusable(f"{path} is damaged; inference writes it anew") from None
    clip_format = description["sampling"]["format"]
    if clip_format.lower() not in SAMPLED_AS_VIDEOS:
        raise Unusable(f"the model is for clips of the format {clip_format:.40}, not for videos")
    return description


def parse_yaml(text: bytes) -> Any:
    """Parse YAML into plain data. Raises yaml.YAMLError, ValueError or the like."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text.decode("utf-8-sig"))
    node = loader.get_single_node() if len(text) <= MOST_BYTES else None
    count(node, {})
    return loader.construct_document(node)


def count(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count (values, depth) of a YAML node, aliases written out. Raises ValueError where they are too many."""
    if node is None or isinstance(node, yaml.ScalarNode):
        if node is None or len(node.value) > LONGEST:
            raise ValueError("no document, or too large a value")
        return 1, 0
    if id(node) not in known:
        known[id(node)] = MOST_VALUES, 0  # while it is counted: a node that contains itself is too large
        pairs = isinstance(node, yaml.MappingNode)
        children = [child for pair in node.value for child in pair] if pairs else node.value
        counted = [count(child, known) for child in children]
        known[id(node)] = 1 + sum(size for size, _ in counted), 1 + max((depth for _, depth in counted), default=0)
        if known[id(node)] > (MOST_VALUES, 0) or known[id(node)][1] > DEEPEST:
            raise ValueError("too many values, or nested too deeply")
    return known[id(node)]


def check(description: dict[str, Any]) -> None:
    """Check the fields of deploy.yaml that are used. Raises ValueError, LookupError or the like."""
    source, output, labels = (description[key] for key in ("input", "output", "labels"))
    sampling, transform, files = description["sampling"], description["transform"], description["model"]["files"]
    size, channels = transform["target_size"], source["shape"][2]
    frames, sides = [sampling["seg_num"], sampling["seglen"]], [transform["short_size"], size]
    numbers = [*frames, len(labels), len(files), output.get("topk", 5)]
    if not (
        all(type(number) is int and 1 <= number <= LARGEST_SIDE for number in sides)
        and all(type(number) is int and 1 <= number <= MOST_CLASSES for number in numbers)
        and frames[0] * frames[1] <= min(MOST_FRAMES, MOST_PIXELS // size**2)
        and all(isinstance(label, (str, int, float)) for label in labels)
        and source["shape"][2:] == [channels, size, size]
        and channels in (3, 3 * sampling["seglen"])
        and source["dtype"] in ("float32", "uint8")
        and output.get("kind", "probabilities") in ("probabilities", "logits")
        and (type(labels), output["shape"][1:]) == (list, [len(labels)])
        and all(isinstance(name, str) for name in (source["name"], output["name"], sampling["format"], *files))
        and type(files) is list
        and all(os.path.basename(name) == name not in ("", ".", "..") for name in files)
        and all(np.isfinite(np.float32(transform[key])).tolist() == [True] * 3 for key in ("mean", "std"))
        and min(transform["std"]) > 0
    ):
        raise ValueError("not what inference writes")


def warn_of_precision(folder: str, description: dict[str, Any]) -> None:
    """Warn where a model of low precision has no validation report that holds on this machine."""
    if "precision" not in description:
        return
    try:
        record, path = description["precision"], os.path.join(folder, description["model"]["files"][0])
        figures, there, reason = record["figures"], record["processor"], ""
        with open(path, "rb") as file:
            same_file = hashlib.sha256(file.read()).hexdigest() == record["sha256"]
        kept = figures["equal"] >= AGREEMENT * figures["clips"] and figures["largest"] <= DIFFERENCE
        if not same_file or figures["clips"] < FEWEST or not kept:
            reason = "its record does not prove that classes and probabilities stay"
        elif (there["model"], there["instructions"]) != this_processor():
            model = printable(there["model"], 60)
            reason = f"it was proven on another processor ({model}), which proves nothing on this one"
    except (ArithmeticError, AttributeError, OSError, LookupError, TypeError, ValueError):
        reason = "its record is damaged: nothing proves it"
    if reason:
        print(f"{folder} computes in lower precision than float32: {reason}", file=sys.stderr)


def this_processor() -> tuple[str, str]:
    """Model of this processor, and a digest of its instruction sets, as in a validation report."""
    facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first_of_cpuinfo().splitlines())}
    flags = sorted(set((facts.get("flags") or facts.get("Features") or "").split()))
    model = " ".join(facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts)
    return model, hashlib.sha256(" ".join(flags).encode()).hexdigest()[:16]


def first_of_cpuinfo() -> str:
    """Read the first processor's part of /proc/cpuinfo; "" where there is none."""
    path = "/proc/cpuinfo" if os.path.exists("/proc/cpuinfo") else os.devnull
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(16384).split("\n\n")[0]


def read_clip(video: str, description: dict[str, Any]) -> np.ndarray:
    """Read a video as the model's input, without the batch axis. Raises Unusable."""
    sampling, transform = description["sampling"], description["transform"]
    frames = read_frames(video, lambda count: sample(count, sampling["seg_num"], sampling["seglen"]))
    clip = np.stack([scale_and_crop(frame, transform["short_size"], transform["target_size"]) for frame in frames])
    clip = clip.transpose(0, 3, 1, 2)  # [N, H, W, 3] -> [N, 3, H, W]
    if description["input"]["dtype"] != "uint8":
        mean, std = (np.float32(transform[key])[:, None, None] for key in ("mean", "std"))
        clip = (clip / np.float32(255) - mean) / std
    return np.ascontiguousarray(clip).reshape(-1, *description["input"]["shape"][2:])  # a segment's frames stacked


def sample(count: int, seg_num: int, seglen: int) -> list[int]:
    """Frame indices of the network's input, for a video of `count` frames."""
    average = count // seg_num
    offset = (average - 1) // 2 if average >= seglen else 0
    starts = [i * average + offset if average else i for i in range(seg_num)]
    return [(start + k) % count for start in starts for k in range(seglen)]


def read_frames(video: str, pick: Callable[[int], list[int]]) -> list[np.ndarray]:
    """Decode the frames, uint8 [H, W, 3] RGB, that `pick` chooses for the number of all. Raises Unusable."""
    if not os.path.isfile(video):
        raise Unusable("no such file")
    expected = declared = 0
    try:
        while True:
            with opened(video) as container:
                expected = expected or container.streams.video[0].frames or 1  # by the header, which may be wrong
                numbers = pick(expected)
                frames, count, discarded = decode(container, set(numbers))
                if container.format.name.startswith("mov"):  # other headers count packets that are no frames
                    declared = container.streams.video[0].frames - discarded
            if count == 0:
                raise ValueError("not one frame in it")
            if count == expected:
                if count < declared:
                    print(f"{video}: its header promises {declared} frames, {count} were decoded", file=sys.stderr)
                return [frames[number] for number in numbers]
            expected = count
    except (av.error.FFmpegError, OSError, ValueError) as error:
        no_video = getattr(error, "errno", None) == errno.EINVAL  # of a format outside the whitelist
        reason = "its format is none of a video file" if no_video else getattr(error, "strerror", None) or error
        raise Unusable(f"it cannot be decoded ({reason})") from None


def opened(video: str) -> Any:
    """Open a file with PyAV. Raises ValueError where it has no video."""
    odd_text = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    container = av.open(f"file:{os.path.abspath(video)}", container_options=options, **odd_text)
    if not container.streams.video or container.streams.video[0].codec_context is None:
        container.close()
        raise ValueError("no video in it, or no decoder for it")
    return container


def decode(container: Any, numbers: set[int]) -> tuple[dict[int, np.ndarray], int, int]:
    """Decode (frames of these numbers, uint8 [H, W, 3] RGB, upright; number of all; number cut out).

    Raises ValueError.
    """
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height  # all frames get the declared size
    reformatter, turns, frames, count, discarded = VideoReformatter(), 0, {}, 0, 0
    for packet in container.demux(stream):
        discarded += packet.is_discard  # by an edit list
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("a frame is not whole")
            if count == 0:
                width, height = width or frame.width, height or frame.height
                turns = TURNS.get(round(frame.rotation) % 360, 0)
            if count in numbers:
                whole = unmarked(frame, stream.time_base) if frame.interlaced_frame else frame
                bgr = reformatter.reformat(whole, width, height, "bgr24", interpolation="BICUBIC", **colours(frame))
                frames[count] = np.ascontiguousarray(np.rot90(bgr.to_ndarray()[..., ::-1], turns))
            count += 1
    return frames, count, discarded


def unmarked(frame: Any, time_base: Any) -> Any:
    """Clear the interlaced flag of a frame, so that the scaler converts it as a whole, not field by field."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    graph.link_nodes(source, graph.add("setfield", "mode=prog"), graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def colours(frame: Any) -> dict[str, int]:
    """Arguments of reformat that apply the colour matrix and the range of a frame in every version of PyAV."""
    if frame.colorspace == UNSPECIFIED:
        return {}
    matrix = BT2020 if frame.colorspace == BT2020_CONSTANT else int(frame.colorspace)
    full = {"src_color_range": FULL_RANGE} if frame.color_range == FULL_RANGE else {}
    return {"src_colorspace": matrix if matrix in MATRICES else BT601, "dst_colorspace": BT601, **full}


def scale_and_crop(frame: np.ndarray, short_size: int, target_size: int) -> np.ndarray:
    """Scale the short side of a frame to short_size and crop the central square of target_size. Raises Unusable."""
    height, width = frame.shape[:2]
    image = Image.fromarray(frame)
    if min(width, height) != short_size:
        long_size = int(short_size * 4 / 3)
        wide, high = (short_size, long_size) if width < height else (long_size, short_size)
        height_first = high < height and height - high > 2 * (width - wide)
        first = (width, high) if height_first else (wide, height)  # fixed here: Pillow's own order has changed
        image = image.resize(first, Image.BILINEAR).resize((wide, high), Image.BILINEAR)
    if target_size > min(image.size):
        raise Unusable(f"no square of {target_size} pixels fits into {image.width} x {image.height}")
    left, top = (int(round((side - target_size) / 2)) for side in image.size)
    return np.asarray(image)[top : top + target_size, left : left + target_size]


def load(folder: str, description: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the model: a function from a batch of clips to probabilities. Raises Unusable."""
    files = [os.path.join(folder, name) for name in description["model"]["files"]]
    logits = description["output"].get("kind") == "logits"
    try:
        run = (load_onnx if files[0].endswith(".onnx") else load_paddle)(files, description)
    except ImportError as error:
        raise Unusable(f"{error.name} is not installed, which runs {os.path.basename(files[0])}") from None
    except Exception as error:  # the runtimes have types of their own
        raise Unusable(f"the model in {folder} cannot be loaded: {last_line(error)}") from None

    def classify(clips: np.ndarray) -> np.ndarray:
        try:
            answer = run(clips)
        except Exception as error:  # as above
            raise Unusable(f"the model does not take what deploy.yaml says: {last_line(error)}") from None
        if answer.shape != (len(clips), len(description["labels"])):
            raise Unusable(f"the model answers with {list(answer.shape)}, for {len(description['labels'])} labels")
        probabilities = softmax(answer) if logits else answer
        if not (np.abs(probabilities - 0.5) <= 0.501).all() or (np.abs(probabilities.sum(axis=1) - 1) > 1e-2).any():
            raise Unusable("the model's answers are no probabilities")
        return probabilities

    return classify


def last_line(error: Exception) -> str:
    """Last line of a runtime's error, which has the reason."""
    return ([line.strip() for line in str(error).splitlines() if line.strip("- ")] or [type(error).__name__])[-1]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of each row."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def load_onnx(files: list[str], description: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load into ONNX Runtime, on the CPU, without its telemetry."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
    return lambda clips: session.run(None, {description["input"]["name"]: clips})[0]


def load_paddle(files: list[str], description: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load into paddle.inference, on the CPU."""
    warnings.filterwarnings("ignore", message="No ccache found")
    from paddle import inference

    program = next(file for file in files if file.endswith((".pdmodel", ".json")))
    config = inference.Config(program, next(file for file in files if file.endswith(".pdiparams")))
    config.disable_gpu()
    config.disable_glog_info()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(os.cpu_count() or 1)
    predictor = inference.create_predictor(config)

    def run(clips: np.ndarray) -> np.ndarray:
        predictor.get_input_handle(description["input"]["name"]).copy_from_cpu(clips)
        predictor.run()
        return predictor.get_output_handle(description["output"]["name"]).copy_to_cpu()

    return run


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of the results has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
