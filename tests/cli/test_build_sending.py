"""What was sent for a build, where the storage is away when the build is over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from neuro.cli.building import build as building
from neuro.cli.building import sending
from neuro.cli.building.source import Source
from neuro.cli.context import Context
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job


class Away(PlatformError):
    pass


class Folder:
    """A folder of the storage, which can be given back or not."""

    uri = "storage://default/me/.builds/1-a"
    trouble: BaseException | None = None
    did: list[str]

    def __init__(self, *_: object) -> None:
        Folder.did = []

    def take(self) -> str:
        return "take"

    def give_back(self, added: object) -> str:
        if self.trouble is not None:
            raise self.trouble
        return "give back"

    def remove(self) -> str:
        return "remove"

    def sweep(self, *_: object) -> str:
        return "sweep"


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(sending, "ContextFolder", Folder)
    monkeypatch.setattr(sending, "_send", lambda *_: None)
    client = SimpleNamespace(storage=None, jobs=None, user="me")
    run = SimpleNamespace(client=client, run=lambda done: Folder.did.append(done))
    return cast("Context", run)


def _sent(context: Context) -> None:
    source = SimpleNamespace(uri=None, outside=[], top="here", key="k")
    with sending.sent(context, cast("Source", source), ()):
        pass


def test_a_build_that_succeeded_stays_one_where_its_context_cannot_be_kept(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "trouble", Away("away"))

    _sent(context)

    assert Folder.did == ["take", "remove", "sweep"]


def test_whoever_interrupts_it_then_is_heard(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "trouble", KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        _sent(context)

    assert Folder.did == ["take", "remove"]


def test_a_build_that_failed_keeps_its_exit_code_where_nobody_says_why(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(job_id: str) -> None:
        raise Away("away")

    context.client.jobs = cast("object", SimpleNamespace(get=away))  # type: ignore[assignment,misc]

    building.advise(context, cast("Job", SimpleNamespace(id="job-1")))
