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

from core import cli

if TYPE_CHECKING:
    from core.config import Config
    from engine.trainer import Trainer


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags, with the original's names and meanings."""
    parser = cli.parser(__doc__)
    cli.add_run_flags(parser, save_dir="checkpoints")
    parser.add_argument("--learning_rate", type=cli.optional(float), metavar="RATE", help="initial learning rate")
    parser.add_argument("--epoch", type=cli.optional(cli.positive_int), metavar="N", help="epochs")
    parser.add_argument(
        "--pretrain",
        default="",
        metavar="FILE",
        help="an ImageNet ResNet or a StNet to start from; released: the released StNet; none: random values; "
        "default: TRAIN.pretrain of the config, or else the released ResNet-50",
    )
    parser.add_argument(
        "--resume",
        default="",
        metavar="FILE",
        help="checkpoint to go on from, weights to fine-tune, or auto: the newest checkpoint in save_dir",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew in a save_dir that holds another run: its checkpoints and logs are removed",
    )
    parser.add_argument(
        "--valid_interval",
        type=cli.optional(int),
        default=1,
        metavar="N",
        help="epochs between validations; 0: none (default: %(default)s)",
    )
    parser.add_argument(
        "--fix_random_seed",
        type=cli.optional(cli.boolean),
        default=False,
        metavar="True|False",
        help="same seed, same machine: the same losses",
    )
    parser.add_argument("--no_memory_optimize", action="store_true", help="accepted for old scripts; has no effect")
    parser.add_argument("--dry_run", action="store_true", help="check config, lists, files, weights and one step; stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, device, folder, data and model, loop, in that order."""
    args = parse_args(argv)
    overrides = []
    if args.learning_rate is not None:
        overrides.append(f"TRAIN.learning_rate={args.learning_rate}")
    if args.epoch is not None:
        overrides.append(f"TRAIN.epoch={args.epoch}")
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section, "TRAIN", overrides)
    name = config.MODEL.name.upper()

    from core import parallel, runtime
    from core.atomic import claimed, prepare_folder
    from core.progress import format_scores
    from engine import checkpoint, resume
    from engine.dry_run import dry_run
    from engine.loading import start_training_from

    runtime.start(args.use_gpu)
    rank, ranks = parallel.start()
    with parallel.together():
        prepare_folder(args.save_dir)
    with contextlib.ExitStack() as run:

        def take_folder() -> str:
            if not args.dry_run:
                run.enter_context(claimed(args.save_dir))
                checkpoint.finish_all(args.save_dir, name)
            return resume.choose(args.resume, args.overwrite, args.save_dir, name)

        start = parallel.on_main(take_folder)
        trainer = make_trainer(args, config)
        with parallel.together():
            if start:
                trainer.resume(start, may_be_done=args.resume == "auto")
            else:
                start_training_from(trainer.model, args.pretrain or config.TRAIN.pretrain)
        if ranks > 1:
            parallel.require_same(trainer.start_facts())
        if args.dry_run:
            dry_run(trainer)
            return
        parallel.gather(None)  # until every rank has read what it starts from
        if rank == 0:
            resume.clear(args.save_dir, name, trainer.progress.step, args.overwrite)
        scores = trainer.fit()
    trainer.loader.bad.log_total()
    if scores:
        print(f"last validation: {format_scores(scores)}", flush=True)


def make_trainer(args: argparse.Namespace, config: Config) -> Trainer:
    """The trainer of the flags and the configuration: data, model, seed."""
    from backends.normalizer import Normalizer
    from core import parallel, runtime
    from engine.labels import labels_for_training
    from engine.trainer import Trainer
    from models import get_model
    from models.model import decay_steps
    from reader.loader import build_loader

    rank, ranks = parallel.rank(), parallel.ranks()
    valid_interval = args.valid_interval or 0
    seed = parallel.gather(runtime.seed_everything(args.fix_random_seed))[0]
    quarantine = os.path.join(args.save_dir, "quarantine.list")
    with parallel.together():
        loader = build_loader(config, "train", rank, ranks, seed, quarantine=quarantine)
        valid_loader = build_loader(config, "valid", rank, ranks, quarantine=quarantine) if valid_interval > 0 else None
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
        log_interval=args.log_interval or 10,
        valid_interval=valid_interval,
        labels=labels_for_training(config.MODEL.labels, config.MODEL.num_classes),
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
