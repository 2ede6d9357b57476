"""The servers of one database: ids, addresses, keys, and starts at the same moment."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from neuro.domain.errors import Conflict, InvalidInput
from neuro.server.access.keys import load_or_create_key
from neuro.server.access.service import AccessService
from neuro.server.database import migrate as migrations
from neuro.server.database.engine import Database
from neuro.server.database.identity import check_belongs
from neuro.server.database.migrate import migrate
from neuro.server.engine_names import keep_names, public_names
from neuro.server.fleet.agreement import STORAGE_ID, check_cluster, check_key, check_storage
from neuro.server.fleet.assembly import join_fleet
from neuro.server.fleet.registry import Servers, claim, server_id
from neuro.server.owner import LoginFile, OwnerLogin
from neuro.server.settings import Settings
from tests.postgres import PostgresServer
from tests.server.fleet.servers import Member, member, until

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def database(empty: str) -> Iterator[Database]:
    database = Database(empty)
    migrate(database)
    yield database
    database.close()


def registry(one: Member) -> Servers:
    return Servers(one.database, one.id, one.changes)


async def url_of(servers: Servers, server: str) -> str | None:
    return {one.id: one.url for one in await servers.all()}.get(server)


async def test_servers_know_each_other_and_who_is_gone(database: Database) -> None:
    async with member(database.url, "a") as first, member(database.url, "b") as second:
        ours, theirs = registry(first), registry(second)
        told: list[str] = []
        theirs.listen(lambda: told.append("changed"))
        await theirs.enter("two", "http://b", NOW)
        assert await url_of(theirs, "a") is None

        await ours.enter(None, "http://a", NOW)
        await until(lambda: told)
        assert await url_of(theirs, "a") == "http://a"
        await ours.publish(b"GPUs")
        await until(lambda: len(told) > 1)
        everyone = {one.id: one for one in await theirs.all()}
        assert everyone["a"].offer == b"GPUs"
        assert {one.id for one in everyone.values() if one.is_alive} == {"a", "b"}
        await until(lambda: first.leases.others == 1 == second.leases.others)

        await ours.leave()
        assert {one.id: one.is_alive for one in await theirs.all()} == {"a": False, "b": True}
        assert await url_of(theirs, "a") == "http://a"

        # What it offers stays known, also to those that start meanwhile.
        await theirs.enter("two", "http://b", NOW)
        assert {one.id: one.offer for one in await theirs.all()} == {"a": b"GPUs", "b": None}


async def test_an_address_that_changed_is_told(database: Database) -> None:
    async with member(database.url, "a") as first, member(database.url, "b") as second:
        ours, theirs = registry(first), registry(second)
        await ours.enter(None, "http://old", NOW)
        assert await url_of(theirs, "a") == "http://old"
        told: list[str] = []
        theirs.listen(lambda: told.append("changed"))

        await ours.enter(None, "http://new", NOW)
        await until(lambda: told)

        assert await url_of(theirs, "a") == "http://new"


def test_a_folder_keeps_its_servers_id(tmp_path: Path) -> None:
    found = server_id(tmp_path)

    assert server_id(tmp_path) == found
    assert len(found) == 32


@pytest.mark.parametrize("kept", [b"", bytes(33), b"\xff\xfe"])
def test_a_damaged_id_is_told(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "server").write_bytes(kept)

    with pytest.raises(Conflict, match=r"The file .*/server is empty or damaged, .* or delete it"):
        server_id(tmp_path)


@pytest.mark.parametrize("kept", [b"", bytes(33), b"\xff\xfe"])
def test_a_damaged_name_of_an_engine_is_told(tmp_path: Path, kept: bytes) -> None:
    names = public_names(Settings(), tmp_path)
    (tmp_path / "engines").mkdir()
    keep_names(tmp_path, names, ["sandbox"])
    assert public_names(Settings(), tmp_path) == names
    (tmp_path / "engines" / "sandbox.name").write_bytes(kept)

    with pytest.raises(Conflict, match=r"sandbox\.name is empty or damaged, .* write 'sandbox'"):
        public_names(Settings(), tmp_path)


def test_a_copy_of_a_data_folder_is_refused_and_the_folder_itself_is_not(
    database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    server = server_id(folder)
    assert claim(database, folder, server) is not None
    shutil.copytree(folder, tmp_path / "copy")

    with pytest.raises(
        Conflict, match=r"copy of this data folder.* has the keys/tokens.key of this one"
    ):
        claim(database, tmp_path / "copy", server, patience=0.0)

    # As after kill -9: the lease has not run out, and the server comes back at once.
    again = claim(database, folder, server, patience=0.0)
    assert again is not None
    assert again[0].number == 2


async def test_a_server_is_ended_by_a_copy_of_its_folder_and_not_by_its_own_end(
    database: Database, tmp_path: Path
) -> None:
    ends: list[str] = []
    for _ in range(2):  # As when the server begins again with new settings.
        async with AsyncExitStack() as stack:
            fleet = await join_fleet(stack, database, tmp_path, lambda: ends.append("ended"))
    assert ends == []

    async with AsyncExitStack() as stack:
        fleet = await join_fleet(stack, database, tmp_path, lambda: ends.append("ended"))
        taken = text("UPDATE leases SET holder = 'copy', number = number + 1 WHERE name = :name")
        database.write_now(lambda c: c.execute(taken, {"name": f"server:{fleet.id}"}))
        await until(lambda: ends)


def test_servers_that_start_at_once_on_an_empty_database_are_one_installation(
    empty: str, tmp_path: Path
) -> None:
    def start(name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        database = Database(empty)
        migrate(database)
        check_belongs(database, folder)
        database.close()
        return (folder / "installation").read_text()

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(start, "abcd"))

    assert len(found) == 1


def test_servers_that_upgrade_at_once_do_it_once(database: Database) -> None:
    _downgrade(database)

    def upgrade(_: int) -> None:
        other = Database(database.url)
        migrate(other)
        other.close()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(upgrade, range(3)))

    with database.engine.connect() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    assert version == migrations.HEAD


@pytest.mark.parametrize("how", ["a lock of earlier versions", "a lease"])
def test_a_database_that_an_earlier_version_works_on_is_not_migrated(
    database: Database, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(migrations, "PATIENCE_SECONDS", 0.0)
    if how == "a lease":
        database.write_now(lambda c: c.execute(text("UPDATE alembic_version SET version_num='00'")))
        database.write_now(
            lambda c: c.execute(
                text("INSERT INTO leases VALUES ('server:a', 'a', 1, 9000000000000000)")
            )
        )
    else:
        _downgrade(database)
    with database.engine.connect() as connection:
        if how != "a lease":
            connection.execute(text(f"SELECT pg_advisory_lock({0x6E6575726F})"))

        with pytest.raises(Conflict, match="A server of an earlier version works on this database"):
            migrate(database)
        connection.invalidate()


def _downgrade(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "neuro.server.database:migrations")
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0009")


class Keys:
    """Servers with keys of their own on one database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        (folder / "data").mkdir()
        check_belongs(database, folder / "data")

    def path(self, server: str) -> Path:
        return self.folder / f"{server}.key"

    def start(self, server: str) -> None:
        check_key(self.database, server, self.path(server))
        load_or_create_key(self.path(server))
        check_key(self.database, server, self.path(server))


