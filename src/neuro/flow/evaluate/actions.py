"""Action files: found by their reference, read once, called with inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.domain.problems import nearest
from neuro.flow.evaluate import repositories
from neuro.flow.evaluate.boundary import is_inside, leads_out
from neuro.flow.syntax.reader import load_source, read_action

if TYPE_CHECKING:
    from neuro.domain.problems import Position
    from neuro.flow.problems import Report
    from neuro.flow.syntax.tree import ActionFile, Input
    from neuro.flow.syntax.types import MapValue

SUFFIXES = ("", ".yml", ".yaml")
_BUNDLED_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Action:
    """An action's file, read."""

    file: ActionFile
    path: Path


class Actions:
    """The actions of one workspace."""

    def __init__(self, root: Path, cache_dir: Path, *, network: bool = True) -> None:
        self._root = root
        self._cache_dir = cache_dir
        self._network = network
        self._read: dict[str, Action] = {}

    def get(
        self, reference: str, at: Position, report: Report, *, broken: bool = False
    ) -> Action | None:
        """Return an action, None where it has problems, or where it would have to be fetched.

        Who only looks for problems takes a ``broken`` one too: what could be read of it.
        """
        if reference in self._read:
            return self._read[reference]
        try:
            path = self._find(reference)
        except ValueError as error:
            report.add(str(error), at)
            return None
        if path is None:
            return None
        problems = len(report.problems)
        action = _read(path, report)
        if action is None or len(report.problems) > problems:
            # Read again by who asks next: its problems are the asker's too.
            return action if broken else None
        self._read[reference] = action
        return action

    def _find(self, reference: str) -> Path | None:
        scheme, colon, rest = reference.partition(":")
        if not colon:
            raise ValueError(f"{reference} has no schema: write ws:{reference} for a local file")
        match scheme:
            case "ws" | "workspace":
                return self._local(reference, rest)
            case "gh" | "github":
                return self._from_repository(rest)
            case "neuro":
                return _bundled(rest)
        raise ValueError(f"Unsupported scheme '{scheme}': there are ws, gh and neuro")

    def _local(self, reference: str, name: str) -> Path:
        if leads_out(name):
            raise ValueError(
                f"{reference} leads out of the workspace {self._root}: "
                "copy the file into it, and name it from there"
            )
        for suffix in SUFFIXES:
            path = self._root / f"{name}{suffix}"
            if path.is_file():
                if not is_inside(path, self._root):
                    raise ValueError(
                        f"{reference} is behind a link that leads out of the workspace "
                        f"{self._root}: copy the file into it"
                    )
                return path
        wanted = name if name.endswith(SUFFIXES[1:]) else f"{name}.yml"
        message = f"Action {reference} does not exist: no file {self._root / wanted}"
        folder = (self._root / name).parent
        beside = [path.stem for end in SUFFIXES[1:] for path in folder.glob(f"*{end}")]
        hint = nearest(Path(wanted).stem, beside)
        raise ValueError(f"{message}. {hint}" if hint else message)

    def _from_repository(self, spec: str) -> Path | None:
        if self._network:
            folder = repositories.fetch(spec, self._cache_dir)
        else:
            folder = repositories.cached(spec, self._cache_dir)
            if not folder.is_dir():
                return None
        for name in ("action.yml", "action.yaml"):
            path = folder / name
            # A link out of the repository would show what is not the repository's.
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return path
        raise ValueError(f"{spec} has no action.yml in its root")


def _bundled(spec: str) -> Path:
    name, _, version = spec.partition("@")
    folder = Path(__file__).parents[2] / "actions"
    known = sorted(path.stem for path in folder.glob("*.yml"))
    if name not in known:
        hint = nearest(name, known) or f"There are: {', '.join(known)}."
        raise ValueError(f"There is no bundled action '{name}'. {hint}")
    if version != _BUNDLED_VERSION:
        raise ValueError(
            f"The bundled action '{name}' has the version {_BUNDLED_VERSION}: "
            f"write neuro:{name}@{_BUNDLED_VERSION}"
        )
    return folder / f"{name}.yml"


def _read(path: Path, report: Report) -> Action | None:
    source = load_source(path, report)
    if source is None:
        return None
    file = read_action(source, report)
    return None if file is None else Action(file, path)


_MATCHES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
# Values that quotes have made strings.
_SPELT = {"int": r"-?\d+", "float": r"-?\d+(\.\d+)?", "bool": "true|false"}


def check_names(
    given: Mapping[str, Position],
    declared: Mapping[str, Input],
    at: Position,
    report: Report,
    *,
    complete: bool = True,
) -> None:
    """Report inputs that are missing and those that there are not.

    Where an expression gives arguments too, the missing ones are known only when it is evaluated.
    """
    missing = [name for name, one in declared.items() if one.default is None and name not in given]
    if missing and complete:
        report.add(f"Required input(s): {', '.join(missing)}", at, "Give them in `args:`.")
    for name, where in given.items():
        if name not in declared:
            hint = nearest(name, declared)
            if hint is None:
                known = ", ".join(sorted(declared))
                hint = f"The inputs are: {known}." if known else "The action has no inputs."
            report.add(f"Unsupported input(s): {name}", where, hint)


def bind_inputs(
    given: Mapping[str, tuple[object, Position]],
    declared: Mapping[str, Input],
    at: Position,
    report: Report,
) -> dict[str, object]:
    """Return the inputs' values: the given ones by their types, the others' defaults.

    An input that is missing, or of a wrong type, is reported and left out.
    """
    check_names({name: where for name, (_, where) in given.items()}, declared, at, report)
    inputs: dict[str, object] = {}
    for name, one in declared.items():
        if name not in given:
            if one.default is not None:
                inputs[name] = one.default.constant
            continue
        value, where = given[name]
        if value is None or _fits(name, value, where, one, report):
            inputs[name] = _typed(value, one.type)
    return inputs


def check_literals(args: MapValue | None, declared: Mapping[str, Input], report: Report) -> None:
    """Report arguments that are not expressions and not of their input's type."""
    for name, part in args.parts if args is not None else ():
        if name is not None and name in declared and part.template is None:
            _fits(name, part.constant, part.at, declared[name], report, is_literal=True)


def _fits(
    name: str,
    value: object,
    where: Position,
    declared: Input,
    report: Report,
    *,
    is_literal: bool = False,
) -> bool:
    expected = _MATCHES.get(declared.type)
    if expected is None or isinstance(value, expected):
        return True
    hint = None
    if is_literal:
        is_quoted = isinstance(value, str) and re.fullmatch(_SPELT[declared.type], value)
        what = f"{value}, without quotes" if is_quoted else f"a value of type {declared.type}"
        hint = f"Write {what}."
    elif isinstance(value, str) and declared.type == "int":
        hint = "Convert a string with int(): ${{ int(params.x) }}."
    report.add(
        f"Type of argument '{name}' does not match the input's declared type: "
        f"the argument is '{type(value).__name__}', the input is '{declared.type}'",
        where,
        hint,
    )
    return False


def _typed(value: object, type_: str) -> object:
    if type_ == "float" and isinstance(value, int):
        return float(value)
    return str(value) if type_ == "str" else value
