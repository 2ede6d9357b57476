"""What jobs need, put together: what the machine offers, who moves them, what routes call."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from neuro.domain.resources import Amount, Preset
from neuro.engines.base import BuildsImages, Engine, Node
from neuro.engines.registry import EngineSettings, kind_of
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.engine_settings import (
    DEFAULT_ENGINE,
    Share,
    check_in_use,
    engine_settings,
    kind_name,
    shares_of,
    total,
)
from neuro.server.fleet.assembly import Fleet
from neuro.server.fleet.reach import this_machine
from neuro.server.jobs import lookups
from neuro.server.jobs.arrivals import Arrivals
from neuro.server.jobs.board import Board
from neuro.server.jobs.damaged import DamagedJobs
from neuro.server.jobs.events import JobEvents
from neuro.server.jobs.follower import JobFollower
from neuro.server.jobs.holder import Holder
from neuro.server.jobs.intents import Intents
from neuro.server.jobs.job_secrets import JobSecrets
from neuro.server.jobs.launch import Files, Launcher
from neuro.server.jobs.offers import EngineOffer, Offered, Offers, offered
from neuro.server.jobs.others import Others
from neuro.server.jobs.passed_tokens import PassedTokens
from neuro.server.jobs.plan import JobLimits, Offer
from neuro.server.jobs.presets import Presets
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.saving import JobSaver
from neuro.server.jobs.service import JobService
from neuro.server.jobs.writer import Writer
from neuro.server.secrets.service import Secrets
from neuro.server.settings import Settings, disk_for, presets_for
from neuro.server.settings_remarks import remarks


@dataclass(frozen=True)
class Means:
    """What the engines have: ``capacities`` of each, presets, bytes of ``disk`` for the rest.

    ``capacities`` are what there was at the start, ``shares`` what jobs may have of what there is.
    ``kinds`` are the kinds of the engines, ``without_images`` those to which an image is a name
    alone, ``default_engine`` is the embedded one,
    ``usual_engine`` that of presets that name none, and ``remarks``
    are sentences about settings that ask for more. ``names`` are the public names of the engines by
    those in the settings; all else has the public ones.
    """

    capacities: dict[str, Amount]
    shares: dict[str, Share]
    presets: list[Preset]
    disk: int
    remarks: list[str]
    kinds: dict[str, str]
    without_images: frozenset[str]
    default_engine: str
    usual_engine: str
    names: Mapping[str, str]

    @classmethod
    def of(
        cls,
        settings: Settings,
        names: Mapping[str, str],
        nodes_of: Mapping[str, Sequence[Node]],
        gpu_model: str | None,
        folder: Path,
    ) -> Means:
        """What this machine has, as far as the settings give it away.

        ``nodes_of`` the engines are by their public names, and empty of one that is away;
        ``gpu_model`` is the machine's. Raises InvalidInput.
        """
        tables = engine_settings(settings)
        nodes = {name: nodes_of[public] for name, public in names.items()}
        machines = {name: total(each) for name, each in nodes.items()}
        shares = shares_of(tables, settings.engine)
        capacities = {name: total(share(nodes[name])) for name, share in shares.items()}
        disk = disk_for(shutil.disk_usage(folder).total)
        # Without a daemon that answers, its machine is this one, as far as anybody can say.
        usual = settings.engine
        fitting = capacities[usual] if nodes[usual] else machines[DEFAULT_ENGINE]
        presets = presets_for(settings, fitting, gpu_model, disk)
        there = {name: capacity for name, capacity in capacities.items() if nodes[name]}
        told = remarks(settings.engines, presets, machines, there)
        return cls(
            {names[name]: capacity for name, capacity in capacities.items()},
            {names[name]: share for name, share in shares.items()},
            [replace(preset, engine=names[preset.engine]) for preset in presets],
            disk,
            list(told),
            {names[name]: kind_name(name, table) for name, table in tables.items()},
            frozenset(
                names[name] for name, table in tables.items() if not _has_images(name, table)
            ),
            names[DEFAULT_ENGINE],
            names[usual],
            names,
        )

    @property
    def of_this_machine(self) -> set[str]:
        """The engines that are a part of this machine, and of no other server."""
        return {name for name, kind in self.kinds.items() if kind_of(kind).of_this_machine}

    def offered(self, engines: Mapping[str, Engine], away: Mapping[str, str]) -> Offered:
        """The same for other servers; ``away`` says why of the engines that are."""
        own = self.of_this_machine
        made = {
            name: EngineOffer(
                capacity=capacity,
                notices=engines[name].notices,
                of_this_machine=name in own,
                away=away.get(name),
            )
            for name, capacity in self.capacities.items()
        }
        return Offered(engines=made, presets=self.presets, machine=this_machine())


@dataclass(frozen=True)
class Jobs:
    """The parts that others need."""

    board: Board
    writer: Writer
    tokens: PassedTokens
    service: JobService
    saver: JobSaver
    offers: Offers
    holder: Holder
    presets: Presets
    unmet: Callable[[], set[str]]


async def start_jobs(
    stack: AsyncExitStack,
    database: Database,
    settings: Settings,
    engines: Mapping[str, Engine],
    means: Means,
    background: Background,
    *,
    fleet: Fleet,
    arrivals: Arrivals,
    access: AccessService,
    files: Files,
    api_url: Callable[[str], str],
    registry: str,
    jobs_domain: str,
    secrets: Secrets,
) -> Jobs:
    """Take over the jobs that there are, and be ready for others. ``stack`` ends all of it.

    ``api_url(engine)`` is where jobs find the platform, ``registry`` the host from which
    engines pull the platform's images, ``jobs_domain`` the host of their pages.
    """
    offers = Offers(database, fleet, means.offered(engines, arrivals.away))
    board = Board({}, offers.waits_for)
    writer = Writer(database, fleet.changes.ring)
    writer.start(background)
    stack.push_async_callback(writer.close)
    tokens = PassedTokens(database, access, board.is_known, background)
    stack.push_async_callback(tokens.close)
    board.listen(tokens.job_changed, own=True)
    job_secrets = JobSecrets(secrets, access.identity_of, settings.cluster)
    commands = str(Path(sys.prefix) / "bin")
    launcher = Launcher(
        settings.cluster,
        files,
        tokens.issue,
        api_url,
        commands,
        lambda preset: offers.disk_of(preset, means.disk),
        image_token=access.image_token,
        registry=registry,
        mirrors=frozenset(one.registry for one in settings.images.mirrors),
        secrets=job_secrets.given,
        build_daemon=partial(_build_daemon, engines.values()),
    )
    grace = settings.stop_grace_seconds
    reconciler = Reconciler(
        board, writer, engines, launcher.make_spec, background, stop_grace=grace
    )
    stack.push_async_callback(reconciler.close)
    events = JobEvents(board)
    damaged = DamagedJobs(database, reconciler, grace)
    others = _others(database, board, writer, reconciler, fleet, events, offers, damaged)
    await _check_in_use(database, fleet, means.names)
    await offers.start(background)
    stack.push_async_callback(offers.close)
    holder = Holder(
        database,
        board,
        writer,
        reconciler,
        others.follower,
        fleet.changes,
        means.shares,
        means.of_this_machine,
        offers.look,
        fleet.leases,
        arrivals,
    )
    reconciler.listen(partial(_offer, offers, board))
    others.follower.listen(fleet.changes)
    stack.push_async_callback(holder.close)
    await holder.start()
    if not database.is_sqlite:
        await others.follower.start(background)
        stack.push_async_callback(others.follower.close)
    # Those of jobs that ended while there was no server.
    await writer.flush()
    await tokens.sweep()
    service = JobService(
        database,
        board,
        writer,
        reconciler,
        engines,
        Offer(
            settings.cluster,
            offers.presets,
            means.default_engine,
            jobs_domain,
            api_url,
            means.usual_engine,
        ),
        check_volumes=launcher.check_volumes,
        check_secrets=job_secrets.check,
        image_notice=partial(_image_notice, means.kinds, means.without_images),
        events=events,
        damaged=damaged,
        limits=JobLimits(
            settings.bakes.main_jobs,
            settings.bakes.main_jobs_per_owner,
            settings.limits.active_jobs_per_owner,
        ),
        others=None if database.is_sqlite else others,
    )
    saver = JobSaver(service, settings.cluster, registry, launcher.image_of, access.push_token)
    presets = Presets(database, fleet.changes, offers, means.usual_engine, means.disk)
    return Jobs(board, writer, tokens, service, saver, offers, holder, presets, reconciler.unmet)


def _offer(offers: Offers, board: Board, engine: str) -> None:
    lane = board.lanes[engine]
    offers.became(engine, lane.capacity, lane.away)


def _others(
    database: Database,
    board: Board,
    writer: Writer,
    reconciler: Reconciler,
    fleet: Fleet,
    events: JobEvents,
    offers: Offers,
    damaged: DamagedJobs,
) -> Others:
    intents = Intents(database, board, writer, reconciler, fleet.changes, damaged)
    follower = JobFollower(database, board, writer, reconciler, intents, events.begin_anew)
    return Others(board, fleet.changes, follower, intents, offers)


async def _check_in_use(database: Database, fleet: Fleet, names: Mapping[str, str]) -> None:
    """Raise Conflict for an engine that this server had before, and that nobody has now.

    Jobs on engines of other servers are theirs, also while these are away or gone for good.
    """
    in_use = await database.read(lookups.active_by_engine)
    if not database.is_sqlite:
        before: set[str] = set()
        theirs: set[str] = set()
        for server in await fleet.servers.all():
            (before if server.id == fleet.id else theirs).update(offered(server).engines)
        in_use = {name: count for name, count in in_use.items() if name in before - theirs}
    check_in_use(names, in_use)


def _has_images(name: str, table: EngineSettings) -> bool:
    return kind_of(kind_name(name, table)).has_images(table)


def _image_notice(
    kinds: Mapping[str, str], without: Collection[str], engine: str, image: str
) -> str | None:
    """What a first-time user of an image should know; ``kinds`` of engines by their names."""
    if engine not in without:
        return None
    return (
        f"Image {image} is recorded, not pulled: the {kinds[engine]} engine runs every job on this"
        " machine's own programs."
    )


def _build_daemon(engines: Iterable[Engine]) -> str:
    """The socket of the first daemon that builds images; empty where none does."""
    told = (one.build_daemon for one in engines if isinstance(one, BuildsImages))
    return next(filter(None, told), "")
