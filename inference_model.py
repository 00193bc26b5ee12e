#!/usr/bin/env python
"""Export a model for paddle.inference: clips in, class probabilities out.

python inference_model.py --model_name=STNET --config=configs/stnet.yaml \
    --weights=checkpoints/STNET_final.pdparams --save_dir=inference_model
"""

import logging
import os
import sys

from engine import cli

logger = logging.getLogger("stnet")


def parse_args(argv):
    """Flags, with the original's names and meanings."""
    parser = cli.parser(__doc__)
    parser.add_argument("--weights", default="", metavar="FILE", help="weights; default: the released ones")
    parser.add_argument(
        "--save_dir", default="inference_model", metavar="DIR", help="where the model goes (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Configuration, model, export."""
    args = parse_args(argv)
    config = cli.load_run_config(args, "INFER")

    from engine import runtime
    from engine.export import export
    from engine.loading import load_model

    runtime.start(args.use_gpu)
    model, _ = load_model(config, "infer", args.weights)
    prefix = os.path.join(args.save_dir, config.MODEL.name.upper())
    deviation = export(model.network, config.section("infer"), prefix)
    logger.info("exported to %s.*; largest deviation from the dygraph model: %.2g", prefix, deviation)


if __name__ == "__main__":
    sys.exit(cli.run(main))
