"""The composition root: the only place that knows every part, and the order they start in."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web
from sqlalchemy import text

from neuro import __version__
from neuro.domain.errors import PlatformError
from neuro.domain.resources import Amount
from neuro.engines.base import Engine, RunRef
from neuro.engines.sandbox.engine import SandboxEngine
from neuro.server import reserve
from neuro.server.access.departure import Departures
from neuro.server.access.keys import load_or_create_key
from neuro.server.access.routes import access_routes
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.identity import check_belongs, hold
from neuro.server.database.migrate import migrate
from neuro.server.database.soundness import at_work
from neuro.server.engine_settings import sandbox_settings
from neuro.server.flows.bake_routes import BakeServices, bake_routes
from neuro.server.flows.events import Hub
from neuro.server.flows.retention import FlowRetention, KeepFlows
from neuro.server.flows.routes import flow_routes
from neuro.server.flows.service import FlowService
from neuro.server.flows.supervision.assembly import Supervision, limits_of
from neuro.server.http.bodies import MAX_JSON_BODY, Pace
from neuro.server.http.budgets import Budgets
from neuro.server.http.connections import Patience
from neuro.server.http.errors import render_errors
from neuro.server.http.limits import backpressure
from neuro.server.http.operations import Metrics, operation_routes
from neuro.server.http.pages import answer_at_jobs_addresses
from neuro.server.http.routes import AUTHENTICATOR, STREAMS, install
from neuro.server.http.version import version_signal
from neuro.server.installation.routes import Installation, installation_routes
from neuro.server.jobs import tables as job_tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.feed import Feed
from neuro.server.jobs.launch import Launcher
from neuro.server.jobs.passed_tokens import PassedTokens
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.retention import Keep, Retention
from neuro.server.jobs.routes import job_routes, monitoring_routes
from neuro.server.jobs.service import JobService
from neuro.server.jobs.submission import ControlLimits, Offer
from neuro.server.jobs.writer import Writer
from neuro.server.listening import address_of, bind, bind_for_jobs, listen
from neuro.server.metrics import watch
from neuro.server.owner import Announcement, machine_owner, only_one, write_login
from neuro.server.reload import digest_of
from neuro.server.settings import (
    LimitSetting,
    RetentionSetting,
    Settings,
    disk_for,
    load_settings,
    parse_bytes,
    presets_for,
)
from neuro.server.storage.routes import storage_routes
from neuro.server.storage.service import StorageService
from neuro.server.sweeping import sweep_regularly

log = structlog.get_logger("neuro.server")

DEFAULT_ENGINE = "sandbox"


@dataclass(frozen=True)
class Options:
    """What the command line decides. ``database`` is a URL, or None for SQLite in the folder."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8085
    database: str | None = None


@asynccontextmanager
async def serving(options: Options) -> AsyncIterator[str]:
    """Run the whole server; yields the API's URL once every part is ready.

    Raises Conflict where another server has the data folder or the port, InvalidInput for bad
    settings, EngineFault where this machine cannot run jobs.
    """
    async with AsyncExitStack() as stack:
        folder = _prepare_folder(options.data_dir)
        lock_again = stack.enter_context(only_one(folder / "run" / "lock"))
        reserve.spend(folder)
        # The port is taken first: a conflict is known before anything else is touched.
        listener = stack.enter_context(bind(options.host, options.port))
        digest = digest_of(folder)
        settings = load_settings(folder / "server.toml", {DEFAULT_ENGINE})
        url = options.database or settings.database or sqlite_url(folder / "neuro.db")
        database = Database(url)
        # The marker goes last: a server that is killed while it closes the database leaves it.
        stack.enter_context(at_work(database, folder / "run" / "at-work"))
        stack.callback(database.close)
        held = await asyncio.to_thread(hold, database)
        if held is not None:
            stack.callback(held.invalidate)
        engines = _engines(folder, settings, listener.getsockname()[1])
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(None, _prepare_database, database, folder),
            *(engine.open() for engine in engines.values()),
        )
        for engine in engines.values():
            stack.push_async_callback(engine.close)
        address = await _assemble(stack, listener, folder, settings, database, engines)
        announcement = Announcement(folder, address, lock_again, digest)
        announcement.begin()
        stack.callback(announcement.withdraw)
        stack.callback(asyncio.create_task(announcement.keep_on(), name="run folder").cancel)
        log.info("ready", url=address)
        yield address


