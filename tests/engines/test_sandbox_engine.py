"""What only the sandbox engine promises: its zygote, its secrets, its devices, its footprint."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
import resource
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.domain.uris import ResourceURI
from neuro.engines.base import (
    EngineFault,
    ExitCause,
    NotReady,
    RunRef,
    RunSpec,
    RunState,
    Volume,
)
from neuro.engines.sandbox import (
    SandboxEngine,
    SandboxSettings,
    adoption,
    connections,
    inside,
    layout,
    measuring,
)
from neuro.engines.sandbox.ending import ExitRecord
from neuro.engines.storage import Storage
from tests.engines import made_images
from tests.engines.contract.test_network import SERVER, free_port, serve
from tests.engines.harness import (
    EVERYWHERE,
    Runs,
    eventually,
    mounted,
    put_into_storage,
    spec,
)
from tests.engines.made_images import MadeImages

# Two GPUs, one of which is divided and so has no utilization; it knows no others.
NVIDIA_SMI = """#!/bin/sh
for last in "$@"; do :; done
for address in $(echo "$last" | tr , ' '); do
  case $address in
    0000:01:00.0) echo "80, 1000" ;;
    0000:21:00.0) echo "[N/A], 500" ;;
    *) echo "No devices were found"; exit 6 ;;
  esac
done
"""
BUDGET = 5 << 20  # bytes of memory for what supervises one run


@pytest_asyncio.fixture
async def sandbox(folder: Path, tmp_path: Path) -> AsyncIterator[Runs]:
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "sda"):
        if os.geteuid() == 0:
            os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        else:
            (devices / name).touch()
    (devices / "nvidia-caps").mkdir()  # as the driver makes it
    (devices / "nvidia-caps" / "nvidia-cap1").touch()
    visible = tmp_path / "visible"
    (visible / "hidden").mkdir(parents=True)
    (visible / "shown").write_text("shown\n")
    (visible / "hidden" / "file").write_text("hidden\n")
    settings = SandboxSettings(
        device_folder=str(devices), visible=(str(visible),), masked=(str(visible / "hidden"),)
    )
    engine = SandboxEngine(folder, settings, EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    yield runs
    await runs.stop_all()
    await runs.close()


def processes(name: str, folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = process.joinpath("cmdline").read_bytes().split(b"\0")
            if process.joinpath("comm").read_text().strip() == name and (
                str(folder).encode() in words
            ):
                found.append(int(process.name))
        except OSError:
            continue
    return found


async def test_the_zygote_may_be_killed_at_any_time(sandbox: Runs, folder: Path) -> None:
    going = await sandbox.start("sh", "-c", "sleep 1; exit 3")
    (zygote,) = processes("neuro-zygote", folder)

    os.kill(zygote, signal.SIGKILL)
    done = await sandbox.run("echo", "after")

    assert done.output == b"after\n"
    assert (await sandbox.exited(going)).exit_code == 3
    assert processes("neuro-zygote", folder) != [zygote]


async def test_a_zygote_that_cannot_be_replaced_at_first_is_replaced_later(
    sandbox: Runs, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (zygote,) = processes("neuro-zygote", folder)
    lock = folder / "zygote.lock"
    lock.unlink()
    lock.mkdir()  # the next one ends at once
    os.kill(zygote, signal.SIGKILL)
    await eventually(lambda: "trying again" in caplog.text, "no failed start was logged")

    lock.rmdir()
    async with asyncio.timeout(30):
        done = await sandbox.run("echo", "after")

    assert done.output == b"after\n"


async def test_a_run_that_is_stopped_while_its_start_is_under_way_is_ended(
    sandbox: Runs, folder: Path
) -> None:
    (zygote,) = processes("neuro-zygote", folder)
    wanted = spec("sleep", "600")
    ref = RunRef(wanted.job_id)
    os.kill(zygote, signal.SIGSTOP)
    starting = asyncio.create_task(sandbox.engine.start(wanted))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(sandbox.engine.stop(ref, 0))
    await asyncio.sleep(0)

    os.kill(zygote, signal.SIGCONT)

    await starting
    assert await stopping
    assert (await sandbox.exited(ref)).exit_code in (137, 143)


async def test_a_run_that_is_stopped_while_nobody_can_start_it_never_begins(
    sandbox: Runs, folder: Path
) -> None:
    (zygote,) = processes("neuro-zygote", folder)
    wanted = spec("echo", "here")
    lock = folder / "zygote.lock"
    lock.unlink()
    lock.mkdir()  # the next one ends at once
    os.kill(zygote, signal.SIGKILL)

    with pytest.raises(NotReady, match="failed at once"):
        await sandbox.engine.start(wanted)
    assert not await sandbox.engine.stop(RunRef(wanted.job_id), 0)
    lock.rmdir()
    async with asyncio.timeout(30):
        done = await sandbox.run("echo", "after")

    assert done.output == b"after\n"
    assert not (folder / "jobs" / wanted.job_id).exists()


async def another_life(folder: Path, *argv: str) -> tuple[RunRef, Runs]:
    """A run that goes on, and the engine of a next server, which has not looked for it yet."""
    first = SandboxEngine(folder)
    await first.open()
    await first.adopt([])
    runs = Runs(first)
    ref = await runs.start(*argv)
    await runs.close()
    second = SandboxEngine(folder)
    await second.open()
    return ref, Runs(second)


async def test_a_run_that_nobody_has_taken_over_is_stopped(folder: Path) -> None:
    ref, runs = await another_life(folder, "sleep", "600")

    assert await runs.engine.stop(ref, 0)

    assert (await runs.exited(ref)).exit_code in (137, 143)
    await runs.close()


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """This process can open ``count`` more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]
    for number in free:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_run_is_not_lost_where_the_server_has_no_descriptors_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "LOOK_SECONDS", 0.5)
    ref, runs = await another_life(folder, "sleep", "600")

    with free_descriptors(1):  # enough to read files one by one
        states = await runs.engine.adopt([ref])
        stopping = asyncio.create_task(runs.engine.stop(ref, 0))
        await asyncio.sleep(0)

    assert states == {ref: RunState(trouble="Too many open files")}
    await runs.started(ref)
    assert await stopping
    assert (await runs.exited(ref)).cause is ExitCause.ERROR
    await runs.close()


