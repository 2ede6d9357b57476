"""What is sent for a build and what is not; and a platform that is away when the build is over."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import cast

import pytest

from neuro.cli.building import sending
from neuro.cli.building.build import built_as
from neuro.cli.building.sending import sent
from neuro.cli.building.source import Source, Unchecked
from neuro.cli.building.wanted import Wanted
from neuro.cli.context import Context
from neuro.cli.failures import Failure
from neuro.domain.errors import PlatformError
from neuro.domain.images import OwnImage
from neuro.domain.jobs import Job

WANTED = Wanted(context="here", images=())


class Away(PlatformError):
    pass


class Folder:
    """A folder of the storage, which can be given back or not."""

    uri = "storage://default/me/.builds/1-a"
    trouble: BaseException | None = None
    checked = "before"
    is_new = False
    has_changed = False
    did: list[str]

    def __init__(self, *_: object) -> None:
        Folder.did = []

    def take(self) -> str:
        return "take"

    def give_back(self, added: object) -> str:
        if self.trouble is not None:
            raise self.trouble
        return "give back"

    def put_back(self) -> str:
        return "put back"

    def change(self, items: object) -> SimpleNamespace:
        return SimpleNamespace(is_empty=not self.has_changed)

    def send(self, *_: object) -> str:
        return "send"

    def remove(self) -> str:
        return "remove"

    def sweep(self, *_: object) -> str:
        return "sweep"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the Dockerfiles that were read."""
    found: list[str] = []
    monkeypatch.setattr(sending, "check_dockerfile", lambda _, __, name, ___: found.append(name))
    return found


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(sending, "ContextFolder", Folder)
    client = SimpleNamespace(storage=None, jobs=None, images=None, user="me")
    out = SimpleNamespace(info=lambda _: None, warning=lambda text: Folder.did.append(text))
    run = SimpleNamespace(client=client, out=out, run=lambda done: Folder.did.append(done))
    return cast("Context", run)


def _build(context: Context, mark: str = "before") -> None:
    unchecked = Unchecked(b"FROM host", "Dockerfile", mark)
    source = SimpleNamespace(
        uri=None, outside=[], top="here", key="k", items=(), unchecked=unchecked
    )
    with sent(context, cast("Source", source), WANTED):
        pass


def test_a_context_and_a_dockerfile_that_are_as_they_were_are_neither_sent_nor_read(
    context: Context, checks: list[str]
) -> None:
    _build(context)

    assert (Folder.did, checks) == (["take", "give back", "sweep"], [])


def test_another_dockerfile_is_read(context: Context, checks: list[str]) -> None:
    _build(context, "after")

    assert (Folder.did, checks) == (["take", "give back", "sweep"], ["Dockerfile"])


def test_a_dockerfile_that_is_wrong_leaves_the_kept_context_as_it_was(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise Failure("wrong")

    monkeypatch.setattr(sending, "check_dockerfile", wrong)

    with pytest.raises(Failure, match="wrong"):
        _build(context, "after")

    assert Folder.did == ["take", "put back"]


def test_a_build_loads_nothing_that_only_a_changed_one_needs() -> None:
    program = (
        "import sys, neuro.cli.building.build, neuro.cli.job.follow;"
        " print(*{it.split('.')[0] if it[:6] != 'neuro.' else it for it in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    loaded = set(done.stdout.split())
    assert "neuro.cli.building.sending" in loaded
    assert {"rich", "concurrent", "asyncio", "aiohttp"} & loaded == set()
    of_dockerfiles = {it for it in loaded if it.startswith("neuro.dockerfile.")}
    assert of_dockerfiles == {"neuro.dockerfile.ignore_files"}


def test_a_build_that_succeeded_stays_one_where_its_context_cannot_be_kept(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "trouble", Away("away"))

    _build(context)

    assert Folder.did == ["take", "remove", "sweep"]


def test_whoever_interrupts_it_then_is_heard(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "trouble", KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        _build(context)

    assert Folder.did == ["take", "remove"]


def test_a_build_that_succeeded_stays_one_where_the_registry_does_not_answer(
    context: Context,
) -> None:
    def away(image: OwnImage) -> None:
        raise Away("The registry is away.")

    Folder.did = []
    context.client.images = cast("object", SimpleNamespace(look=away))  # type: ignore[assignment,misc]
    job = cast("Job", SimpleNamespace(id="job-1"))

    built = built_as(context, OwnImage("default", "me/made", ":v1"), job)

    assert (built.exit_code, built.job, built.digest, built.size) == (0, job, None, None)
    (said,) = Folder.did
    assert said.startswith("The build succeeded, but the digest and the size")
    assert "The registry is away. `neuro image digest image://default/me/made:v1`" in said
