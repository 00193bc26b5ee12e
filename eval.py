#!/usr/bin/env python
"""Score weights on a labelled list (section TEST of the config).

python eval.py --model_name=STNET --config=configs/stnet.yaml --weights=checkpoints/STNET_final.pdparams
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from core import cli, flags

logger = logging.getLogger("stnet")


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, data, model, loop, results."""
    args = flags.parse("eval", __doc__, argv)
    from engine.described import settings_for
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section, settings_for(args))

    from backends.engines import ENGINES
    from core import next_step, runtime
    from core.atomic import prepare_folder, write_json
    from core.progress import format_scores
    from core.schema import SCHEMA
    from engine.evaluator import evaluate
    from engine.precision import of_flags
    from engine.predictor import Predictor
    from metrics import metric_classes
    from reader.loader import build_loader

    ENGINES.get(args.engine)  # an unknown name is refused before anything is read
    runtime.start(config.TRAIN.use_gpu)
    prepare_folder(args.save_dir)
    cli.save_config(args, config)
    metrics = metric_classes(config.MODEL.metrics)
    loader = build_loader(config, "test")
    loader.start()  # clips are read while the model is made
    predictor = Predictor(
        args.weights, config, args.engine, None, mode="test", clips=len(loader.dataset), precision=of_flags(args)
    )
    scores = evaluate(predictor.engine, loader, "eval", args.log_interval, metrics=metrics)
    loader.bad.log_total()
    path = os.path.join(args.save_dir, "eval_results.json")
    skipped = loader.bad.summary()
    facts = {"skipped": skipped, "weights": predictor.weights, "config": config.as_dict()}
    if predictor.proof:
        facts["precision"] = predictor.proof.plain()
    write_json(path, {"schema": SCHEMA, **scores, **facts})
    logger.info("results are in %s", path)
    print(format_scores(scores), flush=True)
    next_step.suggest(args, "predict", *([f"--weights={args.weights}"] if args.weights else []), "--video_path=a.mp4")


if __name__ == "__main__":
    sys.exit(cli.run(main))
