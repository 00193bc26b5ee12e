#!/usr/bin/env python
"""Score weights on a labelled list (section TEST of the config).

python eval.py --model_name=STNET --config=configs/stnet.yaml --weights=checkpoints/STNET_final.pdparams
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stnet import cli, flags, next_step, runtime
from stnet.config import Config
from stnet.utils.atomic import exclusive_lock, os_errors_as_user_errors, prepare_folder, write_json
from stnet.utils.schema import SCHEMA
from stnet.weights.metadata import load_saved_config, with_sizes_of

if TYPE_CHECKING:
    from stnet.report.data import DataSection

logger = logging.getLogger("stnet")
# Keys of eval_results.json that no metric may take.
RESERVED = ("schema", "ECE", "files", "skipped", "weights", "config", "precision")


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate the flags' weights, and print the scores."""
    args = flags.parse("eval", __doc__, argv)
    scores = evaluate_weights(args, load_saved_config(args))
    if scores is not None:
        print(scores, flush=True)
        words = [f"--weights={args.weights}"] if args.weights else []
        words += ["--reject"] if args.reject else []
        next_step.suggest(args, "predict", *words, "--video_path=a.mp4")


def evaluate_weights(args: argparse.Namespace, config: Config, data: DataSection | None = None) -> str | None:
    """Evaluate: device, data and model, loop, results.

    Args:
        args: flags of eval.
        config: with the list in section TEST.
        data: section of report.html about the clips.

    Returns:
        the scores as text; None on other ranks than 0.
    """
    from stnet import parallel  # these need Paddle
    from stnet.backends.engines import ENGINES
    from stnet.evaluation.files import keep_rejection, write_files
    from stnet.evaluation.loop import evaluate
    from stnet.evaluation.report import write_report
    from stnet.evaluation.results import Collector
    from stnet.export.deployed import is_deployed
    from stnet.inference.predictor import Predictor
    from stnet.metrics import metric_classes
    from stnet.quantize.run import of_flags
    from stnet.reader.loader import build_loader
    from stnet.utils.progress import format_scores

    ENGINES.get(args.engine)  # an unknown name is refused before anything is read
    runtime.start(config.TRAIN.use_gpu)
    rank, ranks = parallel.start()
    with parallel.raise_on_all_ranks():
        prepare_folder(args.save_dir)
    with contextlib.ExitStack() as run:
        parallel.run_on_rank0(lambda: run.enter_context(exclusive_lock(args.save_dir)))

        # Data and model
        with parallel.raise_on_all_ranks():
            precision, exported = of_flags(args), None
            if is_deployed(args.weights):
                exported = Predictor(args.weights, None, args.engine, None, precision=precision)
                config = with_sizes_of(exported.config, config)
            metrics = metric_classes(config.MODEL.metrics)
            loader = build_loader(config, "test", rank, ranks)
            loader.start()  # clips are read while the model is made
            clips = len(loader.dataset)
            predictor = exported or Predictor(
                args.weights, config, args.engine, None, mode="test", clips=clips, precision=precision
            )
            validation = predictor.report  # one rank makes it, while the others wait for its file
        precision_of_first = parallel.gather(validation.precision if validation else "fp32")[0]
        with parallel.raise_on_all_ranks():
            predictor.engines.set_precision(precision_of_first)
            engine = predictor.engine

        # Loop
        collector = Collector(predictor.labels, loader.bad)
        reserved = (*RESERVED, "reject") if args.reject else RESERVED
        scores = evaluate(
            engine, loader, "eval", args.log_interval, metrics=metrics, collector=collector, reserved=reserved
        )
        evaluation = collector.evaluation(args.reject or None)
        if rank != 0:
            return None
        loader.bad.log_total()

        # Results; eval_results.json, which names the other files, is removed first and written last
        path, report = (os.path.join(args.save_dir, name) for name in ("eval_results.json", "report.html"))
        with os_errors_as_user_errors(path), contextlib.suppress(FileNotFoundError):
            os.remove(path)
        cli.save_config(args, config)
        files = [*write_files(evaluation, args.save_dir, config.MODEL.topk), "report.html"]
        source = [("Weights", predictor.weights), ("SHA-256", predictor.digest), ("List", config.TEST.filelist)]
        write_report(report, evaluation, scores, source, config, loader.dataset, data)
        facts = {"skipped": loader.bad.summary(), "weights": predictor.weights, "config": config.as_dict()}
        if predictor.report:
            facts["precision"] = predictor.report.to_dict()
        if evaluation.fitted_rejection:
            facts["reject"] = evaluation.fitted_rejection.facts
        write_json(path, {"schema": SCHEMA, "ECE": evaluation.reliability.ece, **scores, "files": files, **facts})
        logger.info("results are in %s; beside it: %s", path, ", ".join(files))
        logger.info("report: %s", report)
        if args.reject and not keep_rejection(evaluation, predictor.weights, predictor.digest, config):
            args.reject = ""  # nothing was kept that predict could use
        return format_scores(scores)


if __name__ == "__main__":
    sys.exit(cli.run(main))
