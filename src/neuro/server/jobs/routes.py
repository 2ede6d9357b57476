"""Jobs over HTTP and WebSocket: docs/reference/wire-protocol.md#jobs and #monitoring."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from urllib.parse import quote

import msgspec
from aiohttp import web

from neuro.domain.errors import InvalidInput, NoSuchJob, NotFound
from neuro.domain.images import in_registry
from neuro.domain.jobs import (
    Job,
    JobEventFilter,
    JobFilter,
    JobRequest,
    LifeSpanChange,
    SavedContainer,
    SaveRequest,
)
from neuro.domain.permissions import Action
from neuro.server.http.origin import base_url
from neuro.server.http.routes import FOR_ALL_USERS, Call, Need, Routes, json_response
from neuro.server.http.streams import BYTES, NDJSON, WEBSOCKET, json_array, live_ndjson, ndjson
from neuro.server.jobs import streams
from neuro.server.jobs.companions import Companions
from neuro.server.jobs.damaged import left_out
from neuro.server.jobs.forwarding import HALF_CLOSE_PROTOCOL
from neuro.server.jobs.logs import LogQuery
from neuro.server.jobs.lookups import Whose
from neuro.server.jobs.old_clients import is_main_job
from neuro.server.jobs.passing_on import PassingOn
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.saving import JobSaver
from neuro.server.jobs.service import JobService
from neuro.server.jobs.specification import with_own_image
from neuro.server.jobs.streams import CHANNEL_PROTOCOLS, AttachQuery, ExecQuery

# Clients hold the plain JSON form whole; who wants more asks for NDJSON or for pages.
MAX_JSON_LIST = 10_000
# What our clients ask for at once, and what is read before anything is answered.
MAX_GATHERED = 1000
NOTICE_HEADER = "X-Neuro-Notice"
# What a header has as it is: ASCII that can be printed, but for the sign of what is written out.
_PLAIN = "".join(sorted(set(map(chr, range(32, 127))) - {"%"}))
KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
MONITORING = "/api/v1/monitoring/jobs"
_PORT = re.compile(r"[0-9]{1,9}")
JOB = "job://{cluster}/{owner}/{job}"
LISTS = "A list shows what its caller may see."


def job_routes(jobs: JobService) -> Routes:
    """Submitting, listing, ending."""
    api = Routes("jobs")

    def of_job(action: Action) -> Need:
        async def ask(call: Call) -> JobRecord:
            return await jobs.find(call.identity, call.segment("job"), action)

        return Need(JOB, action, ask)

    async def to_end(call: Call) -> JobRecord | Whose:
        return await jobs.find_to_end(call.identity, call.segment("job"))

    @api.add(
        "POST",
        "/api/v1/jobs",
        status=202,
        section="submitting",
        inside="The body names the job and its volumes; each is asked for when all of it is read.",
    )
    async def submit(call: Call, body: JobRequest) -> Job:
        """Submit a job; its container's keys come flat (``?from_preset``) or nested."""
        key = call.request.headers.get(KEY_HEADER)
        registry = base_url(call.request).partition("//")[2]
        body = with_own_image(body, registry)
        control = is_main_job(body)
        submitted = await jobs.submit(call.identity, body, key, control=control, registry=registry)
        response = json_response(submitted.job, 202)
        response.headers.update(_notices(*submitted.notices))
        if submitted.replayed:
            response.headers[REPLAYED_HEADER] = "true"
        return response  # type: ignore[return-value]  # the same job, with a header

    @api.add("GET", "/api/v1/jobs", section="listing", streams=NDJSON, inside=LISTS)
    async def list_jobs(call: Call, query: JobFilter) -> web.StreamResponse:
        """List jobs, oldest first; NDJSON where the client accepts it."""
        damaged: list[str] = []
        found = _encoded(jobs.search(call.identity, query, damaged))
        if query.limit is not None and query.limit <= MAX_GATHERED:
            found = _gathered(found)  # So what is left out of all of it is known.

        def headers() -> dict[str, str]:
            notice = left_out(damaged)
            return _notices(notice) if notice else {}

        if call.wants_ndjson:
            return await ndjson(call, found, headers)
        found = _first(MAX_JSON_LIST, found)
        return await json_array(call, found, headers, head=b'{"jobs":[', tail=b"]}")

    @api.add("GET", "/api/v1/jobs/events", streams=NDJSON, inside=LISTS)
    async def events(call: Call, query: JobEventFilter) -> web.StreamResponse:
        """Changes of jobs: the state of every job that matches, then each change at once."""
        return await live_ndjson(call, jobs.events(call.identity, query))

    @api.add("GET", "/api/v1/jobs/{job}", section="jobs", needs=of_job(Action.READ))
    async def get_job(call: Call) -> Job:
        """A job by its id, or one of the caller's own by name."""
        return await jobs.look(call.found)

    @api.add(
        "DELETE",
        "/api/v1/jobs/{job}",
        status=204,
        section="jobs",
        needs=Need(JOB, Action.WRITE, to_end),
    )
    async def kill(call: Call) -> None:
        """End a job. Nothing if it is over."""
        found: JobRecord | Whose = call.found
        kill = jobs.kill(found) if isinstance(found, JobRecord) else jobs.kill_damaged(found)
        return _ended(await kill)  # type: ignore[return-value]

    @api.add(
        "PUT",
        "/api/v1/jobs/{job}/max_run_time_minutes",
        status=204,
        section="jobs",
        needs=of_job(Action.WRITE),
    )
    async def change_life_span(call: Call, body: LifeSpanChange) -> None:
        """Add minutes to the life span, or set it."""
        await jobs.change_life_span(call.found, body)

    return api


