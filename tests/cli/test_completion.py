from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from neuro.cli.completion import markers, patched
from tests.cli.platform import NEURO, Home

BEGIN, END = markers()


def offered(person: Home, *words: str) -> list[str]:
    """What is offered for the last word."""
    import shlex

    done = person.run(
        _NEURO_COMPLETE="bash_complete",
        COMP_WORDS=shlex.join(["neuro", *words]),
        COMP_CWORD=str(len(words)),
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_and_options_are_offered(home: Home) -> None:
    assert offered(home, "po") == ["port-forward"]
    assert offered(home, "config", "sw") == ["switch-cluster"]
    assert "--preset" in offered(home, "run", "--pre")


def test_jobs_are_offered_by_name_and_id(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "--name", "offered", "ubuntu", "sleep", "100").strip()

    assert offered(person, "kill", "offe") == ["offered"]
    assert offered(person, "logs", job[:12]) == [job]
    assert offered(person, "status", "job:of") == ["job:offered"]


def test_presets_and_clusters_are_offered(person: Home) -> None:
    assert "cpu-small" in offered(person, "run", "--preset", "cpu")
    assert offered(person, "config", "switch-cluster", "") == ["default"]


def test_nothing_is_offered_where_there_is_no_server(home: Home) -> None:
    assert offered(home, "kill", "x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_start_up_file_is_patched_once(home: Home, shell: str) -> None:
    start_file = home.folder / f".{shell}rc"
    start_file.write_text("before=1")

    home.ok("completion", "patch", shell)
    once = start_file.read_text()
    home.ok("completion", "patch", shell)

    assert start_file.read_text() == once
    assert once.startswith("before=1\n")
    assert once.count(BEGIN) == once.count(END) == 1


def test_what_stands_around_the_block_stays() -> None:
    first = patched("a\n", "one\n")
    content = first + "b\n"

    assert patched(content, "two\n") == f"a\n{BEGIN}\ntwo\n{END}\nb\n"


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_words_with_colons(person: Home, tmp_path: Path) -> None:
    person.ok("-q", "run", "--detach", "--name", "colon-job", "ubuntu", "sleep", "100")
    program = tmp_path / "neuro"
    program.write_text(f'#!/bin/sh\nexec {" ".join(NEURO)} "$@"\n')
    program.chmod(0o755)
    script = person.ok("completion", "generate", "bash") + (
        'compopt() { :; }\nCOMP_LINE="neuro status job:col" COMP_POINT=${#COMP_LINE}\n'
        'COMP_POINT=20\n_neuro_completion "$1"\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )

    done = subprocess.run(
        ["bash", "-c", script, "bash", str(program)],
        env=person.environment(),
        capture_output=True,
        text=True,
    )

    assert done.stdout == "colon-job\n", done.stderr
