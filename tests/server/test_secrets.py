"""Secrets as they are kept: versions, keys, rights, and the change of the key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from neuro.domain.errors import Conflict, Damaged, InvalidInput, NotFound, NotPermitted, Unavailable
from neuro.domain.permissions import Action
from neuro.domain.secrets import RestoreRequest
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.server.access.grants import Grant
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.secrets import keyring, service, tables
from neuro.server.secrets.keyring import KeyRing
from neuro.server.secrets.sealing import SecretPlace
from neuro.server.secrets.service import Secrets

TOKEN = parse_uri("secret://default/anna/token")
OTHER = parse_uri("secret://default/anna/other")
VALUE = b"value-of-the-token"


class House:
    """An installation with Anna, Boris, and an administrator."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url)
        migrate(self.database)
        self.access = AccessService(self.database, b"k" * 32, "default")
        self.key_file = folder / "keys" / "secrets.key"
        self.secrets = self.another()

    def another(self, key_file: Path | None = None) -> Secrets:
        """Another server of this database, which has read nothing yet."""
        ring = KeyRing(key_file or self.key_file)
        return Secrets(self.database, ring, "default", self.access.identity_of)

    async def put(self, uri: ResourceURI = TOKEN, value: bytes = VALUE, by: str = "anna") -> int:
        return (await self.secrets.put(await self.access.identity_of(by), uri, value)).version

    async def value(self, by: str = "anna", uri: ResourceURI = TOKEN) -> bytes:
        return await self.of(self.secrets, by, uri)

    async def of(self, secrets: Secrets, by: str = "anna", uri: ResourceURI = TOKEN) -> bytes:
        identity = await self.access.identity_of(by)
        return (await secrets.values(identity, [uri], "job-1"))[uri]

    async def share(self, action: Action, uri: ResourceURI = TOKEN) -> None:
        anna = await self.access.identity_of("anna")
        await self.access.sharing.share(anna, "boris", [Grant(uri, action, by="anna")])

    async def listed(self, by: str) -> list[tuple[str, str, int]]:
        found = await self.secrets.all(await self.access.identity_of(by), {})
        return [(it.owner, it.key, it.version) for it in found]

    async def key_ids(self) -> set[str]:
        return set(await self.database.read(tables.key_ids))


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    house = House(database_url, tmp_path)
    for name in ("anna", "boris"):
        await house.access.add_user(name)
    await house.access.add_user("root", is_admin=True)
    yield house
    house.database.close()


async def test_a_value_is_there_for_jobs_and_encrypted_in_the_database(house: House) -> None:
    assert await house.put() == 1

    assert await house.value() == VALUE
    sealed = await house.database.read(lambda c: tables.newest(c, "anna", "token"))
    assert sealed is not None
    assert VALUE not in sealed.content
    assert sealed.key_id in house.key_file.read_text()
    assert house.key_file.stat().st_mode & 0o777 == 0o600


async def test_a_new_value_is_a_new_version_and_ten_are_kept(house: House) -> None:
    for number in range(1, 13):
        assert await house.put(value=b"%d" % number) == number
    await house.put(OTHER)

    anna = await house.access.identity_of("anna")
    kept = [it.version for it in await house.secrets.versions(anna, TOKEN)]
    assert kept == list(range(12, 2, -1))
    assert await house.value() == b"12"
    assert (await house.secrets.restore(anna, TOKEN, 4)).version == 13
    assert await house.value() == b"4"
    with pytest.raises(NotFound, match="no version 2"):
        await house.secrets.restore(anna, TOKEN, 2)
    assert await house.listed("anna") == [("anna", "other", 1), ("anna", "token", 13)]


async def test_what_each_right_allows(house: House) -> None:
    await house.put()
    boris = await house.access.identity_of("boris")
    missing = "'secret://default/anna/token' does not exist, or you may not use it"
    with pytest.raises(NotFound, match=missing):
        await house.put(by="boris")
    with pytest.raises(NotFound, match="does not exist any more, or 'boris' may not"):
        await house.value("boris")
    assert await house.listed("boris") == []

    await house.share(Action.READ)
    boris = await house.access.identity_of("boris")
    assert await house.value("boris") == VALUE
    assert await house.listed("boris") == [("anna", "token", 1)]
    with pytest.raises(NotPermitted):
        await house.put(by="boris")
    with pytest.raises(NotPermitted):
        await house.secrets.restore(boris, TOKEN, 1)
    await house.share(Action.WRITE)
    assert await house.put(value=b"of boris", by="boris") == 2
    boris = await house.access.identity_of("boris")
    with pytest.raises(NotPermitted):
        await house.secrets.remove(boris, TOKEN)
    await house.share(Action.MANAGE)
    boris = await house.access.identity_of("boris")
    assert (await house.secrets.versions(boris, TOKEN))[0].created_by == "boris"
    await house.secrets.remove(boris, TOKEN)
    assert await house.listed("anna") == []


