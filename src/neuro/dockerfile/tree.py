"""What a Dockerfile says, as typed values with their places in the file, nothing expanded.

They are structs and no dataclasses, which would take four times as long to make: each `neuro image
build` waits for that twice.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from neuro.domain.problems import Position, Problem, Source


class Word(NamedTuple):
    """One token as it is written, quotes included."""

    text: str
    at: Position


class Pair(NamedTuple):
    """A name and its value. ``value`` is None for an ARG without a default."""

    name: Word
    value: Word | None


class Flag(msgspec.Struct, frozen=True):
    """``--name=value`` behind an instruction's name. ``value`` is None where there is no ``=``."""

    name: str
    value: str | None
    at: Position


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document: ``<<NAME`` and the lines down to NAME."""

    name: str
    text: str
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


class CommandLine(msgspec.Struct, frozen=True):
    """A command: a list of words (the JSON form), or one text for the shell."""

    words: tuple[Word, ...]
    is_json: bool
    heredocs: tuple[Heredoc, ...] = ()


class Instruction(msgspec.Struct, frozen=True):
    """What all instructions have: their text in one line, and their place."""

    text: str
    at: Position


class Arg(Instruction, frozen=True):
    pairs: tuple[Pair, ...]


class Env(Instruction, frozen=True):
    pairs: tuple[Pair, ...]


class Label(Instruction, frozen=True):
    pairs: tuple[Pair, ...]


class Copy(Instruction, frozen=True):
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


class Add(Copy, frozen=True):
    checksum: Word | None = None
    keep_git_dir: bool | None = None
    unpack: bool | None = None


class MountFlag(msgspec.Struct, frozen=True):
    """``--mount=``: its fields as written; ``origin`` is known before anything is expanded."""

    fields: tuple[str, ...]
    origin: str
    at: Position


class Run(Instruction, frozen=True):
    command: CommandLine
    mounts: tuple[MountFlag, ...]
    network: str
    devices: tuple[Device, ...]


class Device(msgspec.Struct, frozen=True):
    """``--device=``: a CDI device of a RUN."""

    name: str
    required: bool


class Cmd(Instruction, frozen=True):
    command: CommandLine


class Entrypoint(Instruction, frozen=True):
    command: CommandLine


class Shell(Instruction, frozen=True):
    words: tuple[Word, ...]


class Healthcheck(Instruction, frozen=True):
    """``command`` is None for HEALTHCHECK NONE. Times are in nanoseconds; 0 is the default."""

    command: CommandLine | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Expose(Instruction, frozen=True):
    ports: tuple[Word, ...]


class Volume(Instruction, frozen=True):
    paths: tuple[Word, ...]


class Workdir(Instruction, frozen=True):
    path: Word


class User(Instruction, frozen=True):
    name: Word


class StopSignal(Instruction, frozen=True):
    signal: Word


class Maintainer(Instruction, frozen=True):
    name: Word


class Onbuild(Instruction, frozen=True):
    """``trigger`` is an instruction for the builds that start from this image, as written."""

    trigger: str


class From(Instruction, frozen=True):
    base: Word
    name: Word | None
    platform: Word | None


class Stage(msgspec.Struct, frozen=True):
    """A FROM and what follows it."""

    index: int
    begin: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name behind AS, in lower case. Empty where there is none."""
        return self.begin.name.text.lower() if self.begin.name else ""


class Dockerfile(msgspec.Struct, frozen=True):
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
