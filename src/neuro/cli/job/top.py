"""``neuro top``: what running jobs use, as it changes."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from itertools import accumulate
from typing import NamedTuple

import click

from neuro.cli.context import FOREVER, Context, pass_context
from neuro.cli.failures import BAD_VALUE, ILLEGAL, TIMEOUT, Failure
from neuro.cli.job.ls import job_filter
from neuro.cli.lazy import Command
from neuro.cli.outage import Outage
from neuro.cli.output import Output, terminal_width
from neuro.cli.render.columns import Known, Shown, column_ids, parse_columns
from neuro.cli.render.job_row import PS_COLUMNS, View, job_line, when
from neuro.cli.render.json_text import json_option, line, plain
from neuro.cli.render.redrawing import Redrawing, rows_of
from neuro.cli.render.table import Cell, Line, Sheet, first_that_fits
from neuro.cli.render.times import local_now
from neuro.client import Client
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import PlatformError, Unavailable
from neuro.domain.jobs import Job, JobFilter, JobStatus, UsageSample

TOP_DEFAULT = "id name when cpu memory gpu gpu_memory"
USAGE_COLUMNS: dict[str, Known] = {
    "cpu": Known("CPU", align="right", shrinks=False),
    "memory": Known("MEMORY (MB)", align="right", shrinks=False),
    "gpu": Known("GPU (%)", align="right", shrinks=False),
    "gpu_memory": Known("GPU_MEMORY (MB)", align="right", shrinks=False),
}
TOP_COLUMNS = PS_COLUMNS | USAGE_COLUMNS
# What narrow terminals are shown instead, the first that fits; and where no job has a GPU.
TOP_NARROWER = (
    "id name cpu memory gpu gpu_memory",
    "id/name when cpu memory gpu gpu_memory",
    "id/name cpu memory gpu gpu_memory",
    "id/name cpu memory gpu",
    "id/name cpu memory",
)
TOP_WITHOUT_GPUS = ("id name when cpu memory", "id/name when cpu memory", "id/name cpu memory")
REFRESH_SECONDS = 1.0
LIST_SECONDS = 3.0


class Use(NamedTuple):
    """A running job and its newest sample."""

    job: Job
    sample: UsageSample | None = None


def usage_text(sample: UsageSample | None, column: str) -> str:
    """A number of a sample with three decimals; nothing where it is not known."""
    if sample is None:
        return ""
    value = {
        "cpu": sample.cpu,
        "memory": sample.memory,
        "gpu": sample.gpu_duty_cycle,
        "gpu_memory": sample.gpu_memory,
    }[column]
    if value is None:
        return ""
    return str(value) if column == "gpu" else f"{value:.3f}"


def use_row(use: Use, columns: Sequence[Shown], view: View) -> list[Cell]:
    """The cells of one job."""
    return [
        tuple(
            Line(usage_text(use.sample, name))
            if name in USAGE_COLUMNS
            else job_line(use.job, name, view)
            for name in column.ids
        )
        for column in columns
    ]


def sort_uses(uses: Sequence[Use], text: str, view: View) -> list[Use]:
    """By columns, ``-`` before one turns it round; numbers are largest first by themselves."""
    ordered = list(uses)
    for word in reversed([word.strip() for word in text.split(",") if word.strip()]):
        reverse = word.startswith("-")
        ids = column_ids(word.removeprefix("-"), TOP_COLUMNS)
        if len(ids) != 1:
            raise Failure(f"Invalid sort column '{word}'", BAD_VALUE)
        name = ids[0]
        if name in USAGE_COLUMNS:
            ordered.sort(key=lambda use: float(usage_text(use.sample, name) or -1))
            reverse = not reverse
        elif name == "when":
            ordered.sort(key=lambda use: when(use.job) or view.now)
        else:
            ordered.sort(key=lambda use: job_line(use.job, name, view).text)
        if reverse:
            ordered.reverse()
    return ordered


class Wanted(NamedTuple):
    """Which jobs: those of ``ids``, or else what ``query`` finds, now and later."""

    ids: Sequence[str]
    query: JobFilter
    description: str | None = None


class Watcher:
    """Keeps one stream of samples open for each running job that is wanted."""

    def __init__(self, client: Client, wanted: Wanted, say: Callable[[str], None]) -> None:
        """``say`` tells the person, once for each job, that the job's machine is away."""
        self._client = client
        self._wanted = wanted
        self._say = say
        self._away: set[str] = set()
        self._streams: dict[str, asyncio.Task[None]] = {}
        self.uses: dict[str, Use] = {}

    async def refresh(self) -> None:
        """Look which jobs run now; begin with new ones, forget those that are over."""
        running = {job.id: job for job in await self._running()}
        for job_id, job in running.items():
            known = self.uses.get(job_id)
            self.uses[job_id] = Use(job, known.sample if known else None)
            stream = self._streams.get(job_id)
            if stream is None or stream.done():
                self._streams[job_id] = asyncio.create_task(self._watch(job_id))
        for job_id in self.uses.keys() - running.keys():
            del self.uses[job_id]
            if stream := self._streams.pop(job_id, None):
                stream.cancel()

    async def _running(self) -> list[Job]:
        wanted = self._wanted
        if wanted.ids:
            found = [await self._client.jobs.get(job_id) for job_id in wanted.ids]
            return [job for job in found if job.status is JobStatus.RUNNING]
        async with aclosing(self._client.jobs.list(wanted.query)) as jobs:
            return [job async for job in jobs if wanted.description in (None, job.description)]

    async def _watch(self, job_id: str) -> None:
        with suppress(PlatformError):
            try:
                async with aclosing(self._client.jobs.top(job_id)) as samples:
                    async for sample in samples:
                        self._away.discard(job_id)
                        if job_id in self.uses:
                            self.uses[job_id] = self.uses[job_id]._replace(sample=sample)
            except ServerUnreachable:  # Told by whoever lists the jobs.
                raise
            except Unavailable as error:
                self._lose(job_id, error)

    def _lose(self, job_id: str, error: Unavailable) -> None:
        if job_id in self.uses:  # What it used before is not what it uses now.
            self.uses[job_id] = self.uses[job_id]._replace(sample=None)
        if job_id not in self._away:
            self._away.add(job_id)
            self._say(str(error))

    async def first_samples(self, seconds: float) -> None:
        """Wait until every job has a sample, so that the first table is not empty."""
        deadline = asyncio.get_running_loop().time() + seconds
        while any(use.sample is None for use in self.uses.values()):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for stream in self._streams.values():
            stream.cancel()
        await asyncio.gather(*self._streams.values(), return_exceptions=True)