async def test_administrators_see_everybodys(house: House) -> None:
    await house.put()

    assert await house.listed("root") == [("anna", "token", 1)]
    nobody = parse_uri("secret://default/nobody/token")
    with pytest.raises(NotFound, match='user "nobody" was not found'):
        await house.put(nobody, by="root")


async def test_a_submission_is_told_what_was_meant_of_what_may_be_seen(house: House) -> None:
    await house.put()
    boris = await house.access.identity_of("boris")
    anna = await house.access.identity_of("anna")
    await house.secrets.check(anna, [TOKEN])
    with pytest.raises(NotFound, match="Did you mean 'secret://default/anna/token'"):
        await house.secrets.check(anna, [TOKEN, parse_uri("secret://default/anna/tokne")])
    with pytest.raises(NotFound) as unknown:
        await house.secrets.check(boris, [parse_uri("secret://default/anna/tokne")])
    with pytest.raises(NotFound) as hidden:
        await house.secrets.check(boris, [TOKEN])

    # Boris learns from neither whether there is one.
    assert str(unknown.value).replace("tokne", "token") == str(hidden.value)
    assert "mean" not in str(hidden.value)


@pytest.mark.parametrize("key", ["", "a/b", "a b", "-a", ".", "..", "a" * 254, "é", "a\n"])
def test_what_cannot_be_a_key(house: House, key: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a secret's name"):
        house.secrets.uri("anna", key)


async def test_there_are_bounds(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SECRETS", 2)
    account, _ = await house.access.service_accounts.create("anna", _account("ci"))
    await house.put(value=b"x" * 65536)
    await house.put(ResourceURI("secret", "default", (account.role, "its")))

    with pytest.raises(Conflict, match="'anna' has 2 secrets, which is the most"):
        await house.put(OTHER)
    assert await house.put() == 2
    assert await house.put(parse_uri("secret://default/boris/a"), by="boris") == 1
    with pytest.raises(InvalidInput, match="65,537 bytes, and a secret can have 65,536"):
        await house.put(value=b"x" * 65537)


def _account(name: str) -> Any:
    from neuro.domain.service_accounts import ServiceAccountRequest

    return ServiceAccountRequest(name=name)


async def test_secrets_go_with_their_person(house: House) -> None:
    await house.put()
    await house.put(parse_uri("secret://default/boris/token"), by="boris")

    await house.secrets.end_all_of(["anna"])

    assert await house.listed("root") == [("boris", "token", 1)]


async def test_the_key_changes_while_all_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_BATCH", 2)
    for number in range(5):
        await house.put(ResourceURI("secret", "default", ("anna", f"k{number}")), b"%d" % number)
    await house.put()
    beside = house.another()
    assert await house.of(beside) == VALUE
    before = await house.key_ids()

    done = await house.secrets.rotate()

    assert (done.encrypted, done.unreadable) == (6, 0)
    assert await house.key_ids() == {done.key_id}
    assert done.key_id not in before
    # The other server reads the file again, as it has changed.
    assert await house.of(beside) == VALUE
    assert await house.value(uri=parse_uri("secret://default/anna/k3")) == b"3"
    assert await house.put(value=b"later") == 2
    assert await house.key_ids() == {done.key_id}


async def test_a_server_without_the_new_key_says_what_to_do_and_goes_on_once_it_is_there(
    house: House, tmp_path: Path
) -> None:
    await house.put()
    copy = tmp_path / "copy.key"
    copy.write_bytes(house.key_file.read_bytes())
    copy.chmod(0o600)
    other = house.another(copy)
    assert await house.of(other) == VALUE

    await house.secrets.rotate()

    with pytest.raises(Unavailable, match=r"copy\.key does not have the key .* copy it from"):
        await house.of(other)
    copy.write_bytes(house.key_file.read_bytes())
    assert await house.of(other) == VALUE


async def test_a_file_that_is_a_link_stays_one(house: House, tmp_path: Path) -> None:
    await house.put()
    shared = tmp_path / "shared.key"
    house.key_file.rename(shared)
    house.key_file.symlink_to(shared)

    await house.secrets.rotate()

    assert house.key_file.is_symlink()
    assert await house.value() == VALUE


async def test_a_missing_key_is_an_error_and_not_made_anew(house: House) -> None:
    await house.put()
    kept = house.key_file.read_bytes()
    house.key_file.unlink()

    for attempt in (house.value(), house.put(), house.secrets.rotate()):
        with pytest.raises(Unavailable, match=r"secrets\.key is missing: restore it"):
            await attempt
    assert not house.key_file.exists()
    house.key_file.touch(0o600)
    house.key_file.write_bytes(kept)
    assert await house.value() == VALUE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (b"nonsense", "damaged"),
        (b"0123456789abcdef AAAA", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"0123456789abcdef " + b"A" * 43 + b"=", "damaged"),
    ],
)
async def test_a_damaged_key_file_is_an_error(house: House, content: bytes, said: str) -> None:
    await house.put()
    house.key_file.write_bytes(content)

    for attempt in (house.value(), house.put()):
        with pytest.raises(Unavailable, match=said) as error:
            await attempt
        assert "AAAA" not in str(error.value)