async def test_runs_are_looked_for_until_the_server_has_a_descriptor_to_do_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ref, runs = await another_life(folder, "sleep", "600")

    with free_descriptors(0):
        adopting = asyncio.create_task(runs.engine.adopt([ref]))
        await eventually(lambda: "cannot be found yet" in caplog.text, "it does not wait")
    states = await adopting

    assert states[ref].started is not None
    assert states[ref].exited is None
    await runs.engine.stop(ref, 0)
    await runs.exited(ref)
    await runs.close()


async def test_the_umask_of_the_server_closes_nothing_to_the_users_of_a_job(folder: Path) -> None:
    engine = SandboxEngine(folder)
    before = os.umask(0o077)
    try:
        await engine.open()
    finally:
        os.umask(before)
    await engine.adopt([])
    runs = Runs(engine)

    done = await runs.shell("stat -Lc '%a' / /etc /usr /home /var/lib /etc/resolv.conf /tmp; umask")
    await runs.close()

    assert done.lines == [*["755"] * 5, "644", "1777", "0022"]


async def test_a_run_opens_its_streams_by_their_names(sandbox: Runs) -> None:
    script = "echo one > /dev/stdout; echo two > /dev/stderr; cat < /dev/stdin"

    done = await sandbox.shell(script)
    ref = await sandbox.start("sleep", "600")
    executed = await sandbox.execute(ref, "sh", "-c", script.partition("; cat")[0])

    assert done.lines == ["one", "two"]
    assert executed == (0, b"one\n", b"two\n")


async def test_the_zygote_goes_with_its_engine(folder: Path) -> None:
    engine = SandboxEngine(folder)
    await engine.open()
    assert processes("neuro-zygote", folder)

    await engine.close()

    assert not processes("neuro-zygote", folder)


@pytest.mark.slow
async def test_two_servers_on_one_folder_are_refused(sandbox: Runs, folder: Path) -> None:
    second = SandboxEngine(folder)

    with pytest.raises(EngineFault, match="another server"):
        await second.open()


