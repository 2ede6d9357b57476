"""The composition root: the only place that knows every part, and the order they start in."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
import structlog
from aiohttp import web
from sqlalchemy import text

from neuro import __version__
from neuro.domain.errors import Conflict, NotAuthenticated, NotFound
from neuro.domain.names import user_name_from
from neuro.domain.resources import Amount
from neuro.engines.base import Engine, RunRef
from neuro.engines.sandbox.engine import SandboxEngine
from neuro.engines.sandbox.output import Retention as LogRetention
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.server.access.keys import load_or_create_key
from neuro.server.access.routes import access_routes
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.identity import check_belongs
from neuro.server.database.migrate import migrate
from neuro.server.http.errors import render_errors
from neuro.server.http.limits import Streams, backpressure
from neuro.server.http.operations import Metrics, operation_routes
from neuro.server.http.routes import AUTHENTICATOR, MAX_JSON_BODY, install
from neuro.server.installation.routes import Installation, installation_routes
from neuro.server.jobs import tables as job_tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.launch import Launcher
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.retention import Keep, Retention
from neuro.server.jobs.routes import job_routes, monitoring_routes
from neuro.server.jobs.service import JobService, Offer
from neuro.server.jobs.writer import Writer
from neuro.server.settings import Settings, load_settings, parse_bytes, presets_for
from neuro.server.storage.paths import MAX_LINE_BYTES
from neuro.server.storage.routes import storage_routes
from neuro.server.storage.service import StorageService

log = structlog.get_logger("neuro.server")

DEFAULT_ENGINE = "sandbox"
EVERYWHERE = ("0.0.0.0", "::", "")
# How long an ordinary request (an upload, say) may take to end; streams are ended at once.
SHUTDOWN_SECONDS = 30.0
JOB_TOKEN_LIFE = timedelta(days=30)


@dataclass(frozen=True)
class Options:
    """What the command line decides. ``database`` is a URL, or None for SQLite in the folder."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8085
    database: str | None = None


class OwnerLogin(msgspec.Struct, frozen=True):
    """``run/owner.json``: how the machine's user logs in without a browser."""

    url: str
    token: str
    user: str


@asynccontextmanager
async def serving(options: Options) -> AsyncIterator[str]:
    """Run the whole server; yields the API's URL once every part is ready.

    Raises Conflict where another server has the data folder or the port, InvalidInput for bad
    settings, EngineFault where this machine cannot run jobs.
    """
    async with AsyncExitStack() as stack:
        folder = _prepare_folder(options.data_dir)
        stack.enter_context(_only_one(folder / "run" / "lock"))
        # The port is taken first: a conflict is known before anything else is touched.
        listener = stack.enter_context(_bind(options.host, options.port))
        settings = load_settings(folder / "server.toml")
        url = options.database or settings.database or sqlite_url(folder / "neuro.db")
        database = Database(url)
        stack.callback(database.close)
        engines = _engines(folder, settings, listener.getsockname()[1])
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(None, _prepare_database, database, folder),
            *(engine.open() for engine in engines.values()),
        )
        for engine in engines.values():
            stack.push_async_callback(engine.close)
        address = await _assemble(stack, listener, folder, settings, database, engines)
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
    storage = StorageService(folder / "storage", settings.cluster)
    stack.push_async_callback(storage.close)
    capacities = {
        name: _capacity(settings, await engine.capacity()) for name, engine in engines.items()
    }
    whole = capacities[DEFAULT_ENGINE]
    sandbox = engines[DEFAULT_ENGINE]
    presets = presets_for(settings, whole, getattr(sandbox, "gpu_model", None))
    board = Board(capacities)
    writer = Writer(database)
    writer.start()
    stack.push_async_callback(writer.close)
    host, port = listener.getsockname()[:2]

    async def job_token(user: str, label: str) -> str:
        token = await access.make_token(user, label=label, life=JOB_TOKEN_LIFE)
        return token.token or ""

    def api_url(engine: str) -> str:
        address = getattr(engines[engine], "host_address", None) or "127.0.0.1"
        return f"http://{address}:{port}/api/v1"

    launcher = Launcher(settings.cluster, storage, job_token, api_url)
    reconciler = Reconciler(
        board, writer, engines, launcher.make_spec, stop_grace=settings.stop_grace_seconds
    )
    stack.push_async_callback(reconciler.close)
    await _adopt(database, reconciler, engines)
    domain = settings.jobs_domain or f"localhost:{port}"
    jobs = JobService(
        database,
        board,
        writer,
        reconciler,
        engines,
        Offer(settings.cluster, presets, DEFAULT_ENGINE, domain),
        check_volumes=launcher.check_volumes,
        image_notice=_image_notice,
    )
    installation = Installation(
        cluster=settings.cluster,
        presets=presets,
        capacity=whole,
        database="sqlite" if database.is_sqlite else "postgresql",
        notices={name: list(getattr(e, "notices", [])) for name, e in engines.items()},
    )
    app = _application(access, storage, jobs, installation, board, database)
    await _listen(stack, app, [listener, *_job_side_listeners(host, port, engines)])
    url = f"http://{_shown(host)}:{port}/api/v1"
    retention = Retention(database, engines, _keep(settings))
    sweeper = asyncio.create_task(retention.run(), name="retention")
    stack.callback(sweeper.cancel)
    await _announce(stack, folder, access, url)
    return url


