from __future__ import annotations

import re

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
    with person.terminal("run", "-t", "--name", "shell", *SHELL, rows=31, columns=97) as it:
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


def test_ctrl_c_reaches_the_program_in_a_jobs_terminal(person: Home) -> None:
    with person.terminal("run", "-t", *SHELL) as it:
        it.until(BANNER)
        it.until("# ")
        it.press("sh -c 'echo go; exec sleep 100'; echo st''opped\r")
        it.until("go\r\n")
        it.press("\x03")
        it.until("# ")
        it.press("echo all''ve; exit\r")
        it.until("allve")

        it.end()


def test_detaching_leaves_the_job_and_attaching_comes_back(person: Home) -> None:
    with person.terminal("run", "-t", "--name", "left", *SHELL) as it:
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
            it.until(f"number-{number}\r")
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


def test_a_status_line_that_takes_several_rows_is_drawn_over_all_of_them(person: Home) -> None:
    everything = ("--preset", "cpu-large")
    blocker = person.ok("-q", "run", "--detach", *everything, "ubuntu", "sleep", "100").strip()

    columns = 30
    with person.terminal("run", "-T", *everything, "ubuntu", "true", columns=columns) as it:
        it.until("Waits for")
        it.until("\x1b[J")
        line = it.until(" sec]")
        rows = -(-len(re.sub(r"\x1b\[[\d;]*m", "", line)) // columns)
        it.until(f"\r\x1b[{rows - 1}A\x1b[J")
        person.ok("kill", blocker)
        assert it.end() == 0


WORKS = "trap 'echo hit; exit 9' INT; echo on; until [ -e /tmp/go ]; do sleep 0.05; done; echo done"


@pytest.mark.parametrize("options", [(), ("-T",)])
def test_ctrl_c_detaches_and_does_not_reach_the_job(person: Home, options: tuple[str, ...]) -> None:
    words = ("run", *options, "--name", "trained", "ubuntu", "--", "sh", "-c", WORKS)
    with person.terminal(*words) as it:
        it.until("Use Ctrl-C to detach (it will NOT terminate the job)")
        it.until("on\r")
        it.press("\x03")
        it.until("Detached: job trained goes on running.")
        assert it.end() == 0

    with person.terminal("attach", "trained") as it:
        it.until("Use Ctrl-C to detach")
        it.until("on\r")
        it.press("\x03")
        it.until("Detached: job trained goes on running.")
        assert it.end() == 0

    person.ok("exec", "trained", "touch", "/tmp/go")
    assert person.ok("logs", "trained").split() == ["on", "done"]


def test_a_run_in_a_terminal_is_shown_in_one_and_reads_nothing_from_it(person: Home) -> None:
    script = "test -t 1 && test -t 2 && ! test -t 0 && cat && stty size < /dev/tty"
    waits = f"until [ $(stty size < /dev/tty | cut -d' ' -f2) = 97 ]; do sleep 0.05; done; {script}"
    with person.terminal("run", "ubuntu", "--", "sh", "-c", waits, rows=31, columns=97) as it:
        it.until("31 97\r")
        assert it.end() == 0


def test_a_new_size_of_the_window_is_told_to_a_job_that_only_shows(person: Home) -> None:
    script = (
        "import os, time\n"
        "while (size := os.get_terminal_size(1).columns) != 60:\n"
        "    size == 97 and print('wide', flush=True)\n"
        "    time.sleep(0.05)\n"
        "print('narrow')"
    )
    with person.terminal("run", "ubuntu", "python3", "-c", script, columns=97) as it:
        it.until("wide")
        it.resize(24, 60)
        it.until("narrow")
        assert it.end() == 0


def test_ctrl_c_leaves_a_job_that_waits_in_the_queue(person: Home) -> None:
    everything = ("--preset", "cpu-large")
    person.ok("-q", "run", "--detach", "--name", "first", *everything, "ubuntu", "sleep", "100")

    for words in (
        ("run", *everything),
        ("run", "-t", *everything),
        ("run", "--detach", *everything),
    ):
        with person.terminal(*words, "--name", "second", "ubuntu", "true") as it:
            it.until("Waits for ")
            if "--detach" in words:
                it.until("with --no-wait-start this command does not wait")
            it.press("\x03")
            it.until("Detached: job second stays in the queue.")
            assert it.end() == 0
        assert person.ok("-q", "ps", "-s", "pending")
        person.ok("kill", "second")


@pytest.mark.parametrize("options", [(), ("-t",), ("-T",)])
def test_a_job_that_did_not_start_is_not_attached_to(
    person: Home, options: tuple[str, ...]
) -> None:
    with person.terminal("run", *options, "ubuntu", "no-such-program") as it:
        assert it.end() == 127
        assert "attached" not in it.shown


def test_attach_uses_the_terminal_only_of_a_job_that_has_one(person: Home) -> None:
    person.ok("-q", "run", "--detach", "--name", "plain", "ubuntu", "sleep", "100")

    with person.terminal("attach", "-t", "plain") as it:
        it.until("it was started without `-t`")
        assert it.end() != 0


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
        it.until("\r\x1b[2A")
        it.press("\x03")
        assert it.end() == 130
