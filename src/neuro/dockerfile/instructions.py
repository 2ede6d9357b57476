"""From an instruction's pieces to its typed value: one function for each instruction."""

from __future__ import annotations

import re
from collections.abc import Callable

from neuro.dockerfile import tree
from neuro.dockerfile.lines import SPACES, Span
from neuro.dockerfile.reading import Reading
from neuro.dockerfile.run_and_copy import read_add, read_command, read_copy, read_run
from neuro.dockerfile.tree import CommandLine, Pair, Word
from neuro.dockerfile.values import duration, integer
from neuro.dockerfile.words import quoted_words, spaced_words

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_GAP = re.compile(r"[\t\v\f\r ]+")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)
_FEWEST_NANOSECONDS = 10**6
_TIMES = ("interval", "timeout", "start-period", "start-interval")


def _pairs(reading: Reading) -> tuple[Pair, ...]:
    reading.read_flags({})
    words = quoted_words(reading.rest, reading.escape)
    if not words:
        reading.wrong(f"{reading.keyword} needs at least one name and value.")
    if "=" not in words[0].text:
        return (_old_pair(reading),)
    pairs = []
    for word in words:
        name, equals, value = word.text.partition("=")
        if not equals:
            reading.wrong(
                f"'{word.text}' has no '='.", word, "Write name=value, with quotes around spaces."
            )
        if not name:
            reading.wrong("The name before '=' is missing.", word)
        pairs.append(
            Pair(
                reading.word(Span(name, word.start)),
                Word(value, reading.line.at(word.start + len(name) + 1)),
            )
        )
    return tuple(pairs)


def _old_pair(reading: Reading) -> Pair:
    parts = _GAP.split(reading.rest.text, maxsplit=1)
    if len(parts) < 2:
        reading.wrong(f"{reading.keyword} {parts[0]} has no value.", None, "Write name=value.")
    reading.note(
        f"{reading.keyword} with a space instead of '=' is an old form.",
        reading.rest,
        f"Write {parts[0]}=...",
    )
    value = Span(parts[1], reading.rest.start + len(reading.rest.text) - len(parts[1]))
    return Pair(reading.word(Span(parts[0], reading.rest.start)), reading.word(value))


def _env(reading: Reading) -> tree.Env:
    return tree.Env(reading.text, reading.at, _pairs(reading))


def _label(reading: Reading) -> tree.Label:
    return tree.Label(reading.text, reading.at, _pairs(reading))


def _arg(reading: Reading) -> tree.Arg:
    _ignore_flags(reading)
    pairs = []
    for word in quoted_words(reading.rest, reading.escape):
        name, equals, value = word.text.partition("=")
        if equals and not name:
            reading.wrong("The name before '=' is missing.", word)
        pairs.append(
            Pair(
                reading.word(Span(name, word.start)),
                Word(value, reading.line.at(word.start + len(name) + 1)) if equals else None,
            )
        )
    if not pairs:
        reading.wrong("ARG needs a name.", None, "Write ARG name, or ARG name=default.")
    return tree.Arg(reading.text, reading.at, tuple(pairs))


def _ignore_flags(reading: Reading) -> None:
    """Some instructions never had flags, and files that give them some are built all the same."""
    for flag in reading.flags:
        reading.note(f"{reading.keyword} has no flags: '{flag.text}' is ignored.", flag)


def _cmd(reading: Reading) -> tree.Cmd:
    reading.read_flags({})
    return tree.Cmd(reading.text, reading.at, read_command(reading))


def _entrypoint(reading: Reading) -> tree.Entrypoint:
    reading.read_flags({})
    return tree.Entrypoint(reading.text, reading.at, read_command(reading))


def _shell(reading: Reading) -> tree.Shell:
    reading.read_flags({})
    words = reading.json()
    if not words:
        reading.wrong(
            "SHELL needs a JSON list.", reading.rest, 'For example: SHELL ["/bin/bash", "-c"].'
        )
    return tree.Shell(reading.text, reading.at, tuple(map(reading.word, words)))


