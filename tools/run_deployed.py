"""Classify a video with what `bash run.sh inference` wrote, as a server would: by deploy.yaml alone.

python -m tools.run_deployed inference_model clip.mp4
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import yaml

from core import cli, runtime
from core.config import ReaderSection
from core.errors import UserError
from core.flags import positive_int
from core.schema import refuse_newer


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="with deploy.yaml and the model")
    parser.add_argument("video", help="the file to classify")
    parser.add_argument("--topk", type=positive_int, default=5, help="classes shown (default: %(default)s)")
    args = parser.parse_args(argv)
    description = read_description(args.folder)
    clip = read_clip(args.video, description)
    probabilities = load(args.folder, description)(clip[None])[0]
    for number in np.argsort(-probabilities, kind="stable")[: args.topk]:
        print(f"{probabilities[number]:.6f}  {description['labels'][number]}")


def read_description(folder: str) -> dict[str, Any]:
    """deploy.yaml as plain data. Raises UserError."""
    path = os.path.join(folder, "deploy.yaml")
    try:
        with open(path, encoding="utf-8") as file:
            description = yaml.safe_load(file)
        refuse_newer(description, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "no deployed model") from None
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        raise UserError(f"{path} is damaged", "no deployed model") from None
    return description


def read_clip(video: str, description: dict[str, Any]) -> np.ndarray:
    """A video as the model's input: normalised float32 [seg_num, 3 * seglen, H, W]. Raises UserError."""
    from reader import clip as reading
    from reader.errors import ClipError
    from reader.transforms import to_super_images

    sampling, transform = description["sampling"], description["transform"]
    seg_num, seglen = sampling["seg_num"], sampling["seglen"]
    section = ReaderSection(
        seg_num=seg_num, seglen=seglen, short_size=transform["short_size"], target_size=transform["target_size"]
    )
    try:
        clip = to_super_images(reading.read_clip(video, section, sampling["format"]).frames, seg_num)
    except ClipError as error:
        raise UserError(f"{video}: {error}") from None
    mean, std = (np.tile(np.float32(transform[key]), seglen)[:, None, None] for key in ("mean", "std"))
    return (clip / np.float32(255) - mean) / std


def load(folder: str, description: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a batch of clips to probabilities, by the runtime that the files are for."""
    files = [os.path.join(folder, name) for name in description["model"]["files"]]
    input_name = description["input"]["name"]
    if files[0].endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
        return lambda clips: session.run(None, {input_name: clips})[0]
    from paddle import inference

    program = next(file for file in files if not file.endswith(".pdiparams"))
    config = inference.Config(program, next(file for file in files if file.endswith(".pdiparams")))
    config.disable_gpu()
    config.disable_glog_info()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(runtime.threads())
    predictor = inference.create_predictor(config)

    def run(clips: np.ndarray) -> np.ndarray:
        predictor.get_input_handle(input_name).copy_from_cpu(clips)
        predictor.run()
        return predictor.get_output_handle(description["output"]["name"]).copy_to_cpu()

    return run


if __name__ == "__main__":
    sys.exit(cli.run(main))
