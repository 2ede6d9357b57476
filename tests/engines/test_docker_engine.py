"""What is the docker engine's own, on a real daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.docker import drafts
from neuro.engines.base import (
    Commits,
    EngineFault,
    ExitCause,
    File,
    NodesChanged,
    NotReady,
    PullCredentials,
    RunRef,
    RunState,
    Saving,
    Waiting,
    WaitReason,
)
from neuro.engines.docker import containers
from neuro.engines.docker.api import Daemon
from neuro.engines.docker.engine import DockerEngine
from neuro.engines.docker.settings import DockerSettings
from neuro.engines.sandbox import identities
from tests.engines import docker_daemon, docker_surroundings
from tests.engines.harness import KINDS, Runs, eventually, mounted, spec

pytestmark = pytest.mark.docker


@pytest_asyncio.fixture
async def runs(folder: Path) -> AsyncIterator[Runs]:
    engine = KINDS["docker"].make(folder)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


@pytest.mark.parametrize("version", ["1.11", "9.9"])
def test_a_daemon_in_the_place_of_another_is_asked_which_version_it_speaks(version: str) -> None:
    daemon = Daemon(docker_daemon.socket_path(), version)

    assert daemon.info().cores > 0
    assert daemon.image("nobody/knows") is None


async def test_a_daemon_is_told_no_secret(runs: Runs, folder: Path) -> None:
    word = "a-word-that-nobody-says"
    file = File(target="/keys/one", content=word.encode())
    script = 'echo "$TOKEN"; exec sleep 1000'
    ref = await runs.start("sh", "-c", script, secret_env={"TOKEN": word}, files=(file,))
    await runs.started(ref)
    assert await runs.says(ref.job_id, b"\n") == f"{word}\n".encode()

    (name,) = docker_daemon.docker(
        "ps", "--quiet", "--filter", f"label={containers.JOB}={ref.job_id}"
    ).stdout.split()
    shown = docker_daemon.docker("inspect", name).stdout

    assert "TOKEN=" in json.loads(shown)[0]["Config"]["Env"]
    assert word not in shown


async def test_an_image_that_cannot_be_pulled_says_why_in_the_registrys_words(runs: Runs) -> None:
    image = f"127.0.0.1:{docker_surroundings.REGISTRY}/nobody/knows:v1"

    done = await runs.run("true", image=image)

    assert (done.code, done.exited.cause) == (None, ExitCause.IMAGE_PULL)
    message = done.exited.message or ""
    assert f"the image {image} cannot be pulled: " in message
    assert "manifest unknown" in message or "not found" in message  # as the daemon's store has it
    waits = [event for event in runs.told if isinstance(event, Waiting)]
    assert {event.reason for event in waits} == {WaitReason.PULLING}


async def test_an_image_of_the_platform_is_pulled_with_credentials(runs: Runs) -> None:
    image = f"127.0.0.1:{docker_surroundings.ASKING_REGISTRY}/{docker_surroundings.IMAGE}"
    good = PullCredentials("token", docker_surroundings.PASSWORD)

    done = await runs.run("true", image=image, pull=good)
    # The daemon has it now: that is no reason to give it to anybody.
    refused = await runs.run("true", image=image, pull=PullCredentials("token", "guessed"))

    assert done.code == 0
    assert refused.exited.cause == ExitCause.IMAGE_PULL
    assert "unauthorized" in (refused.exited.message or "").lower()


async def test_an_image_of_somebody_else_is_not_found_by_digits_of_its_id(runs: Runs) -> None:
    found = json.loads(docker_daemon.docker("image", "inspect", docker_daemon.IMAGE).stdout)
    digits = found[0]["Id"].removeprefix("sha256:")[:12]

    done = await runs.run("true", image=f"sha256:{digits}")

    assert (done.code, done.exited.cause) == (None, ExitCause.IMAGE_PULL)


async def test_a_run_waits_for_a_registry_of_the_platform_that_is_away(runs: Runs) -> None:
    nobody = PullCredentials("token", "any")

    done = await runs.run("true", image="127.0.0.1:9/anna/image", pull=nobody)

    assert done.exited.cause == ExitCause.NOT_READY
    assert "the registry is away" in (done.exited.message or "")


async def test_a_name_that_no_image_can_have_is_told_apart(runs: Runs) -> None:
    done = await runs.run("true", image="Ubuntu LATEST")

    assert (done.code, done.exited.cause) == (None, ExitCause.INVALID_IMAGE)
    assert "Invalid image 'Ubuntu LATEST'" in (done.exited.message or "")


async def test_what_it_never_does_is_refused_with_a_sentence(runs: Runs) -> None:
    for options, sentence in (
        ({"privileged": True}, "the rights of this machine's root"),
        ({"control": True}, "no commands of the platform's own"),
    ):
        with pytest.raises(EngineFault, match=sentence) as refused:
            await runs.engine.start(spec("true", **options))
        assert not isinstance(refused.value, NotReady)


async def test_what_a_job_writes_to_a_volume_belongs_to_the_storage(
    runs: Runs, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "there").write_text("x")
    mounts = (mounted(source=volume, target="/data", read_only=False),)

    done = await runs.shell("stat -c %u /data /data/there; touch /data/new", volumes=mounts)

    assert done.lines == ["0", "0"]
    assert (volume / "new").stat().st_uid == identities.STORAGE


async def test_an_image_may_have_a_user_and_a_command_of_its_own(runs: Runs) -> None:
    made = docker_daemon.docker("create", docker_daemon.IMAGE).stdout.strip()
    changes = ["USER nobody", 'ENTRYPOINT ["sh", "-c"]', 'CMD ["id -u; echo seen > /dev/tty"]']
    options = [word for change in changes for word in ("--change", change)]
    docker_daemon.docker("commit", *options, made, "tests/nobody")
    docker_daemon.docker("rm", made)

    done = await runs.run(image="tests/nobody", tty=True)
    ref = await runs.start("600", entrypoint=("sleep",), image="tests/nobody")

    assert done.lines == ["65534", "seen"]
    assert await runs.execute(ref, "id", "-u") == (0, b"65534\n", b"")


async def test_the_words_of_a_run_go_to_the_entrypoint_of_its_image(runs: Runs) -> None:
    made = docker_daemon.docker("create", docker_daemon.IMAGE).stdout.strip()
    changes = ('ENTRYPOINT ["echo", "own"]', 'CMD ["default"]')
    options = [word for change in changes for word in ("--change", change)]
    docker_daemon.docker("commit", *options, made, "tests/echo")
    docker_daemon.docker("rm", made)

    async def lines(*argv: str, entrypoint: tuple[str, ...] | None = None) -> list[str]:
        return (await runs.run(*argv, entrypoint=entrypoint, image="tests/echo")).lines

    assert await lines() == ["own default"]
    assert await lines("mine") == ["own mine"]
    assert await lines(entrypoint=("echo", "other")) == ["other"]
    assert await lines("mine", entrypoint=("echo", "other")) == ["other mine"]
    assert await lines("echo", "alone", entrypoint=()) == ["alone"]


async def test_an_image_of_a_run_has_the_command_of_its_own_image_and_no_secrets(
    runs: Runs,
) -> None:
    ref = await runs.start(
        "sh", "-c", "echo ready; sleep 600", env={"TOKEN": "hush", "PATH": "/bin"}
    )
    await runs.says(ref.job_id, b"ready")

    assert isinstance(runs.engine, Commits)
    kept = f"127.0.0.1:{docker_surroundings.PUSHES}/tests/kept:1"
    saving = Saving(image=kept, push=PullCredentials("me", "hush"), base="")
    await runs.engine.commit(ref.job_id, saving, lambda step: None)
    assert docker_daemon.docker("images", "-q", kept).stdout == ""
    docker_daemon.docker("pull", kept)

    (image,) = json.loads(docker_daemon.docker("inspect", kept).stdout)
    config = image["Config"]
    assert (config["Entrypoint"] or None, config["Cmd"]) == (None, ["bash"])
    assert "hush" not in json.dumps(image)
    assert not any(config["Labels"].values())
    done = await runs.run("sh", "-c", "echo $PATH", image=kept)
    docker_daemon.docker("rmi", kept)
    assert "/usr/bin" in done.output.decode()


async def test_a_link_in_the_place_of_a_volume_is_not_followed(runs: Runs, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc")

    done = await runs.run("true", volumes=(mounted(source=link, target="/data"),))

    assert done.exited.cause == ExitCause.CANNOT_START
    assert "/data" in (done.exited.message or "")


async def test_a_run_that_writes_more_private_files_than_it_may_is_ended(runs: Runs) -> None:
    fills = "head -c 40000000 /dev/zero > /var/tmp/x; echo full; sleep 600"

    # Where others free as much of the disk at that moment, it is noticed a minute later.
    done = await runs.shell(fills, disk=20 << 20, patience=100)

    assert (done.code, done.exited.cause) == (137, ExitCause.DISK_LIMIT)
    assert "full" in done.lines


async def test_a_container_that_somebody_removes_is_a_lost_run(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "echo ready; sleep 600")
    await runs.says(ref.job_id, b"ready")

    found = docker_daemon.docker("ps", "-aq", "--filter", f"label=neuro.job={ref.job_id}")
    docker_daemon.docker("rm", "--force", found.stdout.strip())
    exited = await runs.exited(ref)

    assert (exited.exit_code, exited.cause) == (None, ExitCause.LOST)
    assert await runs.output(ref.job_id, follow=True) == b"ready\n"


async def test_nothing_is_left_in_the_daemon_and_on_the_machine(
    folder: Path, tmp_path: Path
) -> None:
    kind = KINDS["docker"]
    engine = kind.make(folder)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    mounts = (mounted(source=tmp_path, target="/data"),)
    done = await runs.run("true", neighbours="alice", names=("one",), volumes=mounts)
    await runs.engine.remove(done.ref.job_id)
    await runs.close()

    identity = json.loads((folder / "installation").read_text())["id"]
    label = f"label=neuro.installation={identity}"
    assert docker_daemon.docker("network", "ls", "-q", "--filter", label).stdout == ""
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    await eventually(lambda: not kind.traces(folder), "something is left")


async def test_a_daemon_that_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    settings = DockerSettings(host=f"unix://{tmp_path}/nothing")

    with pytest.raises(EngineFault, match=r"does not answer .* start it"):
        await DockerEngine(tmp_path / "engine", settings).open()


async def test_a_run_that_is_stopped_while_it_is_pulled_never_begins(
    runs: Runs, tmp_path: Path
) -> None:
    async with silent_registry(tmp_path) as address:
        begun = spec("true", image=f"{address}/slow/image")
        ref = RunRef(begun.job_id)
        await runs.engine.start(begun)

        assert await runs.engine.stop(ref, 60)
        exited = await runs.exited(ref)

    assert (exited.exit_code, exited.cause) == (143, ExitCause.ERROR)
    assert exited.message == "it was stopped before it began"


async def test_a_run_that_is_pulled_waits_for_whoever_compares(runs: Runs, tmp_path: Path) -> None:
    async with silent_registry(tmp_path) as address:
        begun = spec("true", image=f"{address}/slow/image")
        ref = RunRef(begun.job_id)
        await runs.engine.start(begun)
        await eventually(lambda: bool(runs.told), "it does not say that it waits")

        states = await runs.engine.resync([ref])
        await runs.engine.stop(ref, 0)
        await runs.exited(ref)

    waiting = runs.told[0]
    assert isinstance(waiting, Waiting)
    assert states == {ref: RunState(waiting=waiting)}


@contextlib.asynccontextmanager
async def silent_registry(folder: Path) -> AsyncIterator[str]:
    """One in the daemon's network that says nothing."""
    program = (
        "import socket, sys\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\nsys.stdin.read()"
    )
    daemon = docker_daemon.process()
    process = await asyncio.create_subprocess_exec(
        *("nsenter", "--net", "--target", str(daemon), "python3", "-c", program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def test_a_daemon_that_is_started_late_or_anew_is_met_when_it_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuro.engines.docker.engine._LOOK_SECONDS", 0.02)
    socket = tmp_path / "socket"
    engine = DockerEngine(folder, DockerSettings(host=f"unix://{socket}"))

    for _ in range(2):
        with pytest.raises(NotReady, match=f"the Docker daemon at {socket} does not answer"):
            await engine.open()
    socket.symlink_to(docker_daemon.socket_path())
    await engine.open()
    try:
        await engine.adopt([])
        (node,) = await engine.nodes()
        assert node.cpu > 0
        told = engine.events()

        socket.unlink()
        assert await anext(told) == NodesChanged()
        with pytest.raises(NotReady, match="does not answer"):
            await engine.nodes()

        socket.symlink_to(docker_daemon.socket_path())
        assert await anext(told) == NodesChanged()
        assert await engine.nodes() == [node]
    finally:
        await engine.close()


async def test_images_that_a_killed_save_or_build_has_left_go_when_the_engine_opens(
    runs: Runs,
) -> None:
    old, new = f"{drafts.REPOSITORY}:1000000000-left", drafts.new_draft(time.time())
    (some,) = docker_daemon.docker("images", "-q").stdout.split()[:1]
    for name in (old, new):
        docker_daemon.docker("tag", some, name)

    await runs.engine.adopt([])

    assert Daemon(docker_daemon.socket_path()).names_in(drafts.REPOSITORY) == [new]
    docker_daemon.docker("rmi", "--no-prune", new)
