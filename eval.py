#!/usr/bin/env python
"""Score weights on a labelled list (section TEST of the config).

python eval.py --model_name=STNET --config=configs/stnet.yaml --weights=checkpoints/STNET_final.pdparams
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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, data, model, loop, results."""
    args = parse_args(argv)
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section, "TEST")

    from backends.engines import make_engine
    from core import runtime
    from core.atomic import prepare_folder, write_json
    from core.progress import format_scores
    from core.schema import SCHEMA
    from engine.evaluator import evaluate
    from engine.loading import load_model
    from metrics import metric_classes
    from reader.loader import build_loader

    runtime.start(args.use_gpu)
    prepare_folder(args.save_dir)
    metrics = metric_classes(config.MODEL.metrics)
    loader = build_loader(config, "test")
    loader.start()  # clips are read while the model is made
    model, weights = load_model(config, "test", args.weights)
    engine = make_engine(args.engine or "auto", model, config.section("test"), len(loader.dataset))
    scores = evaluate(engine, loader, "eval", args.log_interval or 10, metrics=metrics)
    loader.bad.log_total()
    path = os.path.join(args.save_dir, "eval_results.json")
    skipped = loader.bad.summary()
    facts = {"skipped": skipped, "weights": weights, "config": config.as_dict()}
    write_json(path, {"schema": SCHEMA, **scores, **facts})
    logger.info("results are in %s", path)
    print(format_scores(scores), flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
