"""Two people at the command line: one shares, the other uses what is shared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.cli.platform import Home

Neuro = Callable[..., str]


@pytest.fixture(scope="module")
def alice(platform: Home) -> Neuro:
    """``neuro`` of a second person."""
    token = platform.ok("admin", "add-user", "-q", "alice").strip()
    url = platform.ok("server", "status").split("API URL")[1].split()[0]
    folder = platform.folder / "alice"
    run(platform, folder, "config", "login-with-token", token, url)
    return lambda *words, code=0: run(platform, folder, *words, code=code)


def run(platform: Home, folder: object, *words: str, code: int = 0) -> str:
    """What a command says on both streams."""
    done = platform.run("--neuromation-config", str(folder), *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def owner(person: Home) -> str:
    return person.ok("config", "show", "--json") and user_of(person)


def user_of(person: Home) -> str:
    return str(json.loads(person.ok("config", "show", "--json"))["user"])


@pytest.fixture
def data(person: Home) -> Iterator[str]:
    """A folder of the owner's with a file in it."""
    (person.work_dir / "file.txt").write_text("hello\n")
    person.ok("mkdir", "-p", "storage:cifar-10")
    person.ok("cp", "file.txt", "storage:cifar-10/file.txt")
    yield "storage:cifar-10"
    person.ok("rm", "-r", "storage:cifar-10")


def test_a_folder_is_shared_used_explained_and_taken_back(
    person: Home, alice: Neuro, owner: str, data: str
) -> None:
    full = f"storage://default/{owner}/cifar-10"
    assert "was not found" in alice("ls", full, code=72)

    said = person.run("share", data, "alice", "manage")

    assert (said.returncode, said.stdout) == (0, "")
    assert f"'alice' may manage {full}." in said.stderr
    assert "file.txt" in alice("ls", full)
    assert owner in alice("ls", "storage:/")
    assert "cifar-10" in alice("ls", f"storage:/{owner}")
    assert f"storage:/{owner}/cifar-10" in alice("acl", "ls", "storage:")
    assert full in alice("acl", "ls", "--full-uri", "storage:")
    shared = json.loads(person.ok("acl", "ls", "--shared", "--json"))
    assert [(it["user"], it["uri"], it["action"]) for it in shared] == [("alice", full, "manage")]
    table = person.ok("acl", "ls", "--shared").splitlines()
    assert [line.split() for line in table] == [
        ["URI", "ACTION", "USER"],
        [data, "manage", "alice"],
    ]
    why = f"  manage on {full}, granted to 'alice' by '{owner}'"
    assert why in alice("acl", "explain", f"{full}/file.txt").splitlines()
    assert why in person.ok("acl", "explain", data, "alice").splitlines()

    person.ok("acl", "revoke", data, "alice")

    assert "was not found" in alice("ls", full, code=72)
    assert "may do nothing" in person.ok("acl", "explain", data, "alice")
    again = person.run("acl", "revoke", data, "alice")
    assert (again.returncode, "Operation has no effect" in again.stderr) == (65, True)


def test_a_share_for_some_time_says_until_when(person: Home, alice: Neuro, data: str) -> None:
    given = json.loads(person.ok("share", "--json", "--expires", "7d", data, "alice", "read"))

    assert given["expires_at"] is not None
    listed = person.ok("acl", "ls", "--shared").splitlines()
    assert listed[0].split()[-1] == "EXPIRES"
    assert "until" in person.ok("acl", "explain", data, "alice")
    person.ok("acl", "revoke", data, "alice")