class JsonLines:
    """Prints a line for each job that runs, each time."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def begin(self) -> None:
        """Nothing is drawn over."""

    def draw(self, uses: Mapping[str, Use], user: str) -> None:
        """A line for each job that has a sample."""
        for use in uses.values():
            if (sample := use.sample) is not None:
                at = datetime.fromtimestamp(sample.timestamp, UTC)
                told = {"id": use.job.id, "name": use.job.name, **plain(sample), "timestamp": at}
                self._out.print(line(told))
        self._out.flush()


class Screen:
    """Draws table after table; on a terminal each in the place of the one before."""

    def __init__(self, out: Output, columns: Sequence[Shown] | None, sort: str) -> None:
        """``columns`` None: those that fit the terminal."""
        self._out = out
        self._asked = columns
        self._sort = sort
        self._redrawing = Redrawing()

    def begin(self) -> None:
        """Something else was said: leave it there, and draw below."""
        self._redrawing.begin()

    def draw(self, uses: Mapping[str, Use], user: str) -> None:
        """Show what these jobs use now."""
        view = View(user, local_now(), self._out.iso_dates)
        ordered = sort_uses(list(uses.values()), self._sort, view)
        sheet = first_that_fits(
            Sheet(
                [column.look for column in columns],
                [use_row(use, columns, view) for use in ordered],
                terminal_width(),
            )
            for columns in self._choices(ordered)
        )
        lines = [self._out.style(sheet.header(), bold=True), *sheet.lines()]
        if self._out.is_terminal:
            self._redrawing.draw(_cut(lines, *shutil.get_terminal_size()))
        else:
            self._out.print("\n".join(lines))
        sys.stdout.flush()

    def _choices(self, uses: Sequence[Use]) -> list[Sequence[Shown]]:
        if self._asked is not None:
            return [self._asked]
        with_gpu = any(use.sample and use.sample.gpu_duty_cycle is not None for use in uses)
        narrower = TOP_NARROWER if with_gpu else TOP_WITHOUT_GPUS
        return [parse_columns(text, TOP_COLUMNS) for text in (TOP_DEFAULT, *narrower)]


def _cut(lines: list[str], width: int, height: int) -> list[str]:
    # The cursor cannot go back beyond the top of the screen; its last row is the cursor's own.
    rows = list(accumulate(rows_of(line, width) for line in lines))
    if rows[-1] < height:
        return lines
    kept = lines[: max(sum(it < height - 1 for it in rows), 1)]
    return [*kept, f"… and {len(lines) - len(kept)} more lines: a higher terminal shows them."]


async def _refresh(context: Context, watcher: Watcher) -> bool:
    """Refresh, waiting for a server that is away; whether it was."""
    outage = Outage(context.out.note)
    while True:
        try:
            await watcher.refresh()
        except PlatformError as error:
            await asyncio.sleep(outage.lost(error))
        else:
            return outage.over()


async def _why_not(client: Client, ids: Sequence[str]) -> str:
    jobs = [await client.jobs.get(job_id) for job_id in ids]
    states = [f"Job {job.name or job.id} is not running ({job.status.value})." for job in jobs]
    return "\n".join([*states, f"`neuro status {jobs[0].name or jobs[0].id}` says more."])


async def _watch(context: Context, wanted: Wanted, screen: Screen | JsonLines) -> None:
    async with context.aio_client(timeout=FOREVER) as client:

        def say(sentence: str) -> None:
            context.out.note(sentence)
            screen.begin()

        watcher = Watcher(client, wanted, say)
        try:
            await watcher.refresh()
            if wanted.ids and not watcher.uses:
                raise Failure(await _why_not(client, wanted.ids), ILLEGAL)
            await watcher.first_samples(2.0)
            waited = 0.0
            while True:
                screen.draw(watcher.uses, client.user)
                if wanted.ids and not watcher.uses:
                    return
                await asyncio.sleep(REFRESH_SECONDS)
                waited += REFRESH_SECONDS
                if waited >= LIST_SECONDS or wanted.ids:
                    waited = 0.0
                    if await _refresh(context, watcher):
                        screen.begin()
        finally:
            await watcher.close()


@click.command(
    "top",
    cls=Command,
    examples="""
        neuro top                               # all running jobs of yours
        neuro top my-job other-job
        neuro top --sort -memory --format "name cpu memory"
        neuro top --timeout 5 > usage.txt       # ends with exit code 124
    """,
)
@click.argument("jobs", nargs=-1)
@click.option("-o", "--owner", "owners", multiple=True, help="Only this owner's; ME is you.")
@click.option("-n", "--name", metavar="NAME", help="Only jobs with this name.")
@click.option("-t", "--tag", "tags", multiple=True, help="Only jobs with this tag (repeatable).")
@click.option("-d", "--description", help="Only jobs with this description.")
@click.option("--since", metavar="DATE_OR_TIMEDELTA", help="Only jobs created after this.")
@click.option("--until", metavar="DATE_OR_TIMEDELTA", help="Only jobs created before this.")
@click.option("--cluster", metavar="CLUSTER", help="In another cluster.")
@click.option("--format", "columns", metavar="COLUMNS", help="See `neuro help top-format`.")
@click.option("--full-uri", is_flag=True, expose_value=False, help="Image URIs in full.")
@click.option("--sort", default="cpu", show_default=True, metavar="COLUMNS", help="Order.")
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="End after this time, with exit code 124."
)
@json_option("Print a line of JSON for each job, each second.")
@pass_context
def command(
    context: Context,
    jobs: tuple[str, ...],
    owners: tuple[str, ...],
    name: str | None,
    tags: tuple[str, ...],
    description: str | None,
    since: str | None,
    until: str | None,
    cluster: str | None,
    columns: str | None,
    sort: str,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Show what JOBS use, once a second; without JOBS, what all running jobs use."""
    account = context.account
    asked = columns or context.user_config.top_format
    shown = parse_columns(asked, TOP_COLUMNS) if asked else None
    sort_uses([], sort, View("", local_now()))  # A wrong --sort is said before anything else.
    query = job_filter(
        now=local_now(),
        cluster=cluster or account.cluster,
        statuses=(JobStatus.RUNNING.value,),
        name=name,
        owners=owners,
        tags=tags,
        since=since,
        until=until,
        user=account.user,
    )
    ids = [context.run(context.client.jobs.resolve(job)) for job in jobs]
    screen = JsonLines(context.out) if as_json else Screen(context.out, shown, sort)
    watching = _watch(context, Wanted(ids, query, description), screen)
    try:
        asyncio.run(asyncio.wait_for(watching, timeout))
    except TimeoutError:
        return TIMEOUT
    return 0