def enter(database: Database, server: str, seen: int) -> None:
    """A server is there that was seen at this time."""
    statement = text("INSERT INTO servers VALUES (:id, NULL, 'http://a', 0, :seen, NULL)")
    values = {"id": server, "seen": seen}
    database.write_now(lambda connection: connection.execute(statement, values))


FOREVER = 9_000_000_000_000_000


def test_a_server_with_another_key_than_the_others_does_not_start(
    database: Database, tmp_path: Path
) -> None:
    keys = Keys(database, tmp_path)
    keys.start("a")
    enter(database, "a", FOREVER)

    with pytest.raises(Conflict, match=r"b\.key must be the same .* copy keys/tokens\.key"):
        keys.start("b")
    assert not keys.path("b").exists()

    shutil.copy(keys.path("a"), keys.path("b"))
    keys.start("b")


def test_a_new_server_never_brings_a_new_key_even_while_the_others_are_down(
    database: Database, tmp_path: Path
) -> None:
    keys = Keys(database, tmp_path)
    keys.start("a")
    enter(database, "a", 0)

    with pytest.raises(Conflict, match="must be the same"):
        keys.start("b")


def test_who_deletes_the_key_of_the_only_server_logs_everybody_out(
    database: Database, tmp_path: Path
) -> None:
    keys = Keys(database, tmp_path)
    keys.start("a")
    enter(database, "a", FOREVER)
    before = keys.path("a").read_bytes()
    keys.path("a").unlink()

    keys.start("a")

    assert keys.path("a").read_bytes() != before


