"""The functions of batches: those that ask how dependencies ended, and hashes of files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from neuro.domain.problems import nearest
from neuro.flow.evaluate.batch.contexts import Ended, NeedsContext
from neuro.flow.evaluate.functions import (
    ADD_TO_NEEDS,
    IN_LIVE_ONLY,
    IN_TASKS_ONLY,
    INSTEAD_OF,
    NO_DEPENDENCY,
    live_functions,
)
from neuro.flow.expressions.evaluator import EvaluationError
from neuro.flow.expressions.functions import function
from neuro.flow.syntax.types import ALWAYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.expressions.evaluator import ExpressionScope
    from neuro.flow.expressions.functions import Function

    Call = Callable[[ExpressionScope, Sequence[object]], object]

HASHES = ("hash_files", "hash_files_relative")
LATE_HASH = (
    "{}() is evaluated when the bake is submitted: its patterns may not depend on outputs of tasks"
)


def batch_functions(facts: Facts) -> Mapping[str, Function]:
    """Return what may be called in a batch."""
    live = live_functions(facts.workspace, None, None, read_files=not facts.checking)
    own = [
        function("success", _success, "Whether the dependencies have succeeded."),
        function("failure", _failure, "Whether a dependency has failed."),
        function("always", _always, "Runs also in a bake that is being cancelled."),
        function("upload", _upload, "Live workflows only."),
        *(function(name, _hashed(live[name], facts), live[name].doc) for name in HASHES),
    ]
    return {**live, **{made.name: made for made in own}}


def digest_of(name: str, arguments: Sequence[object]) -> str:
    """Name a hash of files by what it was asked for."""
    return sha256(json.dumps([name, *map(str, arguments)]).encode()).hexdigest()


def _hashed(compute: Function, facts: Facts) -> Call:
    def call(scope: ExpressionScope, arguments: Sequence[object]) -> object:
        digest = digest_of(compute.name, arguments)
        found = facts.hashes.get(digest)
        if found is not None:
            return found
        if not facts.collecting:
            raise EvaluationError(LATE_HASH.format(compute.name))
        value = facts.hashes[digest] = str(compute.call(scope, arguments))
        return value

    return call


def _needs(scope: ExpressionScope, name: str) -> NeedsContext:
    try:
        needs = scope.names["needs"]
    except KeyError:
        needs = None
    if not isinstance(needs, NeedsContext):
        raise EvaluationError(IN_TASKS_ONLY.format(name))
    return needs


def _asked(scope: ExpressionScope, name: str, arguments: Sequence[object]) -> Iterator[Ended]:
    needs = _needs(scope, name)
    for number, one in enumerate(arguments or needs):
        if not isinstance(one, str) or one not in needs:
            raise EvaluationError(
                NO_DEPENDENCY.format(name, one),
                hint=nearest(str(one), needs) or ADD_TO_NEEDS,
                argument=number,
            )
        yield needs[one]


def _success(scope: ExpressionScope, arguments: Sequence[object]) -> bool:
    if not arguments:
        return _needs(scope, "success").all_fine()
    return all(one.fine for one in _asked(scope, "success", arguments))


def _failure(scope: ExpressionScope, arguments: Sequence[object]) -> bool:
    return any(one.failed for one in _asked(scope, "failure", arguments))


def _always(_: ExpressionScope, __: Sequence[object]) -> object:
    return ALWAYS


def _upload(_: ExpressionScope, __: Sequence[object]) -> object:
    raise EvaluationError(
        IN_LIVE_ONLY.format("upload"),
        hint=INSTEAD_OF["upload"],
    )