async def test_no_command_line_and_no_environment_tells_a_secret(sandbox: Runs) -> None:
    script = "echo ready; exec sleep 600"
    ref = await sandbox.start("sh", "-c", script, env={"PASSWORD": "hush-hush"})
    await sandbox.says(ref.job_id, b"ready")

    telling = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, name = process.joinpath("cmdline").read_bytes(), (process / "comm").read_text()
            inherited = process.joinpath("environ").read_bytes()
        except OSError:
            continue
        if b"hush-hush" in line or (
            b"hush-hush" in inherited and name.strip() not in ("sh", "sleep")
        ):
            telling.append(name)
    assert telling == []
    await sandbox.engine.stop(ref, 0)


async def test_no_file_of_the_engine_tells_a_secret(sandbox: Runs, folder: Path) -> None:
    await sandbox.start("sleep", "600", env={"PASSWORD": "hush-hush"})

    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert not [path for path in files if b"hush-hush" in path.read_bytes()]


async def test_a_job_sees_exactly_its_gpus(sandbox: Runs) -> None:
    none = await sandbox.shell("ls /dev | grep nvidia; true")
    some = await sandbox.shell(
        "ls /dev | grep nvidia; ls /dev/nvidia-caps; echo $NVIDIA_VISIBLE_DEVICES; ls /dev/sda",
        gpus=("0", "2"),
    )

    assert none.output == b""
    names = ["nvidia-caps", "nvidia-uvm", "nvidia0", "nvidia2", "nvidiactl", "nvidia-cap1"]
    assert some.lines[:7] == [*names, "0,2"]
    assert "No such file" in some.lines[7]
    assert [node.gpus for node in await sandbox.engine.nodes()] == [("0", "1", "2")]


