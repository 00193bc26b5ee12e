#!/usr/bin/env python
"""Classify videos: one file, a folder, or a list (section INFER of the config).

python predict.py --model_name=STNET --config=configs/stnet.yaml --weights=checkpoints/STNET_final.pdparams \
    --video_path=clip.mp4
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from core import cli, flags

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
    loader = build_loader(config, "infer", video_path=config.INFER.video_path)
    loader.start()  # clips are read while the model is made
    predictor = Predictor(args.weights, config, args.engine, None, len(loader.dataset))
    results = []
    for result in predictor.results(loader, log_interval=args.log_interval):
        results.append(result)
        show(result)
    loader.bad.log_total()
    path = os.path.join(args.save_dir, "predict_results.json")
    facts = {"skipped": loader.bad.summary(), "weights": predictor.weights}
    write_json(path, {"schema": SCHEMA, "results": results, **facts})
    logger.info("results are in %s", path)


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
