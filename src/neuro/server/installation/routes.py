"""``GET /config`` and the state of the installation.

See docs/reference/wire-protocol.md#configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from neuro import __version__
from neuro.domain.frames import BULK_FEATURE
from neuro.domain.jobs import JobStatus
from neuro.domain.resources import GIB, Amount, Preset
from neuro.domain.server_config import (
    ClusterMessage,
    PoolMessage,
    ProjectMessage,
    ServerConfig,
)
from neuro.server.http.origin import base_url
from neuro.server.http.routes import FOR_ALL_USERS, Call, Routes
from neuro.server.installation.preset_routes import preset_message
from neuro.server.jobs.board import Board
from neuro.server.jobs.offers import Offers

CLIENT_ID = "neuro-cli"
CALLBACKS = [f"http://127.0.0.1:{port}" for port in (54540, 54541, 54542)]
MONITORING_PATH = "/monitoring/jobs"
# Additions of this platform to the wire; a client uses only what it finds here.
FEATURES = [BULK_FEATURE]


class EngineMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: all that it has, what is free, and what its admin should know.

    ``is_here`` says whether this server has it now, and not another one of the same database.
    ``away`` says what keeps its jobs waiting where it is away, or no server has it; it is one of
    the notices too.
    """

    name: str
    is_here: bool
    away: str | None
    capacity: Amount
    free: Amount
    running: int
    pending: int
    notices: list[str]


class ServerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """``notices`` are what an admin should know of the settings."""

    version: str
    cluster: str
    database: str
    engines: list[EngineMessage]
    notices: list[str]


@dataclass(frozen=True)
class Installation:
    """What there is; most of it does not change while the server runs.

    ``presets`` and ``offers`` are those of all servers, and do change. ``remarks`` are those about
    the settings, which ``has_presets`` of their own.
    """

    cluster: str
    presets: list[Preset]
    capacity: Amount
    database: str
    offers: Offers
    remarks: list[str]
    has_presets: bool = False


def installation_routes(installation: Installation, board: Board) -> Routes:
    """The configuration that every client reads first, and the engines' state."""
    api = Routes("installation")

    @api.add("GET", "/api/v1/config", public=True, section="configuration")
    async def get_config(call: Call) -> ServerConfig:
        """Where everything is; with a token also what the cluster offers."""
        base = base_url(call.request)
        anonymous = ServerConfig(
            auth_url=f"{base}/oauth/authorize",
            token_url=f"{base}/oauth/token",
            logout_url=f"{base}/oauth/logout",
            client_id=CLIENT_ID,
            audience=base,
            headless_callback_url=f"{base}/oauth/show-code",
            callback_urls=CALLBACKS,
        )
        if call.identity_or_none is None:
            return anonymous
        return msgspec.structs.replace(
            anonymous,
            authorized=True,
            user_name=call.user,
            clusters=[_cluster(installation, base)],
            projects=[
                ProjectMessage(
                    name=call.user, cluster_name=installation.cluster, org_name=None, role="admin"
                )
            ],
            features=FEATURES,
            server_version=__version__,
        )

    @api.add("GET", "/api/v1/server", inside=FOR_ALL_USERS)
    async def get_server(call: Call) -> ServerMessage:
        """The version, and each engine with what is free."""
        return ServerMessage(
            version=__version__,
            cluster=installation.cluster,
            database=installation.database,
            engines=[
                _engine(installation.offers, board, name) for name in installation.offers.engines
            ],
            notices=[*installation.remarks, *_about_presets(installation)],
        )

    return api


def _about_presets(installation: Installation) -> list[str]:
    if not installation.has_presets or installation.offers.presets_in_settings:
        return []
    return [
        "the presets of server.toml are not used: an administrator has changed them with `neuro"
        " admin`, and `neuro admin list-resource-presets` shows those that hold. Take them out of"
        " server.toml"
    ]


def _engine(offers: Offers, board: Board, name: str) -> EngineMessage:
    away = _absence(offers, board, name)
    return EngineMessage(
        name=name,
        is_here=name in board.lanes,
        away=away,
        capacity=offers.capacity(name, board),
        free=offers.free(name, board),
        running=_running(board, name),
        pending=_pending(board, name),
        notices=[*offers.engines[name].notices, *([away] if away else [])],
    )


def _absence(offers: Offers, board: Board, engine: str) -> str | None:
    """What an admin should know of an engine that is away, or that no server has."""
    lane, offer = board.lanes.get(engine), offers.engines[engine]
    why = offer.away if lane is None else lane.away
    if why is not None:
        return f"{why}. Its jobs wait, and start when it is there."
    if lane is not None or offers.is_held(engine):
        return None
    if offer.of_this_machine:
        return f"No server has the engine '{engine}' now: start the one that it belongs to."
    return f"No server has the engine '{engine}' now."


def _pending(board: Board, engine: str) -> int:
    lane = board.lanes.get(engine)
    if lane is not None:
        return len(lane.queue)
    return board.load_of(engine).waiting


def _running(board: Board, engine: str) -> int:
    if engine not in board.lanes:
        return board.load_of(engine).running
    return sum(
        record.engine == engine and record.status is JobStatus.RUNNING for record in board.placed()
    )


def _cluster(installation: Installation, base: str) -> ClusterMessage:
    api = f"{base}/api/v1"
    capacity = installation.capacity
    return ClusterMessage(
        name=installation.cluster,
        orgs=[None],
        registry_url=base,
        storage_url=f"{api}/storage",
        users_url=api,
        monitoring_url=api + MONITORING_PATH,
        secrets_url=f"{api}/secrets",
        disks_url=f"{api}/disk",
        buckets_url=f"{api}/buckets",
        resource_presets=[preset_message(preset) for preset in installation.presets],
        resource_pool_types=[
            PoolMessage(
                name="local",
                min_size=1,
                max_size=1,
                cpu=capacity.cpu,
                memory=capacity.memory,
                disk_size=100 * GIB,
            )
        ],
    )
