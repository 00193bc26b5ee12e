"""The application: paths of the API, of the page and of the documentation, behind the guard."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any, Optional

import fastapi_offline
from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stnet.serve import paddlex
from stnet.serve.answers import FAULT, NDJSON, Classified, ErrorAnswer, Health, Info, State, TimelineLine, error_answer
from stnet.serve.exchange import AppState, answer, app_state
from stnet.serve.guard import Guard, Rules
from stnet.serve.limits import Refused
from stnet.serve.metrics import Metrics, registry_of
from stnet.serve.service import Service
from stnet.serve.uploads import UploadFolder

logger = logging.getLogger("stnet")
PAGE = Path(__file__).with_name("page")
_SWAGGER = Path(fastapi_offline.__file__).with_name("static")
_DOCS = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>StNet API</title>
<link rel="icon" href="static/icon.svg"><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script>
</body></html>"""
_DOCS_START = "SwaggerUIBundle({url: 'openapi.json', dom_id: '#swagger-ui', validatorUrl: null});"
_VIDEO = {"type": "string", "format": "binary"}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the video, as the field `file` of a form or as the body",
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": _VIDEO}}},
            "application/octet-stream": {"schema": _VIDEO},
            "video/*": {"schema": _VIDEO},
        },
    }
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in (401, 403, 431, 500, *statuses)}


_UPLOAD_ERRORS = _errors(400, 408, 413, 415, 422, 503, 504)
_LINES = {"description": "NDJSON: lines while it works, the last one with the result, or with an error"}

api = APIRouter(prefix="/api", tags=["StNet"])


@api.get("/info", response_model=Info, responses=_errors())
async def info(request: Request) -> Response:
    """The model, and the limits of this server."""
    return JSONResponse(app_state(request).service.info())


@api.post(
    "/classify",
    response_model=Classified,
    responses={**_UPLOAD_ERRORS, 200: {**_LINES, "content": {NDJSON: {"schema": State.model_json_schema()}}}},
    openapi_extra=_UPLOAD,
)
async def classify(
    request: Request,
    topk: Annotated[Optional[int], Query(ge=1, description="classes in the answer; default: the model's")] = None,
    frames: Annotated[bool, Query(description="with a small picture of each segment's frames")] = False,
    shares: Annotated[bool, Query(description="with what each segment adds to each class")] = False,
) -> Response:
    """Classify a video. With `Accept: application/x-ndjson`, the answer is lines with the progress."""
    service = app_state(request).service
    return await answer(
        request,
        lambda path, slot: service.classify(path, slot=slot, topk=topk, frames=frames, shares=shares),
        as_lines=NDJSON in request.headers.get("accept", ""),
    )


_Seconds = Query(gt=0, allow_inf_nan=False, description="seconds")
_Probability = Query(ge=0, le=1, allow_inf_nan=False, description="a probability")


@api.post(
    "/timeline",
    response_class=Response,
    responses={**_UPLOAD_ERRORS, 200: {**_LINES, "content": {NDJSON: {"schema": TimelineLine.model_json_schema()}}}},
    openapi_extra=_UPLOAD,
)
async def timeline(
    request: Request,
    window: Annotated[Optional[float], _Seconds] = None,
    stride: Annotated[Optional[float], _Seconds] = None,
    threshold: Annotated[Optional[float], _Probability] = None,
    hold: Annotated[Optional[float], _Probability] = None,
    shortest: Annotated[Optional[float], Query(ge=0, allow_inf_nan=False, description="seconds")] = None,
) -> Response:
    """Find windows and events of a long video: lines with the progress. /api/info has the default settings."""
    service = app_state(request).service
    settings = {"window": window, "stride": stride, "threshold": threshold, "hold": hold, "shortest": shortest}
    given = {name: value for name, value in settings.items() if value is not None}
    return await answer(request, lambda path, slot: service.timeline(path, slot=slot, **given), as_lines=True)


def create_app(
    service: Service, folder: UploadFolder, rules: Rules, body_seconds: float = 60.0, root_path: str = ""
) -> ASGIApp:
    """Build the application, in the event loop that runs it.

    Args:
        service: classifies; started.
        folder: for uploads.
        rules: which requests are answered.
        body_seconds: timeout of an upload.
        root_path: path prefix under which a reverse proxy serves this application, such as "/stnet".
    """
    bearer = [Depends(HTTPBearer(auto_error=False, description="only where the server was started with a token"))]
    app = FastAPI(
        title="StNet",
        version=str(service.info()["version"]),
        docs_url=None,
        redoc_url=None,
        servers=[{"url": root_path}] if root_path else None,
        redirect_slashes=not root_path,  # a redirect would leave the prefix out
    )
    app.state.state = AppState(service, folder, body_seconds, asyncio.Lock())
    app.include_router(api, dependencies=bearer)
    app.include_router(paddlex.router, dependencies=bearer)
    registry = registry_of(service)
    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", dependencies=bearer, response_class=Response, responses={**text, **_errors()})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/health/live", response_model=Health)
    @app.get("/health/ready", response_model=Health)
    async def health() -> Response:  # live and ready are one: the port opens when the server is ready, until it ends
        """The server is ready."""
        return JSONResponse({"status": "ready"})

    _add_pages(app)
    _add_errors(app)
    paths = frozenset(app.openapi()["paths"]) | {"/", "/docs", "/openapi.json"}
    guarded = Metrics(Guard(app, rules), registry, paths)
    return _strip_prefix(guarded, root_path) if root_path else guarded


def _strip_prefix(app: ASGIApp, root_path: str) -> ASGIApp:
    """Accept requests of reverse proxies that keep the prefix as well as of those that remove it."""

    async def stripped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == root_path:
            await RedirectResponse(root_path + "/")(scope, receive, send)  # the page's addresses are relative
            return
        if scope["type"] == "http" and scope["path"].startswith(root_path + "/"):
            scope = {**scope, "path": scope["path"][len(root_path) :]}
        await app(scope, receive, send)

    return stripped


def _add_pages(app: FastAPI) -> None:
    """Add the page and Swagger UI, without files from other servers."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_DOCS)

    @app.get("/docs/start.js", include_in_schema=False)
    async def docs_start() -> Response:
        return Response(_DOCS_START, media_type="text/javascript")

    app.mount("/docs", StaticFiles(directory=_SWAGGER))
    app.mount("/static", StaticFiles(directory=PAGE, check_dir=False))


def _add_errors(app: FastAPI) -> None:
    """Answer every error with one plain line, in the form of its path."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error_answer(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return error_answer(request.url.path, Refused(422, "parameter", "; ".join(faults)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        response = error_answer(request.url.path, Refused(error.status_code, "http", str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # which nobody reads

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return error_answer(request.url.path, FAULT)
