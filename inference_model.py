#!/usr/bin/env python
"""Export a model for a server: clips in, class probabilities out, and deploy.yaml, which says how (section INFER).

python inference_model.py --model_name=STNET --config=configs/stnet.yaml \
    --weights=checkpoints/STNET_final.pdparams --save_dir=inference_model
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from core import cli

logger = logging.getLogger("stnet")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags, with the original's names and meanings."""
    parser = cli.parser(__doc__)
    parser.add_argument("--weights", default="", metavar="FILE", help="weights; default: the released ones")
    parser.add_argument(
        "--save_dir", default="inference_model", metavar="DIR", help="where the model goes (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("paddle", "onnx"),
        default="paddle",
        help="for Paddle Inference, or for ONNX Runtime and others (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Configuration, model, export."""
    args = parse_args(argv)
    from models import model_section  # late: --help is instant

    config = cli.load_run_config(args, model_section, "INFER")

    from backends.deploy import deploy
    from core import runtime
    from engine.labels import load_labels
    from engine.loading import load_model

    runtime.start(args.use_gpu)
    labels = load_labels(config.MODEL.labels, config.MODEL.num_classes)
    model = load_model(config, "infer", args.weights, labels).model
    deviation, files = deploy(model, config.section("infer"), labels, args.save_dir, args.format)
    logger.info("%s: %s; largest deviation from the network: %.2g", args.save_dir, ", ".join(files), deviation)


if __name__ == "__main__":
    sys.exit(cli.run(main))
