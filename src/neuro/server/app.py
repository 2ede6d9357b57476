"""The composition root: the only place that knows every part, and the order they start in."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web
from sqlalchemy import text

from neuro import __version__
from neuro.domain.errors import InvalidInput, PlatformError
from neuro.domain.sizes import parse_bytes
from neuro.engines.base import Engine
from neuro.engines.exhaustion import FULL
from neuro.engines.storage import Storage
from neuro.server import reserve
from neuro.server.access.departure import Departures
from neuro.server.access.keys import load_or_create_key
from neuro.server.access.peers import OtherServers
from neuro.server.access.permission_routes import permission_routes
from neuro.server.access.routes import access_routes
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.bakes.assembly import BakeServices, bake_routes
from neuro.server.bakes.events import Hub
from neuro.server.bakes.leaving import leaving_with
from neuro.server.bakes.retention import FlowRetention, KeepFlows
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.identity import check_belongs
from neuro.server.database.migrate import migrate
from neuro.server.database.soundness import at_work
from neuro.server.engine_names import keep_names, of_this_machine, public_names
from neuro.server.engine_settings import (
    check_in_use,
    make_engines,
)
from neuro.server.fleet.agreement import (
    another_storage,
    check_cluster,
    check_key,
    check_storage,
    storage_id,
)
from neuro.server.fleet.assembly import Fleet, join_fleet
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
from neuro.server.jobs.assembly import Jobs, Means, start_jobs
from neuro.server.jobs.passing_on import PassingOn
from neuro.server.jobs.retention import Keep, Retention
from neuro.server.jobs.routes import job_routes, monitoring_routes
from neuro.server.jobs.writer import Writer
from neuro.server.listening import address_of, bind, bind_for_jobs, listen
from neuro.server.metrics import watch
from neuro.server.owner import (
    Announcement,
    LoginFile,
    ServerFile,
    digest_of_url,
    machine_owner,
    only_one,
)
from neuro.server.projects.routes import project_routes
from neuro.server.projects.service import ProjectService
from neuro.server.reload import digest_of
from neuro.server.settings import (
    OWN_FOLDERS,
    RetentionSetting,
    Settings,
    check_apart,
    keep_cluster,
    load_settings,
    storage_folder,
)
from neuro.server.storage.routes import storage_routes
from neuro.server.storage.service import StorageService
from neuro.server.supervision.assembly import Supervision, limits_of
from neuro.server.sweeps import Sweeps

log = structlog.get_logger("neuro.server")


@dataclass(frozen=True)
class Options:
    """What the command line decides. ``database`` is a URL, or None for SQLite in the folder.

    ``open_files`` is the soft limit of descriptors that jobs begin with, None for the server's own.
    ``started_at`` is when the process began to serve, in ISO 8601; None: now.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8085
    database: str | None = None
    open_files: int | None = None
    started_at: str | None = None


@dataclass(frozen=True)
class _Ground:
    """What every part stands on."""

    folder: Path
    settings: Settings
    database: Database
    engines: Mapping[str, Engine]
    access: AccessService
    storage: StorageService
    background: Background
    fleet: Fleet


@dataclass(frozen=True)
class _Parts:
    """What the routes and the clock call."""

    jobs: Jobs
    flows: ProjectService
    bakes: BakeServices
    supervision: Supervision
    departures: Departures


@dataclass(frozen=True)
class Server:
    """One that is ready. ``check`` raises PlatformError for settings that it cannot begin with."""

    url: str
    check: Callable[[Settings], None]