def _healthcheck(reading: Reading) -> tree.Healthcheck:
    kind = re.match(r"\S*", reading.rest.text)
    typed = kind[0] if kind else ""
    if not typed:
        reading.wrong("HEALTHCHECK needs CMD and a command, or NONE.")
    word = Span(typed, reading.rest.start)
    behind = reading.rest.text[len(typed) :]
    skipped = len(behind) - len(behind.lstrip(SPACES))
    reading.rest = Span(behind[skipped:], word.start + len(typed) + skipped)
    command = read_command(reading)
    if typed.upper() == "NONE":
        _ignore_flags(reading)
        if not _is_empty(command):
            reading.wrong("HEALTHCHECK NONE takes no arguments.", reading.rest)
        return tree.Healthcheck(reading.text, reading.at, None)
    flags = reading.read_flags(dict.fromkeys((*_TIMES, "retries"), str))
    if typed.upper() != "CMD":
        reading.wrong(f"HEALTHCHECK {typed} is not known.", word, "Write CMD or NONE.")
    if _is_empty(command):
        reading.wrong("HEALTHCHECK CMD needs a command.", word)
    interval, timeout, start, between = (_time(reading, name, flags.text(name)) for name in _TIMES)
    text = flags.text("retries")
    retries = integer(text) if text else 0
    if retries is None or not 0 <= retries < 2**31:
        reading.wrong(f"--retries={text} is not a number of retries.")
    return tree.Healthcheck(
        reading.text, reading.at, command, interval, timeout, start, between, retries
    )


def _is_empty(command: CommandLine) -> bool:
    return not command.words or not (command.is_json or command.words[0].text)


def _time(reading: Reading, name: str, text: str) -> int:
    found = duration(text) if text else 0
    if found is None or (found and found < _FEWEST_NANOSECONDS):
        reading.wrong(
            f"--{name}={text} is not a time of at least 1ms.", None, "Write 30s, 1m or 1m30s."
        )
    return found


def _expose(reading: Reading) -> tree.Expose:
    words = spaced_words(reading.rest)
    if not words:
        reading.wrong("EXPOSE needs at least one port.", None, "For example: EXPOSE 8080/tcp.")
    reading.read_flags({})
    # In the order of their letters: so the reference writes them in an image's history.
    return tree.Expose(
        reading.text, reading.at, tuple(map(reading.word, sorted(words, key=lambda one: one.text)))
    )


def _volume(reading: Reading) -> tree.Volume:
    words = reading.words()
    if not words:
        reading.wrong("VOLUME needs at least one path.")
    reading.read_flags({})
    for word in words:
        if not word.text.strip(SPACES):
            reading.wrong("A path of VOLUME is empty.", word)
    return tree.Volume(
        reading.text,
        reading.at,
        tuple(Word(one.text.strip(SPACES), reading.line.at(one.start)) for one in words),
    )


def _workdir(reading: Reading) -> tree.Workdir:
    path = reading.one("a path")
    reading.read_flags({})
    return tree.Workdir(reading.text, reading.at, path)


def _user(reading: Reading) -> tree.User:
    name = reading.one("a name or a number")
    reading.read_flags({})
    return tree.User(reading.text, reading.at, name)


def _stopsignal(reading: Reading) -> tree.StopSignal:
    _ignore_flags(reading)
    return tree.StopSignal(reading.text, reading.at, reading.one("a signal, such as SIGTERM"))


def _maintainer(reading: Reading) -> tree.Maintainer:
    name = reading.one("a name")
    reading.read_flags({})
    reading.note("MAINTAINER is an old form.", None, "Write LABEL maintainer=...")
    return tree.Maintainer(reading.text, reading.at, name)


def _onbuild(reading: Reading) -> tree.Onbuild:
    if not reading.rest.text:
        reading.wrong("ONBUILD needs an instruction.")
    reading.read_flags({})
    trigger = reading.trigger()
    keyword = trigger.keyword
    if keyword in ("ONBUILD", "MAINTAINER", "FROM"):
        reading.wrong(f"{keyword} cannot stand behind ONBUILD.", reading.rest)
    if keyword not in INSTRUCTIONS:
        reading.note(f"{keyword} is not an instruction: builds on this image fail.", reading.rest)
    elif keyword in ("ENV", "LABEL"):
        if trigger.rest.text:
            trigger.flags = []
            _pairs(trigger)
    else:
        trigger.json()
    text = _ONBUILD.sub("", reading.line.text, count=1)
    for heredoc in reading.heredocs:
        text += f"\n{heredoc.text}{heredoc.name}"
    return tree.Onbuild(reading.text, reading.at, text)


def _from(reading: Reading) -> tree.From:
    words = spaced_words(reading.rest)
    name = None
    if len(words) == 3 and words[1].text.lower() == "as":
        name = reading.word(words[2])
        if not _STAGE_NAME.fullmatch(name.text.lower()):
            reading.wrong(
                f"'{name.text}' is not a name of a stage.",
                words[2],
                "Begin with a letter; letters, digits, '-', '_' and '.' may follow.",
            )
    elif len(words) != 1:
        reading.wrong("FROM needs an image, and maybe AS and a name.", None, "FROM IMAGE AS NAME")
    flags = reading.read_flags({"platform": str})
    return tree.From(reading.text, reading.at, reading.word(words[0]), name, flags.word("platform"))


INSTRUCTIONS: dict[str, Callable[[Reading], tree.Instruction]] = {
    "ADD": read_add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": read_copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": read_run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
