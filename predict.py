#!/usr/bin/env python
"""Classify videos: one file, a folder, or a list (section INFER of the config).

python predict.py --model_name=STNET --config=configs/stnet.yaml --weights=checkpoints/STNET_final.pdparams \
    --video_path=clip.mp4
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from core import cli, flags
from core.config import Config, find_file
from core.errors import UserError
from core.files import unique_stems

logger = logging.getLogger("stnet")


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, data, model, loop, results."""
    args = flags.parse("predict", __doc__, argv)
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section)

    from backends.engines import ENGINES
    from core import runtime
    from core.atomic import prepare_folder, write_json
    from core.schema import SCHEMA
    from engine.predictor import Predictor
    from reader.loader import build_loader

    ENGINES.get(args.engine)  # an unknown name is refused before anything is read
    if args.infer_topk and args.infer_topk > config.MODEL.num_classes:
        logger.warning("--infer_topk %d: there are %d classes", args.infer_topk, config.MODEL.num_classes)
    if args.filelist and not args.video_path:
        config.INFER.video_path = ""  # the configuration's
    runtime.start(config.TRAIN.use_gpu)
    prepare_folder(args.save_dir)
    cli.save_config(args, config)
    if args.timeline:
        timelines(args, config)
        return
    loader = build_loader(config, "infer", video_path=config.INFER.video_path)
    loader.start()  # clips are read while the model is made
    predictor = Predictor(args.weights, config, args.engine, None, len(loader.dataset))
    explainer = predictor.explainer() if args.explain else None
    dataset = loader.dataset
    paths = [clip.path for clip in dataset.clips]
    names = dict(zip(paths, unique_stems(paths)))
    results = []
    for result in predictor.results(loader, log_interval=args.log_interval):
        results.append(result)
        show(result)
        if explainer:
            ids = [row["class"] for row in result["predictions"]]
            name = os.path.join(args.save_dir, names[result["path"]])
            explainer.write(find_file(result["path"], dataset.folder), dataset.format, ids, name)
    loader.bad.log_total()
    path = os.path.join(args.save_dir, "predict_results.json")
    facts = {"skipped": loader.bad.summary(), "weights": predictor.weights}
    write_json(path, {"schema": SCHEMA, "results": results, **facts})
    logger.info("results are in %s", path)


def timelines(args: argparse.Namespace, config: Config) -> None:
    """A timeline of each video: its events to standard output, everything into files."""
    from engine.labels import load_labels
    from engine.timeline_run import Settings, load_parts, make_timeline
    from reader.lists import list_videos

    if not config.INFER.video_path:
        raise UserError("a timeline is of videos, and none is given", "timeline video")
    videos = list_videos(config.INFER.video_path)
    if args.render and len(videos) > 1:
        raise UserError(f"one file cannot hold copies of {len(videos)} videos", "timeline of one")
    chosen = {name: getattr(args, name) for name in Settings._fields if getattr(args, name) != ""}
    labels = load_labels(config.MODEL.labels, config.MODEL.num_classes)
    parts = load_parts(config, args.weights, args.engine, labels)
    for video, name in zip(videos, unique_stems([video.path for video in videos])):
        path = os.path.join(args.save_dir, name)
        events = make_timeline(parts, video.path, config, labels, path, Settings(**chosen))
        rows = [f"    {e.start:.2f} - {e.end:.2f} s, {labels[e.class_id]}, {e.probability:.6f}" for e in events]
        print(video.path, *(rows or ["    nothing that reaches the threshold"]), sep="\n", flush=True)
    logger.info("timelines are in %s", args.save_dir)


def show(result: dict[str, Any]) -> None:
    """Print a clip's path and its classes, a line each, to standard output."""
    print(
        result["path"],
        *(f"    {row['label']}, {row['probability']:.6f}" for row in result["predictions"]),
        sep="\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
