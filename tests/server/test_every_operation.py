"""Requests of every form, made of the API's own description: none of them is a failure of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, running_server

# WebSockets, and streams that end when the caller leaves.
ENDLESS = r"/(events|attach|exec|top|log_ws)$|/port_forward/"
CASES = 4000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of this test's own: what it is asked to make and to remove is left over."""
    with running_server(tmp_path / "data") as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_four_thousand_requests_of_every_form_meet_no_failure(
    server: ServerProcess, tmp_path: Path
) -> None:
    command = [
        str(Path(sys.prefix) / "bin" / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        "--url",
        server.url.removesuffix("/api/v1"),
        "--header",
        f"Authorization: Bearer {server.token}",
        "--exclude-path-regex",
        ENDLESS,
        "--phases=coverage,fuzzing",
        "--checks=not_a_server_error",
        "--max-examples=20",
        # The same requests each time: a failure is there again for whoever looks for it.
        "--generation-deterministic",
        "--warnings=off",
        "--no-color",
    ]

    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=380, check=False
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) >= CASES
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert [line["event"] for line in lines if line["level"] in ("error", "critical")] == []
