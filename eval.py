#!/usr/bin/env python
"""Score weights on a labelled list (section TEST of the config).

python eval.py --model_name=STNET --config=configs/stnet.yaml --weights=checkpoints/STNET_final.pdparams
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core import cli, flags

if TYPE_CHECKING:
    from core.config import Config
    from engine.evaluation import Evaluation
    from engine.predictor import Predictor
    from reader.loader import Loader

logger = logging.getLogger("stnet")


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, data, model, loop, results."""
    args = flags.parse("eval", __doc__, argv)
    from engine.described import settings_for
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section, settings_for(args))

    from backends.deployed import is_deployed
    from backends.engines import ENGINES
    from core import next_step, parallel, runtime
    from core.atomic import prepare_folder
    from core.progress import format_scores
    from engine.described import with_sizes_of
    from engine.evaluation import Collector
    from engine.evaluator import evaluate
    from engine.predictor import Predictor
    from metrics import metric_classes
    from reader.loader import build_loader

    ENGINES.get(args.engine)  # an unknown name is refused before anything is read
    runtime.start(config.TRAIN.use_gpu)
    rank, ranks = parallel.start()
    with parallel.together():
        prepare_folder(args.save_dir)
        exported = Predictor(args.weights, engine=args.engine, device=None) if is_deployed(args.weights) else None
        if exported:
            config = with_sizes_of(exported.config, config)
        if rank == 0:
            cli.save_config(args, config)
        metrics = metric_classes(config.MODEL.metrics)
        loader = build_loader(config, "test", rank, ranks)
        loader.start()  # clips are read while the model is made
        predictor = exported or Predictor(
            args.weights, config, args.engine, None, mode="test", clips=len(loader.dataset)
        )
        engine = predictor.engine
    collector = Collector(predictor.labels, loader.bad)
    scores = evaluate(engine, loader, "eval", args.log_interval, metrics=metrics, collector=collector)
    evaluation = collector.evaluation()
    if rank == 0:
        loader.bad.log_total()
        print(format_scores(scores), flush=True)
        save(args.save_dir, config, predictor, evaluation, scores, loader)
        weights = [f"--weights={args.weights}"] if args.weights else []
        next_step.suggest(args, "predict", *weights, "--video_path=a.mp4")


def save(
    folder: str, config: Config, predictor: Predictor, evaluation: Evaluation, scores: dict[str, float], loader: Loader
) -> None:
    """Write the files of an evaluation into a folder; eval_results.json names them."""
    from core.atomic import write_json
    from core.schema import SCHEMA
    from engine.report.evaluation_page import write_report

    files = [*evaluation.save(folder, config.MODEL.topk), "report.html"]
    path = os.path.join(folder, "eval_results.json")
    facts = {"skipped": loader.bad.summary(), "weights": predictor.weights, "config": config.as_dict()}
    write_json(path, {"schema": SCHEMA, "ECE": evaluation.reliability.ece, **scores, "files": files, **facts})
    logger.info("results are in %s; beside it: %s", path, ", ".join(files))
    report = os.path.join(folder, "report.html")
    run = [("Weights", predictor.weights), ("SHA-256", predictor.digest), ("List", config.TEST.filelist)]
    write_report(report, evaluation, scores, run, config, loader.dataset)
    logger.info("report: %s", report)


if __name__ == "__main__":
    sys.exit(cli.run(main))
