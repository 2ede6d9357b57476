"""What the servers of one database have to have in common, as a person meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from tests.server.test_engines import answer_to_a_reload
from tests.servers.fleet import SETTINGS, Fleet, fleet_of

STORED = SETTINGS + '[storage]\nfolder = "{storage}"\n'


@pytest.mark.postgres
async def test_a_server_with_another_storage_does_not_begin(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    other = tmp_path / "other"
    with (
        postgres_server.database() as url,
        fleet_of("one", folder=tmp_path, database=url, settings=STORED) as fleet,
    ):
        two = fleet.add("two", settings=STORED.replace("{storage}", str(other)))
        with pytest.raises(RuntimeError, match="is not the one that the other servers of this"):
            two.start()
        assert "Traceback" not in two.log()
        assert not other.exists()  # Nothing stays of a folder that this start has made.
        other.mkdir()
        with pytest.raises(RuntimeError, match="is not the one that the other servers of this"):
            two.start()
        assert not list(other.iterdir())

        settings = two.data_dir / "server.toml"
        wrong = settings.read_text()
        right = wrong.replace(str(other), str(fleet.storage))
        settings.write_text(right)
        two.start()

        refused = await answer_to_a_reload(two, wrong)
        assert refused is not None
        assert "is the shared file system mounted?" in refused


def test_a_sqlite_database_has_one_server(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, database=None)
    one = fleet.add("one")
    two = fleet.add("two", database=f"sqlite:///{one.data_dir}/neuro.db")
    one.start()
    try:
        with pytest.raises(RuntimeError, match=r"a SQLite database has one server\. Stop that one"):
            two.start()
        one.stop()
        two.start()
    finally:
        fleet.close()
