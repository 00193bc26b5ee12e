#!/usr/bin/env python
"""Classify videos by PaddleX, with what `inference --format=paddlex` wrote.

python paddlex_predict.py MODEL_DIR VIDEO [VIDEO ...]

This file stands alone: copy it. It needs `pip install paddlepaddle 'paddlex[video]'`; 3.3.1 and 3.7.2 were tried.
PaddleX takes files named .mp4, .avi, .mkv and .webm, and shows MODEL.topk classes.
"""

import sys
from pathlib import Path

import yaml
from paddlex import create_model
from paddlex.inference.models.bindings import register_predictor_binding_map
from paddlex.inference.models.video_classification import VideoClasRunnerPredictor


def main(model_dir: str, *videos: str) -> None:
    """Name the model to PaddleX as one that classifies videos, and let it."""
    name = yaml.safe_load(Path(model_dir, "inference.yml").read_text(encoding="utf-8"))["Global"]["model_name"]
    register_predictor_binding_map(VideoClasRunnerPredictor, {"paddle_static": [name]})
    model = create_model(name, model_dir=model_dir)
    for video in videos:
        for result in model.predict(video):
            print(result["input_path"])
            for label, score in zip(result["label_names"], result["scores"]):
                print(f"    {score:.6f}  {label}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
