"""For those who run the server: health, readiness, metrics, the API's own description."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.samples import Sample

from neuro.domain.errors import Unavailable
from neuro.server.http.error_forms import PAGE
from neuro.server.http.openapi import describe
from neuro.server.http.pages import front_page
from neuro.server.http.routes import FOR_ALL_USERS, Call, Route, Routes, json_response, route_of
from neuro.server.http.version import PING, SECURED_PING

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str
    details: list[str] = []


class SortedRegistry(CollectorRegistry):
    """Tells metrics by name and labels, so that two scrapes can be compared line by line."""

    def collect(self) -> Iterator[Metric]:
        """For the exposition; the buckets of a histogram stay in their order."""
        for family in sorted(super().collect(), key=lambda one: one.name):
            family.samples.sort(key=_labels)
            yield family


def _labels(sample: Sample) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in sample.labels.items() if name != "le")


class Metrics:
    """Counts and times of requests; others add theirs to the ``registry``."""

    def __init__(self) -> None:
        self.registry = SortedRegistry()
        self._requests = Counter(
            "neuro_http_requests",
            "Requests that were answered, by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "neuro_http_request_seconds",
            "Time to answer a request, without streams.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def middleware(self) -> Middleware:
        """Counts every request behind it."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            started = time.perf_counter()
            response = await handler(request)
            route = route_of(request)
            path = route.name if route else "unknown"
            self._requests.labels(request.method, path, str(response.status)).inc()
            if route is not None and route.streams is None:
                seconds = time.perf_counter() - started
                self._seconds.labels(request.method, path).observe(seconds)
            return response

        return count

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def operation_routes(
    metrics: Metrics,
    troubles: Callable[[], Awaitable[list[str]]],
    away: Callable[[], list[str]],
    all_routes: list[Route],
    version: str,
) -> Routes:
    """Routes that tell of the server, and of nobody's work: all but one need no token.

    ``troubles`` gives a sentence for each thing that keeps the server from its work, ``away`` one
    for each engine without which it does the rest of it.
    """
    api = Routes("operations")

    @api.add("GET", PING, public=True, probe=True)
    async def ping(call: Call) -> Health:
        """Whether the server answers."""
        return Health("ok")

    @api.add("GET", SECURED_PING, inside=FOR_ALL_USERS)
    async def secured_ping(call: Call) -> Health:
        """Whether the server answers, and knows the caller's token."""
        return Health("ok")

    @api.add("GET", "/", public=True, errors=PAGE)
    async def front(call: Call) -> web.Response:
        """What this address is, for browsers."""
        return web.Response(text=front_page(version), content_type="text/html")

    @api.add("GET", "/health", public=True, probe=True)
    async def health(call: Call) -> Health:
        """Whether the process lives."""
        return Health("ok")

    @api.add("GET", "/ready", public=True, probe=True)
    async def ready(call: Call) -> Health:
        """Whether jobs can be started and recorded, and background tasks go on; 503 if not.

        The details name the engines that are away: jobs of the others go on.
        """
        if found := await troubles():
            raise Unavailable(" ".join([*found, *away()]))
        return Health("ready", away())

    @api.add("GET", "/metrics", public=True, probe=True)
    async def get_metrics(call: Call) -> web.Response:
        """Metrics in Prometheus' text format: numbers only, no names of people or jobs."""
        return web.Response(body=metrics.text(), headers={"Content-Type": METRICS_TYPE})

    @api.add("GET", "/api/v1/openapi.json", public=True)
    async def openapi(call: Call) -> web.Response:
        """This API as OpenAPI 3.1."""
        return json_response(describe(all_routes, version))

    @api.add("GET", "/api/v1/docs", public=True, errors=PAGE)
    async def docs(call: Call) -> web.Response:
        """This API as a page to read."""
        return web.Response(text=_page(all_routes, version), content_type="text/html")

    return api


def _page(routes: list[Route], version: str) -> str:
    from html import escape

    rows = []
    for tag in dict.fromkeys(route.tag for route in routes):
        rows.append(f"<h2>{escape(tag)}</h2><table>")
        for route in routes:
            if route.tag == tag:
                proofs = " or ".join(proof.name.lower() for proof in route.proofs)
                key = "" if route.public else proofs
                rows.append(
                    f"<tr><td><code>{route.method}</code></td><td><code>{escape(route.name)}</code>"
                    f"</td><td>{escape(route.summary)}</td><td>{key}</td></tr>"
                )
        rows.append("</table>")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Neuro platform API</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem .8rem .2rem 0;vertical-align:top}code{font-size:.9em}"
        "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8cf}}</style>"
        f"<h1>Neuro platform API {escape(version)}</h1>"
        "<p>Send <code>Authorization: Bearer TOKEN</code> where it says token, or the token as a"
        " password (<code>Basic</code>) where it says basic. The machine-readable"
        " form is <a href='openapi.json'>OpenAPI 3.1</a>.</p>" + "".join(rows)
    )
