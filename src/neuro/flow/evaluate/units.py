"""What live jobs and tasks of batches are alike in: the container that they are started with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.sections import EvaluatedDefaults
    from neuro.flow.evaluate.values import ValueEvaluator
    from neuro.flow.problems import Report
    from neuro.flow.syntax.tree import ExecUnit


class Owner(NamedTuple):
    """Whose unit it is, in messages, and where that stands."""

    kind: Literal["job", "task"]
    name: str
    at: Position


def evaluate_unit(
    unit: ExecUnit,
    values: ValueEvaluator,
    defaults: EvaluatedDefaults,
    tags: Iterable[str],
    whose: Owner,
    report: Report,
    *,
    default_name: str | None = None,
    image_is_told: bool = False,
) -> dict[str, Any]:
    """Evaluate the fields of a Unit, by their names, for the classes that are made of it.

    ``tags`` are those that it has besides its own and the defaults'. With ``image_is_told``, why it
    may have no image has been reported.
    """
    known = len(report.problems)
    image = values.text(unit.image)
    if image is None and not image_is_told and not values.unknown and len(report.problems) == known:
        report_no_image(whose if unit.image is None else whose._replace(at=unit.image.at), report)
    port = values.number(unit.http_port)
    return {
        "image": image or "",
        "name": values.text(unit.name) or default_name,
        "preset": values.text(unit.preset) or defaults.preset,
        "schedule_timeout": values.number(unit.schedule_timeout) or defaults.schedule_timeout,
        "life_span": values.number(unit.life_span) or defaults.life_span,
        "http_port": int(port) if port else None,
        "http_auth": values.login(unit.http_auth),
        "entrypoint": values.text(unit.entrypoint),
        "cmd": values.text(unit.cmd),
        "workdir": values.text(unit.workdir) or defaults.workdir,
        "env": {**defaults.env, **values.env(unit.env)} if unit.env else defaults.env,
        "volumes": (*defaults.volumes, *values.mounts(unit.volumes, defaults.volumes)),
        "tags": tuple(sorted({*tags, *defaults.tags, *values.texts(unit.tags)})),
        "pass_config": bool(values.flag(unit.pass_config)),
        "restart": values.text(unit.restart),
    }


def report_no_image(whose: Owner, report: Report) -> None:
    """Say that there is no image to run."""
    report.add(
        f"Image for {whose.kind} {whose.name} is not specified",
        whose.at,
        f"Write `image:` into the {whose.kind} or one of its mixins.",
    )
