"""Values of a batch: those that are not known yet are left out, their hashes are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.flow.evaluate.batch.functions import HASHES, LATE_HASH
from neuro.flow.evaluate.values import NotGiven, Unknowable, ValueEvaluator
from neuro.flow.expressions.evaluator import EvaluationError, evaluate
from neuro.flow.expressions.nodes import FunctionCall, Template, calls, references

if TYPE_CHECKING:
    from neuro.flow.expressions.evaluator import ExpressionScope
    from neuro.flow.problems import Report
    from neuro.flow.syntax.types import Value

# Contexts that hold what tasks have left.
OF_OUTCOMES = ("needs", "state")


class BatchValues(ValueEvaluator):
    """Evaluates in a scope of a batch.

    At submission, what reads the outcomes of tasks is not known; the files that it asks to be
    hashed are hashed nevertheless, as later there are no files.
    """

    def __init__(self, scope: ExpressionScope, report: Report, hashes: HashCalls | None) -> None:
        super().__init__(scope, report)
        self._hashes = hashes

    def parallel(self, value: Value | None) -> int | None:
        """Return how many may run at once; None where nobody says, or it is not known."""
        found = self.number(value)
        if found is None or value is None:
            return None
        if found < 1:
            self._report.add("max_parallel should be at least 1", value.at)
        return max(1, int(found))

    def not_known(self, value: Value) -> None:
        """Note it, and hash the files that the rest of the expression asks for."""
        super().not_known(value)
        if self._hashes is None or value.template is None:
            return
        for call in self._hashes.of(value.template):
            alone = Template((call,), value.template.locate)
            try:
                evaluate(alone, self._scope)
            except NotGiven:
                continue
            except Unknowable:
                late = [at for path, at in references(alone) if path[0] in OF_OUTCOMES]
                at = late[0] if late else alone.locate(call.offset)
                self._report.add(LATE_HASH.format(call.function), at)
            except EvaluationError as error:
                self._report.add(error.message, error.at or value.at, error.hint)


class HashCalls:
    """The calls of hash functions in templates, looked for once in each."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Template, tuple[FunctionCall, ...]]] = {}

    def of(self, template: Template) -> tuple[FunctionCall, ...]:
        """Return a template's calls of hash_files and its like."""
        # The template is kept with what was found, so that its identity stays its own.
        found = self._found.get(id(template))
        if found is None:
            wanted = tuple(call for call in calls(template) if call.function in HASHES)
            found = self._found[id(template)] = (template, wanted)
        return found[1]
