"""``neuro secret`` as a person uses it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.platform import NEURO, PATIENCE, Home


@pytest.fixture
def keys(person: Home) -> Iterator[None]:
    """Whatever a test adds is gone afterwards."""
    yield
    for key in person.ok("-q", "secret", "ls").split():
        person.ok("secret", "rm", key)


def piped(person: Home, content: bytes, *words: str) -> str:
    done = subprocess.run(
        [*NEURO, *words],
        env=person.environment(),
        input=content,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.decode()


def value_of(person: Home, key: str) -> str:
    """What a job gets."""
    return person.ok("-q", "run", "-e", f"V=secret:{key}", "ubuntu", "--", "printenv", "V")


@pytest.mark.usefixtures("keys")
def test_a_value_is_given_in_each_way(person: Home) -> None:
    (person.work_dir / "value").write_text("of a file")
    person.ok("secret", "add", "plain", "on the line")
    person.ok("secret", "add", "file", "@value")
    assert piped(person, b"of a pipe", "secret", "add", "piped", "-") == ""
    assert "line end" in piped(person, b"with one\n", "secret", "add", "ended", "-")
    with person.terminal("secret", "add", "asked") as it:
        it.until("/asked: ")
        it.press("typed in\r")
        assert it.end() == 0
        assert "typed in" not in it.shown

    assert value_of(person, "plain") == "on the line\n"
    assert value_of(person, "file") == "of a file\n"
    assert value_of(person, "piped") == "of a pipe\n"
    assert value_of(person, "asked") == "typed in\n"


@pytest.mark.usefixtures("keys")
def test_secrets_are_listed_with_the_jobs_that_use_them(person: Home) -> None:
    person.ok("secret", "add", "token", "hidden-value")
    person.ok("secret", "add", "token", "hidden-other")
    job = person.ok(
        *("-q", "run", "--detach", "-e", "T=secret:token", "ubuntu", "sleep", "100")
    ).strip()

    shown = person.ok("secret", "ls", COLUMNS="200")
    (told,) = json.loads(person.ok("secret", "ls", "--json"))

    assert shown.split("\n")[1].split()[:2] == ["token", "2"]
    assert job in shown
    assert (told["key"], told["version"], told["used_by"]) == ("token", 2, [job])
    assert "hidden" not in shown + json.dumps(told)
    assert "secret:token" in person.ok("status", job)
    assert "hidden" not in person.ok("status", job) + person.ok("status", "--json", job)
    person.ok("kill", job)


@pytest.mark.usefixtures("keys")
def test_an_earlier_value_is_restored(person: Home) -> None:
    for value in ("first", "second"):
        person.ok("secret", "add", "token", value)

    person.ok("secret", "restore", "token", "1")

    assert value_of(person, "token") == "first\n"
    told = json.loads(person.ok("secret", "history", "token", "--json"))
    assert [it["version"] for it in told] == [3, 2, 1]
    assert person.ok("secret", "history", "token").startswith("VERSION")
    done = json.loads(person.ok("admin", "rotate-secret-key", "--json"))
    assert (done["encrypted"], done["unreadable"]) == (3, 0)
    assert value_of(person, "token") == "first\n"


@pytest.mark.usefixtures("keys")
def test_what_is_wrong_is_said(person: Home) -> None:
    person.ok("secret", "add", "token", "hidden-value")

    for words, code, said in (
        (("secret", "add", "a b", "x"), 127, "cannot be a secret's name"),
        (("secret", "add", "token"), 2, "Say what the value is"),
        (("secret", "add", "token", "@no-such"), 127, "no-such cannot be read"),
        (("secret", "rm", "tokne"), 72, "does not exist, or you may not use it"),
        (("secret", "restore", "token", "7"), 72, "no version 7"),
        (("run", "-e", "A=secret:tokne", "ubuntu", "true"), 72, "Did you mean 'secret://default/"),
        (("run", "-v", "secret:token:/k:ro", "ubuntu", "true"), 127, "a secret has no mode"),
    ):
        done = person.run(*words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    traced = person.run("--trace", "secret", "add", "token", "hidden-value")
    assert traced.returncode == 0
    assert "POST /secrets" in traced.stderr
    times = re.findall(r"^([\d.]+) [<>] ", traced.stderr, re.MULTILINE)
    assert len(times) >= 2
    assert times == sorted(times, key=float)
    assert "aGlkZGVu" not in traced.stderr  # base64 of its beginning
    assert "hidden" not in traced.stderr


@pytest.mark.usefixtures("keys")
def test_a_build_has_secrets_of_the_platform(person: Home) -> None:
    folder = person.work_dir / "context"
    folder.mkdir()
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text("FROM host\nRUN --mount=type=secret,id=pip wc -c < /run/secrets/pip\n")
    person.ok("secret", "add", "conf", "seven77")

    said = person.ok(
        *("image", "build", "-t", "image:with-secret:v1"),
        *("--secret", "id=pip,src=secret:conf", "context"),
    )

    assert " 7\n" in said
    dockerfile.unlink()
    folder.rmdir()
    person.ok("image", "rm", "-f", "image:with-secret:v1")
