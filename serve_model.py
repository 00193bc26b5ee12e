#!/usr/bin/env python
"""Serve a model: a page to drop videos on, and an API. Ctrl-C ends it.

python serve_model.py --weights=checkpoints/STNET_final.pdparams
python serve_model.py --model_name=STNET --config=configs/stnet.yaml --host=0.0.0.0 --allowed_hosts=videos.example.org
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stnet import cli, flags, runtime
from stnet.serve.limits import Limits
from stnet.utils.errors import UserError
from stnet.weights.metadata import load_saved_config

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.inference.predictor import Predictor

PACKAGES = {"fastapi", "fastapi_offline", "prometheus_client", "python_multipart", "uvicorn"}  # of the extra `serve`


def main(argv: Sequence[str] | None = None) -> int:
    """Serve: configuration, address, model, server. Returns the exit code."""
    args = flags.parse("serve", __doc__, argv)
    config = load_saved_config(args)
    check_packages()

    from stnet.serve.app import create_app  # these need the server's packages
    from stnet.serve.guard import Rules
    from stnet.serve.server import bind, serve, set_log_format
    from stnet.serve.service import Service
    from stnet.serve.uploads import UploadFolder

    set_log_format(args.log_json)
    address = bind(args.host, args.port)  # one that is in use is refused before the model is made
    runtime.start(config.TRAIN.use_gpu)
    predictor = make_predictor(args, config)

    limits = Limits(
        bytes=args.max_bytes, seconds=args.max_seconds, frames=args.max_frames, pixels=args.max_pixels,
        request_seconds=args.request_seconds, queue=args.queue,
    )  # fmt: skip
    link = f"{address.url.rstrip('/')}{args.root_path}/"
    token = args.token or os.environ.get("STNET_TOKEN", "")
    if not token and not address.is_loopback:
        token = secrets.token_urlsafe(24)
        link += f"#token={token}"  # only a new one is printed
    rules = Rules(address.is_loopback, token, frozenset(name.lower() for name in args.allowed_hosts))

    def say_ready() -> None:
        print(f"{predictor.config.MODEL.name} answers at {link}", flush=True)

    async def serve_until_stopped() -> int:
        folder = UploadFolder()
        try:
            service = Service(predictor, limits, args.decoders, args.batch_window)
            await service.start()
            app = create_app(service, folder, rules, args.body_seconds, args.root_path)
            drain_seconds = args.drain_seconds or args.body_seconds + args.request_seconds
            return await serve(app, address, say_ready, service.close, drain_seconds)
        finally:
            folder.close()

    try:
        code = asyncio.run(serve_until_stopped())
    finally:
        address.socket.close()
    if code:
        os._exit(code)  # at once: threads may still compute
    return code


def make_predictor(args: argparse.Namespace, config: Config) -> Predictor:
    """Load the model. An export has its own configuration in deploy.yaml."""
    from stnet.export.deployed import is_deployed  # these need Paddle
    from stnet.inference.predictor import Predictor
    from stnet.quantize.run import of_flags

    if is_deployed(args.weights):
        return Predictor(args.weights, None, args.engine, None, None, precision=of_flags(args), reject=args.reject)
    topk = config.MODEL.topk
    return Predictor(args.weights, config, args.engine, None, topk, precision=of_flags(args), reject=args.reject)


def check_packages() -> None:
    """Raise UserError where the server's packages are missing."""
    try:
        from stnet.serve import app  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise UserError(
            f"the server needs the package {error.name}, which is not installed",
            "bash run.sh setup serve, or pip install fastapi fastapi-offline uvicorn python-multipart "
            "prometheus-client",
        ) from None


if __name__ == "__main__":
    sys.exit(cli.run(main))