def _notices(*notices: str) -> dict[str, str]:
    """The header of what the server remarks: a line each. Names are of any letters."""
    return {NOTICE_HEADER: quote("\n".join(notices), safe=_PLAIN)} if notices else {}


def _ended(notice: str | None) -> web.Response:
    """Nothing, with what the server remarks."""
    return web.Response(status=204, headers=_notices(notice) if notice else None)


async def _encoded(found: AsyncGenerator[Job]) -> AsyncGenerator[bytes]:
    encode = msgspec.json.Encoder().encode
    async with aclosing(found):
        async for job in found:
            yield encode(job)


async def _gathered(found: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(found):
        items = [item async for item in found]
    for item in items:
        yield item


async def _first(count: int, found: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(found):
        async for item in found:
            yield item
            count -= 1
            if not count:
                return


def monitoring_routes(jobs: JobService, passing: PassingOn, saver: JobSaver) -> Routes:
    """Live streams of running jobs, here or at the server that has their engine."""
    api = Routes("monitoring")
    companions = Companions()

    async def find(call: Call, action: Action) -> JobRecord:
        try:
            return await jobs.find(call.identity, call.segment("job"), action)
        except NoSuchJob as error:
            raise NotFound(error.message) from None

    def of_job(action: Action) -> Need:
        return Need(JOB, action, partial(find, action=action))

    @api.add(
        "GET", f"{MONITORING}/capacity", section="capacity-kill-and-save", inside=FOR_ALL_USERS
    )
    async def capacity(call: Call) -> dict[str, int]:
        """How many more jobs of each preset could start now."""
        return jobs.capacity()

    @api.add(
        "GET", MONITORING + "/{job}/log", section="logs", needs=of_job(Action.READ), streams=BYTES
    )
    async def log(call: Call, query: LogQuery) -> web.StreamResponse:
        """The output as raw bytes, from the start to the end of the job, or its last lines."""
        record: JobRecord = call.found
        if (answer := await passing.stream(call, record)) is not None:
            return answer
        with companions.log(call, record.id) as companion:
            return await streams.log_over_http(call, jobs, record, query, companion)

    @api.add(
        "GET",
        MONITORING + "/{job}/log_ws",
        section="logs",
        needs=of_job(Action.READ),
        streams=WEBSOCKET,
    )
    async def log_ws(call: Call, query: LogQuery) -> web.StreamResponse:
        """The output as binary messages."""
        record: JobRecord = call.found
        if (answer := await passing.socket(call, record)) is not None:
            return answer
        with companions.log(call, record.id) as companion:
            return await streams.log_over_websocket(call, jobs, record, query, companion)

    @api.add(
        "GET",
        MONITORING + "/{job}/attach",
        section="attach",
        needs=of_job(Action.READ),
        streams=WEBSOCKET,
    )
    async def attach(call: Call, query: AttachQuery) -> web.StreamResponse:
        """Connect to the main process."""
        record = await find(call, Action.WRITE) if query.stdin else call.found
        if (answer := await passing.socket(call, record, *CHANNEL_PROTOCOLS)) is not None:
            return answer
        return await streams.attach(call, jobs, record, query, companions)

    @api.add(
        "GET",
        MONITORING + "/{job}/exec",
        section="exec",
        needs=of_job(Action.WRITE),
        streams=WEBSOCKET,
    )
    async def execute(call: Call, query: ExecQuery) -> web.StreamResponse:
        """Run another process inside a running job."""
        if (answer := await passing.socket(call, call.found, *CHANNEL_PROTOCOLS)) is not None:
            return answer
        return await streams.execute(call, jobs, call.found, query)

    @api.add(
        "GET",
        MONITORING + "/{job}/top",
        section="telemetry",
        needs=of_job(Action.READ),
        streams=WEBSOCKET,
    )
    async def top(call: Call) -> web.StreamResponse:
        """CPU, memory and GPU use, once a second."""
        if (answer := await passing.socket(call, call.found)) is not None:
            return answer
        return await streams.telemetry(call, jobs, call.found)

    @api.add(
        "GET",
        MONITORING + "/{job}/port_forward/{port}",
        section="port-forwarding",
        needs=of_job(Action.WRITE),
        streams=WEBSOCKET,
    )
    async def port_forward(call: Call) -> web.StreamResponse:
        """One TCP connection into the job."""
        port = call.segment("port")
        if not _PORT.fullmatch(port):
            raise InvalidInput(f"'{port[:40]}' is not a port: a port is between 1 and 65535.")
        if (answer := await passing.socket(call, call.found, HALF_CLOSE_PROTOCOL)) is not None:
            return answer
        return await streams.forward_port(call, jobs, call.found, int(port))

    @api.add(
        "POST",
        MONITORING + "/{job}/kill",
        status=204,
        section="capacity-kill-and-save",
        needs=of_job(Action.WRITE),
    )
    async def kill(call: Call) -> None:
        """End a job; the SDK's other spelling of DELETE /jobs/{job}."""
        return _ended(await jobs.kill(call.found))  # type: ignore[return-value]

    @api.add(
        "POST",
        MONITORING + "/{job}/save",
        section="capacity-kill-and-save",
        needs=of_job(Action.WRITE),
        streams=NDJSON,
    )
    async def save(call: Call, body: SaveRequest) -> web.StreamResponse:
        """Save a running job as an image of the platform's registry, and tell how far that is."""
        record: JobRecord = call.found
        shown = body.container.image
        image = in_registry(shown, base_url(call.request).partition("//")[2])
        own = saver.image(call.identity, image)
        # The other server has another address, and the image the same full name.
        passed = msgspec.json.encode(SaveRequest(SavedContainer(str(own))))
        if (answer := await passing.stream(call, record, passed)) is not None:
            return answer

        def gone() -> bool:
            return call.request.transport is None or call.request.transport.is_closing()

        return await live_ndjson(call, saver.save(record, own, shown, call.user, gone))

    return api
