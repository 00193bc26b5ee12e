#!/usr/bin/env python
"""Classify videos by PaddleX, with what `inference --format=paddlex` wrote.

python paddlex_predict.py MODEL_DIR VIDEO [VIDEO ...]

This file stands alone: copy it. It needs `pip install paddlepaddle 'paddlex[video]'`; 3.3.1 and 3.7.2 were tried.
Exit code: 0; 3: some videos could not be read; 1: none could.
PaddleX takes files named .mp4, .avi, .mkv and .webm, and shows MODEL.topk classes.
"""

import sys
from pathlib import Path

import yaml
from paddlex import create_model
from paddlex.inference.models.bindings import register_predictor_binding_map
from paddlex.inference.models.video_classification import VideoClasRunnerPredictor


def main(model_dir: str, *videos: str) -> int:
    """Register the model with PaddleX as a video classifier, and run it. Returns the exit code."""
    name = yaml.safe_load(Path(model_dir, "inference.yml").read_text(encoding="utf-8"))["Global"]["model_name"]
    register_predictor_binding_map(VideoClasRunnerPredictor, {"paddle_static": [name]})
    model = create_model(name, model_dir=model_dir)
    unread = 0
    for video in videos:
        try:
            results = list(model.predict(video))
        except Exception as error:  # decord and OpenCV have their own types
            print(f"{video}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
            unread += 1
            continue
        for result in results:
            print(result["input_path"])
            for label, score in zip(result["label_names"], result["scores"]):
                print(f"    {score:.6f}  {label}")
    return 0 if not unread else 1 if unread == len(videos) else 3


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
