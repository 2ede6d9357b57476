"""A run that goes on becomes an image in a registry, from which later runs begin."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import EngineFault, File, NotReady, PullCredentials, RunNotFound, SaveStep
from neuro.engines.images import tar
from neuro.engines.images.composing import NewLayer, image_of
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import packing_seconds
from neuro.engines.images.manifests import Manifest, read_manifest
from neuro.engines.images.packing import Part, pack
from neuro.engines.images.processes import LayerProcess
from neuro.engines.images.pushing import OfBytes, Push
from neuro.engines.images.reach import plain
from neuro.engines.images.references import parse
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.store import Store
from neuro.engines.runs import Saving
from neuro.engines.sandbox import SandboxEngine, saving
from neuro.engines.sandbox.stored_images import StoredImages
from tests.engines import made_images
from tests.engines.archives import entry, layer
from tests.engines.harness import EVERYWHERE, Runs, mounted
from tests.engines.small_registry import digest_of, running
from tests.engines.taking_registry import TakingRegistry

ME = PullCredentials("me", "secret")


@pytest.fixture
def registry() -> TakingRegistry:
    return TakingRegistry()


@pytest.fixture
def host(registry: TakingRegistry) -> Iterator[str]:
    with running(registry) as address:
        yield address


@pytest_asyncio.fixture
async def runs(tmp_path: Path, host: str) -> AsyncIterator[Runs]:
    images = StoredImages(Store(str(tmp_path / "images")), 1 << 40, plain(host))
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE, images=images)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


@pytest.fixture(scope="session")
def userland_layer() -> tuple[NewLayer, bytes]:
    """Some programs, as a layer."""
    blob = io.BytesIO()
    fd = os.open(made_images.userland().layers[0], os.O_PATH | os.O_DIRECTORY)
    made = pack([Part(fd)], blob.write)
    os.close(fd)
    return NewLayer(made.digest, made.size, made.diff_id), blob.getvalue()


@pytest.fixture
def base(host: str, userland_layer: tuple[NewLayer, bytes]) -> str:
    """An image with programs and the file /data/low."""
    programs, body = userland_layer
    blob, diff_id = layer(entry("data", "folder"), entry("data/low", content=b"low\n"))
    low = NewLayer(digest_of(blob), len(blob), diff_id)
    image = image_of(None, [programs, low], {"Env": ["OF_BASE=1"]}, created="2026-01-02T03:04:05Z")
    reference = parse(f"{host}/base:v1")
    push = Push(Registry(reference, None, plain(host)), reference)
    push.run(image, {programs.digest: OfBytes(body), low.digest: OfBytes(blob)})
    return str(reference)


async def began(runs: Runs, script: str, **options: object) -> str:
    """The job of a run that goes on and has done this."""
    ref = await runs.start("sh", "-c", f"set -e; {script}; echo ready; sleep 600", **options)
    await runs.says(ref.job_id, b"ready")
    return ref.job_id


def layer_names(registry: TakingRegistry, repository: str, tag: str = "v1") -> dict[str, tar.Entry]:
    """What is in the uppermost layer of an image."""
    kind, body = registry.manifest(repository, tag)
    manifest = read_manifest(body, kind)
    assert isinstance(manifest, Manifest)
    plain = gzip.decompress(registry.blobs[manifest.layers[-1].digest])
    return {one.name.decode().rstrip("/"): one for one in tar.Archive(iter([plain]))}


def config_of(registry: TakingRegistry, repository: str) -> dict[str, object]:
    document = json.loads(registry.manifest(repository, "v1")[1])
    config = json.loads(registry.blobs[document["config"]["digest"]])
    assert isinstance(config, dict)
    return config


async def save(runs: Runs, job_id: str, image: str, base: str = "ubuntu") -> list[SaveStep]:
    told: list[SaveStep] = []
    assert isinstance(runs.engine, SandboxEngine)
    await runs.engine.commit(job_id, Saving(image=image, push=ME, base=base), told.append)
    return told


async def test_a_later_run_begins_with_the_files_of_the_one_that_was_saved(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    script = "rm /data/low; mkdir /made; echo kept > /made/file; chmod 640 /made/file"
    job_id = await began(runs, script, image=base)

    told = await save(runs, job_id, f"{host}/mine:v1", base)
    done = await runs.shell(
        "cat /made/file; stat -c '%a %u' /made/file; echo /data/*; echo $OF_BASE",
        image=f"{host}/mine:v1",
    )

    assert done.lines == ["kept", "640 0", "/data/*", "1"]
    assert [step.share for step in told][-1] == 1.0
    assert {"made", "made/file", "data", "data/.wh.low"} <= set(layer_names(registry, "mine"))
    assert (await runs.shell("cat /data/low", image=base)).lines == ["low"]


async def test_what_was_given_to_a_run_is_not_in_its_image(
    runs: Runs, registry: TakingRegistry, host: str, base: str, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("of the storage")
    job_id = await began(
        runs,
        "echo own > /run/own; echo x > /dev/shm/x; echo more >> /etc/hosts",
        image=base,
        files=(File(target="/secrets/key", content=b"hush-hush"),),
        volumes=(mounted(source=tmp_path / "shared", target="/shared"),),
        env={"PASSWORD": "hush-hush"},
    )

    await save(runs, job_id, f"{host}/mine:v1", base)

    found = layer_names(registry, "mine")
    assert found["secrets/key"].size == 0
    assert "shared/file" not in found
    assert not {"etc/hosts", "etc/hostname", "etc/resolv.conf"} & set(found)
    assert not [name for name in found if name.startswith(("proc", "sys", "dev"))]
    assert not [body for body in registry.blobs.values() if b"hush-hush" in _plain(body)]


def _plain(body: bytes) -> bytes:
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


async def test_an_image_of_a_run_on_the_machines_userland_says_so(
    runs: Runs, registry: TakingRegistry, host: str
) -> None:
    job_id = await began(
        runs, "echo 1 > /made; echo 2 > /usr/made; echo 3 > /etc/made", image="host"
    )

    await save(runs, job_id, f"{host}/mine:v1", "host")

    found = layer_names(registry, "mine")
    assert {"made", "usr/made", "etc/made"} <= set(found)
    assert "etc/hosts" not in found
    assert (found["usr/made"].user, found["usr/made"].size) == (0, 2)
    config = config_of(registry, "mine")
    assert config["config"] == {"Labels": {"neuro.base": "host"}}


async def test_it_lies_on_the_image_that_the_run_began_from_though_its_tag_has_moved(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    job_id = await began(runs, "echo kept > /made", image=base)
    registry.image("base", "another", tag="v1")

    await save(runs, job_id, f"{host}/mine:v1", base)

    done = await runs.shell("cat /made /data/low", image=f"{host}/mine:v1")
    assert done.lines == ["kept", "low"]


async def test_it_lies_on_the_blobs_of_its_own_registry_though_others_have_the_same_image(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    job_id = await began(runs, "echo kept > /made", image=base)
    document = json.loads(registry.manifest("base", "v1")[1])
    packed = document["layers"][-1]
    again = gzip.compress(gzip.decompress(registry.blobs[packed["digest"]]), 1)
    packed |= {"digest": digest_of(again), "size": len(again)}
    registry.blobs[packed["digest"]] = again
    registry.document("theirs", document, document["mediaType"], "v1")
    assert (await runs.shell("cat /data/low", image=f"{host}/theirs:v1")).lines == ["low"]

    await save(runs, job_id, f"{host}/mine:v1", base)

    mine = json.loads(registry.manifest("mine", "v1")[1])
    assert mine["layers"][:-1] == json.loads(registry.manifest("base", "v1")[1])["layers"]


@pytest.mark.root
async def test_owners_in_an_image_are_those_in_the_run(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    job_id = await began(
        runs, "echo 1 > /a; chown 33:44 /a; echo 1 > /b", image=base, privileged=True
    )

    await save(runs, job_id, f"{host}/mine:v1", base)

    found = layer_names(registry, "mine")
    assert (found["a"].user, found["a"].group) == (33, 44)
    assert (found["b"].user, found["b"].group) == (0, 0)


async def test_only_what_runs_is_saved(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    done = await runs.run("true", image=base)

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await save(runs, job_id, f"{host}/mine:v1", base)

    assert not [line for line in registry.asked if "mine" in line]


async def test_who_gives_up_leaves_nothing_and_the_run_goes_on(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    job_id = await began(runs, "head -c 30000000 /dev/urandom > /large", image=base)
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    wanted = Saving(image=f"{host}/mine:v1", push=ME, base=base)

    assert isinstance(runs.engine, SandboxEngine)
    task = asyncio.create_task(
        runs.engine.commit(job_id, wanted, lambda step: loop.call_soon_threadsafe(begun.set))
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    with pytest.raises(KeyError):
        registry.manifest("mine", "v1")
    await save(runs, job_id, f"{host}/mine:v1", base)
    assert layer_names(registry, "mine")["large"].size == 30_000_000


async def test_why_it_cannot_be_saved_is_told(
    runs: Runs, registry: TakingRegistry, host: str, base: str
) -> None:
    job_id = await began(runs, "echo x > /.wh.x", image=base)
    with pytest.raises(EngineFault, match=r"cannot be saved\. /\.wh\.x cannot be in an image"):
        await save(runs, job_id, f"{host}/mine:v1", base)

    job_id = await began(runs, "echo x > /x", image=base)
    registry.fails["/v2/mine/blobs/uploads/"] = 403, b'{"errors": [{"message": "it is not yours"}]}'
    with pytest.raises(EngineFault, match=r"does not let you push .*: it is not yours"):
        await save(runs, job_id, f"{host}/mine:v1", base)
    registry.fails["/v2/mine/blobs/uploads/"] = 507, b'{"errors": [{"message": "it is full"}]}'
    with pytest.raises(NotReady, match="has no room: it is full"):
        await save(runs, job_id, f"{host}/mine:v1", base)


async def test_no_job_is_saved_on_a_disk_that_is_almost_full(
    runs: Runs, registry: TakingRegistry, host: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "spare_of", lambda disk: 1 << 60)
    job_id = await began(runs, "echo x > /x", image=base)

    with pytest.raises(NotReady, match=r"cannot be saved\. There is no room on the disk"):
        await save(runs, job_id, f"{host}/mine:v1", base)


def packing(folder: Path, blob: int, **order: int) -> LayerProcess:
    words = {"parts": [[".", ""]], "without": [], "base": 0, "seconds": 300, "spare": 0, **order}
    return LayerProcess("packer", (blob,), str(folder), json.dumps(words))


def test_a_disk_that_fills_while_a_layer_is_packed_ends_it(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_bytes(os.urandom(5 << 20))

    with open(tmp_path / "blob", "wb") as blob, pytest.raises(ImageFault) as caught:
        packing(tmp_path / "files", blob.fileno(), spare=1 << 60).wait()

    assert caught.value.kind is FaultKind.NO_ROOM
    assert (tmp_path / "blob").stat().st_size == 0


def test_holes_cost_no_more_than_the_processor_time_of_what_is_on_the_disk(
    tmp_path: Path,
) -> None:
    (tmp_path / "files").mkdir()
    with open(tmp_path / "files" / "sparse", "wb") as file:
        file.truncate(64 << 30)

    with open(tmp_path / "blob", "wb") as blob, pytest.raises(ImageFault, match="processor time"):
        packing(tmp_path / "files", blob.fileno(), seconds=1).wait()

    assert packing_seconds(0) < 600
    assert packing_seconds(80 << 30) < 4 * 3600
