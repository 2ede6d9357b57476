"""Jobs on a terminal: keys, sizes, detaching (docs/reference/wire-protocol.md#attach)."""

from __future__ import annotations

from collections.abc import Callable

from tests.clients.reference_client import ReferenceClient

Named = Callable[[str], str]


def test_a_job_on_a_terminal_hears_keys_and_knows_its_size(client: ReferenceClient) -> None:
    script = "stty size; read answer; stty size; echo you said $answer; exit 3"

    with client.terminal("run", "-t", "ubuntu", "--", "sh", "-c", script) as terminal:
        terminal.expect("Use Ctrl-P Ctrl-Q")
        terminal.type("hello\r")
        terminal.expect("40 120")
        terminal.expect("you said hello")
        assert terminal.wait() == 3

    assert terminal.screen.count("you said hello") == 1
    assert "Connection lost" not in terminal.screen


def test_a_short_command_on_a_terminal_prints_once(client: ReferenceClient) -> None:
    with client.terminal("run", "ubuntu", "--", "echo", "short", "and", "sweet") as terminal:
        assert terminal.wait() == 0

    assert terminal.screen.count("short and sweet") == 1


def test_exec_on_a_terminal_is_resized_and_interrupted(
    client: ReferenceClient, sleeper: str
) -> None:
    with client.terminal("exec", "-t", sleeper, "--", "sh") as terminal:
        terminal.type(
            "until test \"$(stty size)\" = '50 100'; do sleep 0.05; done; echo re''sized\r"
        )
        terminal.resize(50, 100)
        terminal.expect("resized")
        # A key that comes before the command has the terminal interrupts the shell, which then
        # drops what is typed.
        terminal.type("sh -c 'echo asl\"\"eep; exec sleep 1000'\r")
        terminal.expect("asleep")
        terminal.type("\x03")
        terminal.type("echo still ''here; exit 4\r")
        terminal.expect("still here")
        assert terminal.wait() == 4


def test_detaching_leaves_the_job_and_attaching_comes_back(
    client: ReferenceClient, named: Named
) -> None:
    name = named("to-come-back-to")
    with client.terminal("run", "-t", "--name", name, "ubuntu", "--", "sh") as terminal:
        terminal.expect("Use Ctrl-P Ctrl-Q")
        terminal.type("echo $((40 + 2))\r")
        terminal.expect("42")
        terminal.type("\x10\x11")
        assert terminal.wait() == 0

    with client.terminal("attach", name) as terminal:
        terminal.expect("Use Ctrl-P Ctrl-Q")
        # The detaching keys were typed into the shell's line as well: end that first.
        terminal.type("\r")
        terminal.expect("# ")
        terminal.type("echo $((40 + 3)); exit 6\r")
        terminal.expect("43")
        assert terminal.wait() == 6


def test_a_talkative_job_on_a_terminal_loses_nothing(client: ReferenceClient) -> None:
    # Lines that come while the client goes over from the log to the terminal may come twice.
    script = "for i in $(seq 100); do echo line $i.; sleep 0.01; done"

    with client.terminal("run", "ubuntu", "--", "sh", "-c", script) as terminal:
        assert terminal.wait() == 0

    missing = [i for i in range(1, 101) if f"line {i}." not in terminal.screen]
    assert missing == []
