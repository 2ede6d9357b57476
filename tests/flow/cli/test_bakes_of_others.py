"""An administrator restarts somebody's bake: it stays that person's, in all that it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.client.blocking import run
from neuro.domain.bakes import Bake
from neuro.domain.jobs import Job, JobFilter
from tests.flow.cli.keeper import Keeper
from tests.flow.cli.project import Person

LOCAL = """
kind: batch
tasks:
  - {id: prepare, action: "ws:prepare"}
  - {id: use, image: ubuntu, preset: small, needs: [prepare], cmd: "test -e /no/such/file"}
"""
PREPARE = "kind: local\nbash: id -un >> ran; exit $(cat exit-code)\n"
STEALS = """
kind: batch
defaults: {preset: small, cache: {strategy: none}}
tasks:
  - {id: first, image: ubuntu, cmd: "true"}
  - id: steals
    image: ubuntu
    needs: [first]
    volumes: ["storage://default/%s/secrets:/secrets:ro"]
    cmd: cat /secrets/word
"""


@pytest.fixture
def admin(person: Person) -> Person:
    person.ok("mkdir", "-p", "storage:secrets")
    (person.work_dir / "word").write_text("the-word-of-the-admin\n")
    person.ok("cp", "word", "storage:secrets/word")
    return person


@pytest.fixture
def alice(admin: Person, tmp_path: Path) -> Iterator[Person]:
    """Somebody who is no administrator, on a machine of her own."""
    if "alice" not in admin.ok("-q", "admin", "users").split():
        admin.ok("admin", "add-user", "alice")
    keeper = Keeper(admin)
    token = run(keeper.client.users.create_token("alice")).token
    alice = Person(tmp_path / "alices")
    alice.ok("config", "login-with-token", str(token), keeper.client.transport.url)
    alice.write(".neuro/local.yml", LOCAL)
    alice.write("prepare.yml", PREPARE)
    alice.write(".neuro/steals.yml", STEALS % keeper.client.user)
    yield alice
    for bake in alice.flow_ok("-q", "bakes").split():
        alice.flow("cancel", bake)


def bake_of(alice: Person, batch: str) -> str:
    """The id of a bake that ends in failure."""
    done = alice.flow("-q", "bake", batch)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.split()[0]


def jobs_of(admin: Person, bake: str) -> list[Job]:
    """All jobs of a bake, with those that drive it."""

    async def find() -> list[Job]:
        found = Keeper(admin).client.jobs.list(JobFilter(tag=[f"bake_id:{bake}"]))
        return [job async for job in found]

    return run(find())


def kept(admin: Person, bake: str) -> Bake:
    return run(Keeper(admin).bakes.get(bake))


def test_it_has_its_owners_rights_and_no_more(admin: Person, alice: Person) -> None:
    bake = bake_of(alice, "steals")

    done = admin.flow("restart", bake)

    assert done.returncode == 1
    assert "the-word-of-the-admin" not in done.stdout + done.stderr
    assert "#2" in done.stdout, done.stdout + done.stderr
    jobs = jobs_of(admin, bake)
    assert len(jobs) >= 3
    assert {job.owner for job in jobs} == {"alice"}
    assert kept(admin, bake).owner == "alice"


def test_its_local_actions_never_run_elsewhere(admin: Person, alice: Person) -> None:
    alice.write("exit-code", "7")
    bake = bake_of(alice, "local")

    done = admin.flow("restart", bake)

    assert done.returncode == 1
    assert "alice's local action prepare would run on your machine" in done.stderr
    assert (alice.project / "ran").read_text().count("\n") == 1
    again = alice.flow("restart", bake)
    assert "#2" in again.stdout


def test_what_is_left_of_it_is_restarted_once_its_local_actions_are_done(
    admin: Person, alice: Person
) -> None:
    alice.write("exit-code", "0")
    bake = bake_of(alice, "local")
    assert (alice.project / "ran").read_text().count("\n") == 1

    done = admin.flow("restart", bake)

    assert (done.returncode, "#2" in done.stdout) == (1, True)
    assert {job.owner for job in jobs_of(admin, bake)} == {"alice"}
    refused = admin.flow("restart", bake, "--no-from-failed")
    assert "alice's local action prepare" in refused.stderr


def test_no_terminal_of_another_drives_it(admin: Person, alice: Person) -> None:
    bake = bake_of(alice, "steals")

    restarted = admin.flow("restart", bake, "--local-executor")
    executed = admin.flow("--fake-workspace", "execute", bake)

    assert restarted.returncode == 1
    assert "with your rights" in restarted.stderr
    assert executed.returncode != 0
    assert "belongs to alice" in executed.stderr
    assert {job.owner for job in jobs_of(admin, bake)} == {"alice"}