def _application(
    access: AccessService,
    storage: StorageService,
    jobs: JobService,
    installation: Installation,
    board: Board,
    database: Database,
) -> web.Application:
    def gauges() -> dict[str, dict[str, float]]:
        counts: dict[str, float] = {"pending": 0.0, "running": 0.0}
        for record in board:
            counts[record.status.value] = counts.get(record.status.value, 0.0) + 1
        free = {name: lane.free for name, lane in board.lanes.items()}
        return {
            "neuro_jobs_active": counts,
            "neuro_engine_free_cpu_cores": {name: amount.cpu for name, amount in free.items()},
            "neuro_engine_free_memory_bytes": {
                name: float(amount.memory) for name, amount in free.items()
            },
        }

    async def is_ready() -> bool:
        with contextlib.suppress(Exception):
            await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar())
            return True
        return False

    metrics = Metrics(gauges)
    routes = [
        *installation_routes(installation, board).items,
        *job_routes(jobs).items,
        *monitoring_routes(jobs).items,
        *storage_routes(storage).items,
        *access_routes(access, installation.cluster).items,
    ]
    operations = operation_routes(metrics, is_ready, routes, __version__)
    routes += operations.items
    streams = Streams()
    app = web.Application(
        middlewares=[metrics.middleware(), render_errors, backpressure(streams)],
        client_max_size=MAX_JSON_BODY,
    )
    app.on_shutdown.append(streams.end_all)
    app[AUTHENTICATOR] = access
    install(app, routes)
    return app


async def _listen(
    stack: AsyncExitStack, app: web.Application, listeners: list[socket.socket]
) -> None:
    runner = web.AppRunner(
        app,
        access_log=None,
        max_line_size=MAX_LINE_BYTES,
        # A client that leaves ends its stream at once; what must not be cut short is shielded.
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for listener in listeners:
        await web.SockSite(runner, listener, backlog=1024).start()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise Conflict(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another port"
            " with --port, or stop what uses this one."
        ) from error
    return listener


def _shown(host: str) -> str:
    if host in EVERYWHERE:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _job_side_listeners(host: str, port: int, engines: Mapping[str, Engine]) -> list[socket.socket]:
    # Jobs with a network of their own reach the API (``--pass-config``) on the engine's address;
    # a server that listens everywhere has it already.
    if host in EVERYWHERE:
        return []
    addresses = {getattr(engine, "host_address", None) for engine in engines.values()}
    return [
        _bind(address, port)
        for address in sorted(address for address in addresses if address)
        if not address.startswith("127.")
    ]


async def _adopt(database: Database, reconciler: Reconciler, engines: Mapping[str, Engine]) -> None:
    active = await database.read(job_tables.active_jobs)
    known: dict[str, list[RunRef]] = {}
    for name in engines:
        runs = await database.read(partial(job_tables.runs_with_logs, engine=name))
        known[name] = [RunRef(job_id, run) for job_id, run in runs]
    await reconciler.adopt(active, known)


async def _announce(stack: AsyncExitStack, folder: Path, access: AccessService, url: str) -> None:
    owner = user_name_from(getpass.getuser())
    try:
        await access.user(owner)
    except NotFound:
        await access.add_user(owner, is_admin=True)
    login = folder / "run" / "owner.json"
    token = await _owner_token(login, access, owner)
    _write_private(login, msgspec.json.encode(OwnerLogin(url=url, token=token, user=owner)))
    state = folder / "run" / "server.json"
    started_at = datetime.now().astimezone().isoformat()
    _write_private(
        state, msgspec.json.encode({"pid": os.getpid(), "url": url, "started_at": started_at})
    )
    stack.callback(state.unlink, missing_ok=True)


async def _owner_token(login: Path, access: AccessService, owner: str) -> str:
    with contextlib.suppress(OSError, msgspec.MsgspecError, NotAuthenticated):
        kept = msgspec.json.decode(login.read_bytes(), type=OwnerLogin)
        identity = await access.authenticate(kept.token)
        if identity.user == owner:
            return kept.token
    token = await access.make_token(owner, label="this machine's owner")
    return token.token or ""


def _write_private(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.rename(path)


def _prepare_database(database: Database, folder: Path) -> None:
    migrate(database)
    check_belongs(database, folder)


def _prepare_folder(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("run", "storage", "keys", "logs", "engines"):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
    return folder


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[IO[bytes]]:
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"A server runs on {path.parent.parent} already: stop it with `neuro down`, or"
                " choose another folder with --data-dir."
            ) from None
        yield lock


def _engines(folder: Path, settings: Settings, port: int) -> dict[str, Engine]:
    sandbox = SandboxSettings(
        masked=(str(folder),),
        host_port=port,
        retention=LogRetention(total=parse_bytes(settings.log_limit)),
    )
    return {DEFAULT_ENGINE: SandboxEngine(folder / "engines" / "sandbox", sandbox)}


def _capacity(settings: Settings, machine: Amount) -> Amount:
    asked = settings.capacity
    return Amount(
        cpu=machine.cpu if asked.cpu is None else asked.cpu,
        memory=machine.memory if asked.memory is None else parse_bytes(asked.memory),
        gpu=machine.gpu,
    )


def _keep(settings: Settings) -> Keep:
    retention = settings.retention
    return Keep(
        age=timedelta(days=retention.days),
        jobs=retention.jobs,
        log_bytes=parse_bytes(retention.log_bytes),
    )


def _image_notice(engine: str, image: str) -> str | None:
    if engine != DEFAULT_ENGINE:
        return None
    return (
        f"Image {image} is recorded, not pulled: the sandbox engine runs every job on this"
        " machine's own programs."
    )
