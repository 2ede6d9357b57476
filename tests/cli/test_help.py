from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from neuro.cli import main
from neuro.cli.lazy import Command
from neuro.cli.main import TOPICS, root
from neuro.cli.topics import TEXTS
from neuro.flow.cli import main as flow_main
from tests.cli.platform import Home

HEAVY = (
    "asyncio",
    "aiohttp",
    "rich",
    "sqlite3",
    "importlib.metadata",
    "email._header_value_parser",
)


def imported(home: Home, *words: str) -> set[str]:
    """The modules that a command line imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "neuro.cli", *words],
        env=home.environment(),
        cwd=home.work_dir,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        if name in getattr(group, "groups", {}):
            yield from commands(group.groups[name], (*path, name))  # type: ignore[attr-defined]
        else:
            yield (*path, name)


def test_the_help_imports_nothing_but_click(home: Home) -> None:
    modules = imported(home, "--help")

    assert not modules & {*HEAVY, "msgspec", "http.client", "ssl", "tomllib", "json"}
    escaping = {"neuro.domain", "neuro.domain.printable"}
    ours = [name for name in modules if name.startswith(("neuro.client", "neuro.domain"))]
    assert not set(ours) - escaping


def test_a_list_of_jobs_needs_no_event_loop(person: Home) -> None:
    assert not imported(person, "ps") & {*HEAVY}


@pytest.mark.parametrize("path", list(commands(root(), ())), ids=" ".join)
def test_every_command_has_a_help_with_examples(path: tuple[str, ...], home: Home) -> None:
    command: click.Command = root()
    context = click.Context(command, info_name="neuro")
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)

    text = context.get_help()

    assert "Usage: neuro" in text
    assert "Examples:" in text or not isinstance(command, Command)
    assert command.help


def test_no_command_is_an_alias_for_help(home: Home) -> None:
    assert home.run().stdout == home.ok("--help")


def test_the_help_lists_groups_shortcuts_and_topics(home: Home) -> None:
    text = home.ok("--help")

    for title in ("Platform:", "Command Shortcuts:", "Commands:", "Help topics", "Examples:"):
        assert title in text


def test_a_wrong_command_is_refused_with_the_nearest_one(home: Home) -> None:
    done = home.run("pss")

    assert done.returncode == 2
    assert "ERROR: No such command 'pss'. Did you mean 'ps'" in done.stderr


def test_a_wrong_option_is_refused_with_exit_code_2(home: Home) -> None:
    done = home.run("ps", "--nope")

    assert done.returncode == 2
    assert "Try 'neuro ps --help' for help." in done.stderr


def test_help_shows_commands_of_any_depth(home: Home) -> None:
    assert "Usage: neuro config token create" in home.ok("help", "config", "token", "create")
    assert "Usage: neuro run" in home.ok("help", "run")


def test_every_listed_topic_has_a_page(home: Home) -> None:
    assert set(TOPICS) == set(TEXTS)
    for topic in TOPICS:
        assert home.ok("help", topic).startswith("# ")


def helps(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = 80
    yield from command.get_help(context).splitlines()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, click.Context(below, info_name=name, parent=context))


@pytest.mark.parametrize("program", [main, flow_main], ids=["neuro", "neuro-flow"])
def test_no_help_is_wider_than_80_columns(program: ModuleType) -> None:
    root = program.root()
    lines = [*helps(root, click.Context(root, info_name="neuro"))]
    lines += [line for text in TEXTS.values() for line in text.splitlines()]

    assert [line for line in lines if len(line) > 80] == []


def test_the_version_is_printed(home: Home) -> None:
    assert home.ok("--version").startswith("Neuro Platform Client ")


def test_who_is_not_logged_in_is_told_how(home: Home) -> None:
    done = home.run("ps")

    assert done.returncode == 70
    assert "neuro up" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_traceback_is_shown_on_request(home: Home) -> None:
    assert "Traceback" in home.run("--show-traceback", "ps").stderr
    assert "Traceback" in home.run("-v", "ps").stderr


def test_the_folder_of_the_configuration_can_be_chosen(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "user.toml").write_text("[nope]\n")

    assert home.run("--neuromation-config", str(folder), "ps").returncode == 70
    assert "no section 'nope'" in home.run("nope", NEUROMATION_CONFIG=str(folder)).stderr


def test_output_that_nobody_reads_on_is_no_error(home: Home) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "neuro.cli", "help", "ps-format"],
        env=home.environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)

    assert done.stderr == ""
