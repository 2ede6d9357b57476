"""Values of the tree, evaluated in one scope. Problems are collected, and leave None behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from neuro.domain.mounts import mount_of, mounted_twice
from neuro.domain.names import is_variable
from neuro.domain.problems import Position, Source
from neuro.domain.secrets import mistake_in_secret, mistake_in_secret_volume
from neuro.flow.expressions.evaluator import EvaluationError, evaluate

if TYPE_CHECKING:
    from neuro.flow.expressions.evaluator import ExpressionScope
    from neuro.flow.problems import Report
    from neuro.flow.syntax.types import ListValue, MapValue, Value


_SECRETS = "`neuro secret ls` lists the secrets that you may use."


class Unknowable(EvaluationError):
    """A value that is known only when a job runs. A check does not report it."""

    def __init__(self) -> None:
        # With a place, even an empty one, nobody on the way takes it for a problem of theirs.
        super().__init__("Not known yet", Position(Source("", ""), 1, 1))


class NotGiven(Unknowable):
    """A value that is known when a bake is submitted, and not while its files are checked."""


class ValueEvaluator:
    """Evaluates in a scope. Its results count only if the report stays empty.

    `unknown` tells that something was not evaluated, as it cannot be known yet; `late` that some
    of that is decided by what tasks leave, and will not be known at submission either.
    """

    def __init__(self, scope: ExpressionScope, report: Report) -> None:
        self._scope = scope
        self._report = report
        self.unknown = False
        self.late = False

    def one(self, value: Value | None) -> object:
        """Return a value of its type, None for one that is absent or failed."""
        if value is None:
            return None
        if value.template is None:
            return value.constant
        raw, ok = self._raw(value)
        return self._convert(value, raw) if ok else None

    def text(self, value: Value | None) -> str | None:
        """Return a value as a string; an empty one counts as none."""
        found = self.one(value)
        return str(found) if found is not None and found != "" else None

    def number(self, value: Value | None) -> float | None:
        found = self.one(value)
        return found if isinstance(found, int | float) else None

    def login(self, value: Value | None) -> bool | None:
        """Return whether a server asks for a login; note a string that switches it off.

        The original takes any string that is not empty for true, so that files from there may have
        been asking for a login all the time.
        """
        found = self.flag(value)
        if found is False and value is not None and value.template is not None:
            raw, ok = self._raw(value)
            if ok and isinstance(raw, str):
                self._report.note(
                    f"http_auth is the string '{raw}', which switches the login off: everybody who"
                    " reaches the port gets in",
                    value.at,
                    "The original asked for a login here, as for any string. Write true to get it.",
                )
        return found

    def flag(self, value: Value | None) -> bool | None:
        found = self.one(value)
        return None if found is None else bool(found)

    def texts(self, values: ListValue | None) -> tuple[str, ...]:
        """Return a list's items."""
        return tuple(text for text, _ in self._texts(values))

    def mounts(self, values: ListValue | None, beside: Sequence[str] = ()) -> tuple[str, ...]:
        """Return references to volumes, without the empty ones; report two at one path.

        ``beside`` are those that are mounted too, and were looked at already.
        """
        found = list(self._texts(values, drop_empty=True))
        mounts = [mount_of(text) for text in (*beside, *(text for text, _ in found))]
        for index, said in mounted_twice(mounts):
            if index >= len(beside):
                _, at = found[index - len(beside)]
                self._report.add(said, at, "Give each its own path.")
        for text, at in found:
            if text.startswith("secret:") and (wrong := mistake_in_secret_volume(text)):
                self._report.add(wrong, at, _SECRETS)
        return tuple(text for text, _ in found)

    def _texts(
        self, values: ListValue | None, *, drop_empty: bool = False
    ) -> Iterator[tuple[str, Position]]:
        for part in values.parts if values is not None else ():
            items: Sequence[object]
            if part.spread:
                items = self._spread(part)
            elif part.template is None:
                items = (part.constant,)
            else:
                raw, ok = self._raw(part)
                if not ok:
                    continue
                items = (raw,)
            for item in items:
                if drop_empty and not item:
                    continue
                converted = item if part.template is None else self._convert(part, item)
                if converted is not None:
                    yield str(converted), part.at

    def items(self, values: ListValue) -> list[object]:
        """Return a list's items as they are; what one expression gives is not converted."""
        found: list[object] = []
        for part in values.parts:
            if part.spread:
                found += self._spread(part)
            else:
                found.append(self.one(part))
        return found

    def _spread(self, part: Value) -> Sequence[object]:
        """The items of a list that one expression gives; sets are sorted."""
        raw, ok = self._raw(part)
        if not ok:
            return ()
        if isinstance(raw, set | frozenset):
            return sorted(raw, key=str)
        if isinstance(raw, list | tuple):
            return raw
        self._report.add(f"The expression gives {_kind(raw)}, not a list", part.at)
        return ()

    def mapping(self, values: MapValue | None) -> dict[str, object]:
        """Return a mapping's entries; of equal keys the last one counts."""
        found: dict[str, object] = {}
        for key, part in values.parts if values is not None else ():
            if key is not None:
                found[key] = self.one(part)
                continue
            raw, ok = self._raw(part)
            if not ok:
                continue
            if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
                self._report.add(
                    f"The expression gives {_kind(raw)}, not a mapping with strings as keys",
                    part.at,
                )
                continue
            found.update({name: self._convert(part, item) for name, item in raw.items()})
        return found

    def env(self, values: MapValue | None) -> dict[str, str]:
        """The variables of a mapping; a name that no variable can have is reported."""
        found = self.mapping(values)
        parts = dict(values.parts) if values is not None else {}
        for name, value in found.items():
            assert values is not None
            at = parts[name].at if name in parts else values.at
            is_secret = isinstance(value, str) and value.startswith("secret:")
            if is_secret and (wrong := mistake_in_secret(str(value))):
                self._report.add(wrong, at, _SECRETS)
            if not is_variable(name):
                self._report.add(
                    f"{name!r} cannot be the name of a variable",
                    at,
                    "A name has no blanks and no '='.",
                )
        return {name: str(value) for name, value in found.items()}

    def _raw(self, value: Value) -> tuple[object, bool]:
        assert value.template is not None
        try:
            return evaluate(value.template, self._scope), True
        except Unknowable as unknown:
            self.late |= not isinstance(unknown, NotGiven)
            self.not_known(value)
            return None, False
        except EvaluationError as error:
            self._report.add(error.message, error.at or value.at, error.hint)
            return None, False

    def not_known(self, value: Value) -> None:
        """Note that a value cannot be known yet."""
        self.unknown = True

    def _convert(self, value: Value, raw: object) -> object:
        try:
            return value.type.convert(raw)
        except ValueError as error:
            self._report.add(str(error), value.at, getattr(error, "hint", None))
            return None


def _kind(value: object) -> str:
    from neuro.flow.expressions.values import kind_of

    return kind_of(value)
