#!/usr/bin/env python
"""Train a model.

python train.py --model_name=STNET --config=configs/stnet.yaml
python train.py --config=configs/stnet.yaml --resume=auto
python train.py --config=configs/stnet.yaml -o TRAIN.filelist=my/train.list -o TRAIN.learning_rate=0.001
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from stnet import cli, flags, next_step, runtime
from stnet.config import Config
from stnet.models import get_model, model_section
from stnet.models.model import decay_steps
from stnet.utils.atomic import exclusive_lock, prepare_folder


def main(argv: Sequence[str] | None = None) -> None:
    """Train by the flags' configuration, and print the last validation's scores."""
    args = flags.parse("train", __doc__, argv)
    config = cli.load_run_config(args, model_section)
    scores = train(args, config)
    if scores:
        print(f"last validation: {scores}", flush=True)
    if scores is not None:
        final = os.path.join(args.save_dir, f"{config.MODEL.name.upper()}_final.pdparams")
        next_step.suggest(args, "eval", f"--weights={final}")


def train(args: argparse.Namespace, config: Config) -> str | None:
    """Train: device, folder, data and model, weights, loop.

    Returns:
        the last validation's scores as text, "" without one; None after a dry run, and on other ranks than 0.
    """
    from stnet import parallel  # these need Paddle
    from stnet.models.normalizer import Normalizer
    from stnet.reader.loader import build_loader
    from stnet.training import resume
    from stnet.training.dry_run import dry_run
    from stnet.training.feature_cache import on_features, prepare
    from stnet.training.trainer import Trainer
    from stnet.utils.progress import format_scores
    from stnet.weights import checkpoint
    from stnet.weights.labels import labels_for_training
    from stnet.weights.loading import start_training_from

    name, options = config.MODEL.name.upper(), config.TRAIN
    runtime.start(options.use_gpu)
    rank, ranks = parallel.start()
    with parallel.raise_on_all_ranks():
        prepare_folder(args.save_dir)
    with contextlib.ExitStack() as run:

        def take_folder() -> str:
            if not args.dry_run:
                run.enter_context(exclusive_lock(args.save_dir))
                checkpoint.finish_all(args.save_dir, name)
            return resume.choose(args.resume, args.overwrite, args.save_dir, name)

        start = parallel.run_on_rank0(take_folder)

        # Data and model
        seed = parallel.gather(runtime.seed_everything(args.fix_random_seed))[0]
        quarantine = os.path.join(args.save_dir, "quarantine.list")
        valid_loader = None
        with parallel.raise_on_all_ranks():
            loader = build_loader(config, "train", rank, ranks, seed, quarantine=quarantine)
            if args.valid_interval > 0:
                valid_loader = build_loader(config, "valid", rank, ranks, quarantine=quarantine)
            if options.feature_cache and not args.dry_run:
                loader, valid_loader = on_features(loader, valid_loader, options)
            model = get_model(config.MODEL.name, config, "train")
        videos, batch_size = options.total_videos or len(loader.dataset), options.batch_size * options.accumulate_steps
        trainer = Trainer(
            model,
            Normalizer(config.MODEL.image_mean, config.MODEL.image_std),
            loader,
            valid_loader,
            steps=decay_steps(options.epoch, videos, batch_size),
            save_dir=args.save_dir,
            seed=seed,
            log_interval=args.log_interval,
            valid_interval=args.valid_interval,
            labels=labels_for_training(config.MODEL.labels, config.MODEL.num_classes),
        )

        # Weights to start from
        with parallel.raise_on_all_ranks():
            if start:
                trainer.resume(start, may_be_done=args.resume == "auto")
            else:
                start_training_from(trainer.model, options.pretrain)
        if ranks > 1:
            parallel.require_equal_across_ranks(trainer.start_facts())
        if args.dry_run:
            dry_run(trainer)
            return None
        parallel.gather(None)  # until every rank has read what it starts from
        if rank == 0:
            resume.clear(args.save_dir, name, trainer.progress.step, args.overwrite)
            cli.save_config(args, config)

        # Loop
        with next_step.resumable(args, "--resume=auto"):
            prepare(trainer.model, loader, valid_loader, log_interval=args.log_interval)
            scores = trainer.fit()
    trainer.loader.bad.log_total()
    if rank != 0:
        return None
    return format_scores(scores) if scores else ""


if __name__ == "__main__":
    sys.exit(cli.run(main))
