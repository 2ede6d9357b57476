"""The HTTP of a server: all routes of its parts, and what is around every one of them."""

from __future__ import annotations

from functools import partial

from aiohttp import web
from sqlalchemy import text

from neuro import __version__
from neuro.domain.errors import PlatformError
from neuro.server.access.permission_routes import permission_routes
from neuro.server.access.routes import access_routes
from neuro.server.access.service_account_routes import service_account_routes
from neuro.server.bakes.assembly import bake_routes
from neuro.server.http.bodies import MAX_JSON_BODY, Pace
from neuro.server.http.budgets import Budgets
from neuro.server.http.errors import render_errors
from neuro.server.http.limits import backpressure
from neuro.server.http.operations import Metrics, operation_routes
from neuro.server.http.pages import answer_at_jobs_addresses
from neuro.server.http.routes import AUTHENTICATOR, STREAMS, install
from neuro.server.http.version import version_signal
from neuro.server.installation.preset_routes import preset_routes
from neuro.server.installation.routes import Installation, installation_routes
from neuro.server.jobs.engine_holders import EngineHolders
from neuro.server.jobs.job_secrets import uses_of
from neuro.server.jobs.passing_on import PassingOn
from neuro.server.jobs.routes import job_routes, monitoring_routes
from neuro.server.metrics import watch
from neuro.server.parts import Ground, Parts
from neuro.server.projects.routes import project_routes
from neuro.server.registry.routes import registry_routes
from neuro.server.registry.token_routes import token_routes
from neuro.server.registry.upkeep_routes import upkeep_routes
from neuro.server.secrets.routes import secret_routes
from neuro.server.storage.routes import storage_routes


def make_application(ground: Ground, parts: Parts) -> web.Application:
    """All that a server answers."""
    database, means, limits = ground.database, ground.means, ground.settings.limits
    installation = Installation(
        cluster=ground.settings.cluster,
        presets=parts.jobs.offers.presets,
        capacity=means.capacities[means.usual_engine],
        database="sqlite" if database.is_sqlite else "postgresql",
        offers=parts.jobs.offers,
        remarks=means.remarks,
        has_presets=bool(ground.settings.presets),
    )
    jobs = parts.jobs
    passing = PassingOn(EngineHolders(jobs.board, jobs.offers))
    metrics = Metrics()
    watch(metrics.registry, jobs.board, ground.folder)
    routes = [
        *installation_routes(installation, jobs.board).items,
        *preset_routes(jobs.presets, installation.cluster).items,
        *job_routes(jobs.service).items,
        *monitoring_routes(jobs.service, passing, jobs.saver).items,
        *storage_routes(ground.storage).items,
        *access_routes(ground.access, parts.departures, installation.cluster).items,
        *service_account_routes(ground.access.service_accounts, parts.departures).items,
        *secret_routes(
            ground.secrets, installation.cluster, partial(uses_of, jobs.board, installation.cluster)
        ).items,
        *permission_routes(ground.access.sharing, installation.cluster).items,
        *project_routes(parts.projects).items,
        *bake_routes(parts.bakes).items,
        *parts.supervision.routes,
        *(
            route
            for routes in registry_routes(parts.images.registry, parts.images.mirrors)
            for route in routes.items
        ),
        *(
            route
            for routes in token_routes(ground.access, installation.cluster)
            for route in routes.items
        ),
        *upkeep_routes(
            parts.images.registry, parts.images.upkeep, parts.images.census, parts.images.scrub
        ).items,
    ]
    troubles = partial(_troubles, ground, parts)
    away = partial(_away, ground, parts)
    routes += operation_routes(metrics, troubles, away, routes, __version__).items
    app = web.Application(
        middlewares=[
            metrics.middleware(),
            answer_at_jobs_addresses(ground.jobs_domain),
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


def _away(ground: Ground, parts: Parts) -> list[str]:
    """Which engines are away, in sentences: jobs of the others go on."""
    lanes = {name: lane.away for name, lane in parts.jobs.board.lanes.items()}
    found = {**ground.arrivals.away, **lanes}
    return [f"{found[name]}." for name in ground.engines if found.get(name)]


async def _troubles(ground: Ground, parts: Parts) -> list[str]:
    """Why the server can do less than it should, in sentences."""
    found = [
        f"Engine {name} can start no jobs: {engine.trouble}."
        for name, engine in ground.engines.items()
        if engine.trouble is not None
    ]
    found += ground.background.troubles + ground.fleet.background.troubles
    if parts.jobs.writer.trouble is not None:
        found.append(parts.jobs.writer.trouble)
    try:
        await ground.database.read(lambda c: c.execute(text("SELECT 1")).scalar())
    except PlatformError as error:
        found.append(error.message)
    return found