def test_what_is_less_than_what_somebody_has_is_told(person: Home, alice: Neuro, data: str) -> None:
    person.ok("share", data, "alice", "write")

    said = person.run("share", data, "alice", "read")

    assert (said.returncode, "has 'write'" in said.stderr) == (0, True)
    shared = json.loads(person.ok("acl", "ls", "--shared", "--json"))
    assert [it["action"] for it in shared] == ["write"]
    person.ok("acl", "revoke", data, "alice")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("share", "storage:x", "nobody-here", "read"), 72, 'user "nobody-here" was not found'),
        (("share", "storage:x", "a/b", "read"), 72, 'role "a/b" was not found'),
        (("share", "x", "alice", "read"), 127, "known are storage:"),
        (("share", "storage://elsewhere/x", "alice", "read"), 65, "'elsewhere' is unknown"),
        (("share", "--expires", "0", "storage:x", "alice", "read"), 127, "--expires is 0"),
        (("share", "--expires", "soon", "storage:x", "alice", "read"), 127, "not a duration"),
        (("share", "storage:x", "alice", "own"), 2, "'own'"),
        (("share", "image:x:v1", "alice", "read"), 127, "tags: neuro share image:x alice read\n"),
        (("acl", "add-role", "team"), 127, "begin with a user's name"),
        (("acl", "remove-role", "alice/none"), 72, 'role "alice/none" was not found'),
    ],
)
def test_what_cannot_be_shared_is_told(
    person: Home, alice: Neuro, words: tuple[str, ...], code: int, said: str
) -> None:
    done = person.run(*words)

    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_what_is_not_ones_own_cannot_be_shared(person: Home, alice: Neuro, data: str) -> None:
    full = f"storage://default/{user_of(person)}/cifar-10"
    assert "was not found" in alice("share", full, "public", "read", code=72)

    person.ok("share", data, "alice", "write")

    assert "You need the permission 'manage'" in alice("share", full, "public", "read", code=77)
    assert "You may not know" in alice("acl", "ls", "-u", user_of(person), code=77)
    person.ok("acl", "revoke", data, "alice")


def test_a_role_is_for_several_people(person: Home, alice: Neuro, owner: str, data: str) -> None:
    role = f"{owner}/roles/team"
    person.ok("acl", "add-role", role)
    person.ok("acl", "grant", data, role, "write")
    person.ok("acl", "grant", f"role://{role}", "alice", "read")

    assert alice("acl", "list-roles").split() == [role]
    assert person.ok("acl", "list-roles").split() == [role]
    full = f"storage://default/{owner}/cifar-10"
    assert alice("acl", "explain", full).splitlines() == [
        f"'alice' may write {full}:",
        f"  write on {full}, granted to the role '{role}' by '{owner}'",
        f"    'alice' is in the role '{role}'",
    ]
    listed = [line.split() for line in alice("acl", "ls", "storage:").splitlines()]
    assert listed[0] == ["URI", "ACTION", "THROUGH"]
    assert [f"storage:/{owner}/cifar-10", "write", role] in listed
    person.ok("acl", "remove-role", role)
    assert alice("acl", "list-roles") == ""
    assert "may do nothing" in alice("acl", "explain", full)


def test_a_job_is_shared_when_it_is_started(person: Home, alice: Neuro) -> None:
    done = person.run(
        "-q", "run", "--detach", "--share", "alice", "--share", "nobody-here", "ubuntu", "--",
        "sleep", "1000",
    )  # fmt: skip

    assert done.returncode == 0
    assert "was not shared with 'nobody-here': user \"nobody-here\" was not found" in done.stderr
    alice("kill", done.stdout.strip())


def test_a_job_is_shared_by_its_id_and_by_its_name(person: Home, alice: Neuro, owner: str) -> None:
    job = person.ok(
        "-q", "run", "--detach", "--name", "shared-job", "ubuntu", "--", "sh", "-c",
        "echo started; sleep 1000",
    ).strip()  # fmt: skip
    other = person.ok("-q", "run", "--detach", "ubuntu", "--", "sleep", "1000").strip()
    assert alice("-q", "ps", "-o", owner) == ""

    for uri in (f"job:{job}", "job:shared-job"):
        person.ok("share", uri, "alice", "read")

        assert alice("-q", "ps", "-o", owner).split() == [job]
        assert "running" in alice("status", job)
        assert "no such job" in alice("status", other, code=65)
        assert "You need the permission 'write'" in alice("kill", job, code=1)
        person.ok("acl", "revoke", uri, "alice")
        assert alice("-q", "ps", "-o", owner) == ""

    person.ok("share", "job:", "alice", "write")
    assert sorted(alice("-q", "ps", "-o", owner).split()) == sorted([job, other])
    alice("kill", f"job://default/{owner}/shared-job")
    person.ok("acl", "revoke", "job:", "alice")
