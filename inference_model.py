#!/usr/bin/env python
"""Export a model for a server: clips in, class probabilities out, and deploy.yaml, which says how (section INFER).

python inference_model.py --model_name=STNET --config=configs/stnet.yaml --uint8
python inference_model.py --weights=checkpoints/STNET_final.pdparams --save_dir=inference_model
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from stnet import cli, flags, next_step, runtime
from stnet.utils.errors import UserError
from stnet.weights.metadata import load_saved_config

logger = logging.getLogger("stnet")


def main(argv: Sequence[str] | None = None) -> None:
    """Export: configuration, model, files."""
    args = flags.parse("inference", __doc__, argv)
    config = load_saved_config(args)

    from stnet.backends.engines import Task  # these need Paddle
    from stnet.export.deploy import deploy
    from stnet.export.formats import exporter
    from stnet.quantize.run import of_flags, to_deploy
    from stnet.weights.labels import labels_for
    from stnet.weights.loading import load_model
    from stnet.weights.rejection import read_rejection

    exporter(args.format)  # an unknown one is refused first
    runtime.start(config.TRAIN.use_gpu)
    precision = of_flags(args)
    labels = labels_for(config.MODEL.labels, config.MODEL.num_classes, args.weights)
    model, path, digest = load_model(config, "infer", args.weights, labels)
    section = config.section("infer")
    engine = to_deploy(Task(model, section, digest=digest), config, precision, args.format)
    try:
        rejection = read_rejection(path, digest)
    except UserError as error:
        rejection = None
        logger.warning("the export has no threshold for unknown clips: %s; %s", error, error.hint)
    deviation, files = deploy(model, section, labels, args.save_dir, args.format, args.uint8, engine, rejection)
    logger.info("%s: %s; largest deviation from the network: %.2g", args.save_dir, ", ".join(files), deviation)
    next_step.suggest_deployed(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
