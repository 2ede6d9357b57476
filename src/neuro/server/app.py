"""The composition root: the only place that knows every part, and the order they start in."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

import structlog
from aiohttp import web

from neuro.engines.base import Engine
from neuro.engines.storage import Storage
from neuro.server import reserve
from neuro.server.access.departure import Departures
from neuro.server.access.keys import load_or_create_key
from neuro.server.access.peers import OtherServers
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.bakes.assembly import BakeServices
from neuro.server.bakes.events import Hub
from neuro.server.bakes.leaving import leaving_with
from neuro.server.bakes.retention import FlowRetention, keep_flows
from neuro.server.bytecode import keep_compiled
from neuro.server.database.alone import alone
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.identity import check_belongs
from neuro.server.database.migrate import migrate
from neuro.server.database.soundness import at_work
from neuro.server.engine_choice import Choice, choose
from neuro.server.engine_names import keep_names, of_this_machine, public_names
from neuro.server.engine_settings import DEFAULT_ENGINE, check_in_use, make_engines
from neuro.server.fleet.agreement import (
    another_storage,
    check_cluster,
    check_key,
    check_storage,
    storage_id,
)
from neuro.server.fleet.assembly import Fleet, join_fleet
from neuro.server.http.connections import Patience
from neuro.server.jobs.arrivals import Arrivals
from neuro.server.jobs.assembly import Jobs, Means, start_jobs
from neuro.server.jobs.holder import Holder
from neuro.server.jobs.retention import Retention, keep_jobs
from neuro.server.listening import (
    address_of,
    bind,
    bind_for_engines,
    bind_for_jobs,
    listen,
    listen_on,
)
from neuro.server.owner import (
    Announcement,
    LoginFile,
    ServerFile,
    digest_of_url,
    machine_owner,
    only_one,
)
from neuro.server.parts import Ground, Parts
from neuro.server.projects.service import ProjectService
from neuro.server.registry.assembly import open_images, readable_by_all
from neuro.server.registry.blobs import IMAGES
from neuro.server.reload import digest_of
from neuro.server.secrets.keyring import KeyRing
from neuro.server.secrets.service import Secrets
from neuro.server.settings import (
    OWN_FOLDERS,
    Settings,
    keep_cluster,
    keep_engine,
    load_settings,
    storage_folder,
)
from neuro.server.storage.folder import storage_of
from neuro.server.storage.service import StorageService
from neuro.server.supervision.assembly import Supervision, limits_of
from neuro.server.sweeps import Sweeps
from neuro.server.web import make_application

log = structlog.get_logger("neuro.server")


@dataclass(frozen=True)
class Options:
    """What the command line decides. ``database`` is a URL, or None for SQLite in the folder.

    ``engine`` runs the jobs of presets that name none; None: see ``engine_choice``. ``open_files``
    is the soft limit of descriptors that jobs begin with, None for the server's own.
    ``started_at`` is when the process began to serve, in ISO 8601; None: now.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8085
    database: str | None = None
    engine: str | None = None
    open_files: int | None = None
    started_at: str | None = None


