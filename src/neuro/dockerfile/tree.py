"""What a Dockerfile says, as typed values with their places in the file, nothing expanded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from neuro.domain.problems import Position, Problem, Source


class Word(NamedTuple):
    """One token as it is written, quotes included."""

    text: str
    at: Position


class Pair(NamedTuple):
    """A name and its value. ``value`` is None for an ARG without a default."""

    name: Word
    value: Word | None


@dataclass(frozen=True, slots=True)
class Flag:
    """``--name=value`` behind an instruction's name. ``value`` is None where there is no ``=``."""

    name: str
    value: str | None
    at: Position


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document: ``<<NAME`` and the lines down to NAME."""

    name: str
    text: str = field(repr=False)
    expand: bool
    """Whether variables in it are expanded: not if NAME is quoted."""
    strip_tabs: bool
    at: Position

    @property
    def content(self) -> str:
        """The text without the tabs at the beginnings of lines, where ``<<-`` asks for that."""
        if not self.strip_tabs:
            return self.text
        return "\n".join(line.lstrip("\t") for line in self.text.split("\n"))


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command: a list of words (the JSON form), or one text for the shell."""

    words: tuple[Word, ...]
    is_json: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Instruction:
    """What all instructions have: their text in one line, and their place."""

    text: str
    at: Position


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY, and what ADD has in common with it."""

    sources: tuple[Word, ...]
    contents: tuple[Heredoc, ...]
    destination: Word
    chown: Word | None
    chmod: Word | None
    link: bool
    excludes: tuple[Word, ...]
    origin: Word | None = None
    """The stage or image of ``--from``; the build's context where none is given."""
    parents: bool = False


@dataclass(frozen=True, slots=True)
class Add(Copy):
    checksum: Word | None = None
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class MountFlag:
    """``--mount=``: its fields as written; ``origin`` is known before anything is expanded."""

    fields: tuple[str, ...]
    origin: str
    at: Position


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    command: CommandLine
    mounts: tuple[MountFlag, ...]
    network: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """``--device=``: a CDI device of a RUN."""

    name: str
    required: bool


@dataclass(frozen=True, slots=True)
class Cmd(Instruction):
    command: CommandLine


@dataclass(frozen=True, slots=True)
class Entrypoint(Instruction):
    command: CommandLine


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """``command`` is None for HEALTHCHECK NONE. Times are in nanoseconds; 0 is the default."""

    command: CommandLine | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: Word


@dataclass(frozen=True, slots=True)
class User(Instruction):
    name: Word


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: Word


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    name: Word


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    """``trigger`` is an instruction for the builds that start from this image, as written."""

    trigger: str


@dataclass(frozen=True, slots=True)
class From(Instruction):
    base: Word
    name: Word | None
    platform: Word | None


@dataclass(frozen=True, slots=True)
class Stage:
    """A FROM and what follows it."""

    index: int
    begin: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name behind AS, in lower case. Empty where there is none."""
        return self.begin.name.text.lower() if self.begin.name else ""


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file. ``notes`` are about what is allowed and likely a mistake."""

    source: Source
    escape: str
    arguments: tuple[Arg, ...]
    """The ARGs before the first FROM."""
    stages: tuple[Stage, ...]
    notes: tuple[Problem, ...] = ()


class DockerfileError(Exception):
    """Everything that is wrong with a Dockerfile."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_place))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(problem.render() for problem in self.problems)


def _place(problem: Problem) -> tuple[int, int]:
    return (problem.at.line, problem.at.column) if problem.at else (0, 0)
