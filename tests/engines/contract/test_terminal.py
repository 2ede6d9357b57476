"""A terminal job gets a real pseudo-terminal with resize, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import pytest

from neuro.engines.base import Attaches
from tests.engines.harness import Has, Runs, needs, read_until

pytestmark = needs(Has.PROGRAMS, Has.TERMINALS, Attaches)

# Says something for each thing that a terminal can do to a program. A signal that comes just before
# bash waits for a line is looked at after the wait: so no wait is long.
ECHO = (
    "trap 'echo interrupted' INT; trap 'stty size' WINCH; echo ready\n"
    "while read -r -t 0.2 line || [ $? -gt 128 ]; do\n"
    '  [ -z "$line" ] || echo "got $line"\n'
    "done; echo over; exit 3"
)


async def test_all_three_streams_are_a_terminal(runs: Runs) -> None:
    done = await runs.shell("test -t 0 && test -t 1 && test -t 2 && echo yes; echo $TERM", tty=True)

    assert done.output == b"yes\r\nxterm-256color\r\n"


async def test_without_a_terminal_there_is_none_and_the_input_is_empty(runs: Runs) -> None:
    done = await runs.shell("test -t 0 || test -t 1 || echo none; cat; echo end")

    assert done.output == b"none\nend\n"


CLOSES_ITS_TERMINAL = """
import os, time
os.write(1, b"going on")
for stream in (0, 1, 2):
    os.close(stream)
time.sleep(0.5)  # nothing tells when the kernel would hang up
os.write(os.open("/dev/tty", os.O_WRONLY), b", without it")
"""


@pytest.mark.parametrize("stdin", [False, True])
async def test_a_command_that_closes_its_terminal_goes_on(runs: Runs, stdin: bool) -> None:
    """As many do when they have said all, before they end."""
    done = await runs.run("python3", "-c", CLOSES_ITS_TERMINAL, tty=True, stdin=stdin)

    assert (done.code, done.output) == (0, b"going on, without it")


async def test_it_is_the_controlling_terminal(runs: Runs) -> None:
    done = await runs.shell("echo hello > /dev/tty; cut -d' ' -f7 /proc/self/stat", tty=True)

    greeting, device = done.lines
    assert greeting == "hello"
    assert int(device) != 0


async def test_keys_are_typed_and_echoed(runs: Runs) -> None:
    ref = await runs.start("bash", "-c", ECHO, tty=True)
    await runs.says(ref.job_id, b"ready")
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.write(b"hello\n")

    assert b"hello\r\ngot hello\r\n" in await read_until(session, b"got hello\r\n")
    await session.close()


async def test_ctrl_c_interrupts_the_program_and_nothing_else(runs: Runs) -> None:
    ref = await runs.start("bash", "-c", ECHO, tty=True)
    await runs.says(ref.job_id, b"ready")
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.write(b"\x03")
    await read_until(session, b"interrupted")
    await session.write(b"still here\n")

    await read_until(session, b"got still here")
    await session.close()


async def test_ctrl_c_ends_a_program_that_does_not_handle_it(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "echo ready; exec sleep 600", tty=True)
    await runs.says(ref.job_id, b"ready")
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.write(b"\x03")

    assert (await runs.exited(ref)).exit_code == 130
    assert await session.wait() == 130
    await session.close()


async def test_ctrl_d_is_the_end_of_the_input(runs: Runs) -> None:
    ref = await runs.start("bash", "-c", ECHO, tty=True)
    await runs.says(ref.job_id, b"ready")
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.write_eof()
    await read_until(session, b"over")

    assert await session.wait() == 3
    await session.close()


async def test_resize_is_told_to_the_program(runs: Runs) -> None:
    ref = await runs.start("bash", "-c", ECHO, tty=True)
    await runs.says(ref.job_id, b"ready")
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.resize(133, 41)
    await session.write(b"\n")  # bash runs a trap after the read that it interrupts

    await read_until(session, b"41 133")
    await session.close()


async def test_a_shell_has_job_control(runs: Runs) -> None:
    ref = await runs.start(tty=True)
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.write(b"sh -c 'echo be''gun; exec sleep 600'\n")
    await read_until(session, b"begun")
    await session.write(b"\x1a")
    await read_until(session, b"Stopped")
    await session.write(b"disown -a; exit 4\n")

    assert (await runs.exited(ref)).exit_code == 4
    await session.close()


async def test_closing_an_attached_session_only_detaches(runs: Runs) -> None:
    ref = await runs.start("bash", "-c", ECHO, tty=True)
    await runs.says(ref.job_id, b"ready")
    first = await runs.engine.attach(ref.job_id, stdin=True, output=True)
    await first.write(b"one\n")
    await read_until(first, b"got one")

    await first.close()
    second = await runs.engine.attach(ref.job_id, stdin=True, output=True)
    await second.write(b"two\n")

    seen = await read_until(second, b"got two")
    assert b"one" not in seen  # no replay
    await second.close()


@needs(Has.FENCE)
async def test_a_terminal_for_output_only_has_no_keyboard(runs: Runs) -> None:
    script = (
        "trap 'echo hit' INT; test -t 1 && test -t 2 && ! test -t 0 && cat; echo begun;"
        " until [ -e /tmp/go ]; do sleep 0.05; done; echo over"
    )
    ref = await runs.start("sh", "-c", script, tty=True, stdin=False)
    await runs.says(ref.job_id, b"begun")
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    await session.write(b"\x03")
    await runs.execute(ref, "touch", "/tmp/go")

    assert await read_until(session, b"over") == b"over\r\n"
    await session.close()
