"""The ground to check an action alone: nothing is known of its caller."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.contexts import (
    OPEN,
    UNKNOWN,
    BatchFlowRecord,
    CommitRecord,
    StrategyRecord,
)
from neuro.flow.evaluate.batch.functions import batch_functions
from neuro.flow.evaluate.batch.ground import DEFAULT_MAX_PARALLEL, Frame, Ground
from neuro.flow.evaluate.batch.values import OF_OUTCOMES
from neuro.flow.evaluate.sections import EvaluatedDefaults
from neuro.flow.model import ROOT, CacheRule

if TYPE_CHECKING:
    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.evaluate.batch.sources import Files
    from neuro.flow.evaluate.mixins import Mixins
    from neuro.flow.syntax import tree


def unknown_ground(files: Files, facts: Facts) -> Ground:
    """The ground of all its graphs: nobody has submitted anything."""
    return Ground(
        facts=facts,
        files=files,
        functions=batch_functions(facts),
        flow=BatchFlowRecord("", "", facts.workspace, "", facts.user, None),
        git=CommitRecord(None, given=False),
        flow_tags=(),
        max_parallel=DEFAULT_MAX_PARALLEL,
    )


def unknown_frame(
    tasks: tuple[tree.Task | tree.TaskCall, ...],
    names: Iterable[str],
    mixins: Mixins | None,
    calls: tuple[str, ...],
) -> Frame:
    """Where the tasks of an action stand if nothing is known of who calls it.

    ``names`` are those that they may read; ``calls`` the actions on the way there.
    """
    strategy = StrategyRecord(True, DEFAULT_MAX_PARALLEL)
    known: dict[str, object] = dict.fromkeys(names, OPEN)
    # A caller's outcomes are known only when its tasks have ended.
    known.update((name, UNKNOWN) for name in OF_OUTCOMES if name in known)
    return Frame(
        prefix=ROOT,
        names={**known, "strategy": strategy},
        strategy=strategy,
        defaults=EvaluatedDefaults({}, ()),
        cache=CacheRule(),
        mixins=mixins,
        tasks=tasks,
        calls=calls,
    )
