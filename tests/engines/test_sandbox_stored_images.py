"""Runs whose images come from a registry into the store of layers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import EngineFault, ExitCause, PullCredentials, RunRef, Waiting
from neuro.engines.images import locks
from neuro.engines.images.stopping import Stop
from neuro.engines.images.store import Store
from neuro.engines.sandbox import SandboxEngine
from neuro.engines.sandbox.images import ImageRefused, InvalidImageName, RegistryAway
from neuro.engines.sandbox.stored_images import StoredImages
from tests.engines import docker_image
from tests.engines.archives import archive, entry
from tests.engines.harness import EVERYWHERE, Runs, spec
from tests.engines.small_registry import LOCAL, SmallRegistry, running


@pytest.fixture
def registry() -> SmallRegistry:
    return SmallRegistry()


@pytest.fixture
def host(registry: SmallRegistry) -> Iterator[str]:
    with running(registry) as address:
        yield address


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "images"))


@pytest.fixture
def images(store: Store) -> StoredImages:
    made = StoredImages(store, most=0, reach=LOCAL, public=("registry.invalid",))
    made.open()
    return made


@pytest_asyncio.fixture
async def runs(tmp_path: Path, images: StoredImages) -> AsyncIterator[Runs]:
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE, images=images)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


def put(registry: SmallRegistry, name: str, **config: object) -> None:
    """An image with a shell in one layer, and a file in another."""
    out = io.BytesIO()
    docker_image.write(out, ("sh", "cat", "sleep"), python=False)
    registry.image(name, out.getvalue(), "file", tag="v1", **config)


async def test_a_run_has_the_image_of_a_registry(
    runs: Runs, registry: SmallRegistry, host: str
) -> None:
    put(registry, "me/trainer", Cmd=["sh", "-c", "cat /file; echo $A"], Env=["A=set"])

    first = await runs.run(image=f"{host}/me/trainer:v1")
    told = [event for event in runs.told if isinstance(event, Waiting)]
    asked = len(registry.requests)
    second = await runs.run(image=f"{host}/me/trainer:v1")

    assert first.exited.cause is ExitCause.COMPLETED, first
    assert first.output == second.output == b"file" * 100 + b"set\n"
    assert told[-1].progress == 1
    assert not [path for path, _ in registry.requests[asked:] if "/blobs/sha256" in path][1:]
    assert len([event for event in runs.told if isinstance(event, Waiting)]) == len(told)


async def test_the_image_of_a_run_stays_while_it_goes_on(
    runs: Runs, registry: SmallRegistry, host: str, store: Store, images: StoredImages
) -> None:
    put(registry, "me/trainer")
    ref = await runs.start("sh", "-c", "sleep 600", image=f"{host}/me/trainer:v1")

    images.tidy()  # nothing may be kept that nobody uses
    kept = store.shelves.listed("layers")
    _, out, _ = await runs.execute(ref, "cat", "/etc/passwd")
    await runs.engine.stop(ref, 0)
    await runs.exited(ref)
    known = store.named(f"{host}/me/trainer:v1")
    assert known is not None
    locks.alone(store.shelves.image_lock(known.identity)).close()  # once its supervisor let go
    images.tidy()

    assert len(kept) == 2
    assert b"root:" in out
    assert store.shelves.listed("layers") == []


async def test_a_folder_that_a_layer_has_no_entry_for_is_as_below(
    runs: Runs, registry: SmallRegistry, host: str
) -> None:
    shell = io.BytesIO()
    docker_image.write(shell, ("sh", "cat", "stat"), python=False)
    open_to_all = archive(entry("data", "folder", mode=0o1777))
    inside = archive(entry("data/file", content=b"inside"))
    layers = (shell.getvalue(), open_to_all, inside)
    registry.image("x", *layers, tag="v1", Cmd=["sh", "-c", "stat -c %a /data; cat /data/file"])

    done = await runs.run(image=f"{host}/x:v1")

    assert done.output == b"1777\ninside"


def test_a_tag_is_asked_for_and_what_it_meant_is_kept_for_when_nobody_answers(
    images: StoredImages, registry: SmallRegistry
) -> None:
    with running(registry) as host:
        name = f"{host}/me/trainer:v1"
        registry.image("me/trainer", "old", tag="v1", Cmd=["old"])
        old = images.ready(name, None, lambda share: None, Stop())
        registry.image("me/trainer", "new", tag="v1", Cmd=["new"])
        new = images.ready(name, None, lambda share: None, Stop())
    later = images.ready(name, None, lambda share: None, Stop())

    assert [root.config.command for root in (old, new, later)] == [("old",), ("new",), ("new",)]
    for root in (old, new, later):
        root.release()


@pytest.mark.parametrize("credentials", [None, PullCredentials("me", "guessed")])
def test_an_image_of_somebody_else_is_not_found_because_it_is_here(
    images: StoredImages, registry: SmallRegistry, credentials: PullCredentials | None
) -> None:
    """Neither by its digest, nor while its registry answers nobody."""
    registry.password = "secret"
    digest = registry.image("me/trainer", "mine", tag="v1")["digest"]
    mine = PullCredentials("me", "secret")
    with running(registry) as host:
        names = [f"{host}/me/trainer:v1", f"{host}/me/trainer@{digest}"]
        for name in names:
            images.ready(name, mine, lambda share: None, Stop()).release()
            with pytest.raises(ImageRefused):
                images.ready(name, credentials, lambda share: None, Stop())

    for name in names:
        with pytest.raises(RegistryAway):
            images.ready(name, credentials, lambda share: None, Stop())


def test_why_there_is_no_image_is_of_a_kind(
    images: StoredImages, registry: SmallRegistry, host: str
) -> None:
    def error_of(name: str) -> EngineFault:
        with pytest.raises(EngineFault) as caught:
            images.ready(name, None, lambda share: None, Stop())
        return caught.value

    away = error_of("127.0.0.1:1/me/trainer")
    public = error_of("registry.invalid/me/trainer")

    assert type(error_of(f"{host}/me/none:v1")) is ImageRefused
    assert type(error_of("Not A Name")) is InvalidImageName
    assert isinstance(away, RegistryAway)
    assert isinstance(public, RegistryAway)
    assert [away.is_public, public.is_public] == [False, True]
    assert "registry.invalid cannot be reached" in str(public)
    assert images.why_away("registry.invalid") == str(public)
    assert images.why_away("127.0.0.1:1") is None  # It is nobody's but ours, and jobs wait for it.


async def test_whoever_stops_a_run_ends_its_pull(
    runs: Runs, registry: SmallRegistry, host: str, store: Store
) -> None:
    put(registry, "me/trainer")
    registry.cut_after = 1000  # it goes on, and on
    begun = spec("true", image=f"{host}/me/trainer:v1")

    start = asyncio.ensure_future(runs.engine.start(begun))
    ref = RunRef(begun.job_id)
    await runs.waits(ref)
    assert not await runs.engine.stop(ref, 0)

    with pytest.raises(EngineFault):
        await start
    assert store.shelves.listed("images") == []
