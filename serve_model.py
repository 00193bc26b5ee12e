#!/usr/bin/env python
"""Serve a model: a page to drop videos on, and an API. Ctrl-C ends it.

python serve_model.py --weights=checkpoints/STNET_final.pdparams
python serve_model.py --model_name=STNET --config=configs/stnet.yaml --host=0.0.0.0 --allowed_hosts=videos.example.org
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stnet import cli, flags

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.inference.predictor import Predictor
    from stnet.serve.server import Address

logger = logging.getLogger("stnet")
PACKAGES = {"fastapi", "fastapi_offline", "prometheus_client", "python_multipart", "uvicorn"}  # of the extra `serve`


def main(argv: Sequence[str] | None = None) -> int:
    """Configuration, address, model, server."""
    args = flags.parse("serve", __doc__, argv)
    from stnet.models import model_section  # late: --help is instant
    from stnet.weights.metadata import load_saved_config

    config = load_saved_config(args, model_section)
    check_packages()

    from stnet import runtime
    from stnet.serve import log
    from stnet.serve.server import bind

    log.set_format(args.log_json)

    address = bind(args.host, args.port)  # one that is in use is refused before the model is made
    runtime.start(config.TRAIN.use_gpu)
    predictor = predictor_of(args, config)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the server takes it over
    try:
        code = asyncio.run(serve_until_stopped(args, predictor, address))
    finally:
        address.socket.close()
    if code:
        os._exit(code)  # at once: threads may still compute
    return code


def check_packages() -> None:
    """Raise UserError where the server's packages are missing."""
    from stnet.utils.errors import UserError

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


def predictor_of(args: argparse.Namespace, config: Config) -> Predictor:
    """What classifies, as predict makes it."""
    from stnet.export.deployed import is_deployed
    from stnet.inference.predictor import Predictor
    from stnet.quantize.run import of_flags

    if is_deployed(args.weights):
        return Predictor(args.weights, None, args.engine, None, None, precision=of_flags(args))
    return Predictor(args.weights, config, args.engine, None, config.MODEL.topk, precision=of_flags(args))


async def serve_until_stopped(args: argparse.Namespace, predictor: Predictor, address: Address) -> int:
    """Answer until a signal comes. Returns the exit code."""
    from stnet.serve import server
    from stnet.serve.app import create_app
    from stnet.serve.guard import Rules
    from stnet.serve.limits import Limits
    from stnet.serve.service import Service
    from stnet.serve.uploads import UploadFolder

    limits = Limits(
        bytes=args.max_bytes, seconds=args.max_seconds, frames=args.max_frames, pixels=args.max_pixels,
        request_seconds=args.request_seconds, queue=args.queue,
    )  # fmt: skip
    given = args.token or os.environ.get("STNET_TOKEN", "")
    token = given or ("" if address.is_loopback else secrets.token_urlsafe(24))
    rules = Rules(address.is_loopback, token, frozenset(name.lower() for name in args.allowed_hosts))
    folder = UploadFolder()
    try:
        service = Service(predictor, limits, args.decoders, args.batch_window)
        await service.start()
        app = create_app(service, folder, rules, args.body_seconds, args.root_path)
        link = f"{address.url.rstrip('/')}{args.root_path}/" + (f"#token={token}" if token and not given else "")

        def say_ready() -> None:
            print(f"{predictor.config.MODEL.name} answers at {link}", flush=True)

        patience = args.drain_seconds or args.body_seconds + args.request_seconds
        return await server.serve(app, address, say_ready, service.close, patience)
    finally:
        folder.close()


if __name__ == "__main__":
    sys.exit(cli.run(main))
