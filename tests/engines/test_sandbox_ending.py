"""How an ending is told from what is known."""

from __future__ import annotations

from typing import Any

import pytest

from neuro.engines.sandbox.ending import Ending, conclude

pytestmark = pytest.mark.pure

KNOWN: dict[str, Any] = {
    "status": 0,
    "started": True,
    "stopping": False,
    "killed": False,
    "out_of_memory": False,
    "shared_network": False,
    "refusal": None,
    "last_output": b"",
}
NOT_FOUND = (127, "nosuch: command not found")
TAKEN = b"OSError: [Errno 98] Address already in use\n"


@pytest.mark.parametrize(
    ("facts", "code", "cause"),
    [
        ({}, 0, "completed"),
        ({"status": 3 << 8}, 3, "error"),
        ({"status": 143 << 8, "stopping": True}, 143, "error"),
        ({"status": 0, "out_of_memory": True}, 0, "completed"),
        ({"status": 137 << 8, "out_of_memory": True}, 137, "out_of_memory"),
        ({"status": 9, "out_of_memory": True}, 137, "out_of_memory"),
        ({"status": 1 << 8, "out_of_memory": True}, 1, "out_of_memory"),
        ({"status": 9, "killed": True, "disk_excess": "too much"}, 137, "disk_limit"),
        ({"status": 1 << 8, "disk_excess": "too much"}, 1, "disk_limit"),
        ({"status": 0, "disk_excess": "too much"}, 0, "completed"),
        ({"status": 9}, None, "lost"),
        ({"status": 9, "killed": True}, 137, "error"),
        ({"status": 1 << 8, "started": False}, None, "cannot_start"),
        ({"status": 9, "started": False, "stopping": True}, 143, "error"),
        ({"status": 127 << 8, "started": False, "refusal": NOT_FOUND}, 127, "cannot_start"),
        ({"status": 1 << 8, "started": False, "refusal": (0, "full")}, None, "not_ready"),
        ({"status": 9, "started": False, "refusal": (-1, "full")}, None, "volume_not_ready"),
        ({"status": 127 << 8}, 127, "error"),
        ({"status": 126 << 8, "last_output": b"env: x: Permission denied\n"}, 126, "error"),
    ],
)
def test_the_code_and_the_cause(facts: dict[str, Any], code: int | None, cause: str) -> None:
    ending = conclude(**{**KNOWN, **facts})

    assert (ending.exit_code, ending.cause) == (code, cause)


def test_what_refused_the_command_is_the_reason() -> None:
    facts = {"status": 127 << 8, "started": False, "refusal": NOT_FOUND}

    ending = conclude(**{**KNOWN, **facts})

    assert ending.message == "nosuch: command not found"


@pytest.mark.parametrize("shared", [True, False])
def test_a_taken_port_is_explained_only_where_the_network_is_shared(shared: bool) -> None:
    facts = {"status": 256, "last_output": TAKEN, "shared_network": shared}

    ending = conclude(**{**KNOWN, **facts})

    assert (ending.message is not None) == shared


@pytest.mark.parametrize(("number", "name"), [(11, "SIGSEGV"), (6, "SIGABRT"), (50, "signal 50")])
def test_a_signal_has_its_name(number: int, name: str) -> None:
    ending = conclude(**{**KNOWN, "status": (128 + number) << 8, "signal": number})

    assert (ending.exit_code, ending.message) == (128 + number, f"killed by {name}")


def test_a_signal_that_was_asked_for_is_not_told() -> None:
    assert conclude(**{**KNOWN, "status": 143 << 8, "signal": 15, "stopping": True}).message is None


def test_a_taken_port_is_a_hint_and_no_fact() -> None:
    ending = conclude(**{**KNOWN, "status": 256, "last_output": TAKEN, "shared_network": True})

    assert (ending.cause, ending.exit_code) == ("error", 1)
    assert str(ending.message).startswith("its last lines tell of a port in use")


def test_cannot_start_has_no_code() -> None:
    assert Ending.cannot_start("why").exit_code is None