async def test_another_installations_key_encrypts_nothing_here(
    house: House, tmp_path: Path
) -> None:
    await house.put()
    other = tmp_path / "other.key"
    keyring.KeyRing(other).current([])
    other.replace(house.key_file)

    for attempt in (house.value(), house.put(), house.secrets.rotate()):
        with pytest.raises(Unavailable, match="does not have the key"):
            await attempt


async def test_a_key_that_others_can_read_is_refused(house: House) -> None:
    await house.put()
    os.chmod(house.key_file, 0o640)

    with pytest.raises(Unavailable, match="Others can read the key"):
        await house.value()


@pytest.mark.parametrize(
    "place", [("anna", "other", 1), ("boris", "token", 1), ("anna", "token", 2)]
)
async def test_rows_cannot_change_places(house: House, place: tuple[str, str, int]) -> None:
    owner, key, version = place
    uri = ResourceURI("secret", "default", (owner, key))
    await house.put()
    await house.put(uri, b"worth less", by=owner)
    columns = tables.secrets.c

    def swap(connection: Any) -> None:
        first = tables.of_version(connection, SecretPlace("anna", "token", 1))
        assert first is not None
        there = update(tables.secrets).where(
            columns.owner == owner, columns.key == key, columns.version == version
        )
        connection.execute(there.values(sealed=first.content))

    await house.database.write(swap)

    with pytest.raises(Damaged, match=f"'{key}' of '{owner}' is damaged"):
        await house.value(owner, uri)


async def test_what_is_damaged_does_not_stop_a_change_of_the_key(house: House) -> None:
    await house.put()
    await house.put(OTHER)
    damaged = update(tables.secrets).where(tables.secrets.c.key == "other").values(sealed=b"x")
    await house.database.write(lambda connection: connection.execute(damaged))

    done = await house.secrets.rotate()

    assert (done.encrypted, done.unreadable) == (1, 1)
    assert await house.value() == VALUE


@pytest.mark.parametrize("version", [0, -1, 1 << 31, 1 << 63])
def test_a_version_is_one_that_a_database_can_have(version: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"version": version}, RestoreRequest)


def test_values_and_keys_are_in_no_text_of_an_object() -> None:
    from neuro.domain.secrets import SecretRequest
    from neuro.engines.base import File
    from neuro.server.jobs.job_secrets import SecretValues

    given = SecretValues({"A": "hidden"}, (File(target="/k", content=b"hidden"),))
    for one in (
        SecretRequest(key="k", value=b"hidden"),
        keyring.SecretKey("id", b"hidden"),
        given,
    ):
        assert "hidden" not in f"{one} {one!r}"
    assert SecretPlace("a", "b", 1).associated == b"neuro secret a/b/1"


def test_no_moment_of_a_change_of_the_key_shows_old_keys(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"

    class Watched(KeyRing):
        """After each store, another thread asks for the newest key."""

        wanted = ""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if self.wanted and name != "wanted":
                assert self.key(self.wanted).id == self.wanted

    ring = Watched(path)
    ring.current([])
    newest = KeyRing(path).rotate()

    ring.wanted = newest.id

    assert ring.current([newest.id]) == newest


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Unavailable, match="cannot be used: Not a directory"):
        KeyRing(tmp_path / "file" / "keys" / "secrets.key").current([])


async def test_a_writer_is_answered_the_version_that_it_made(house: House) -> None:
    anna = await house.access.identity_of("anna")
    first = await house.secrets.put(anna, TOKEN, VALUE)
    second = await house.secrets.put(anna, TOKEN, b"later")
    third = await house.secrets.restore(anna, TOKEN, 1)

    assert await house.secrets.versions(anna, TOKEN) == [third, second, first]


async def test_secrets_of_a_job_are_looked_up_in_one_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [ResourceURI("secret", "default", ("anna", f"k{number}")) for number in range(5)]
    for uri in uris:
        await house.put(uri)
        await house.put(uri)
    anna = await house.access.identity_of("anna")
    reads = []
    read = house.database.read

    async def counted(question: Any) -> Any:
        reads.append(question)
        return await read(question)

    monkeypatch.setattr(house.database, "read", counted)
    await house.secrets.check(anna, [*uris, uris[0]])

    assert len(reads) == 1
    await house.secrets.check(anna, [])
    with pytest.raises(NotFound, match="anna/k9"):
        await house.secrets.check(anna, [*uris, ResourceURI("secret", "default", ("anna", "k9"))])