def test_servers_of_one_database_have_one_cluster(database: Database, tmp_path: Path) -> None:
    check_belongs(database, tmp_path)
    check_cluster(database, "lab")
    check_cluster(database, "lab")

    with pytest.raises(Conflict, match=r"cluster is 'default', and that of this database is 'lab'"):
        check_cluster(database, "default")


class Storages:
    """Servers with the folders that they take for the storage."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        check_belongs(database, folder)

    def start(self, server: str, folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        check_storage(self.database, server, folder)
        return (folder / STORAGE_ID).read_text("ascii")


def test_a_server_with_another_storage_than_the_others_does_not_start(
    database: Database, tmp_path: Path
) -> None:
    storages = Storages(database, tmp_path)
    shared, other = tmp_path / "shared", tmp_path / "other"
    made = storages.start("a", shared)
    enter(database, "a", FOREVER)

    with pytest.raises(Conflict, match=r"storage, .*/other, is not the one .* is the shared file"):
        storages.start("b", other)
    assert not list(other.iterdir())

    assert storages.start("b", shared) == made
    assert oct((shared / STORAGE_ID).stat().st_mode) == "0o100600"


def test_a_new_server_never_brings_a_new_storage_even_while_the_others_are_down(
    database: Database, tmp_path: Path
) -> None:
    storages = Storages(database, tmp_path)
    storages.start("a", tmp_path / "shared")
    enter(database, "a", 0)

    with pytest.raises(Conflict, match="is not the one"):
        storages.start("b", tmp_path / "other")


def test_the_storage_may_be_another_copy_while_nobody_else_works_with_it(
    database: Database, tmp_path: Path
) -> None:
    storages = Storages(database, tmp_path)
    before = storages.start("a", tmp_path / "before")
    enter(database, "a", 0)
    enter(database, "b", 0)
    shutil.copytree(tmp_path / "before", tmp_path / "restored")

    # Of the same back-up as the database; and of one from before storages had ids.
    assert storages.start("a", tmp_path / "restored") == before
    (tmp_path / "restored" / STORAGE_ID).unlink()
    after = storages.start("a", tmp_path / "restored")

    assert after != before
    assert storages.start("b", tmp_path / "restored") == after


def test_a_storage_whose_id_cannot_be_read_is_told_in_a_sentence(
    database: Database, tmp_path: Path
) -> None:
    storages = Storages(database, tmp_path)
    (tmp_path / "shared" / STORAGE_ID).mkdir(parents=True)

    with pytest.raises(InvalidInput, match=r"\.neuro-storage, which .* cannot be used: Is a dir"):
        storages.start("a", tmp_path / "shared")


@pytest.mark.parametrize("kept", [b"", bytes(33), b"\xff\xfe"])
def test_a_damaged_id_of_the_storage_is_as_good_as_none(
    database: Database, tmp_path: Path, kept: bytes
) -> None:
    storages = Storages(database, tmp_path)
    before = storages.start("a", tmp_path / "shared")
    enter(database, "a", 0)
    enter(database, "b", FOREVER)
    (tmp_path / "shared" / STORAGE_ID).write_bytes(kept)

    with pytest.raises(Conflict, match="is not the one"):
        storages.start("a", tmp_path / "shared")
    database.write_now(lambda c: c.execute(text("DELETE FROM servers WHERE id = 'b'")))
    assert storages.start("a", tmp_path / "shared") != before


def test_servers_that_start_at_once_on_a_new_storage_make_one_id(
    database: Database, tmp_path: Path
) -> None:
    storages = Storages(database, tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()

    with ThreadPoolExecutor(6) as pool:
        made = set(pool.map(lambda server: storages.start(server, shared), "abcdef"))

    assert len(made) == 1
    assert [path.name for path in shared.iterdir()] == [STORAGE_ID]


async def test_servers_that_start_at_once_agree_on_the_machines_owner(
    database: Database, tmp_path: Path
) -> None:
    services = [AccessService(database, b"k" * 32, "default") for _ in range(6)]
    files = [
        LoginFile(tmp_path / str(number), service, "http://a")
        for number, service in enumerate(services)
    ]
    for file in files:
        file.path.parent.mkdir(parents=True)

    await asyncio.gather(*(file.write() for file in files))

    for service, file in zip(services, files, strict=True):
        login = msgspec.json.decode(file.content, type=OwnerLogin)
        assert (await service.authenticate(login.token)).user == login.user
