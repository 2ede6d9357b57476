"""Commands of the person's own (docs/guide/configuration.md): ``[alias.NAME]`` with cmd or exec."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import click

from neuro.cli.failures import CONFIG, NOT_FOUND, Failure
from neuro.cli.lazy import LazyGroup
from neuro.cli.user_config import Alias, UserConfig

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")
_OPTION = re.compile(
    r"(?P<names>-{1,2}[\w-]+(?:\s*,\s*-{1,2}[\w-]+)*)(?:=(?P<value>\w+))?(?:\s+(?P<help>.*))?", re.S
)


def describe(alias: Alias) -> str:
    """What an alias does, in a line."""
    return alias.help or (f"neuro {alias.cmd}" if alias.cmd else str(alias.exec))


def alias_command(config: UserConfig, name: str, root: LazyGroup) -> click.Command | None:
    """The command of an alias; None where there is no such alias."""
    alias = config.aliases.get(name)
    if alias is None:
        return None
    return _internal(alias, root) if alias.cmd else _external(alias)


def _internal(alias: Alias, root: LazyGroup) -> click.Command:
    @click.pass_context
    def run(ctx: click.Context, rest: Sequence[str]) -> Any:
        words = [*shlex.split(alias.cmd or ""), *rest]
        command = LazyGroup.get_command(root, ctx, words[0]) if words else None
        if command is None:
            # An alias of an alias could go round in circles.
            raise Failure(
                f"alias.{alias.name}: '{alias.cmd}' does not begin with a command of neuro.", CONFIG
            )
        with command.make_context(words[0], words[1:], parent=ctx.parent) as inner:
            return command.invoke(inner)

    return click.Command(
        alias.name,
        callback=run,
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")],
        help=f"{alias.help or 'An alias.'}\n\nStands for `neuro {alias.cmd}`.",
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )


def _external(alias: Alias) -> click.Command:
    arguments = [_argument(word) for word in (alias.args or "").split()]
    options = [_option(alias, text) for text in alias.options]
    params: list[click.Parameter] = [*options, *arguments]
    free = not params
    if free:
        params = [click.Argument(["args"], nargs=-1, type=click.UNPROCESSED)]

    def run(**given: Any) -> int:
        line = command_line(alias, _words(params, given))
        try:
            return subprocess.run(line, check=False).returncode
        except FileNotFoundError:
            raise Failure(
                f"alias.{alias.name}: there is no program '{line[0]}'", NOT_FOUND
            ) from None

    return click.Command(
        alias.name,
        callback=run,
        params=params,
        help=f"{alias.help or 'An alias.'}\n\nRuns `{alias.exec}`.",
        context_settings={"ignore_unknown_options": free},
    )


def _argument(word: str) -> click.Argument:
    required = not word.startswith("[")
    many = word.rstrip("]").endswith("...")
    name = word.strip("[]").removesuffix("...").strip("[]")
    return click.Argument([name.lower()], required=required, nargs=-1 if many else 1)


def _option(alias: Alias, text: str) -> click.Option:
    match = _OPTION.fullmatch(text.strip())
    if match is None:
        raise Failure(
            f"alias.{alias.name}: '{text}' is not an option: write '-d, --depth=N  what it does'.",
            CONFIG,
        )
    names = [name.strip() for name in match["names"].split(",")]
    more: dict[str, Any] = {"metavar": match["value"]} if match["value"] else {"is_flag": True}
    return click.Option(names, help=match["help"], **more)


def _words(params: Sequence[click.Parameter], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each parameter the words that it puts into the command line."""
    words: dict[str, list[str]] = {}
    for param in params:
        value = given[str(param.name)]
        if isinstance(param, click.Option):
            flag = max(param.opts, key=len)
            said = [flag] if value is True else [flag, str(value)] if value else []
        else:
            said = list(value) if isinstance(value, tuple) else [value] if value else []
        words[str(param.name)] = said
    return words


def command_line(alias: Alias, words: Mapping[str, Sequence[str]]) -> list[str]:
    """The program's words: ``{name}`` replaced, or all appended where nothing is.

    ``{opts}`` stands for everything that was given.
    """
    line: list[str] = []
    replaced = False
    known = {name.replace("_", "-"): values for name, values in words.items()} | dict(words)
    known["opts"] = [word for values in words.values() for word in values]
    for word in shlex.split(alias.exec or ""):
        fields = [name.lower() for name in _FIELD.findall(word)]
        if unknown := [name for name in fields if name not in known]:
            raise Failure(
                f"alias.{alias.name}: exec uses {{{unknown[0]}}}, which neither args nor"
                " options name",
                CONFIG,
            )
        replaced = replaced or bool(fields)
        if fields and word == f"{{{_FIELD.findall(word)[0]}}}":
            line += known[fields[0]]
        else:
            line.append(_FIELD.sub(lambda found: " ".join(known[found[1].lower()]), word))
    return line if replaced else [*line, *known["opts"]]
