"""Reads the instructions that change files: RUN, COPY and ADD."""

from __future__ import annotations

from typing import NoReturn

from neuro.dockerfile import tree
from neuro.dockerfile.lines import Span
from neuro.dockerfile.reading import Flags, Reading, Wrong, heredoc_of
from neuro.dockerfile.tree import CommandLine, Heredoc, Word
from neuro.dockerfile.values import boolean, fields
from neuro.domain.problems import Problem

_FILE_FLAGS = {"chown": str, "chmod": str, "link": bool, "exclude": str}
_NETWORKS = ("default", "none", "host")


def read_copy(reading: Reading) -> tree.Copy:
    """COPY, with its flags."""
    words, flags = _files(reading, {**_FILE_FLAGS, "from": str, "parents": bool})
    sources, contents, destination = _sources(reading, words)
    return tree.Copy(
        reading.text,
        reading.at,
        sources,
        contents,
        destination,
        flags.word("chown"),
        flags.word("chmod"),
        flags.yes("link") or False,
        _excludes(flags),
        flags.word("from"),
        flags.yes("parents") or False,
    )


def read_add(reading: Reading) -> tree.Add:
    """ADD, with its flags."""
    words, flags = _files(
        reading, {**_FILE_FLAGS, "checksum": str, "keep-git-dir": bool, "unpack": bool}
    )
    sources, contents, destination = _sources(reading, words)
    return tree.Add(
        reading.text,
        reading.at,
        sources,
        contents,
        destination,
        flags.word("chown"),
        flags.word("chmod"),
        flags.yes("link") or False,
        _excludes(flags),
        checksum=flags.word("checksum"),
        keep_git_dir=flags.yes("keep-git-dir"),
        unpack=flags.yes("unpack"),
    )


def _files(reading: Reading, known: dict[str, type]) -> tuple[list[Span], Flags]:
    words = reading.words()
    if len(words) < 2:
        reading.wrong(
            f"{reading.keyword} needs at least one source and a destination.",
            None,
            f"Write {reading.keyword} SOURCE DESTINATION.",
        )
    return words, reading.read_flags(known, many=("exclude",))


def _excludes(flags: Flags) -> tuple[Word, ...]:
    return tuple(Word(flag.value or "", flag.at) for flag in flags.all("exclude"))


def _sources(
    reading: Reading, words: list[Span]
) -> tuple[tuple[Word, ...], tuple[Heredoc, ...], Word]:
    *sources, destination = words
    if heredoc_of(destination.text, reading.at):
        reading.wrong(
            f"The last word of {reading.keyword} is the destination: it cannot be a here-document.",
            destination,
        )
    by_name = {heredoc.name: heredoc for heredoc in reading.heredocs}
    paths, contents = [], []
    for source in sources:
        if heredoc := heredoc_of(source.text, reading.line.at(source.start)):
            body = by_name.get(heredoc.name)
            contents.append(
                Heredoc(
                    heredoc.name,
                    body.text if body else "",
                    heredoc.expand,
                    heredoc.strip_tabs,
                    heredoc.at,
                )
            )
        else:
            paths.append(reading.word(source))
    return tuple(paths), tuple(contents), reading.word(destination)


def read_command(reading: Reading) -> CommandLine:
    """A command in either form, with its here-documents."""
    found = reading.json()
    if found is not None:
        return CommandLine(tuple(map(reading.word, found)), True)
    return CommandLine((reading.word(reading.rest),), False, reading.heredocs)


def read_run(reading: Reading) -> tree.Run:
    """RUN, with its flags."""
    flags = reading.read_flags(
        {"mount": str, "network": str, "device": str, "security": str}, many=("mount", "device")
    )
    command = read_command(reading)
    network = flags.text("network") if flags.all("network") else "default"
    if network not in _NETWORKS:
        reading.wrong(f"'{network}' is not a network.", None, "There are default, none and host.")
    security = flags.all("security")
    if security and security[0].value != "sandbox":
        reading.wrong(
            "RUN --security is not supported: builds never run with more rights.",
            None,
            "Remove the flag.",
        )
    mounts = tuple(_mount(reading, flag) for flag in flags.all("mount"))
    devices = tuple(_device(reading, flag.value or "") for flag in flags.all("device"))
    return tree.Run(reading.text, reading.at, command, mounts, network, devices)


def _mount(reading: Reading, flag: tree.Flag) -> tree.MountFlag:
    found = fields(flag.value or "")
    if found is None:
        _refuse(reading, flag, "Its fields are separated by commas, and quotes go around a field.")
    origin = ""
    for one in found:
        name, equals, value = one.partition("=")
        if equals and name.lower() == "from":
            if "$" in value[:-1]:
                _refuse(reading, flag, "Define a stage, FROM $NAME AS name, and write from=name.")
            origin = value
    return tree.MountFlag(tuple(found), origin, flag.at)


def _refuse(reading: Reading, flag: tree.Flag, hint: str) -> NoReturn:
    reading.problems.append(Problem(f"--mount={flag.value} cannot be read.", flag.at, hint))
    raise Wrong


def _device(reading: Reading, value: str) -> tree.Device:
    name, required = "", False
    for one in fields(value) or reading.wrong(f"--device={value} cannot be read."):
        key, equals, text = one.partition("=")
        if key.lower() == "required" and (not equals or boolean(text) is not None):
            required = not equals or bool(boolean(text))
        elif not name:
            name = text if key.lower() == "name" and equals else one
        else:
            reading.wrong(
                f"--device={value} cannot be read.", None, "Write --device=NAME,required."
            )
    return tree.Device(name, required)
