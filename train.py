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
from typing import TYPE_CHECKING

from stnet import cli, flags

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, folder, data and model, loop, in that order."""
    args = flags.parse("train", __doc__, argv)
    from stnet.models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section)
    name = config.MODEL.name.upper()

    from stnet import next_step, parallel, runtime
    from stnet.training import resume
    from stnet.training.dry_run import dry_run
    from stnet.utils.atomic import exclusive_lock, prepare_folder
    from stnet.utils.progress import format_scores
    from stnet.weights import checkpoint
    from stnet.weights.loading import start_training_from

    runtime.start(config.TRAIN.use_gpu)
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
        trainer = make_trainer(args, config)
        with parallel.raise_on_all_ranks():
            if start:
                trainer.resume(start, may_be_done=args.resume == "auto")
            else:
                start_training_from(trainer.model, config.TRAIN.pretrain)
        if ranks > 1:
            parallel.require_equal_across_ranks(trainer.start_facts())
        if args.dry_run:
            dry_run(trainer)
            return
        parallel.gather(None)  # until every rank has read what it starts from
        if rank == 0:
            resume.clear(args.save_dir, name, trainer.progress.step, args.overwrite)
            cli.save_config(args, config)
        with next_step.going_on(args, "--resume=auto"):
            scores = trainer.fit()
    trainer.loader.bad.log_total()
    if scores:
        print(f"last validation: {format_scores(scores)}", flush=True)
    if rank == 0:
        next_step.suggest(args, "eval", f"--weights={os.path.join(args.save_dir, name)}_final.pdparams")


def make_trainer(args: argparse.Namespace, config: Config) -> Trainer:
    """The trainer of the flags and the configuration: data, model, seed."""
    from stnet import parallel, runtime
    from stnet.models import get_model
    from stnet.models.model import decay_steps
    from stnet.models.normalizer import Normalizer
    from stnet.reader.loader import build_loader
    from stnet.training.trainer import Trainer
    from stnet.weights.labels import labels_for_training

    rank, ranks = parallel.rank(), parallel.ranks()
    seed = parallel.gather(runtime.seed_everything(args.fix_random_seed))[0]
    quarantine = os.path.join(args.save_dir, "quarantine.list")
    with parallel.raise_on_all_ranks():
        loader = build_loader(config, "train", rank, ranks, seed, quarantine=quarantine)
        valid_loader = (
            build_loader(config, "valid", rank, ranks, quarantine=quarantine) if args.valid_interval > 0 else None
        )
        model = get_model(config.MODEL.name, config, "train")
    train = config.TRAIN
    return Trainer(
        model,
        Normalizer(config.MODEL.image_mean, config.MODEL.image_std),
        loader,
        valid_loader,
        steps=decay_steps(
            train.epoch, train.total_videos or len(loader.dataset), train.batch_size * train.accumulate_steps
        ),
        save_dir=args.save_dir,
        seed=seed,
        log_interval=args.log_interval,
        valid_interval=args.valid_interval,
        labels=labels_for_training(config.MODEL.labels, config.MODEL.num_classes),
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
