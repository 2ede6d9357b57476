"""Jobs: submit, watch, stop; their output, their terminals and their ports."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from neuro.client.connections import HALF_CLOSE_PROTOCOL, JobConnection
from neuro.client.messages import answered, below, each, get, lines, tell, with_message
from neuro.client.sessions import CHANNEL_PROTOCOLS, JobSession
from neuro.client.transport import Params, Request, Response
from neuro.domain.errors import InvalidInput, NoSuchJob
from neuro.domain.images import OwnImage
from neuro.domain.jobs import (
    LEFT_OUT_HEADER,
    Job,
    JobEvent,
    JobFilter,
    JobRequest,
    LifeSpanChange,
    SavedContainer,
    SaveEvent,
    SaveRequest,
    UsageSample,
)
from neuro.domain.names import is_job_id, is_job_name

if TYPE_CHECKING:
    from neuro.client.client import Client

PAGE = 1000
# The server gives a sign of life every 15 seconds: after three of them the connection is dead.
SILENCE_SECONDS = 45.0
_SAVING_SECONDS = 12 * 3600.0  # for the files of a job to be read, of which nothing is told
_JOBS = "/jobs"
_MONITORING = "/monitoring/jobs"


class Submitted(msgspec.Struct, frozen=True):
    """A new job, and what the server remarks on it (one line each)."""

    job: Job
    notices: tuple[str, ...] = ()


class LogPart(msgspec.Struct, frozen=True):
    """Which part of a job's output: from ``since``, only its last ``tail`` lines, or from
    ``offset`` (bytes as they were printed); until now, or with ``follow`` until the job is over."""

    since: datetime | None = None
    timestamps: bool = False
    tail: int | None = None
    offset: int | None = None
    follow: bool = True

    def params(self) -> list[tuple[str, str]]:
        """The query, without fields that are not set."""
        given = (
            ("since", self.since.isoformat() if self.since else None),
            ("timestamps", "true" if self.timestamps else None),
            ("tail", None if self.tail is None else str(self.tail)),
            ("offset", None if self.offset is None else str(self.offset)),
            ("follow", None if self.follow else "false"),
        )
        return [(name, value) for name, value in given if value is not None]


class JobRef(msgspec.Struct, frozen=True):
    """A job as a person names it: by id, or by name and owner (None: the caller)."""

    name: str
    owner: str | None = None
    cluster: str | None = None

    @property
    def is_id(self) -> bool:
        return is_job_id(self.name)


def parse_job_ref(text: str) -> JobRef:
    """Read an id, a name, ``job:name``, ``job:/owner/name`` or ``job://cluster/owner/name``.

    >>> parse_job_ref("job:/anna/train")
    JobRef(name='train', owner='anna', cluster=None)

    Raises NoSuchJob for a name that no job can have, and InvalidInput for another form.
    """
    if not text.startswith("job:"):
        return JobRef(_known(text, text))
    rest = text.removeprefix("job:")
    cluster = None
    if rest.startswith("//"):
        cluster, _, rest = rest.removeprefix("//").partition("/")
        rest = "/" + rest
    words = rest.removeprefix("/").split("/")
    expected = 2 if rest.startswith("/") else 1
    if len(words) != expected or not all(words) or cluster == "":
        raise InvalidInput(
            f"'{text}' does not name a job: write NAME, job:NAME, job:/OWNER/NAME or"
            " job://CLUSTER/OWNER/NAME."
        )
    owner = words[0] if expected == 2 else None
    name = words[-1]
    return JobRef(_known(name, text), owner, cluster)


def _known(name: str, text: str) -> str:
    if not is_job_id(name) and not is_job_name(name):
        raise _no_such_job(text)
    return name


def _no_such_job(text: str) -> NoSuchJob:
    return NoSuchJob(f"There is no job '{text}'. `neuro ps --all` lists yours.")


class Jobs:
    """The jobs of a client's server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport = client.transport

    async def submit(self, request: JobRequest, key: str | None = None) -> Submitted:
        """Submit a job; it is pending when this returns. InvalidInput says what is wrong.

        However often the same request is submitted with the same ``key`` (1 to 255 printable ASCII
        characters), one job is made, and the answer is that job as it is now. Raises Conflict where
        the key was used for another request.
        """
        from_preset: Params = () if request.container else (("from_preset", ""),)
        headers = {} if key is None else {"Idempotency-Key": key}
        call = with_message("POST", _JOBS, request, params=from_preset, headers=headers)
        async with answered(self._transport, call) as response:
            job = msgspec.json.decode(await response.read(), type=Job)
            return Submitted(job, _notices(response))

    async def get(self, job_id: str) -> Job:
        """The job with this id. Raises NoSuchJob."""
        return await get(self._transport, below(_JOBS, job_id), Job)

    async def find(self, text: str) -> Job:
        """The job that a person means: by id, or the newest with that name (see parse_job_ref)."""
        ref = parse_job_ref(text)
        if ref.is_id:
            return await self.get(ref.name)
        user, cluster = self._client.user, self._client.cluster
        if (ref.owner or user, ref.cluster or cluster) == (user, cluster):
            try:
                # Not from a list: one leaves out what the server cannot read any more.
                return await self.get(ref.name)
            except NoSuchJob:
                raise _no_such_job(text) from None
        query = JobFilter(
            name=ref.name,
            owner=[ref.owner or user],
            cluster_name=ref.cluster or cluster,
            reverse=True,
            limit=1,
        )
        async with aclosing(self._page(query)) as found:
            async for job in found:
                return job
        raise _no_such_job(text)

    async def resolve(self, text: str) -> str:
        """The id of the job that a person means; an id is not looked up."""
        ref = parse_job_ref(text)
        return ref.name if ref.is_id else (await self.find(text)).id

    async def list(
        self, query: JobFilter | None = None, remark: Callable[[str], None] | None = None
    ) -> AsyncGenerator[Job, None]:
        """The jobs that match, oldest first (or newest, with ``reverse``), read page by page.

        ``remark`` is called with each sentence of the server's about them: that some are left out,
        as their records are damaged.
        """
        query = query or JobFilter()
        left = query.limit
        first: str | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            count, last = 0, None
            page = msgspec.structs.replace(query, limit=size)
            async with aclosing(self._page(page, remark)) as jobs:
                async for job in jobs:
                    if count == 0 and job.id == first:
                        return  # A server without keyset pages answers the first one again.
                    first = first or job.id
                    count, last = count + 1, job.id
                    yield job
            if count < size:
                return
            query = msgspec.structs.replace(query, after=last)
            left = None if left is None else left - count

    async def events(
        self,
        *,
        tags: Sequence[str] = (),
        owner: Sequence[str] = (),
        ids: Sequence[str] = (),
        after: str | None = None,
    ) -> AsyncGenerator[JobEvent, None]:
        """Changes of the jobs that have all these tags, as they happen, over one connection.

        ``ids`` asks for these jobs alone: a hundred at most, as they are part of the address.

        First comes the state of every job, finished ones too, or only of those that changed since
        ``after``, the newest cursor that the caller knows; then an event that is ``synced``; then
        every change, and now and then a sign of life.

        Ends where the server ends it (a reader that is far too slow), raises ServerUnreachable
        where it is stopped or silent for too long: come back with the newest cursor.
        """
        params = [("tag", tag) for tag in tags] + [("owner", name) for name in owner]
        params += [("id", job_id) for job_id in ids]
        if after:
            params.append(("after", after))
        call = Request(
            method="GET",
            path="/jobs/events",
            params=params,
            headers={"Accept": "application/x-ndjson", "Accept-Encoding": "identity"},
            timeout=SILENCE_SECONDS,
        )
        async with aclosing(lines(self._transport, call, JobEvent)) as events:
            async for event in events:
                yield event

    def _page(
        self, query: JobFilter, remark: Callable[[str], None] | None = None
    ) -> AsyncGenerator[Job, None]:
        def begun(response: Response) -> None:
            if remark is not None:
                for notice in _notices(response):
                    remark(notice)

        return each(self._transport, _JOBS, _query(query), Job, begun)

    async def kill(self, job_id: str) -> tuple[str, ...]:
        """Stop a job; nothing if it is over.

        Returns what the server remarks: that the job ends later, where its machine is away.
        """
        call = Request(method="DELETE", path=below(_JOBS, job_id))
        async with answered(self._transport, call) as response:
            await response.read()
            return _notices(response)

    async def save(self, job_id: str, image: OwnImage) -> AsyncGenerator[SaveEvent, None]:
        """Save a running job as an image of the platform's, and hear how far that is.

        All of the image is there when this ends. Raises NotFound for a job that does not run or
        ends meanwhile, NotPermitted, and Conflict, Unavailable or NotSupported where it cannot be
        saved.
        """
        body = SaveRequest(SavedContainer(str(image)))
        call = with_message("POST", f"{below(_MONITORING, job_id)}/save", body)
        call = msgspec.structs.replace(call, timeout=_SAVING_SECONDS)
        async with aclosing(lines(self._transport, call, SaveEvent)) as events:
            async for event in events:
                yield event

    async def extend_life_span(self, job_id: str, minutes: int) -> None:
        """Let a job live ``minutes`` longer."""
        change = LifeSpanChange(additional_max_run_time_minutes=minutes)
        path = f"{below(_JOBS, job_id)}/max_run_time_minutes"
        await tell(self._transport, "PUT", path, change)

    async def logs(
        self, job_id: str, *, since: datetime | None = None, timestamps: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The output as raw bytes, from the start (or ``since``) until the job is over.

        A silent job keeps the stream open: use a client with a long timeout.
        """
        part = LogPart(since=since, timestamps=timestamps)
        async with self.log_part(job_id, part) as (_, chunks):
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def log_part(
        self, job_id: str, part: LogPart
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """A part of the output: the offset that it begins at, and the bytes themselves.

        Whoever gives an ``offset``, 0 too, can come back with another one after a lost connection:
        ``LogPlace`` counts. It is lost, too, where bytes are missing that are not kept any more.
        """
        call = Request(
            method="GET",
            path=self._monitoring(job_id, "log"),
            params=part.params(),
            headers={"Accept-Encoding": "identity"},
        )
        async with answered(self._transport, call) as response:
            yield int(response.headers.get(LEFT_OUT_HEADER) or 0), response.chunks()

    async def capacity(self) -> dict[str, int]:
        """How many jobs of each preset could start now."""
        return await get(self._transport, f"{_MONITORING}/capacity", dict[str, int])

    @asynccontextmanager
    async def attach(
        self, job_id: str, *, tty: bool = False, stdin: bool = False, output: bool = True
    ) -> AsyncIterator[JobSession]:
        """Connect to the job's own process. Its earlier output is not repeated."""
        params = _streams(tty=tty, stdin=stdin, stdout=output, stderr=output and not tty)
        path = self._monitoring(job_id, "attach")
        connection = self._transport.websocket(path, params=params, protocols=CHANNEL_PROTOCOLS)
        async with connection as socket:
            yield JobSession(socket)

    @asynccontextmanager
    async def exec(
        self, job_id: str, command: str, *, tty: bool = False, stdin: bool = True
    ) -> AsyncIterator[JobSession]:
        """Run ``command`` (one shell-quoted line, no shell runs it) inside a running job."""
        params = [
            ("cmd", command),
            *_streams(tty=tty, stdin=stdin, stdout=True, stderr=not tty),
        ]
        path = self._monitoring(job_id, "exec")
        connection = self._transport.websocket(path, params=params, protocols=CHANNEL_PROTOCOLS)
        async with connection as socket:
            yield JobSession(socket)

    async def top(self, job_id: str) -> AsyncGenerator[UsageSample, None]:
        """What the job uses, about once a second, until it is over."""
        async with self._transport.websocket(self._monitoring(job_id, "top")) as socket:
            while (message := await socket.receive()) is not None:
                yield msgspec.json.decode(message, type=UsageSample)

    @asynccontextmanager
    async def port_forward(self, job_id: str, port: int) -> AsyncIterator[JobConnection]:
        """One TCP connection to ``port`` of the job, as raw bytes both ways."""
        path = self._monitoring(job_id, f"port_forward/{port}")
        connection = self._transport.websocket(path, protocols=(HALF_CLOSE_PROTOCOL,))
        async with connection as socket:
            yield JobConnection(socket)

    @staticmethod
    def _monitoring(job_id: str, what: str) -> str:
        return f"{below(_MONITORING, job_id)}/{what}"


def _notices(response: Response) -> tuple[str, ...]:
    notices = unquote(response.headers.get("X-Neuro-Notice") or "")
    return tuple(notices.split("\n")) if notices else ()


def _streams(*, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> list[tuple[str, str]]:
    flags = (("tty", tty), ("stdin", stdin), ("stdout", stdout), ("stderr", stderr))
    return [(name, str(int(value))) for name, value in flags]


def _query(query: JobFilter) -> Sequence[tuple[str, str]]:
    many = (
        ("status", query.status),
        ("owner", query.owner),
        ("tag", query.tag),
        ("org_name", query.org_name),
        ("project_name", query.project_name),
    )
    params = [(name, str(value)) for name, values in many for value in values]
    single = (
        ("name", query.name),
        ("since", query.since.isoformat() if query.since else None),
        ("until", query.until.isoformat() if query.until else None),
        ("cluster_name", query.cluster_name),
        ("reverse", "1" if query.reverse else None),
        ("limit", query.limit),
        ("after", query.after),
    )
    params += [(name, str(value)) for name, value in single if value is not None]
    return params
