"""What jobs need, put together: what the machine offers, who moves them, what routes call."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuro.domain.resources import Amount, Preset
from neuro.engines.base import Engine, RunRef
from neuro.engines.registry import kind_of
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.engine_settings import (
    DEFAULT_ENGINE,
    capacities_of,
    check_in_use,
    engine_settings,
    kind_name,
)
from neuro.server.jobs import tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.feed import Feed
from neuro.server.jobs.launch import Files, Launcher
from neuro.server.jobs.passed_tokens import PassedTokens
from neuro.server.jobs.plan import JobLimits, Offer
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.service import JobService
from neuro.server.jobs.writer import Writer
from neuro.server.settings import Settings, disk_for, presets_for
from neuro.server.settings_remarks import remarks


@dataclass(frozen=True)
class Means:
    """What the engines have: ``capacities`` of each, presets, bytes of ``disk`` for the rest.

    ``remarks`` are sentences about settings that ask for more.
    """

    capacities: dict[str, Amount]
    presets: list[Preset]
    disk: int
    remarks: list[str]

    @classmethod
    async def of(cls, settings: Settings, engines: Mapping[str, Engine], folder: Path) -> Means:
        """What this machine has, as far as the settings give it away."""
        machines = {name: await engine.capacity() for name, engine in engines.items()}
        capacities = capacities_of(engine_settings(settings), machines)
        disk = disk_for(shutil.disk_usage(folder).total)
        model = engines[DEFAULT_ENGINE].gpu_model
        presets = presets_for(settings, capacities[DEFAULT_ENGINE], model, disk)
        told = remarks(settings.engines, presets, machines, capacities)
        return cls(capacities, presets, disk, list(told))

    def disk_of(self, preset: str | None) -> int:
        """How many bytes of private files a job with this preset may have."""
        known = {one.name: one.disk for one in self.presets}
        return known.get(preset or "", self.disk)


@dataclass(frozen=True)
class Jobs:
    """The parts that others need."""

    board: Board
    writer: Writer
    tokens: PassedTokens
    service: JobService


async def start_jobs(
    stack: AsyncExitStack,
    database: Database,
    settings: Settings,
    engines: Mapping[str, Engine],
    means: Means,
    background: Background,
    *,
    access: AccessService,
    files: Files,
    api_url: Callable[[str], str],
    jobs_domain: str,
) -> Jobs:
    """Take over the jobs that there are, and be ready for others. ``stack`` ends all of it.

    ``api_url(engine)`` is where jobs find the platform, ``jobs_domain`` the host of their pages.
    """
    board = Board(means.capacities)
    writer = Writer(database)
    writer.start(background)
    stack.push_async_callback(writer.close)
    tokens = PassedTokens(
        database, access, lambda job_id: board.get(job_id) is not None, background
    )
    stack.push_async_callback(tokens.close)
    board.listen(tokens.job_changed)
    commands = str(Path(sys.prefix) / "bin")
    launcher = Launcher(settings.cluster, files, tokens.issue, api_url, commands, means.disk_of)
    grace = settings.stop_grace_seconds
    reconciler = Reconciler(
        board, writer, engines, launcher.make_spec, background, stop_grace=grace
    )
    stack.push_async_callback(reconciler.close)
    await _adopt(database, reconciler, engines)
    # Those of jobs that ended while there was no server.
    await writer.flush()
    await tokens.sweep()
    kinds = {name: kind_name(name, one) for name, one in engine_settings(settings).items()}
    service = JobService(
        database,
        board,
        writer,
        reconciler,
        engines,
        Offer(settings.cluster, means.presets, DEFAULT_ENGINE, jobs_domain, api_url),
        check_volumes=launcher.check_volumes,
        image_notice=partial(_image_notice, kinds),
        feed=Feed(board),
        limits=JobLimits(
            settings.bakes.main_jobs,
            settings.bakes.main_jobs_per_owner,
            settings.limits.active_jobs_per_owner,
        ),
    )
    return Jobs(board, writer, tokens, service)


async def _adopt(database: Database, reconciler: Reconciler, engines: Mapping[str, Engine]) -> None:
    active = await database.read(tables.active_jobs)
    check_in_use(engines, Counter(record.engine for record in active))
    known: dict[str, list[RunRef]] = {}
    for name in engines:
        runs = await database.read(partial(tables.runs_with_logs, engine=name))
        known[name] = [RunRef(job_id, run) for job_id, run in runs]
    await reconciler.adopt(active, known)


def _image_notice(kinds: Mapping[str, str], engine: str, image: str) -> str | None:
    """What a first-time user of an image should know; ``kinds`` of engines by their names."""
    if kind_of(kinds[engine]).has_images:
        return None
    return (
        f"Image {image} is recorded, not pulled: the {kinds[engine]} engine runs every job on this"
        " machine's own programs."
    )
