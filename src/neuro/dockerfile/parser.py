"""Reads a Dockerfile: a tree with positions, or everything that is wrong with it at once."""

from __future__ import annotations

from msgspec.structs import replace

from neuro.dockerfile.instructions import INSTRUCTIONS
from neuro.dockerfile.lines import Line, Lines
from neuro.dockerfile.reading import Reading, Wrong
from neuro.dockerfile.tree import Arg, Dockerfile, DockerfileError, From, Instruction, Stage
from neuro.domain.problems import Problem, Source, nearest

MAX_BYTES = 1024 * 1024
MAX_INSTRUCTIONS = 10_000
MAX_PROBLEMS = 100
_BYTE_ORDER_MARK = "\ufeff"


def parse(content: bytes | str, name: str = "Dockerfile") -> Dockerfile:
    """The tree of a Dockerfile. Raises DockerfileError, with all problems that were found.

    >>> tree = parse("FROM alpine AS base")
    >>> tree.stages[0].begin.base.text, tree.stages[0].name
    ('alpine', 'base')
    """
    source = Source(name, _decoded(content, name))
    reader = _FileReader(source)
    reader.read()
    if reader.problems:
        raise DockerfileError(reader.problems)
    return Dockerfile(
        source,
        reader.lines.escape,
        tuple(reader.arguments),
        tuple(reader.stages),
        tuple(reader.notes),
    )


def parse_trigger(text: str, at: From) -> Instruction:
    """The instruction that an ONBUILD of the base holds, placed at the FROM that names the base."""
    source = Source(f"ONBUILD of {at.base.text}", text)
    reader = _FileReader(source, one_instruction=True)
    reader.read()
    found = reader.arguments if reader.arguments else reader.loose
    if reader.problems or len(found) != 1:
        wrong = reader.problems[0].message if reader.problems else "It is not one instruction."
        raise DockerfileError(
            [Problem(f"An ONBUILD of {at.base.text} cannot be read: {wrong}", at.base.at, text)]
        )
    return replace(found[0], at=at.at)


def _decoded(content: bytes | str, name: str) -> str:
    raw = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    if len(raw) > MAX_BYTES:
        message = f"The file has {len(raw):,} bytes: a Dockerfile may have {MAX_BYTES:,}."
        raise DockerfileError([Problem(message, Source(name, "").position(0))])
    try:
        return raw.decode().removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as broken:
        before = raw[: broken.start].decode()
        shown = Source(name, before + raw[broken.start :].decode(errors="replace"))
        at = shown.position(len(before))
        problem = Problem("The file is not text in UTF-8.", at, "Save it as UTF-8.")
        raise DockerfileError([problem]) from None


class _FileReader:
    def __init__(self, source: Source, *, one_instruction: bool = False) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.lines = Lines(source, self.problems, self.notes)
        self.arguments: list[Arg] = []
        self.stages: list[Stage] = []
        self.loose: list[Instruction] = []
        self._one = one_instruction
        self._begin: From | None = None
        self._seen_from = False
        self._inside: list[Instruction] = []

    def read(self) -> None:
        count = 0
        for line in self.lines:
            count += 1
            if count > MAX_INSTRUCTIONS:
                self._add(f"The file has more than {MAX_INSTRUCTIONS:,} instructions.", line)
                break
            if len(self.problems) >= MAX_PROBLEMS:
                break
            try:
                self._take(self._instruction(line), line)
            except Wrong:
                continue
        self._end_stage()
        if not self.problems and not self._one and not self.stages:
            begin = self.source.position(0)
            message = "The file has no FROM." if count else "The file has no instructions."
            self.problems.append(
                Problem(message, begin, "Begin with FROM and an image: FROM python:3.12.")
            )

    def _instruction(self, line: Line) -> Instruction:
        reading = Reading(line, self.lines.escape, self.problems, self.notes)
        if reading.can_hold_heredocs:
            self._read_heredocs(reading)
        self._seen_from |= reading.keyword == "FROM"
        read = INSTRUCTIONS.get(reading.keyword)
        if read is None:
            reading.wrong(
                f"'{reading.name.text}' is not an instruction.",
                None,
                nearest(reading.keyword, INSTRUCTIONS),
            )
        return read(reading)

    def _read_heredocs(self, reading: Reading) -> None:
        found = []
        for heredoc in reading.heredoc_words():
            text = self.lines.heredoc(heredoc.name, strip_tabs=heredoc.strip_tabs)
            if text is None:
                reading.wrong(
                    f"The here-document {heredoc.name} does not end.",
                    None,
                    f"Add a line that is just {heredoc.name}.",
                )
            found.append(replace(heredoc, text=text))
        reading.heredocs = tuple(found)

    def _take(self, instruction: Instruction, line: Line) -> None:
        if isinstance(instruction, From):
            self._end_stage()
            self._begin = instruction
        elif self._seen_from:
            self._inside.append(instruction)
        elif isinstance(instruction, Arg):
            self.arguments.append(instruction)
        elif self._one:
            self.loose.append(instruction)
        else:
            keyword = instruction.text.split(maxsplit=1)[0].upper()
            self._add(f"{keyword} stands before the first FROM.", line, "Only ARG may.")

    def _end_stage(self) -> None:
        if self._begin is not None:
            self.stages.append(Stage(len(self.stages), self._begin, tuple(self._inside)))
            self._inside = []

    def _add(self, message: str, line: Line, hint: str | None = None) -> None:
        self.problems.append(Problem(message, line.at(0), hint))
