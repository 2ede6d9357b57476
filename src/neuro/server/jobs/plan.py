"""What a submission comes to: a job that may be accepted, or every reason why not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from neuro.domain.errors import InvalidInput, NotFound, PlatformError, TooManyRequests
from neuro.domain.images import is_builder_image, is_executor_image
from neuro.domain.jobs import ContainerRequest, JobRequest, Reason
from neuro.domain.resources import Amount, Preset
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.jobs import builders, specification
from neuro.server.jobs.record import JobRecord, Specification

# A longer queue than this is answered with 429. Each job in it takes 2 KB of the server's
# memory, and a start with 100,000 of them costs 3 to 4 s of processor time (docs/benchmarks.md).
MAX_ACTIVE_JOBS = 150_000


@dataclass(frozen=True)
class Offer:
    """What this installation offers to jobs. ``jobs_domain`` is the host of their web pages.

    ``api_url(engine)`` is where they find the platform. ``usual_engine`` runs those without a
    preset, by default the embedded one, which is ``default_engine``.
    """

    cluster: str
    presets: list[Preset]
    default_engine: str
    jobs_domain: str
    api_url: Callable[[str], str]
    usual_engine: str | None = None


@dataclass(frozen=True)
class JobLimits:
    """How many active jobs there may be of one owner, and how many control jobs.

    Control jobs take nothing from the capacity, so nothing else bounds them: of all together
    (``controls``), and of each owner.
    """

    controls: int = 500
    controls_per_owner: int = 100
    active_per_owner: int = MAX_ACTIVE_JOBS


@dataclass(frozen=True)
class Draft:
    """What is submitted: the ``request``, and whether it is for a ``control`` job.

    ``registry`` is the host by which the caller knows that of the platform.
    """

    request: JobRequest
    control: bool
    job_id: str
    at: datetime
    registry: str = ""


@dataclass(frozen=True)
class Planned:
    """A job that may be accepted; ``container`` is what was asked for."""

    record: JobRecord
    container: ContainerRequest


@dataclass(frozen=True)
class Refused:
    """Why a job cannot be accepted: one reason or more."""

    reasons: tuple[PlatformError, ...]

    def error(self) -> PlatformError:
        """All reasons as one error, of the kind of the first."""
        first = self.reasons[0]
        said = dict.fromkeys(reason.message for reason in self.reasons)
        return first if len(said) == 1 else type(first)("\n".join(said))


def plan(
    draft: Draft, caller: Identity, offer: Offer, capacities: Mapping[str, Amount]
) -> Planned | Refused:
    """What a submission by ``caller`` comes to; ``capacities`` are those of the engines,
    but for those of which nobody knows it yet.
    """
    try:
        asked = specification.container_of(draft.request)
        container = specification.with_full_image(asked, offer.cluster, caller.user)
    except InvalidInput as error:
        return Refused((error,))
    reasons = [
        *specification.mistakes(draft.request, container, offer.cluster),
        *builders.mistakes(draft.request, container),
        *_missing_permissions(draft.request, container, offer.cluster, caller),
    ]
    try:
        preset, engine, amount = _place(draft, container, offer, capacities)
    except PlatformError as error:
        return Refused((*reasons, error))
    if reasons:
        return Refused(tuple(reasons))
    return Planned(_record(draft, container, caller, offer, preset, engine, amount), container)


def crowded(active: int, of_owner: int, limits: JobLimits, owner: str) -> TooManyRequests | None:
    """Why one job more cannot be taken now, if it cannot; there are so many ``active`` ones."""
    if active >= MAX_ACTIVE_JOBS:
        why = f"{MAX_ACTIVE_JOBS:,} jobs are active already; try again later."
    elif of_owner >= limits.active_per_owner:
        why = (
            f"{limits.active_per_owner} jobs of '{owner}' are active already, which is the most"
            " for one person: try again when one has ended, or end some with `neuro kill`."
        )
    else:
        return None
    return TooManyRequests(why, retry_after=10)


def crowded_with_controls(
    controls: int, of_owner: int, limits: JobLimits, owner: str
) -> TooManyRequests | None:
    """The same of control jobs."""
    if controls >= limits.controls:
        why = f"{limits.controls} bakes are driven already; try again later."
    elif of_owner >= limits.controls_per_owner:
        why = (
            f"{limits.controls_per_owner} bakes of '{owner}' are driven already, which is the most"
            " for one person; try again when one has ended."
        )
    else:
        return None
    return TooManyRequests(why, retry_after=10)


def _missing_permissions(
    request: JobRequest, container: ContainerRequest, cluster: str, caller: Identity
) -> Iterator[PlatformError]:
    needed = specification.needed_permissions(request, container, cluster, caller.user)
    for uri, action in needed:
        try:
            caller.require(uri, action, hidden=_hidden(uri))
        except PlatformError as error:
            yield error


def _hidden(uri: ResourceURI) -> NotFound | None:
    """What is said instead of "not found" where only a privileged job asks for the cluster."""
    if uri.scheme == "cluster":
        return NotFound("Only administrators may run privileged jobs.")
    return None


def _place(
    draft: Draft, container: ContainerRequest, offer: Offer, capacities: Mapping[str, Amount]
) -> tuple[Preset | None, str, Amount]:
    """The preset if there is one, the engine, and what of it the job takes. Raises InvalidInput."""
    preset = specification.choose_preset(draft.request, container.resources, offer.presets)
    if preset is not None:
        amount, engine, what = preset.amount, preset.engine, f"Preset '{preset.name}'"
    else:
        assert container.resources is not None
        amount = specification.explicit_amount(container.resources)
        engine, what = offer.usual_engine or offer.default_engine, "This job"
    if is_executor_image(container.image):
        engine = offer.default_engine  # the one on whose machine the platform's commands are
    if draft.control:
        return preset, engine, specification.CONTROL_AMOUNT
    if is_builder_image(container.image):
        engine = offer.default_engine  # the one whose runs may build, whatever the preset's is
        return preset, engine, builders.amount_on(amount, capacities.get(engine))
    if engine in capacities:
        specification.check_fits(amount, capacities[engine], what)
    return preset, engine, amount


def _record(
    draft: Draft,
    container: ContainerRequest,
    caller: Identity,
    offer: Offer,
    preset: Preset | None,
    engine: str,
    amount: Amount,
) -> JobRecord:
    request, control = draft.request, draft.control
    gpu_model = preset.gpu_model if preset and amount.gpu else None
    return JobRecord(
        id=draft.job_id,
        owner=caller.user,
        name=request.name,
        cluster=offer.cluster,
        engine=engine,
        priority=request.priority,
        created_at=draft.at,
        max_run_time_minutes=request.max_run_time_minutes,
        specification=Specification(
            container=specification.wire_container(container, amount, gpu_model),
            amount=amount,
            preset_name=preset.name if preset else None,
            description=request.description,
            tags=request.tags,
            schedule_timeout=request.schedule_timeout,
            restart_policy=request.restart_policy,
            pass_config=request.pass_config,
            privileged=request.privileged,
            scheduler_enabled=preset.scheduler_enabled if preset else False,
            preemptible_node=preset.preemptible_node if preset else False,
            credits_per_hour=preset.credits_per_hour if preset else "0",
            control=control,
            api_url=offer.api_url(engine) if control and request.pass_config else None,
            registry=builders.host_of(draft.registry) if is_builder_image(container.image) else "",
        ),
    ).stepped(Reason.CREATING, draft.at)
