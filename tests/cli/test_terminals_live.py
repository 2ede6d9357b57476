from __future__ import annotations

import pytest

from neuro.cli.job.terminal import DetachKeys
from tests.cli.platform import Home

SHELL = ("ubuntu", "--", "bash", "--norc", "--noprofile")
DETACH = "\x10\x11"
BANNER = "Use Ctrl-P Ctrl-Q to detach"


@pytest.mark.parametrize(
    ("typed", "sent", "detached"),
    [
        ([b"ls\r"], b"ls\r", False),
        ([b"\x10\x11"], b"", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"a\x10", b"\x10\x11rest"], b"a\x10", True),
        ([b"x\x10\x11y"], b"x", True),
    ],
)
def test_two_keys_detach_and_all_others_reach_the_job(
    typed: list[bytes], sent: bytes, detached: bool
) -> None:
    keys = DetachKeys()

    assert b"".join(keys.feed(piece) for piece in typed) == sent
    assert keys.pressed is detached


TELLS_ITS_SIZE = (
    "python3 -c 'import os, signal; winch = {signal.SIGWINCH};"
    " signal.pthread_sigmask(signal.SIG_BLOCK, winch);"
    ' print("wa" + "its", flush=True); signal.sigwait(winch); print(os.get_terminal_size())\''
)


def test_a_run_in_a_terminal_is_a_terminal_in_the_job(person: Home) -> None:
    with person.terminal("run", "--name", "shell", *SHELL, rows=31, columns=97) as it:
        it.until(BANNER)
        it.until("# ")
        it.press("tty && stty size\r")
        it.until("31 97")
        # Not typed at a prompt: bash may throw away what comes in the moment of a resize.
        it.press(f"{TELLS_ITS_SIZE}\r")
        it.until("waits")
        it.resize(20, 60)
        it.until("columns=60, lines=20")
        it.press("exit 5\r")

        assert it.end() == 5


def test_ctrl_c_reaches_the_program_in_the_job(person: Home) -> None:
    with person.terminal("run", *SHELL) as it:
        it.until(BANNER)
        it.until("# ")
        it.press("echo go; sleep 100; echo st''opped\r")
        it.until("go\r\n")
        it.press("\x03")
        it.until("# ")
        it.press("echo all''ve; exit\r")
        it.until("allve")

        it.end()


def test_detaching_leaves_the_job_and_attaching_comes_back(person: Home) -> None:
    with person.terminal("run", "--name", "left", *SHELL) as it:
        it.until(BANNER)
        it.until("# ")
        it.press("WORD=kept\r")
        it.until("# ")
        it.press(DETACH)
        it.until("Detached: job left goes on running.")
        assert it.end() == 0

    with person.terminal("attach", "left") as it:
        it.until(BANNER)
        it.until("# ")
        it.press("echo it was $WORD; exit 3\r")
        it.until("it was kept")
        assert it.end() == 3


def test_the_terminal_is_put_back_afterwards(person: Home) -> None:
    with person.terminal("run", "-t", "ubuntu", "true") as it:
        assert it.end() == 0
        assert "Traceback" not in it.shown


def test_short_output_of_a_terminal_job_is_not_lost(person: Home) -> None:
    for number in range(3):
        with person.terminal("run", "ubuntu", "echo", f"number-{number}") as it:
            it.until(f"number-{number}\r\n")
            assert it.end() == 0


def test_exec_opens_a_terminal_inside_a_job(person: Home) -> None:
    person.ok("-q", "run", "--detach", "--name", "host", "ubuntu", "sleep", "100")

    with person.terminal(
        "exec", "host", "bash", "--norc", "--noprofile", rows=22, columns=77
    ) as it:
        it.until("# ")
        it.press("stty size; exit 6\r")
        it.until("22 77")
        assert it.end() == 6


def test_a_status_line_moves_on_a_terminal_while_a_job_waits(person: Home) -> None:
    everything = ("--preset", "cpu-large")
    blocker = person.ok("-q", "run", "--detach", *everything, "ubuntu", "sleep", "100").strip()

    with person.terminal("run", "-T", *everything, "ubuntu", "echo", "mine") as it:
        it.until(" sec]\r\x1b[K")
        it.until(" sec]")
        person.ok("kill", blocker)
        it.until("mine\r\n")
        assert it.end() == 0


def test_ctrl_c_on_a_terminal_asks_and_can_kill(person: Home) -> None:
    script = "trap 'exit 0' TERM; echo on; while :; do sleep 0.05; done"
    with person.terminal("run", "-T", "--name", "asked", "ubuntu", "--", "sh", "-c", script) as it:
        it.until("on\r\n")
        it.press("\x03")
        it.until("What shall be done? ")
        it.press("k\r")
        it.until("was told to stop")
        assert it.end() == 130

    person.ok("logs", "asked")
    assert "Status: cancelled" in person.ok("status", "asked")


def test_colours_are_for_terminals_only_and_can_be_refused(person: Home) -> None:
    person.ok("-q", "run", "--detach", "--name", "colour", "ubuntu", "sleep", "100")

    assert "\x1b[" not in person.ok("ps")
    assert "\x1b[34m" in person.ok("--color", "yes", "ps")
    with person.terminal("ps") as it:
        assert it.end() == 0
        assert "\x1b[34m" in it.shown
    with person.terminal("--color", "no", "ps") as it:
        assert it.end() == 0
        assert "\x1b[" not in it.shown


def test_a_wide_table_is_fitted_into_the_terminal(person: Home) -> None:
    person.ok("-q", "run", "--detach", "--name", "wide", "-d", "word " * 30, "ubuntu", "sleep", "9")

    with person.terminal("--color", "no", "ps", columns=120) as it:
        assert it.end() == 0
        assert max(len(line) for line in it.shown.splitlines()) <= 120
    with person.terminal("--color", "no", "ps", "--wide", columns=120) as it:
        assert it.end() == 0
        assert "\r\n" in it.shown


def test_top_redraws_in_place_on_a_terminal(person: Home) -> None:
    person.ok("-q", "run", "--detach", "--name", "drawn", "ubuntu", "sleep", "100")

    with person.terminal("top", "drawn", columns=160) as it:  # "2 seconds ago" is one line
        it.until("drawn")
        it.until("\x1b[2A\x1b[J")
        it.press("\x03")
        assert it.end() == 130
