"""Which modules here may leave PostgreSQL out: those that know nothing of a database."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Table

HERE = Path(__file__).parent
DATABASES = (
    "alembic",
    "neuro.server.database",
    "psycopg",
    "sqlalchemy",
    "sqlite3",
    "tests.postgres",
)
# They give a test a database, or a server with one that the test may look into.
FIXTURES = {"database", "database_url", "own_database", "own_server", "postgres_server"}


def reason(path: Path) -> str | None:
    """What a module says of why it has SQLite alone."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ONLY_SQLITE":
            return str(ast.literal_eval(node.value))
    return None


def known(path: Path) -> Iterator[str]:
    """What a module knows of a database."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module, *(f"{module}.{name.name}" for name in names)]
            case ast.arg(arg=name) if name in FIXTURES:
                yield name
                continue
            case _:
                continue
        yield from filter(tells, modules)


def tells(module: str) -> bool:
    """Whether it is a module of a database, or one that has a table."""
    if module.startswith(DATABASES):
        return True
    if not module.startswith("neuro.server"):
        return False
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:  # It is something in a module.
        return False
    return any(isinstance(it, Table) for it in vars(found).values())


ONES = sorted(path for path in HERE.rglob("test_*.py") if reason(path) is not None)


@pytest.mark.parametrize("path", ONES, ids=lambda path: path.stem)
def test_a_module_that_has_sqlite_alone_knows_of_no_table(path: Path) -> None:
    assert [*known(path)] == []
    assert (reason(path) or "").endswith(".")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_gpus.py", "neuro.server.database.engine"),
        ("test_removed_people.py", "own_server"),
        ("test_migrations.py", "neuro.server.jobs.tables"),
        ("test_writer.py", "neuro.server.jobs.tables"),
    ],
)
def test_one_that_does_is_found(name: str, expected: str) -> None:
    assert expected in {*known(HERE / name)}


def test_it_is_not_collected_for_postgresql_and_another_is() -> None:
    files = [str(HERE / name) for name in ("test_error_forms.py", "test_presets.py")]

    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "--collect-only", *files],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for name, databases in (("error_forms", {"sqlite"}), ("presets", {"sqlite", "postgres"})):
        lines = [line for line in told.splitlines() if f"/test_{name}.py::" in line]
        assert {
            it for it in ("sqlite", "postgres") for line in lines if f"[{it}" in line
        } == databases
