"""A server loads what it needs and no more: each megabyte is there as long as it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each is installed beside a server, and takes megabytes of it.
UNUSED = [
    *("alembic", "psycopg", "pygments", "rich", "sqlalchemy.dialects.postgresql"),
    *("isal", "neuro.engines.docker.api", "neuro.engines.images.store"),
]

PROGRAM = """
import sys
from pathlib import Path

import neuro.server.__main__
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate

database = Database(sqlite_url(Path(sys.argv[1])))
migrate(database)
database.close()
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules of a server on a new SQLite database."""
    database = tmp_path_factory.mktemp("data") / "neuro.db"
    command = [sys.executable, "-c", PROGRAM, database]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", UNUSED)
def test_a_server_on_sqlite_does_not_load(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_rich_is_hidden_from_the_log_alone() -> None:
    program = "import rich, sys; import neuro.server.log; print(sys.modules['rich'] is rich)"

    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )

    assert done.stdout.strip() == "True"