async def _assemble(
    stack: AsyncExitStack,
    listener: socket.socket,
    folder: Path,
    settings: Settings,
    database: Database,
    engines: Mapping[str, Engine],
) -> str:
    key = load_or_create_key(folder / "keys" / "tokens.key")
    access = AccessService(database, key, settings.cluster)
    storage = await asyncio.to_thread(
        StorageService,
        folder / "storage",
        settings.cluster,
        owner=engines[DEFAULT_ENGINE].files_owner,
    )
    stack.push_async_callback(storage.close)
    capacities = {
        name: _capacity(settings, await engine.capacity()) for name, engine in engines.items()
    }
    whole = capacities[DEFAULT_ENGINE]
    disk = disk_for(shutil.disk_usage(folder).total)
    presets = presets_for(settings, whole, engines[DEFAULT_ENGINE].gpu_model, disk)
    disks = {preset.name: preset.disk for preset in presets}
    board = Board(capacities)
    writer = Writer(database)
    writer.start(on_death=_end_in_order)
    stack.push_async_callback(writer.close)
    host, port = listener.getsockname()[:2]
    tokens = PassedTokens(database, access)
    stack.push_async_callback(tokens.close)
    board.listen(tokens.job_changed)

    def api_url(engine: str) -> str:
        return address_of(engines[engine].host_address, port)

    commands = str(Path(sys.prefix) / "bin")
    launcher = Launcher(
        settings.cluster,
        storage,
        tokens.issue,
        api_url,
        commands,
        lambda preset: disks.get(preset or "", disk),
    )
    reconciler = Reconciler(
        board, writer, engines, launcher.make_spec, stop_grace=settings.stop_grace_seconds
    )
    stack.push_async_callback(reconciler.close)
    await _adopt(database, reconciler, engines)
    # Those of jobs that ended while there was no server.
    await writer.flush()
    await tokens.sweep()
    domain = settings.jobs_domain or f"localhost:{port}"
    jobs = JobService(
        database,
        board,
        writer,
        reconciler,
        engines,
        Offer(settings.cluster, presets, DEFAULT_ENGINE, domain, api_url),
        check_volumes=launcher.check_volumes,
        image_notice=_image_notice,
        feed=Feed(board),
        control=ControlLimits(settings.bakes.main_jobs, settings.bakes.main_jobs_per_owner),
        active_per_owner=settings.limits.active_jobs_per_owner,
    )
    installation = Installation(
        cluster=settings.cluster,
        presets=presets,
        capacity=whole,
        database="sqlite" if database.is_sqlite else "postgresql",
        notices={name: engine.notices for name, engine in engines.items()},
    )
    hub = Hub()
    flows = FlowService(database, settings.cluster, hub)
    bakes = BakeServices.of(database, settings.cluster, hub)
    supervision = Supervision(database, bakes, board, jobs, access, limits_of(settings.bakes))
    stack.push_async_callback(supervision.close)
    departures = Departures(access, machine_owner(), [supervision.end_all_of, jobs.end_all_of])
    app = _application(
        access,
        departures,
        storage,
        jobs,
        flows,
        bakes,
        supervision,
        installation,
        board,
        database,
        settings.limits,
        engines,
        writer,
        folder,
        domain,
    )
    limits = settings.limits
    addresses = [engine.host_address for engine in engines.values()]
    patience = Patience(
        limits.head, limits.idle, connections_per_address=limits.connections_per_address
    )
    await listen(stack, app, [listener, *bind_for_jobs(host, port, addresses)], patience)
    url = address_of(host, port)
    of_jobs = Retention(database, engines, keep_jobs(settings.retention))
    of_flows = FlowRetention(database, hub, keep_flows(settings.retention))

    async def keep_reserve() -> None:
        await asyncio.to_thread(reserve.keep, folder)

    await keep_reserve()
    sweeps = {
        "jobs": of_jobs.sweep,
        "bakes": of_flows.sweep,
        "tokens": tokens.sweep,
        "people": departures.sweep,
        "the disk's reserve": keep_reserve,
    }
    for what, sweep in sweeps.items():
        sweeper = asyncio.create_task(sweep_regularly(sweep, what), name=f"retention of {what}")
        stack.callback(sweeper.cancel)
    await supervision.start()
    await write_login(folder, access, url)
    await departures.sweep()
    return url