async def test_what_a_run_uses_of_its_gpus_is_asked_by_their_addresses(
    sandbox: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, programs = tmp_path / "driver", tmp_path / "programs"
    for minor, address in ((0, "0000:41:00.0"), (1, "0000:21:00.0"), (2, "0000:01:00.0")):
        (driver / address).mkdir(parents=True)
        (driver / address / "information").write_text(f"Model: \t H1\nDevice Minor: \t {minor}\n")
    programs.mkdir()
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(measuring, "DRIVER_FOLDER", driver)

    used = {}
    for gpus in ((), ("2",), ("1",), ("1", "2"), ("0",)):
        ref = await sandbox.start("sleep", "1000", gpus=gpus)
        usage = await sandbox.engine.usage(ref.job_id)  # type: ignore[attr-defined]
        used[gpus] = usage.gpu_utilization, usage.gpu_memory

    assert used == {
        (): (None, None),
        ("2",): (80, 1000 << 20),
        ("1",): (None, 500 << 20),
        ("1", "2"): (80, 1500 << 20),
        ("0",): (None, None),
    }


async def test_a_gpu_that_is_not_there_cannot_start_and_says_so(sandbox: Runs) -> None:
    done = await sandbox.run("true", gpus=("7",))

    assert done.exited.cause == ExitCause.CANNOT_START
    assert "nvidia7" in (done.exited.message or "")


async def test_visible_folders_are_read_only_and_masked_ones_empty(
    sandbox: Runs, tmp_path: Path
) -> None:
    place = tmp_path / "visible"

    done = await sandbox.shell(f"cat {place}/shown; ls -A {place}/hidden; echo x > {place}/new")

    assert done.lines[0] == "shown"
    assert len(done.lines) == 2  # nothing is listed, and the write is refused
    assert "Read-only" in done.lines[1] or "denied" in done.lines[1]


@pytest.mark.root
async def test_what_only_some_users_may_read_is_not_there(sandbox: Runs) -> None:
    done = await sandbox.shell("find /etc /opt -maxdepth 2 ! -type l ! -perm -o=r; true")

    assert done.output == b""


async def test_supervision_of_a_sleeping_run_is_small(sandbox: Runs, folder: Path) -> None:
    refs = [await sandbox.start("sleep", "600") for _ in range(20)]

    supervisors = processes("neuro-job", folder)
    assert len(supervisors) == len(refs)
    together = supervisors + [child for pid in supervisors for child in _sandboxes(pid)]
    assert sum(map(_proportional, together)) / len(refs) < BUDGET


def _sandboxes(pid: int) -> list[int]:
    """The first processes of runs, below a supervisor."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "neuro-init":
            found += [int(child), *_sandboxes(int(child))]
    return found


def _proportional(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@pytest.mark.root
async def test_networks_leave_nothing_behind(sandbox: Runs) -> None:
    if sandbox.engine.notices:  # type: ignore[attr-defined]
        pytest.skip("jobs share the host's network here")
    ref = await sandbox.start("sh", "-c", "hostname -i; sleep 600")
    address = (await sandbox.says(ref.job_id, b"\n")).decode().strip()
    assert address in _routes()

    await sandbox.engine.stop(ref, 0)
    await sandbox.exited(ref)

    await eventually(lambda: address not in _routes(), "the route is still there")


def _routes() -> str:
    return subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout


async def test_a_port_that_is_taken_is_explained(folder: Path) -> None:
    engine = SandboxEngine(folder, SandboxSettings(network="shared"))
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    port = free_port()
    await serve(runs, port, "a")

    done = await runs.run("python3", "-c", SERVER, str(port), "b")

    assert done.code == 1
    assert "share the host's network" in (done.exited.message or "")
    await runs.stop_all()
    await runs.close()


@pytest.mark.root
async def test_the_last_one_turns_the_rules_off(folder: Path) -> None:
    engine = SandboxEngine(folder)
    await engine.open()
    await engine.adopt([])
    if engine.notices:
        pytest.skip("jobs share the host's network here")
    identity = re.search(r'"id": "(\w+)"', (folder / "installation").read_text())
    assert identity is not None
    assert identity[1] in _rules()

    await engine.start(begun := spec("sleep", "600"))
    await engine.close()
    assert identity[1] in _rules()  # a run goes on
    again = SandboxEngine(folder)
    await again.open()
    await again.adopt([RunRef(begun.job_id)])
    runs = Runs(again)
    await again.stop(RunRef(begun.job_id), 0)
    await runs.exited(RunRef(begun.job_id))
    await runs.close()

    assert identity[1] not in _rules()


def _rules() -> str:
    return subprocess.run(
        ["nft", "list", "tables"], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.root
async def test_a_disk_that_cannot_hold_layers_gives_a_read_only_userland(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "disk"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    _run("mount", "-t", "overlay", "-o", options, "none", str(tmp_path / "disk"))
    try:
        settings = SandboxSettings(shared_ids=True)  # overlayfs cannot map users either
        images = MadeImages(image=made_images.userland())
        engine = SandboxEngine(tmp_path / "disk" / "engine", settings, images=images)
        await engine.open()
        await engine.adopt([])
        runs = Runs(engine)

        script = "echo x > /tmp/x && cat /tmp/x /etc/hostname; echo x > /usr/x"
        done = await runs.shell(script, image="host")
        in_memory = await runs.shell(f"{script} && cat /usr/x", image="image")
        private = await runs.shell(
            "cat /etc/shadow /etc/*/sudoers* 2>/dev/null; ls -A /etc/ssl/private 2>/dev/null",
            image="host",
        )

        assert any("cannot hold" in notice for notice in engine.notices)
        assert done.lines[:2] == ["x", "job"]
        assert "Read-only" in done.lines[2]
        assert in_memory.lines == ["x", "job", "x"]
        assert private.output == b""
        await runs.close()
    finally:
        _run("umount", "-l", str(tmp_path / "disk"))


@pytest.fixture
def unmapped(tmp_path: Path) -> Iterator[Storage]:
    """A storage on a file system whose files belong to the same user in every mount."""
    place = tmp_path / "storage"
    place.mkdir()
    _run("mount", "-t", "ramfs", "none", str(place))
    (place / "data").mkdir()
    put_into_storage(place)
    yield Storage("tests", place)
    _run("umount", "-l", str(place))


@pytest.mark.root
async def test_a_storage_that_cannot_be_mounted_in_jobs_is_told_at_the_start(
    folder: Path, unmapped: Storage
) -> None:
    engine = SandboxEngine(folder, SandboxSettings(), unmapped)

    told = f"the file system of {unmapped.folder} does not let files belong .*shared_ids = true"
    with pytest.raises(EngineFault, match=told):
        await engine.open()


@pytest.mark.root
async def test_jobs_that_are_one_user_need_no_storage_that_maps_users(
    folder: Path, unmapped: Storage
) -> None:
    engine = SandboxEngine(folder, SandboxSettings(shared_ids=True), unmapped)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)

    source = ResourceURI("storage", unmapped.cluster, ("data",))
    volume = Volume(source=source, target="/data", read_only=False)
    done = await runs.shell("echo written > /data/file", volumes=(volume,))

    assert any("the storage's file system cannot map users" in it for it in engine.notices)
    assert done.code == 0
    assert (unmapped.folder / "data" / "file").read_text() == "written\n"
    await runs.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


async def test_long_paths_are_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20) / "engine"
    engine = SandboxEngine(folder)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)

    assert (await runs.run("echo", "hello")).output == b"hello\n"
    await runs.close()


async def test_a_run_waits_for_a_server_that_has_no_descriptors_left(
    sandbox: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = spec("echo", "late")
    await sandbox.run("true")

    with free_descriptors(0):
        starting = asyncio.create_task(sandbox.engine.start(wanted))
        await eventually(lambda: "no connection to" in caplog.text, "it does not wait")
    await starting

    done = await sandbox.finished(RunRef(wanted.job_id))
    assert (done.code, done.output) == (0, b"late\n")


async def test_a_start_for_which_the_zygote_has_no_descriptors_leaves_nothing(
    sandbox: Runs, folder: Path
) -> None:
    await sandbox.run("true")
    (zygote,) = processes("neuro-zygote", folder)
    limits = resource.prlimit(zygote, resource.RLIMIT_NOFILE)
    wanted = spec("echo", "late")
    refusals = []

    for free in itertools.count():
        numbers = {int(one.name) for one in Path(f"/proc/{zygote}/fd").iterdir()}
        lowest = sorted(set(range(1024)) - numbers)[free]  # from there on none can be opened
        resource.prlimit(zygote, resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            await sandbox.engine.start(wanted)
            break
        except NotReady as error:
            refusals.append(str(error))
        finally:
            resource.prlimit(zygote, resource.RLIMIT_NOFILE, limits)
        assert os.listdir(folder / "jobs" / wanted.job_id / "runs") == []

    done = await sandbox.finished(RunRef(wanted.job_id))
    assert (done.code, done.output) == (0, b"late\n")
    assert refusals
    assert all("Too many open files" in one for one in refusals)


async def test_a_claim_that_a_killed_zygote_left_keeps_no_run_from_beginning(
    sandbox: Runs, folder: Path
) -> None:
    (zygote,) = processes("neuro-zygote", folder)
    wanted = spec("echo", "here")
    claim = folder / "jobs" / wanted.job_id / "runs" / f".0.{zygote}"
    claim.mkdir(parents=True)
    layout.listen(str(claim)).close()

    await sandbox.engine.start(wanted)

    assert (await sandbox.finished(RunRef(wanted.job_id))).output == b"here\n"
    assert not claim.exists()


async def test_a_run_begins_with_the_limit_of_descriptors_that_it_is_given(folder: Path) -> None:
    engine = SandboxEngine(folder, SandboxSettings(open_files=256))
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    first = await runs.shell("ulimit -Sn; ulimit -Hn")
    (folder / "berths").rename(folder / "away")  # so that all is made again, and told the zygote
    second = await runs.shell("ulimit -Sn; ulimit -Hn")
    ref = await runs.start("sleep", "600")
    executed = await runs.execute(ref, "sh", "-c", "ulimit -Sn")
    await runs.stop_all()
    await runs.close()

    assert first.lines == second.lines == ["256", str(most)]
    assert executed[:2] == (0, b"256\n")


async def test_what_the_machine_cannot_do_now_is_not_the_runs_fault(
    sandbox: Runs, folder: Path
) -> None:
    wanted = spec("echo", "late")
    log = folder / "jobs" / wanted.job_id / "output"
    log.parent.mkdir(parents=True)
    log.touch()  # no log can be made

    await sandbox.engine.start(wanted)
    first = await sandbox.exited(RunRef(wanted.job_id))
    assert first.cause is ExitCause.NOT_READY

    log.unlink()
    sandbox.told.clear()
    await sandbox.engine.start(wanted)
    done = await sandbox.finished(RunRef(wanted.job_id))
    assert (done.code, done.output) == (0, b"late\n")


@pytest.mark.root
async def test_neighbours_that_cannot_be_told_are_not_the_runs_fault(
    sandbox: Runs, folder: Path
) -> None:
    (folder / "neighbours").rename(folder / "taken")
    (folder / "neighbours").touch()

    await sandbox.engine.start(wanted := spec("true", neighbours="alice"))
    first = await sandbox.exited(RunRef(wanted.job_id))

    assert first.cause is ExitCause.NOT_READY
    (folder / "neighbours").unlink()
    (folder / "taken").rename(folder / "neighbours")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which nothing can be made. The engine sees what is mounted before it opens."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=1m,nr_inodes=1,mode=777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.root
@pytest.mark.parametrize("what", ["working folder", "mount point"])
async def test_a_full_volume_is_neither_the_commands_fault_nor_that_of_other_runs(
    full_disk: Path, what: str, sandbox: Runs, folder: Path, tmp_path: Path
) -> None:
    mounts = [mounted(source=str(full_disk), target="/data", read_only=False)]
    if what == "mount point":
        mounts.append(mounted(source=str(tmp_path / "visible"), target="/data/new"))
    await sandbox.run("true")
    await eventually(lambda: len(processes("neuro-berth", folder)) == 2, "no two wait")
    first, second = sorted(processes("neuro-berth", folder))

    done = await sandbox.run("true", volumes=tuple(mounts), working_dir="/data/new")
    await eventually(lambda: len(processes("neuro-berth", folder)) == 2, "no two wait")

    assert done.exited.cause is ExitCause.VOLUME_NOT_READY
    assert "/data/new cannot be made: No space left" in (done.exited.message or "")
    waiting = processes("neuro-berth", folder)  # one was this run's, and may be back
    assert {first, second} & set(waiting)
    assert not (folder / "jobs" / done.ref.job_id / "runs" / "0").exists()


def test_a_folder_lies_on_a_mount_or_beside_it(tmp_path: Path) -> None:
    for name in ("data", "database"):
        (tmp_path / name).mkdir()
    mount, root = os.open(tmp_path / "data", os.O_PATH), os.open("/", os.O_PATH)

    found = [
        inside.lies_on(str(tmp_path / place), [root, mount])
        for place in ("data", "data/new", "database", ".")
    ]
    os.close(mount)
    os.close(root)

    assert found == [True, True, False, False]


async def after_a_run(folder: Path, wanted: RunSpec) -> Runs:
    """An engine in which this run has ended, and nobody knows of it any more."""
    opened = SandboxEngine(folder)
    await opened.open()
    await opened.adopt([])
    runs = Runs(opened)
    await opened.start(wanted)
    await runs.exited(RunRef(wanted.job_id))
    runs.told.clear()
    return runs


async def test_an_exit_record_waits_for_a_descriptor_to_read_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.0)
    wanted = spec("true")
    runs = await after_a_run(folder, wanted)
    real, troubles = layout.read_exit, [errno.EMFILE, errno.ENFILE]

    def read_exit(place: str) -> ExitRecord | None:
        if troubles:
            raise OSError(troubles.pop(), "no descriptor is left")
        return real(place)

    monkeypatch.setattr(layout, "read_exit", read_exit)
    # As after a crash before the end of the run was written down.
    await runs.engine.start(wanted)
    told = await runs.exited(RunRef(wanted.job_id))
    await runs.close()

    assert troubles == []
    assert (told.cause, told.exit_code) == (ExitCause.COMPLETED, 0)


@pytest.mark.parametrize("how", ["damaged", "unreadable"])
async def test_a_lost_exit_record_is_told_as_that(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.0)
    wanted = spec("true")
    runs = await after_a_run(folder, wanted)
    record = folder / "jobs" / wanted.job_id / "runs" / "0" / "exit"
    if how == "damaged":
        record.write_bytes(b"\0" * 100)
    else:
        record.unlink()
        record.symlink_to(record)

    # As after a crash before the end of the run was written down.
    await runs.engine.start(wanted)
    told = await runs.exited(RunRef(wanted.job_id))
    await runs.close()

    assert told.cause is ExitCause.LOST
    assert "the record of how the run ended" in (told.message or "")
