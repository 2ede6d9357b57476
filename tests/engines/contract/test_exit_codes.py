"""Exit codes are exact; a signal, the memory limit and a stop are told apart."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from neuro.engines.base import ExitCause
from tests.engines.harness import MIB, Has, Runs, mounted, needs


async def test_a_command_that_succeeds_is_completed(runs: Runs) -> None:
    done = await runs.run("true")

    assert (done.code, done.exited.cause) == (0, ExitCause.COMPLETED)


@pytest.mark.parametrize("code", [1, 2, 42, 125, 126, 127, 128, 137, 255])
async def test_an_exit_code_is_kept_exactly(runs: Runs, code: int) -> None:
    done = await runs.shell(f"exit {code}")

    assert (done.code, done.exited.cause) == (code, ExitCause.ERROR)


@needs(Has.PROGRAMS)
@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "ABRT", "INT", "USR1"])
async def test_a_signal_is_128_and_its_number(runs: Runs, name: str) -> None:
    done = await runs.shell(f"kill -{name} $$")

    assert done.code == 128 + getattr(signal, f"SIG{name}")
    assert done.exited.cause == ExitCause.ERROR


@needs(Has.PROGRAMS)
async def test_the_words_after_an_entrypoint_are_its_arguments(runs: Runs) -> None:
    done = await runs.run("a b", "c", entrypoint=("printf", "[%s]"))

    assert done.output == b"[a b][c]"


@needs(Has.PROGRAMS)
async def test_an_entrypoint_drops_the_command_of_the_image(runs: Runs) -> None:
    done = await runs.run(entrypoint=("echo", "alone"))

    assert done.output == b"alone\n"


@needs(Has.PROGRAMS)
async def test_an_entrypoint_that_is_not_found_is_named(runs: Runs) -> None:
    done = await runs.run("argument", entrypoint=("no-such-entrypoint",))

    assert (done.code, done.exited.cause) == (127, ExitCause.CANNOT_START)
    assert "no-such-entrypoint" in (done.exited.message or "")


@needs(Has.PROGRAMS)
async def test_a_command_that_is_not_found_is_127_and_says_so(runs: Runs) -> None:
    done = await runs.run("no-such-command")

    assert (done.code, done.exited.cause) == (127, ExitCause.CANNOT_START)
    assert "no-such-command" in (done.exited.message or "")
    assert "no-such-command" in done.output.decode()


@needs(Has.PROGRAMS)
async def test_a_command_that_is_not_executable_is_126(runs: Runs) -> None:
    done = await runs.run("/etc/hostname")

    assert (done.code, done.exited.cause) == (126, ExitCause.CANNOT_START)


@needs(Has.PROGRAMS, Has.TERMINALS)
async def test_a_terminal_job_has_the_same_exit_codes(runs: Runs) -> None:
    assert (await runs.shell("exit 42", tty=True)).code == 42
    assert (await runs.run("no-such-command", tty=True)).code == 127


@needs(Has.PROGRAMS)
async def test_arguments_arrive_as_they_are(runs: Runs) -> None:
    odd = ["", " ", "a b", "$HOME", "'", '"', "*", "\\", "-x", "--", "ü", "a\nb"]

    done = await runs.run("printf", "[%s]", *odd)

    assert done.output.decode() == "".join(f"[{word}]" for word in odd)


@needs(Has.PROGRAMS, Has.FENCE)
async def test_a_command_with_an_equals_sign_in_its_name_runs(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "a=b"
    script.write_text("#!/bin/sh\necho hello $1\n")
    script.chmod(0o755)
    mounts = (mounted(source=str(script.parent), target="/scripts"),)

    done = await runs.run("/scripts/a=b", "there", volumes=mounts)

    assert done.output == b"hello there\n"
    assert (await runs.run("a=b", "echo", "hello")).code == 127


@needs(Has.PROGRAMS)
async def test_no_command_means_the_default_one(runs: Runs) -> None:
    done = await runs.run()

    assert done.code == 0  # a shell whose standard input is empty


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_the_memory_limit_is_told_apart_from_a_kill(runs: Runs) -> None:
    done = await runs.run(*EAT_MEMORY, memory=64 * MIB)

    assert (done.code, done.exited.cause) == (137, ExitCause.OUT_OF_MEMORY)


@needs(Has.PROGRAMS, Has.LIMITS)
async def test_a_kill_without_the_memory_limit_is_an_error(runs: Runs) -> None:
    done = await runs.shell("kill -KILL $$", memory=64 * MIB)

    assert (done.code, done.exited.cause) == (137, ExitCause.ERROR)


async def test_the_times_of_start_and_exit_are_in_order(runs: Runs) -> None:
    done = await runs.run("true")
    started = await runs.started(done.ref)

    assert started.at.tzinfo is not None
    assert started.at <= done.exited.at


# Grows by 8 MiB ten times a second, so that an engine that can only look has the time to.
EAT_MEMORY = (
    "python3",
    "-c",
    "import time\nkept = []\nwhile True:\n"
    "    kept.append(bytearray(b'x') * (8 << 20))\n    time.sleep(0.1)",
)
