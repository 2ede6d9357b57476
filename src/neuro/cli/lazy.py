"""Command groups that import a command's module only when the command is called.

``neuro --help`` prints the one-line helps of a static table and imports nothing but click.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple

import click


class Entry(NamedTuple):
    """One line of the table: where the command is, and what it does."""

    target: str  # "module:attribute"
    help: str
    hidden: bool = False


class Command(click.Command):
    """A command whose help ends with examples, each line printed as it is."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for parameter in self.params:
            if isinstance(parameter, PairOption):
                args = parameter.in_pairs(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _explained(error, ctx, str(self.name)) from None
        except click.BadParameter as error:
            raise _in_numbers(error) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def _explained(error: click.NoSuchOption, ctx: click.Context, command: str) -> click.NoSuchOption:
    """The error, with what to write in place of an option of other programs, or where it goes."""
    from neuro.cli.habits import about_option

    program = ctx.find_root()
    # Of `neuro` alone: commands of `neuro-flow` have some of the names.
    hint = about_option(command, error.option_name) if program.command.name == "neuro" else None
    if hint is None and any(error.option_name in option.opts for option in program.command.params):
        first, _, rest = ctx.command_path.partition(" ")
        hint = f"It goes before the command: `{first} {error.option_name} {rest}`."
    if hint is None:
        return error
    message = f"{error.message.rstrip('.')}. {hint}"
    return click.NoSuchOption(error.option_name, message, ctx=error.ctx)


def _in_numbers(error: click.BadParameter) -> click.BadParameter:
    """The error, where it is about a number, without the words of the library that read it."""
    kind = error.param.type if error.param is not None else None
    match kind:
        case click.types.IntParamType():
            what = "a whole number"
        case click.types.FloatParamType():
            what = "a number"
        case _:
            return error
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    if least is not None:
        what += f" from {least} to {most}" if most is not None else f", {least} or more"
    given = error.message.partition(" is not ")[0]
    return click.BadParameter(f"{given} is not {what}.", error.ctx, error.param, error.param_hint)


class PairOption(click.Option):
    """An option of a name and a value, which may be written as ``NAME=VALUE`` too."""

    def in_pairs(self, args: list[str]) -> list[str]:
        """The words with every ``NAME=VALUE`` of this option as two; names have no ``=``."""
        words: list[str] = []
        rest = iter(args)
        for word in rest:
            if word == "--":
                return [*words, word, *rest]
            option = next((it for it in self.opts if word == it or self._begins(word, it)), None)
            if option is None:
                words.append(word)
                continue
            words.append(option)
            given = word.removeprefix(option).removeprefix("=") or next(rest, "")
            name, equals, value = given.partition("=")
            # Without "=" the value is the next word, if there is one: click tells where not.
            words += [name, value] if equals else [given, *islice(rest, 1)][: 2 if given else 0]
        return words

    @staticmethod
    def _begins(word: str, option: str) -> bool:
        return word.startswith(f"{option}=" if option.startswith("--") else option)


class LazyGroup(click.Group):
    """A group made of a table of entries, some of which may be groups made beforehand."""

    def __init__(
        self,
        *args: Any,
        entries: Mapping[str, Entry],
        groups: Mapping[str, click.Group] | None = None,
        examples: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries
        self.groups = groups or {}
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.groups, *(name for name, entry in self.entries.items() if not entry.hidden)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.groups:
            return self.groups[cmd_name]
        entry = self.entries.get(cmd_name)
        return load(entry) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            if name.startswith("-"):
                self.parse_args(ctx, [name])
            ctx.fail(self.unknown(name))
        return (name if command else None), command, args[1:]

    def unknown(self, name: str, others: Iterable[str] = ()) -> str:
        """The sentence for a command that does not exist, with the nearest ones, ``others`` too."""
        from difflib import get_close_matches

        known = [*self.groups, *self.entries, *others]
        near = get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(repr(word) for word in near)}?" if near else ""
        if name == "help":
            hint = (
                f" `{self.name} --help` lists the commands, and `{self.name} COMMAND --help` tells"
                " of one."
            )
        return f"No such command '{name}'.{hint}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, group.get_short_help_str(200)) for name, group in self.groups.items()]
        rows += [(name, entry.help) for name, entry in self.entries.items() if not entry.hidden]
        write_section(formatter, "Commands", rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def load(entry: Entry) -> click.Command:
    """Import the module of a command and return the command."""
    module, _, attribute = entry.target.partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def write_section(formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]]) -> None:
    """A titled list of names and one-line helps; nothing for an empty list."""
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows, col_max=24)


def write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    """The examples under their own title, each line as it is written."""
    if not examples:
        return
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            indent = " " * formatter.current_indent
            formatter.write(f"{indent}{line.strip()}\n" if line.strip() else "\n")