@asynccontextmanager
async def serving(options: Options) -> AsyncIterator[Server]:
    """Run the whole server; yields once every part is ready.

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
        settings = load_settings(folder / "server.toml")
        database_url = options.database or settings.database
        database, fleet = await _open_database(stack, folder, database_url)
        port = listener.getsockname()[1]
        storage = _storage_of(settings, folder)
        names = public_names(settings, folder)
        engines = make_engines(settings, names, folder, port, storage, options.open_files)
        url = address_of(options.host, port)
        await _open(stack, engines, _join(database, folder, fleet, settings, storage, url))
        background = Background(_end_in_order)
        stack.push_async_callback(background.close)
        login, jobs = await _assemble(
            stack, listener, folder, settings, database, engines, background, fleet, storage
        )
        now = datetime.now().astimezone().isoformat()
        state = ServerFile(
            pid=os.getpid(),
            url=login.url,
            host=options.host,
            database=digest_of_url(database_url),
            started_at=options.started_at or now,
            announced_at=now,
            settings=digest,
        )
        announcement = Announcement(folder, state, login, lock_again)
        keep_cluster(folder, settings.cluster)
        announcement.begin()
        stack.callback(announcement.withdraw)
        background.keep("watch over the folder 'run'", announcement.keep_on)
        log.info("ready", url=login.url)
        yield Server(login.url, partial(_check, jobs, folder, fleet, storage))


def _check(jobs: Jobs, folder: Path, fleet: Fleet, storage: Storage, settings: Settings) -> None:
    """Raise PlatformError for settings that the server could not begin again with."""
    names = public_names(settings, folder)
    check_in_use(names, Counter(record.engine for record in jobs.board.own))
    jobs.offers.check_names({names[name] for name in of_this_machine(settings)})
    other = _storage_of(settings, folder, make=False).folder
    if not fleet.leases.is_alone and storage_id(other) != storage_id(storage.folder):
        raise another_storage(other)


async def _open_database(
    stack: AsyncExitStack, folder: Path, url: str | None
) -> tuple[Database, Fleet]:
    database = Database(url or sqlite_url(folder / "neuro.db"))
    # The marker goes last: a server that is killed while it closes the database leaves it.
    stack.enter_context(at_work(database, folder / "run" / "at-work"))
    stack.callback(database.close)
    await asyncio.to_thread(migrate, database)
    # Before the engines are opened: a copy of the folder must not touch what the original's do.
    return database, await join_fleet(stack, database, folder, _end_in_order)


async def _open(
    stack: AsyncExitStack, engines: Mapping[str, Engine], beside: Awaitable[None]
) -> None:
    """Open the engines while ``beside`` is done. Whatever fails, those that are open are closed."""
    failed, *opened = await asyncio.gather(
        beside, *(engine.open() for engine in engines.values()), return_exceptions=True
    )
    for engine, error in zip(engines.values(), opened, strict=True):
        if error is None:
            stack.push_async_callback(engine.close)
    for error in (failed, *opened):
        if error is not None:
            raise error


async def _assemble(
    stack: AsyncExitStack,
    listener: socket.socket,
    folder: Path,
    settings: Settings,
    database: Database,
    engines: Mapping[str, Engine],
    background: Background,
    fleet: Fleet,
    files: Storage,
) -> tuple[LoginFile, Jobs]:
    host, port = listener.getsockname()[:2]
    key = folder / "keys" / "tokens.key"
    peers = None
    if not database.is_sqlite:
        peers = OtherServers(database, fleet.changes, fleet.id, background)
    access = AccessService(database, load_or_create_key(key), settings.cluster, peers=peers)
    # Again, now that this server is one of those that the others ask for.
    await asyncio.to_thread(check_key, database, fleet.id, key)
    await asyncio.to_thread(check_storage, database, fleet.id, files.folder)
    means = await Means.of(settings, public_names(settings, folder), engines, folder)
    owner = engines[means.default_engine].files_owner
    storage = await asyncio.to_thread(
        StorageService, storage_folder(settings, folder), settings.cluster, owner=owner
    )
    stack.push_async_callback(storage.close)
    ground = _Ground(folder, settings, database, engines, access, storage, background, fleet)
    domain = settings.jobs_domain or f"localhost:{port}"
    jobs = await start_jobs(
        stack,
        database,
        settings,
        engines,
        means,
        background,
        fleet=fleet,
        access=access,
        files=storage,
        api_url=lambda engine: address_of(engines[engine].host_address, port),
        jobs_domain=domain,
    )
    keep_names(folder, means.names, of_this_machine(settings))
    hub = Hub(fleet.changes.ring)
    parts = _parts(stack, ground, jobs, hub)
    await _listen(stack, listener, _application(ground, parts, means, domain), ground)
    await _sweep(ground, parts, hub)
    await parts.supervision.start()
    login = LoginFile(folder, access, address_of(host, port))
    await login.write()
    background.keep("watch over the owner's login", login.keep_on)
    await parts.departures.sweep()
    return login, jobs


def _storage_of(settings: Settings, data: Path, *, make: bool = True) -> Storage:
    """Where the storage is: there before the engines, which keep it from the eyes of jobs.

    What the folder is in has to be there, or the storage would begin on the local disk while the
    shared one is not mounted. Without ``make``, it is only seen whether the folder can be used.
    """
    folder = storage_folder(settings, data)
    check_apart(folder, data)
    try:
        if make:
            folder.mkdir(exist_ok=True, mode=0o700)
        elif not folder.is_dir():
            # Raises what making it would, but for the folder itself.
            with os.scandir(folder if folder.exists() else folder.parent):
                pass
        return Storage(settings.cluster, folder.resolve(strict=make))
    except FileNotFoundError:
        raise InvalidInput(
            f"The folder of the storage, {folder}, is not there, and neither is {folder.parent}: is"
            " it mounted? See [storage] in server.toml."
        ) from None
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InvalidInput(
            f"The folder of the storage, {folder}, cannot be used: {error.strerror or error}. See"
            " [storage] in server.toml."
        ) from None


def _parts(stack: AsyncExitStack, ground: _Ground, jobs: Jobs, hub: Hub) -> _Parts:
    database, settings, access = ground.database, ground.settings, ground.access
    bakes = BakeServices.of(database, settings.cluster, hub)
    limits = limits_of(settings.bakes)
    supervision = Supervision(
        database,
        bakes,
        jobs.board,
        jobs.service,
        access,
        limits,
        ground.background,
        ground.fleet,
    )
    stack.push_async_callback(supervision.close)
    leaving = [supervision.end_all_of, jobs.service.end_all_of]
    departures = Departures(access, machine_owner(), leaving)
    flows = ProjectService(database, settings.cluster, partial(leaving_with, hub))
    return _Parts(jobs, flows, bakes, supervision, departures)


def _application(ground: _Ground, parts: _Parts, means: Means, jobs_domain: str) -> web.Application:
    database, limits = ground.database, ground.settings.limits
    installation = Installation(
        cluster=ground.settings.cluster,
        presets=parts.jobs.offers.presets,
        capacity=means.capacities[means.default_engine],
        database="sqlite" if database.is_sqlite else "postgresql",
        offers=parts.jobs.offers,
        remarks=means.remarks,
    )
    jobs = parts.jobs
    passing = PassingOn(jobs.service)
    metrics = Metrics()
    watch(metrics.registry, jobs.board, ground.folder)
    routes = [
        *installation_routes(installation, jobs.board).items,
        *job_routes(jobs.service).items,
        *monitoring_routes(jobs.service, passing).items,
        *storage_routes(ground.storage).items,
        *access_routes(ground.access, parts.departures, installation.cluster).items,
        *permission_routes(ground.access.sharing, installation.cluster).items,
        *project_routes(parts.flows).items,
        *bake_routes(parts.bakes).items,
        *parts.supervision.routes,
    ]
    troubles = partial(_troubles, ground, jobs.writer)
    routes += operation_routes(metrics, troubles, routes, __version__).items
    app = web.Application(
        middlewares=[
            metrics.middleware(),
            answer_at_jobs_addresses(jobs_domain),
            render_errors,
            backpressure(),
        ],
        client_max_size=MAX_JSON_BODY,
    )
    app.on_cleanup.append(passing.close)
    app.on_response_prepare.append(version_signal(__version__))
    app[AUTHENTICATOR] = ground.access
    budgets = Budgets(limits.requests_per_user, limits.streams_per_user)
    install(app, routes, Pace(limits.body_stall), budgets)
    ground.access.listen(app[STREAMS].end_those_of)
    ground.access.ask(app[STREAMS].tokens)
    book, streams = ground.access.book, app[STREAMS]
    book.listen(lambda users: streams.grants_changed(users, book.of))
    return app


async def _troubles(ground: _Ground, writer: Writer) -> list[str]:
    """Why the server can do less than it should, in sentences."""
    found = [
        f"Engine {name} can start no jobs: {engine.trouble}."
        for name, engine in ground.engines.items()
        if engine.trouble is not None
    ]
    found += ground.background.troubles + ground.fleet.background.troubles
    if writer.trouble is not None:
        found.append(writer.trouble)
    try:
        await ground.database.read(lambda c: c.execute(text("SELECT 1")).scalar())
    except PlatformError as error:
        found.append(error.message)
    return found


async def _listen(
    stack: AsyncExitStack, listener: socket.socket, app: web.Application, ground: _Ground
) -> None:
    host, port = listener.getsockname()[:2]
    limits = ground.settings.limits
    addresses = [engine.host_address for engine in ground.engines.values()]
    patience = Patience(
        limits.head, limits.idle, connections_per_address=limits.connections_per_address
    )
    listeners = [listener, *bind_for_jobs(host, port, addresses)]
    await listen(stack, app, listeners, patience, passes_on=not ground.database.is_sqlite)


async def _sweep(ground: _Ground, parts: _Parts, hub: Hub) -> None:
    settings, database, leases = ground.settings, ground.database, ground.fleet.leases

    async def keep_reserve() -> None:
        await asyncio.to_thread(reserve.keep, ground.folder)

    await keep_reserve()
    jobs = Retention(database, ground.engines, keep_jobs(settings.retention), leases)
    own = {
        "sweep of old jobs": jobs.sweep,
        "sweep of people who are gone": parts.departures.sweep,
        "reserve of the disk": keep_reserve,
    }
    shared = {
        "sweep of old bakes": FlowRetention(database, hub, keep_flows(settings.retention)).sweep,
        "sweep of grants": ground.access.sharing.sweep,
        "sweep of tokens": parts.jobs.tokens.sweep,
    }
    await Sweeps(ground.background, own, shared).start(leases)


def _end_in_order() -> None:
    """End the server as its administrator would: a new one finds everything as it is."""
    os.kill(os.getpid(), signal.SIGTERM)


async def _join(
    database: Database,
    folder: Path,
    fleet: Fleet,
    settings: Settings,
    storage: Storage,
    url: str,
) -> None:
    """Tie the folder to the database, and agree with the other servers that are there."""
    await asyncio.to_thread(check_belongs, database, folder)
    await asyncio.to_thread(check_cluster, database, settings.cluster)
    await asyncio.to_thread(check_key, database, fleet.id, folder / "keys" / "tokens.key")
    await asyncio.to_thread(check_storage, database, fleet.id, storage.folder)
    name, address = settings.server.name, settings.server.url
    url = f"{address.rstrip('/')}/api/v1" if address else url
    await fleet.servers.enter(name, url, datetime.now(UTC))


def _prepare_folder(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("storage", *OWN_FOLDERS):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
    return folder


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
