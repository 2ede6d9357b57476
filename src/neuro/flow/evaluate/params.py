"""Parameters of live jobs and of batches: the given values, and the defaults of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from neuro.domain.problems import nearest

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.values import ValueEvaluator
    from neuro.flow.problems import Report
    from neuro.flow.syntax.tree import Param


def bind_params(
    declared: Mapping[str, Param],
    given: Mapping[str, str],
    values: ValueEvaluator,
    report: Report,
    *,
    whose: Literal["job", "batch"],
    at: Position | None,
    checking: bool = False,
) -> dict[str, str]:
    """Return the values of parameters. One that must be given and is not is reported, and missing.

    While ``checking``, none is given, so it is only missing. ``at`` is where the parameters are
    declared: the place of one that is given and is not declared.
    """
    unknown = sorted(set(given) - set(declared))
    if unknown:
        known = ", ".join(sorted(declared))
        hint = nearest(unknown[0], declared)
        if hint is None:
            hint = f"The parameters are: {known}." if known else f"The {whose} has no parameters."
        report.add(f"Unsupported arg(s): {','.join(unknown)}", at, hint)
    bound: dict[str, str] = {}
    for name, param in declared.items():
        if name in given:
            bound[name] = given[name]
        elif param.default is not None:
            bound[name] = str(values.one(param.default))
        elif not checking and ("default" not in param.specified or not report.problems):
            # A default that could not be read is reported already.
            report.add(
                f"Param {name} is not initialized and has no default value",
                param.at,
                f"Give it with `--param {name} VALUE`.",
            )
    return bound
