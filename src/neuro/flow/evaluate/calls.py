"""Calls of actions: which file a job or a task names, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.evaluate.actions import Action
    from neuro.flow.problems import Report
    from neuro.flow.syntax.tree import Call, TaskCall

LIVE = ("live",)
BATCH = ("batch", "stateful", "local")

_WHO_CALLS = {
    LIVE: (
        "in live mode",
        "Jobs call actions of kind live; those of other kinds are called in a batch.",
    ),
    BATCH: ("in batch mode", f"Here are called actions of kind {', '.join(BATCH)}."),
}


def reference_of(call: Call | TaskCall) -> str:
    """The reference of the action, or of the module, that is called."""
    value = call.module if call.module is not None else call.action
    return str(value.constant) if value is not None else ""


def find_called(
    call: Call | TaskCall,
    kinds: tuple[str, ...],
    get: Callable[[str, Position], Action | None],
    report: Report,
) -> Action | None:
    """Return the action that is called, where it is of one of the kinds: ``LIVE`` or ``BATCH``.

    ``get`` reads an action by its reference, and tells what is wrong with that.
    """
    value = call.module if call.module is not None else call.action
    if value is None:  # It could not be read, which has been told.
        return None
    reference = reference_of(call)
    if call.module is not None and not reference.startswith(("ws:", "workspace:")):
        report.add(f"Module {reference} should be a file of the workspace: write ws:PATH", value.at)
        return None
    action = get(reference, value.at)
    if action is None or action.file.kind in kinds:
        return action
    where, hint = _WHO_CALLS[kinds]
    report.add(
        f"Action {reference} has kind {action.file.kind}, that is not supported {where}",
        value.at,
        hint,
    )
    return None


def report_circle(way: Sequence[str], call: Call | TaskCall, report: Report) -> None:
    """Report a call that leads back to the first action of the way."""
    value = call.module if call.module is not None else call.action
    report.add(
        f"Actions call each other in a circle: {' -> '.join([*way, reference_of(call)])}",
        value.at if value is not None else call.at,
        "Such a bake would never end.",
    )


def report_no_mixins(at: Position, report: Report) -> None:
    """Report mixins in a file that has none: only modules have those of their caller."""
    report.add("Mixins are not available in an action", at)
