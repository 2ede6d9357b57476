"""The reference SDK as a library."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.reference_client import ReferenceClient

PROGRAM = Path(__file__).with_name("sdk_program.py")


@pytest.mark.parametrize("version", ["22.7.1"], scope="session", indirect=True)
def test_a_program_runs_a_job_and_reads_a_part_of_a_file(client: ReferenceClient) -> None:
    python = client.programs.environment / "bin" / "python"

    done = subprocess.run(
        [python, PROGRAM], env=client.variables(), cwd=client.home, capture_output=True, timeout=60
    )

    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {
        "log": "from the sdk\n",
        "status": "failed",
        "exit_code": 3,
        "memory": 64 << 20,
        "cpu": 0.1,
        "listed": True,
        "capacity": ["cpu-huge", "cpu-large", "cpu-small"],
        "part": "3456",
        "is_listed": True,
    }
