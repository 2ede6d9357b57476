"""The types of values in flow files: how constants and what expressions give become them."""

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from neuro.domain.problems import Position
from neuro.flow.syntax import times
from neuro.flow.syntax.bad_values import BadValue, describe, refuse_nothing, shown

if TYPE_CHECKING:
    from neuro.flow.expressions.nodes import Template


MOST_ATTEMPTS: Final = 100


class Always:
    """The type of ALWAYS."""

    def __repr__(self) -> str:
        return "always()"

    def __str__(self) -> str:
        return "always()"


# What `always()` gives, and an `enable: always()` without an expression is.
ALWAYS: Final = Always()


@dataclass(frozen=True, slots=True, eq=False)
class ValueType:
    """A type of value.

    ``convert`` takes what YAML or an expression gives, and raises ValueError with a sentence.
    ``mixes`` tells whether text may stand around expressions, ``expressions`` whether there may
    be any. ``from_yaml`` is stricter than ``convert`` where a constant can be told to be a mistake.
    """

    name: str
    convert: Callable[[object], object]
    mixes: bool
    schema: Mapping[str, Any]
    expressions: bool = True
    from_yaml: Callable[[object], object] | None = None

    def constant(self, value: object) -> object:
        """Convert a constant of the file."""
        return (self.from_yaml or self.convert)(value)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the file: converted already, or a template for later."""

    type: ValueType
    at: Position
    constant: object = None
    template: "Template | None" = None
    # In a list or a map: one expression that gives the whole of it.
    spread: bool = False


@dataclass(frozen=True, slots=True)
class ListValue:
    """A list: items, or one spread expression."""

    type: ValueType
    at: Position
    parts: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class MapValue:
    """A mapping: keys with values, or one spread expression, whose key is None."""

    type: ValueType
    at: Position
    parts: tuple[tuple[str | None, Value], ...]


def _text(value: object) -> str:
    return str(value)


def identifier(value: object) -> str:
    """An id: a Python identifier that is not all upper-case."""
    if not isinstance(value, str):
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        raise BadValue(
            f"expected an identifier, got {describe(value)}",
            f"YAML reads this word as {describe(value)} ({shown}). Quote it, or use another name.",
        )
    if not value.isidentifier():
        hint = None
        better = re.sub(r"\W", "_", value)
        if better.isidentifier() and better != better.upper():
            hint = f"'{better}' would be one: letters, digits and underscores."
        raise BadValue(f"{value!r} is not an identifier", hint)
    if value == value.upper():
        raise BadValue(
            f"{value!r} is an invalid identifier, uppercase names are reserved for internal usage",
            f"Use '{value.lower()}'." if value.lower() != value.upper() else None,
        )
    return value


_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0", ""})


def _bool(value: object) -> bool:
    if isinstance(value, str):
        # Parameters are strings: these words count as booleans, and no other string does.
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise BadValue(f"{value!r} is not a bool, allowed: true, false")
    return bool(value)


def _constant_bool(value: object) -> bool:
    refuse_nothing(value)
    if isinstance(value, str):
        word = value.strip().lower()
        hint = f"Write {word} without quotes." if word in ("true", "false", "yes", "no") else None
        raise BadValue(f"{value!r} is a string, not a bool, allowed: true, false", hint)
    return bool(value)


def _enable(value: object) -> object:
    return value if value is ALWAYS else _bool(value)


def _constant_enable(value: object) -> object:
    if value == "always()":
        return ALWAYS
    if not isinstance(value, str) or "(" not in value:
        return _constant_bool(value)
    # Imported here: only a mistake needs it.
    from neuro.domain.problems import closest
    from neuro.flow.expressions.functions import SIGNATURES

    meant = re.sub(r"\w+(?=\()", lambda name: closest(name[0], SIGNATURES) or name[0], value)
    raise BadValue(
        f"{value!r} is a string, not a bool, allowed: true, false, always()",
        f"Did you mean the expression ${{{{ {meant} }}}}?",
    )


def _int(value: object) -> int:
    refuse_nothing(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise BadValue(f"{shown(value)} is not an integer")


def _attempts(value: object) -> int:
    number = _int(value)
    if not 1 <= number <= MOST_ATTEMPTS:
        raise BadValue(
            f"'{number}' is not a number of attempts: 1 to {MOST_ATTEMPTS}",
            "The first try counts: 3 means that a failed task is started again twice.",
        )
    return number


def _backoff(value: object) -> float:
    refuse_nothing(value)
    try:
        factor = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        factor = math.nan
    if not 1 <= factor < math.inf:
        raise BadValue(
            f"{shown(value)} is not a factor of at least 1",
            "With 2 each pause is twice as long as the one before it.",
        )
    return factor


def _local_path(value: object) -> Path:
    refuse_nothing(value)
    return Path(str(value))


def _remote_path(value: object) -> PurePosixPath:
    refuse_nothing(value)
    return PurePosixPath(str(value))


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


def _uri(value: object) -> str:
    refuse_nothing(value)
    text = str(value)
    if not _SCHEME.match(text):
        raise BadValue(
            f"URI Scheme not specified: {text!r}",
            f"Write 'storage:{text}' for a folder of the platform's storage.",
        )
    return text


def _image_ref(value: object) -> str:
    refuse_nothing(value)
    return str(value)


RESTART_POLICIES: Final = ("never", "on-failure", "always")


def _restart(value: object) -> str:
    if value not in RESTART_POLICIES:
        raise BadValue(
            f"{shown(value)} is not a valid restart policy, allowed: {', '.join(RESTART_POLICIES)}"
        )
    return str(value)


_PORTS: Final = re.compile(r"(\d+):(\d+)", re.ASCII)


def _port_pair(value: object) -> str:
    match = _PORTS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = 'Write local and remote port with a colon, in quotes: "2222:22".'
        if isinstance(value, int) and not isinstance(value, bool) and value > 59:
            # YAML 1.1 reads 22:22 as minutes and seconds.
            hint += f" YAML reads {value // 60}:{value % 60:02} without quotes as a number."
        raise BadValue(f"{shown(value)} is not a LOCAL:REMOTE ports pair", hint)
    for port in match.groups():
        if not 0 < int(port) < 65536:
            raise BadValue(f"{value!r} is not a LOCAL:REMOTE ports pair: ports are 1 to 65535")
    return match.group()


def _bash(value: object) -> str:
    refuse_nothing(value)
    return f"bash -euo pipefail -c {shlex.quote(str(value))}"


def _python(value: object) -> str:
    refuse_nothing(value)
    return f"python3 -uc {shlex.quote(str(value))}"


def _primitive(value: object) -> object:
    return value if isinstance(value, bool | int | float) else str(value)


_SCALAR: Final = {"type": ["string", "number", "boolean"]}
# An identifier that is not all upper-case. Other letters than ASCII's are fine too.
ID_PATTERN: Final = r"^(?=.*[^A-Z0-9_])[^\W\d]\w*$"
_IDENTIFIER: Final = {"type": "string", "pattern": ID_PATTERN}

STR: Final = ValueType("str", _text, True, _SCALAR)
BOOL: Final = ValueType("bool", _bool, False, {"type": "boolean"}, from_yaml=_constant_bool)
INT: Final = ValueType(
    "int", _int, False, {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?\d+$"}]}
)
TIME_DELTA: Final = ValueType(
    "time delta",
    times.time_delta,
    False,
    {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {
                "type": "string",
                "pattern": r"^(\d+(\.\d+)?|inf|(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?)$",
            },
        ]
    },
)
LIFE_SPAN: Final = replace(TIME_DELTA, convert=times.life_span)
SCHEDULE_TIMEOUT: Final = replace(TIME_DELTA, convert=times.schedule_timeout)
BAKE_LIFE_SPAN: Final = replace(TIME_DELTA, convert=times.bake_life_span)
ATTEMPTS: Final = ValueType(
    "number of attempts",
    _attempts,
    False,
    {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": MOST_ATTEMPTS},
            {"type": "string", "pattern": r"^0*([1-9]\d?|100)$"},
        ]
    },
)
BACKOFF: Final = ValueType(
    "factor",
    _backoff,
    False,
    {"anyOf": [{"type": "number", "minimum": 1}, {"type": "string", "pattern": r"^[\d.]+$"}]},
)
CRON: Final = ValueType(
    "schedule",
    times.cron,
    False,
    {"type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$"},
    expressions=False,
)
TIME_ZONE: Final = ValueType(
    "time zone", times.time_zone, False, {"type": "string", "minLength": 1}, expressions=False
)
LOCAL_PATH: Final = ValueType("local path", _local_path, True, _SCALAR)
REMOTE_PATH: Final = ValueType("remote path", _remote_path, True, _SCALAR)
URI: Final = ValueType("URI", _uri, True, {"type": "string", "pattern": r"^[A-Za-z][\w+.\-]*:"})
IMAGE_REF: Final = ValueType("image", _image_ref, True, _SCALAR)
ENABLE: Final = ValueType(
    "enable",
    _enable,
    False,
    {"anyOf": [{"type": "boolean"}, {"const": "always()"}]},
    from_yaml=_constant_enable,
)
RESTART: Final = ValueType("restart policy", _restart, True, {"enum": list(RESTART_POLICIES)})
PORT_PAIR: Final = ValueType(
    "ports pair", _port_pair, True, {"type": "string", "pattern": r"^\d+:\d+$"}
)
BASH: Final = ValueType("bash", _bash, True, _SCALAR)
PYTHON: Final = ValueType("python", _python, True, _SCALAR)
PRIMITIVE: Final = ValueType("primitive", _primitive, True, _SCALAR)
ID: Final = ValueType("id", identifier, True, _IDENTIFIER)
SIMPLE_ID: Final = ValueType("id", identifier, False, _IDENTIFIER, expressions=False)
SIMPLE_STR: Final = ValueType("str", _text, False, _SCALAR, expressions=False)
SIMPLE_BOOL: Final = ValueType(
    "bool", _bool, False, {"type": "boolean"}, expressions=False, from_yaml=_constant_bool
)
SIMPLE_PRIMITIVE: Final = ValueType("primitive", _primitive, False, _SCALAR, expressions=False)
