"""Requests, their outcome and duration: a line in the log, and GET /metrics for Prometheus."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterator
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stnet.serve.service import Service

logger = logging.getLogger("stnet")
_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_QUIET = ("/health", "/health/live", "/health/ready", "/metrics")  # asked again and again by machines
_METHODS = ("GET", "HEAD", "POST")


class Metrics:
    """Middleware that counts and logs the requests of an application.

    Args:
        app: the application.
        registry: of the metrics.
        paths: counted each by its own name; all others as "other", as clients may ask for any.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, paths: frozenset[str]) -> None:
        self.app, self.paths = app, paths
        labels = ["method", "path"]
        self._requests = Counter(
            "stnet_http_requests", "Requests that were answered", [*labels, "status"], registry=registry
        )
        self._seconds = Histogram(
            "stnet_http_request_seconds", "From a request's head to the end of its answer", labels,
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self._bytes = Counter("stnet_http_received_bytes", "Bytes of bodies", registry=registry)
        self._running = Gauge("stnet_http_requests_running", "Requests that are being answered", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")  # a proxy may have set one
        request_id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)
        status = "499"  # the client went away before there was an answer

        async def receive_counted() -> Message:
            message = await receive()
            self._bytes.inc(len(message.get("body", b"")))
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "other"
        path = scope["path"] if scope["path"] in self.paths else "other"
        began = time.monotonic()
        with self._running.track_inprogress():
            try:
                await self.app(scope, receive_counted, send_noted)
            finally:
                seconds = time.monotonic() - began
                self._seconds.labels(method, path).observe(seconds)
                self._requests.labels(method, path, status).inc()
                if scope["path"] not in _QUIET:
                    asked = quote(scope["path"][:80])
                    fields = {"method": method, "path": asked, "status": int(status), "seconds": round(seconds, 3)}
                    logger.info(
                        "%s %s: %s, %.2f s, request %s", method, asked, status, seconds, request_id,
                        extra={"fields": {**fields, "request_id": request_id}},
                    )  # fmt: skip


class ServiceCollector(Collector):
    """Counters of a service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """Current values."""
        stats = self.service.stats
        yield InfoMetricFamily("stnet_model", "The weights that answer", self.service.weights())
        yield GaugeMetricFamily("stnet_places", "Requests accepted at once, at most", self.service.limits.queue)
        yield GaugeMetricFamily("stnet_places_taken", "Requests accepted and not yet answered", stats.queue)
        requests = CounterMetricFamily("stnet_requests", "Requests by how they ended", labels=["what", "outcome"])
        for labels, count in list(stats.requests.items()):
            requests.add_metric(labels, count)
        yield requests
        batches = CounterMetricFamily("stnet_batches", "Computations by the videos in them", labels=["size"])
        for size, count in list(stats.batches.items()):
            batches.add_metric([str(size)], count)
        yield batches
        for name, text, value in (
            ("decodings", "Videos that were read", stats.decodings),
            ("decoders_died", "Decoding processes that crashed or were killed", stats.decoders_died),
            ("decoding_seconds", "Time of reading", stats.decoding_seconds),
            ("computing_seconds", "Time of the network", stats.computing_seconds),
        ):
            yield CounterMetricFamily(f"stnet_{name}", text, value)


def registry_of(service: Service) -> CollectorRegistry:
    """Metrics of this process and of a service."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(ServiceCollector(service))
    return registry
