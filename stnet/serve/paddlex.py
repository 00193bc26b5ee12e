"""PaddleX's serving contract: POST /video-classification and GET /health."""

from __future__ import annotations

import base64
import json
import re
import string
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stnet.metrics.rejection import FACTS
from stnet.serve.answers import Category, Judged, NoResult, error_answer, log_id
from stnet.serve.exchange import app_state, result_of, unless_disconnected
from stnet.serve.limits import Refused
from stnet.serve.uploads import received, too_large

router = APIRouter(tags=["PaddleX"])
PATH = "/video-classification"
_PIECE = 1 << 16  # characters of base64; a multiple of 4
_REST_BYTES = 64 << 10  # of the JSON without the video
_VIDEO = re.compile(rb'"video"\s*:\s*"')
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": NoResult} for status in (400, 401, 403, 408, 413, 422, 431, 500, 503, 504)
}


class InferRequest(BaseModel):
    """A video to classify."""

    video: str = Field(description="the video file in base64; URLs are refused")
    topk: Optional[Annotated[int, Field(gt=0)]] = None


class InferResult(Judged):
    """Its classes, the likeliest first."""

    categories: list[Category]


class InferAnswer(BaseModel):
    """PaddleX's answer with a result."""

    logId: str
    result: InferResult
    errorCode: Literal[0] = 0
    errorMsg: Literal["Success"] = "Success"


class WrongRequest(Exception):
    """A body that is not of the contract's form.

    Attributes:
        message: the faults, in PaddleX's form.
        log_id: of the request, if it has one.
    """

    def __init__(self, message: str, given: str = "") -> None:
        super().__init__(message)
        self.message, self.log_id = message, given


@router.get("/health", operation_id="checkHealth", response_model=NoResult)
async def check_health() -> Response:
    """The server is healthy."""
    return JSONResponse({"logId": log_id(), "errorCode": 0, "errorMsg": "Healthy"})


@router.post(
    PATH,
    operation_id="infer",
    response_model=InferAnswer,
    responses=_ERRORS,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": InferRequest.model_json_schema()}}}
    },
)
async def infer(request: Request) -> Response:
    """Classify a video in base64."""
    state = app_state(request)
    max_bytes = state.service.limits.bytes
    body_bytes = -(-max_bytes // 3) * 4 + _REST_BYTES  # base64 takes 4 bytes for 3
    with state.service.slot() as slot:
        async with received(request, state.folder, body_bytes, state.body_seconds, is_json=True) as path:
            try:
                async with state.one_at_a_time:
                    topk = await run_in_threadpool(unpack, Path(path), max_bytes)
            except WrongRequest as wrong:
                return error_answer(PATH, Refused(422, "request", wrong.message), wrong.log_id)
            steps = state.service.classify(path, slot=slot, topk=topk)
            result = await unless_disconnected(request.receive, result_of(steps))
    told = {key: result[key] for key in ("categories", *FACTS) if key in result}
    return JSONResponse({"logId": log_id(), "result": told, "errorCode": 0, "errorMsg": "Success"})


def unpack(path: Path, max_bytes: int) -> int | None:
    """Replace the JSON in a file by the video that it holds. Returns topk.

    Raises:
        WrongRequest: it is no such JSON.
        Refused: the video is too large, or empty.
    """
    text = path.read_bytes().removeprefix(BOM_UTF8)
    found = _VIDEO.search(text)
    start = found.end() if found else 0
    end = text.find(b'"', start) if found else 0  # base64 has no quotes, not even escaped ones
    mark = log_id()  # stands for the video while the rest is parsed
    rest = text[:start] + mark.encode() + text[end:] if found else text
    if len(rest) > _REST_BYTES + len(mark):
        fault = {"type": "too_long", "loc": "body", "msg": f"more than {_REST_BYTES} bytes beside the field video"}
        raise WrongRequest(json.dumps([fault]))
    try:
        asked = InferRequest.model_validate_json(rest)
        video = text[start:end] if found and asked.video == mark else asked.video.encode()
        if b"\\" in video:
            video = json.loads(b'"%b"' % video).encode("ascii")
        with path.open("wb") as file:
            file.writelines(_decoded(video))
            size = file.tell()
    except ValidationError as error:
        raise WrongRequest(json.dumps([_plain(fault) for fault in error.errors()]), _log_id_in(rest)) from None
    except ValueError:
        fault = {"type": "base64", "loc": "body.video", "msg": "expected a file in base64; URLs and paths are refused"}
        raise WrongRequest(json.dumps([fault]), _log_id_in(rest)) from None
    if not size:
        raise Refused(422, "empty", "the upload is empty: 0 bytes")
    if size > max_bytes:
        raise too_large(max_bytes)
    return asked.topk


def _decoded(text: bytes) -> Iterator[bytes]:
    """Decode base64 piece by piece, so that other threads can run. Raises ValueError."""
    text = text.translate(None, string.whitespace.encode())
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        if b"=" in piece and start + _PIECE < len(text):
            raise ValueError("it ends before its end")
        yield base64.b64decode(piece, validate=True)


def _plain(fault: Any) -> dict[str, str]:
    """Fault in PaddleX's form: a dotted location, without the value given."""
    location = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault["loc"])
    return {"type": fault["type"], "loc": f"body{location}", "msg": fault["msg"]}


def _log_id_in(text: bytes) -> str:
    try:
        given = json.loads(text).get("logId")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return given[:200].encode(errors="replace").decode() if isinstance(given, str) else ""