def _application(
    access: AccessService,
    departures: Departures,
    storage: StorageService,
    jobs: JobService,
    flows: FlowService,
    bakes: BakeServices,
    supervision: Supervision,
    installation: Installation,
    board: Board,
    database: Database,
    limits: LimitSetting,
    engines: Mapping[str, Engine],
    writer: Writer,
    folder: Path,
    jobs_domain: str,
) -> web.Application:
    async def troubles() -> list[str]:
        found = [
            f"Engine {name} can start no jobs: {engine.trouble}."
            for name, engine in engines.items()
            if engine.trouble is not None
        ]
        if writer.trouble is not None:
            found.append(writer.trouble)
        try:
            await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar())
        except PlatformError as error:
            found.append(error.message)
        return found

    metrics = Metrics()
    watch(metrics.registry, board, folder)
    routes = [
        *installation_routes(installation, board).items,
        *job_routes(jobs).items,
        *monitoring_routes(jobs).items,
        *storage_routes(storage).items,
        *access_routes(access, departures, installation.cluster).items,
        *flow_routes(flows).items,
        *bake_routes(bakes).items,
        *supervision.routes,
    ]
    operations = operation_routes(metrics, troubles, routes, __version__)
    routes += operations.items
    app = web.Application(
        middlewares=[
            metrics.middleware(),
            answer_at_jobs_addresses(jobs_domain),
            render_errors,
            backpressure(),
        ],
        client_max_size=MAX_JSON_BODY,
    )
    app.on_response_prepare.append(version_signal(__version__))
    app[AUTHENTICATOR] = access
    budgets = Budgets(limits.requests_per_user, limits.streams_per_user)
    install(app, routes, Pace(limits.body_stall), budgets)
    access.listen(app[STREAMS].end_those_of)
    return app


async def _adopt(database: Database, reconciler: Reconciler, engines: Mapping[str, Engine]) -> None:
    active = await database.read(job_tables.active_jobs)
    known: dict[str, list[RunRef]] = {}
    for name in engines:
        runs = await database.read(partial(job_tables.runs_with_logs, engine=name))
        known[name] = [RunRef(job_id, run) for job_id, run in runs]
    await reconciler.adopt(active, known)


def _prepare_database(database: Database, folder: Path) -> None:
    migrate(database)
    check_belongs(database, folder)


def _prepare_folder(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("run", "storage", "keys", "logs", "engines"):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
    return folder


def _end_in_order() -> None:
    """End the server as its administrator would: a new one finds everything as it is."""
    os.kill(os.getpid(), signal.SIGTERM)


def _engines(folder: Path, settings: Settings, port: int) -> dict[str, Engine]:
    sandbox = sandbox_settings(settings, folder, port)
    return {DEFAULT_ENGINE: SandboxEngine(folder / "engines" / "sandbox", sandbox)}


def _capacity(settings: Settings, machine: Amount) -> Amount:
    asked = settings.capacity
    return Amount(
        cpu=machine.cpu if asked.cpu is None else asked.cpu,
        memory=machine.memory if asked.memory is None else parse_bytes(asked.memory),
        gpu=machine.gpu,
    )


def keep_jobs(retention: RetentionSetting) -> Keep:
    """What the settings say of finished jobs."""
    return Keep(
        age=timedelta(days=retention.days),
        jobs=retention.jobs,
        log_bytes=parse_bytes(retention.log_bytes),
    )


def keep_flows(retention: RetentionSetting) -> KeepFlows:
    """What the settings say of finished bakes and kept outcomes."""
    return KeepFlows(
        age=timedelta(days=retention.days),
        bakes=retention.bakes,
        cache_age=timedelta(days=retention.cache_days),
    )


def _image_notice(engine: str, image: str) -> str | None:
    if engine != DEFAULT_ENGINE:
        return None
    return (
        f"Image {image} is recorded, not pulled: the sandbox engine runs every job on this"
        " machine's own programs."
    )