@dataclass(frozen=True)
class Server:
    """One that is ready. ``check`` raises PlatformError for settings that it cannot begin with.

    ``choice`` is the engine that was chosen at this start.
    """

    url: str
    choice: Choice | None
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
        choice = await asyncio.to_thread(choose, folder, options.engine)
        settings = load_settings(folder / "server.toml", choice.engine if choice else None)
        database_url = options.database or settings.database
        database, fleet = await _open_database(stack, folder, database_url)
        port = listener.getsockname()[1]
        is_new = not storage_folder(settings, folder).exists()
        place = storage_of(settings, folder)
        refused = stack.enter_context(ExitStack())
        if is_new:
            refused.callback(_remove_empty, place.folder)
        names = public_names(settings, folder)
        engines = make_engines(settings, names, folder, port, place, options.open_files)
        url = address_of(options.host, port)
        arrivals = Arrivals(engines, names[DEFAULT_ENGINE])
        await _open(stack, arrivals, _join(database, folder, fleet, settings, place, url))
        addresses = {name: engines[name].host_address for name in arrivals.there}
        listeners = bind_for_engines(stack, listener, addresses, arrivals.missed)
        background = Background(_end_in_order)
        stack.push_async_callback(background.close)
        access = await _open_access(folder, settings, database, fleet, background)
        # Again, now that this server is one of those that the others ask for.
        await _agree(database, folder, fleet, place)
        embedded = engines[names[DEFAULT_ENGINE]]
        gpu_model = engines[names[settings.engine]].gpu_model or embedded.gpu_model
        means = Means.of(settings, names, arrivals.nodes, gpu_model, folder)
        storage = await _open_storage(stack, folder, settings, embedded)
        ground = Ground(
            folder,
            settings,
            database,
            engines,
            means,
            access,
            storage,
            Secrets(
                database,
                KeyRing(folder / "keys" / "secrets.key"),
                settings.cluster,
                access.identity_of,
            ),
            background,
            fleet,
            arrivals,
            port,
            url,
        )
        parts = await _make_parts(stack, ground)
        app = make_application(ground, parts)
        await _listen(stack, listener, listeners, app, ground, parts.jobs.holder)
        await _sweep(ground, parts)
        await parts.supervision.start()
        login = LoginFile(folder, access, address_of(*listener.getsockname()[:2]))
        await login.write()
        background.keep("watch over the owner's login", login.keep_on)
        await parts.departures.sweep()
        now = datetime.now().astimezone().isoformat()
        state = ServerFile(
            pid=os.getpid(),
            url=login.url,
            host=options.host,
            database=digest_of_url(database_url),
            started_at=options.started_at or now,
            announced_at=now,
            settings=digest,
            engine=settings.engine,
        )
        announcement = Announcement(folder, state, login, lock_again)
        keep_engine(folder, settings.engine)
        keep_cluster(folder, settings.cluster)  # Last: a folder that has one is not new any more.
        announcement.begin()
        stack.callback(announcement.withdraw)
        background.keep("watch over the folder 'run'", announcement.keep_on)
        background.errands("compiling of modules").begin(keep_compiled())
        refused.pop_all()
        log.info("ready", url=login.url)
        yield Server(login.url, choice, partial(_check, parts.jobs, folder, fleet, place))


def _check(jobs: Jobs, folder: Path, fleet: Fleet, storage: Storage, settings: Settings) -> None:
    """Raise PlatformError for settings that the server could not begin again with."""
    names = public_names(settings, folder)
    check_in_use(names, Counter(record.engine for record in jobs.board.own))
    jobs.offers.check_names({names[name] for name in of_this_machine(settings)})
    other = storage_of(settings, folder, make=False).folder
    if not fleet.leases.is_alone and storage_id(other) != storage_id(storage.folder):
        raise another_storage(other)


async def _open_database(
    stack: AsyncExitStack, folder: Path, url: str | None
) -> tuple[Database, Fleet]:
    database = Database(url or sqlite_url(folder / "neuro.db"))
    stack.enter_context(alone(database))
    # The marker goes last: a server that is killed while it closes the database leaves it.
    stack.enter_context(at_work(database, folder / "run" / "at-work"))
    stack.callback(database.close)
    await asyncio.to_thread(migrate, database)
    # Before the engines are opened: a copy of the folder must not touch what the original's do.
    return database, await join_fleet(stack, database, folder, _end_in_order)


async def _open(stack: AsyncExitStack, arrivals: Arrivals, beside: Awaitable[None]) -> None:
    """Open the engines while ``beside`` is done. Whatever fails, those that are open are closed."""
    stack.push_async_callback(arrivals.close)
    for error in await asyncio.gather(beside, arrivals.open(), return_exceptions=True):
        if error is not None:
            raise error


async def _open_access(
    folder: Path, settings: Settings, database: Database, fleet: Fleet, background: Background
) -> AccessService:
    key = folder / "keys" / "tokens.key"
    peers = None
    if not database.is_sqlite:
        peers = OtherServers(database, fleet.changes, fleet.id, background)
    return AccessService(
        database,
        load_or_create_key(key),
        settings.cluster,
        peers=peers,
        everybodys=readable_by_all(settings.images.mirrors, settings.cluster),
    )


async def _open_storage(
    stack: AsyncExitStack, folder: Path, settings: Settings, engine: Engine
) -> StorageService:
    owner = engine.files_owner
    storage = await asyncio.to_thread(
        StorageService, storage_folder(settings, folder), settings.cluster, owner=owner
    )
    stack.push_async_callback(storage.close)
    return storage


