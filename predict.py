#!/usr/bin/env python
"""Classify videos: files, folders, globs and lists.

python predict.py a.mp4 'clips/*.mp4' --weights=checkpoints/STNET_final.pdparams
python predict.py --model_name=STNET --config=configs/stnet.yaml --video_path=clips --output=results.jsonl
python predict.py clips --weights=checkpoints/STNET_final.pdparams --features=features.npz
python predict.py clips --similar_to=a.mp4 --weights=checkpoints/STNET_final.pdparams
python predict.py long.mp4 --weights=checkpoints/STNET_final.pdparams --timeline --window=10 --stride=2
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from stnet import cli, flags, next_step, runtime
from stnet.utils.atomic import prepare_folder
from stnet.utils.errors import UserError
from stnet.weights.metadata import load_saved_config

logger = logging.getLogger("stnet")


def main(argv: Sequence[str] | None = None) -> int:
    """Predict: configuration, device, videos, model, loop, results. Returns the exit code."""
    args = flags.parse("predict", __doc__, argv)
    check_together(args)
    config = load_saved_config(args)

    from stnet.backends.engines import ENGINES  # these need Paddle
    from stnet.export.deployed import is_deployed
    from stnet.inference import features, modes, table
    from stnet.inference.predictor import Predictor
    from stnet.quantize.run import of_flags
    from stnet.reader.loader import build_loader

    ENGINES.get(args.engine)  # an unknown name is refused before anything is read
    if args.output:
        table.check_path(args.output, args.resume or args.overwrite)
    if args.features:
        features.check_path(args.features, args.overwrite)
    runtime.start(config.TRAIN.use_gpu)
    prepare_folder(args.save_dir)
    loader = None
    if is_deployed(args.weights):
        topk, precision = args.infer_topk or None, of_flags(args)
        predictor = Predictor(args.weights, None, args.engine, None, topk, precision=precision, reject=args.reject)
        videos = modes.asked_for(args, predictor.config)
    else:
        if args.infer_topk and args.infer_topk > config.MODEL.num_classes and not args.similar_to:
            logger.warning("--infer_topk %d: there are %d classes", args.infer_topk, config.MODEL.num_classes)
        videos = modes.asked_for(args, config)
        if not (args.resume or args.timeline):
            loader = build_loader(config, "infer", clips=[video.clip for video in videos])
            loader.start()  # videos are read while the model is made
        topk, precision = config.MODEL.topk, of_flags(args)
        predictor = Predictor(
            args.weights, config, args.engine, None, topk, clips=len(videos), precision=precision, reject=args.reject
        )
        cli.save_config(args, config)
    if args.timeline:
        return modes.write_timelines(args, predictor, videos)
    if args.similar_to:
        return modes.write_similar(args, predictor, videos, loader or predictor.loader(videos))
    if args.features:
        return modes.write_features(args, predictor, videos, loader or predictor.loader(videos))
    if args.output:
        with next_step.resumable(args, "--resume"):
            return modes.predict_into_table(args, predictor, videos, loader)
    return modes.predict_into_json(args, predictor, videos, loader or predictor.loader(videos))


def check_together(args: argparse.Namespace) -> None:
    """Raise UserError where a flag would be without effect."""
    typed = dict(args.typed)
    alone = [] if args.timeline else ["window", "stride", "threshold", "hold", "shortest", "render"]
    needs = dict.fromkeys((name for name in alone if name in typed), "timeline")
    if args.resume and not args.output:
        needs["resume"] = "output"
    if args.overwrite and not (args.output or args.features or args.render):
        needs["overwrite"] = "output, --features or --render"
    for name, needed in needs.items():
        raise UserError(f"--{name} is without effect unless --{needed} is given")
    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a table, --overwrite replaces it: set one of them")
    check_outputs(args)
    for flag, effect in (("infer_topk", "infer_topk" in typed), ("reject", args.reject)):
        if args.features and effect:
            raise UserError(f"--features writes no classes: --{flag} is without effect")
    if args.similar_to and args.reject:
        raise UserError("--similar_to says no classes: --reject is without effect")


def check_outputs(args: argparse.Namespace) -> None:
    """Raise UserError where two kinds of output are asked for, or one that low precision does not have."""
    asked = [name for name in ("similar_to", "features", "timeline", "output", "explain") if getattr(args, name)]
    if args.precision not in ("fp32", "auto"):
        for name in asked:
            if name in ("explain", "features", "similar_to"):
                raise UserError(f"--{name} computes in fp32: leave out --precision")
    if len(asked) < 2 or asked == ["output", "explain"]:
        return
    if asked[0] == "timeline":
        raise UserError(f"--timeline writes files of its own: it cannot be combined with --{asked[1]}")
    raise UserError(f"--{asked[0]} writes a file of its own, without --{asked[1]}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
