"""Schemas of answers for OpenAPI, and errors in the form that each path's clients expect."""

from __future__ import annotations

import json
import uuid
from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from stnet.serve.limits import Refused

NDJSON = "application/x-ndjson"
FAULT = Refused(500, "fault", "a fault of the server: its log says more")
PADDLEX_PATHS = ("/video-classification", "/health")


class Fault(BaseModel):
    """Error of a request."""

    code: str = Field(description="a word for programs")
    message: str = Field(description="one plain line")


class ErrorAnswer(BaseModel):
    """Answer with a status of 400 or above."""

    error: Fault


class Health(BaseModel):
    """The server answers."""

    status: str = Field(description="ready")


class Category(BaseModel):
    """A class of the model, and its probability."""

    id: int
    name: str
    score: float


class Judged(BaseModel):
    """Whether a video or a window belongs to no class; only where the server was started with --reject."""

    answer: Optional[str] = Field(None, description="unknown, or the name of the most probable class")
    is_unknown: Optional[bool] = Field(None, description="true: no class; a class may be named unknown, too")
    scaled_probability: Optional[float] = Field(None, description="the largest, of logits / temperature")
    threshold: Optional[float] = Field(None, description="the least scaled probability with which there is a class")


class RejectFacts(BaseModel):
    """What makes a video unknown."""

    temperature: float
    threshold: float


class VideoFacts(BaseModel):
    """Facts about the uploaded video."""

    model_config = ConfigDict(extra="allow")

    seconds: Optional[float] = None
    frames: Optional[int] = None
    width: Optional[int] = None
    height: Optional[int] = None
    decoder: Optional[str] = None


class Segment(BaseModel):
    """A super-image: the frames that the network saw together."""

    frames: list[int] = Field(description="their numbers; the first frame that can be decoded is 0")
    seconds: list[float] = Field(description="when they are shown")
    image: Optional[str] = Field(None, description="data:image/jpeg, the frames side by side; with frames=true")


class Share(BaseModel):
    """Shares of the segments in the logit of a class."""

    model_config = ConfigDict(extra="allow")

    id: int
    name: str
    shares: list[float]


class Classified(Judged):
    """The classes of a video."""

    categories: list[Category]
    video: VideoFacts
    segments: list[Segment]
    shares: Optional[list[Share]] = Field(None, description="with shares=true")
    notes: list[str]


class Window(Judged):
    """A window of the video, and its classes."""

    start: float
    end: float
    categories: list[Category]


class Event(BaseModel):
    """A class that lasts."""

    start: float
    end: float
    id: int
    name: str
    score: float


class Timeline(BaseModel):
    """Windows and events of a video; times in seconds."""

    windows: list[Window]
    events: list[Event]
    notes: list[str]


class State(BaseModel):
    """A line while it works."""

    state: str = Field(description="queued, decoding or computing")
    seconds: Optional[float] = Field(None, description="of the video, that are done")
    of: Optional[float] = Field(None, description="seconds of the video")


class TimelineLine(BaseModel):
    """The last line of a timeline."""

    result: Timeline


class LimitsFacts(BaseModel):
    """Largest values that the server accepts."""

    model_config = ConfigDict(extra="allow")

    bytes: int
    seconds: float
    frames: int
    pixels: int
    request_seconds: float


class TimelineFacts(BaseModel):
    """Default settings of a timeline."""

    window: float
    stride: float
    threshold: float
    hold: float
    shortest: Optional[float] = Field(None, description="seconds; null: half a window")


class WeightsFacts(BaseModel):
    """Name and SHA-256 of the weights."""

    name: str = Field(description="of their file or folder")
    sha256: str


class Info(BaseModel):
    """The model and the server's limits."""

    model_config = ConfigDict(extra="allow")

    model: str
    version: str
    weights: WeightsFacts
    num_classes: int
    topk: int
    seg_num: int
    seglen: int
    precision: str
    has_shares: bool
    has_timeline: bool
    limits: LimitsFacts
    timeline: Optional[TimelineFacts] = None
    reject: Optional[RejectFacts] = Field(None, description="with --reject")


class NoResult(BaseModel):
    """PaddleX's answer without a result."""

    logId: str
    errorCode: int
    errorMsg: str


def log_id() -> str:
    """New request id, in PaddleX's form."""
    return str(uuid.uuid4())


def fault_of(refused: Refused) -> dict[str, Any]:
    """Error as plain data, for an answer or a line."""
    return {"error": {"code": refused.code, "message": refused.message}}


def error_answer(path: str, refused: Refused, given_id: str = "") -> Response:
    """Answer to a refused request, in PaddleX's form on PaddleX's paths."""
    content: dict[str, Any] = fault_of(refused)
    if path in PADDLEX_PATHS:
        content = {"logId": given_id or log_id(), "errorCode": refused.status, "errorMsg": refused.message}
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content, refused.status, headers)


def line(item: dict[str, Any]) -> bytes:
    """One line of NDJSON."""
    return json.dumps(item, ensure_ascii=False, allow_nan=False).encode() + b"\n"