async def _make_parts(stack: AsyncExitStack, ground: Ground) -> Parts:
    database, settings, access = ground.database, ground.settings, ground.access
    jobs = await start_jobs(
        stack,
        database,
        settings,
        ground.engines,
        ground.means,
        ground.background,
        fleet=ground.fleet,
        arrivals=ground.arrivals,
        access=access,
        files=ground.storage,
        api_url=lambda engine: address_of(ground.engines[engine].host_address, ground.port),
        registry=ground.registry,
        jobs_domain=ground.jobs_domain,
        secrets=ground.secrets,
    )
    keep_names(ground.folder, ground.means.names, of_this_machine(settings))
    bakes = BakeServices.of(database, settings.cluster, Hub(ground.fleet.changes.ring))
    supervision = Supervision(
        database,
        bakes,
        jobs.board,
        jobs.service,
        access,
        limits_of(settings.bakes),
        ground.background,
        ground.fleet,
    )
    stack.push_async_callback(supervision.close)
    # In the storage, as all servers see that one; no path of the API leads there.
    folder = storage_folder(settings, ground.folder) / IMAGES
    images = await open_images(stack, database, folder, settings.cluster, settings.images)
    leaving = [
        supervision.end_all_of,
        jobs.service.end_all_of,
        images.registry.uploads.end_all_of,
        ground.secrets.end_all_of,
    ]
    departures = Departures(access, machine_owner(), leaving)
    projects = ProjectService(database, settings.cluster, partial(leaving_with, bakes.hub))
    return Parts(jobs, projects, bakes, supervision, departures, images)


async def _listen(
    stack: AsyncExitStack,
    listener: socket.socket,
    for_jobs: dict[str, list[socket.socket]],
    app: web.Application,
    ground: Ground,
    holder: Holder,
) -> None:
    """Listen wherever jobs find the server, also those of engines that are away until later."""
    host, port = listener.getsockname()[:2]
    limits = ground.settings.limits
    addresses = set(for_jobs)
    patience = Patience(
        limits.head, limits.idle, connections_per_address=limits.connections_per_address
    )
    listeners = [listener, *chain.from_iterable(for_jobs.values())]
    runner = await listen(stack, app, listeners, patience, passes_on=not ground.database.is_sqlite)

    async def came(name: str) -> None:
        address = ground.engines[name].host_address
        if address not in addresses:
            await listen_on(runner, bind_for_jobs(host, port, [address]))
            addresses.add(address)
        await holder.came(name)

    ground.arrivals.begin(came)
    stack.push_async_callback(ground.arrivals.stop)


async def _sweep(ground: Ground, parts: Parts) -> None:
    database, leases = ground.database, ground.fleet.leases
    retention, hub = ground.settings.retention, parts.bakes.hub

    async def keep_reserve() -> None:
        await asyncio.to_thread(reserve.keep, ground.folder)

    await keep_reserve()
    jobs = Retention(database, ground.engines, keep_jobs(retention), leases, parts.jobs.unmet)
    own = {
        "sweep of old jobs": jobs.sweep,
        "sweep of people who are gone": parts.departures.sweep,
        "reserve of the disk": keep_reserve,
    }
    shared = {
        "sweep of old bakes": FlowRetention(database, hub, keep_flows(retention)).sweep,
        "sweep of grants": ground.access.sharing.sweep,
        "sweep of tokens": parts.jobs.tokens.sweep,
        "sweep of tags": parts.images.upkeep.sweep,
        "sweep of images": parts.images.collection.sweep,
    }
    await Sweeps(ground.background, own, shared).start(leases)


def _end_in_order() -> None:
    """End the server as its administrator would: a new one finds everything as it is."""
    os.kill(os.getpid(), signal.SIGTERM)


async def _agree(database: Database, folder: Path, fleet: Fleet, storage: Storage) -> None:
    """See that this server has the key and the storage of the others."""
    await asyncio.to_thread(check_key, database, fleet.id, folder / "keys" / "tokens.key")
    await asyncio.to_thread(check_storage, database, fleet.id, storage.folder)


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
    await _agree(database, folder, fleet, storage)
    name, address = settings.server.name, settings.server.url
    url = f"{address.rstrip('/')}/api/v1" if address else url
    await fleet.servers.enter(name, url, datetime.now(UTC))


def _remove_empty(folder: Path) -> None:
    """Leave nothing of a start that was refused, such as for a storage that is not mounted."""
    with suppress(OSError):
        folder.rmdir()


def _prepare_folder(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("storage", *OWN_FOLDERS):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
    return folder
