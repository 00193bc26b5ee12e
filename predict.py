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

from core import cli

logger = logging.getLogger("stnet")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags, with the original's names and meanings."""
    parser = cli.parser(__doc__)
    cli.add_run_flags(parser, save_dir="results")
    cli.add_engine_flag(parser)
    parser.add_argument("--weights", default="", metavar="FILE", help="weights; default: the released ones")
    parser.add_argument("--video_path", default="", metavar="PATH", help="a video, or a folder of videos")
    parser.add_argument("--filelist", default="", metavar="FILE", help="list of videos, labels optional")
    parser.add_argument(
        "--infer_topk",
        type=cli.optional(cli.positive_int),
        metavar="K",
        help="classes per clip; default: MODEL.topk of the config",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, data, model, loop, results."""
    args = parse_args(argv)
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section, "INFER")

    from backends.engines import ENGINES
    from core import runtime
    from core.atomic import prepare_folder, write_json
    from core.schema import SCHEMA
    from engine.predictor import Predictor, log_predictions
    from reader.loader import build_loader

    engine_name = args.engine or "auto"
    ENGINES.get(engine_name)  # an unknown name is refused before anything is read
    runtime.start(args.use_gpu)
    prepare_folder(args.save_dir)
    video_path = args.video_path or ("" if args.filelist else config.INFER.video_path)
    loader = build_loader(config, "infer", filelist=args.filelist, video_path=video_path)
    loader.start()  # clips are read while the model is made
    predictor = Predictor(args.weights, config, engine_name, None, len(loader.dataset))
    results = list(predictor.results(loader, args.infer_topk, args.log_interval or 10))
    log_predictions(results)
    loader.bad.log_total()
    path = os.path.join(args.save_dir, "predict_results.json")
    facts = {"skipped": loader.bad.summary(), "weights": predictor.weights}
    write_json(path, {"schema": SCHEMA, "results": results, **facts})
    logger.info("results are in %s", path)


if __name__ == "__main__":
    sys.exit(cli.run(main))
