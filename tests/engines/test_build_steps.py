"""Steps of builds: what they see, what they leave, how they end, and what bounds them."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import EngineFault, ExitCause, RunRef, Started
from neuro.engines.images import locks
from neuro.engines.sandbox import SandboxEngine, layout
from neuro.engines.sandbox.builds import Builds
from neuro.engines.sandbox.disk import Census
from neuro.engines.sandbox.settings import SandboxSettings
from tests.engines.building import BASE, Builder, is_root, python, shell
from tests.engines.harness import EVERYWHERE, MIB, Runs, eventually, mounted, spec
from tests.engines.memory import MemoryEngine
from tests.engines.plain.engine import PlainEngine

LAYERED = [BASE, "/cache/more"]


@pytest_asyncio.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


@pytest.fixture
def builder(runs: Runs, tmp_path: Path) -> Builder:
    made = Builder(runs, tmp_path / "engine")
    made.put_base()
    return made


# What a step sees and leaves.


async def test_what_a_step_changes_is_in_its_upper_folder(builder: Builder) -> None:
    more = builder.layer("more")
    (more / "data").mkdir()
    (more / "data" / "old").write_text("old")

    result = await builder.step(
        *("sh", "-c", "cat /data/old; rm /data/old; echo new > /data/new; mkdir -p /deep/folder"),
        layers=LAYERED,
    )

    assert (result.code, result.out) == (0, "old")
    assert set(result.changed) == {"data", "data/old", "data/new", "deep", "deep/folder"}
    assert stat.S_ISCHR(result.changed["data/old"][0])  # a whiteout


async def test_the_next_step_sees_what_the_one_before_left(builder: Builder) -> None:
    first, second = await builder.steps(
        shell("echo left > /left; rm /usr/bin/tee", upper="/cache/first"),
        shell("cat /left; ls /usr/bin/tee", layers=[BASE, "/cache/first"]),
    )

    assert first.code == 0
    assert second.out == "left\n"
    assert "No such file" in second.errors


async def test_a_step_that_changes_nothing_leaves_nothing(builder: Builder) -> None:
    (builder.cache / "source").mkdir()
    places = [
        ["Bind", {"source": "/cache/source", "target": "/root/.cache/pip", "read_only": False}],
        ["Secret", {"target": "/run/secrets/token", "content": "s"}],
        ["Memory", {"target": "/not/there/yet"}],
    ]
    resolving = builder.layer("resolving")  # as an image of Ubuntu has it
    (resolving / "etc").mkdir()
    (resolving / "etc" / "resolv.conf").symlink_to("../run/systemd/stub.conf")
    looks = "ls -d /root/.cache/pip /run/secrets/token /not/there/yet; cat /etc/resolv.conf"

    plain, given, linked = await builder.steps(
        shell("true"),
        shell(looks, mounts=places),
        shell("test -s /etc/resolv.conf", layers=[BASE, "/cache/resolving"]),
    )

    assert plain.changed == given.changed == linked.changed == {}
    assert given.lines[:3] == ["/not/there/yet", "/root/.cache/pip", "/run/secrets/token"]
    assert "nameserver" in given.out
    assert linked.code == 0


async def test_a_folder_that_mounts_are_made_in_keeps_its_time(builder: Builder) -> None:
    more = builder.layer("more")
    (more / "folder").mkdir()
    os.utime(more / "folder", (1, 1))

    result = await builder.step(
        *("sh", "-c", "stat -c %Y /folder; ls /folder"),
        layers=LAYERED,
        mounts=[["Memory", {"target": "/folder/within"}]],
    )

    assert (result.lines, result.changed) == (["1", "within"], {})


async def test_mounts_are_as_they_were_asked_for(builder: Builder, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "given").write_text("given\n")
    (builder.cache / "kept").mkdir()
    stage = builder.layer("stage")
    (stage / "made").mkdir()
    (stage / "made" / "file").write_text("of another stage\n")
    script = (
        "cat /context/given /stage/file /secret; stat -c %a /secret; echo more > /kept/more;"
        "echo no > /context/no; echo no > /stage/no; df -k /memory | tail -1 | awk '{print $2}'"
    )

    result = await _with_volume(builder, volume, script)

    assert result.lines == ["given", "of another stage", "hushed", "440", "1024"]
    assert result.errors.count("Read-only file system") == 2
    assert (builder.cache / "kept" / "more").read_text() == "more\n"
    assert result.changed == {}


async def _with_volume(builder: Builder, volume: Path, script: str):  # type: ignore[no-untyped-def]
    (result,) = await builder.steps(
        shell(
            script,
            mounts=[
                ["Bind", {"source": "/context", "target": "/context"}],
                ["Bind", {"source": "/cache/kept", "target": "/kept", "read_only": False}],
                ["Bind", {"source": "/made", "target": "/stage", "layers": ["/cache/stage"]}],
                ["Secret", {"target": "/secret", "content": "hushed\n", "mode": 0o440}],
                ["Memory", {"target": "/memory", "size": MIB}],
            ],
        ),
        volumes=(mounted(source=volume, target="/context"),),
    )
    return result


async def test_a_mount_that_cannot_be_is_told(builder: Builder) -> None:
    missing, closed = await builder.steps(
        shell("true", mounts=[["Bind", {"source": "/nowhere", "target": "/x"}]]),
        shell("true", mounts=[["Memory", {"target": "/proc/sys"}]]),
    )

    assert missing.fault == "/nowhere cannot be mounted at /x: No such file or directory"
    assert "where nothing can be mounted" in closed.fault


async def test_the_machines_userland_can_lie_below(builder: Builder) -> None:
    first, second, nothing = await builder.steps(
        shell("test -d /etc && echo made > /made", layers=[], host=True, upper="/cache/first"),
        shell("cat /made; ls -d /proc/self /usr/bin", layers=["/cache/first"], host=True),
        shell("true", layers=["/cache/first"], host=True),
    )

    assert first.code == 0
    assert set(first.changed) == {"made"}
    assert second.lines == ["made", "/proc/self", "/usr/bin"]
    assert second.changed == nothing.changed == {}


@pytest.mark.root
async def test_the_folders_of_the_machines_userland_are_one_layer(builder: Builder) -> None:
    first, second = await builder.steps(
        shell("echo a > /usr/local/a; rm /usr/bin/tee", layers=[], host=True, upper="/cache/first"),
        shell("cat /usr/local/a; ls /usr/bin/tee", layers=["/cache/first"], host=True),
    )

    assert set(first.changed) == {"usr", "usr/local", "usr/local/a", "usr/bin", "usr/bin/tee"}
    assert second.out == "a\n"
    assert "No such file" in second.errors


@pytest.mark.root
async def test_files_belong_to_the_users_of_the_image(builder: Builder) -> None:
    more = builder.layer("more")
    (more / "etc").mkdir()
    passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n"
    (more / "etc" / "passwd").write_text(passwd)

    as_root, as_app = await builder.steps(
        shell("mkdir -p /home/app; chown 1000:100 /home/app", layers=LAYERED, upper="/cache/home"),
        shell("id -u; touch ~/mine; touch /no", layers=[*LAYERED, "/cache/home"], user="app"),
    )

    assert as_root.changed["home/app"][1] == 1000
    assert as_app.out == "1000\n"
    assert as_app.changed["home/app/mine"][1] == 1000
    assert "Permission denied" in as_app.errors
    assert (builder.cache / "home" / "home" / "app").stat().st_uid == 1000  # on the disk, too


@pytest.mark.skipif(is_root(), reason="root's has all users of an image")
async def test_one_user_is_told_to_be_all(builder: Builder) -> None:
    result = await builder.step(
        *("sh", "-c", "touch /f; chown 7:7 /f && stat -c %u /f && mknod /dev/d c 1 3 && echo done")
    )

    assert result.lines == ["0", "done"]


async def test_a_step_has_its_working_folder_and_environment(builder: Builder) -> None:
    result = await builder.step(
        *("sh", "-c", "pwd; echo $GIVEN $HOME; hostname; cat"),
        working_dir="/made/here",
        env={"GIVEN": "given"},
        hostname="step",
    )

    assert result.lines == ["/made/here", "given /root", "step"]
    assert set(result.changed) == {"made", "made/here"}


async def test_without_a_network_there_is_a_loopback(builder: Builder) -> None:
    names = "import socket; print(*(name for _, name in socket.if_nameindex()))"
    serve = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "socket.create_connection(s.getsockname()); print('reached')"
    )

    alone, loopback = await builder.steps(
        python(names, network=False), python(serve, network=False)
    )

    assert alone.out == "lo\n"
    assert loopback.out == "reached\n"


# How steps end.


async def test_exit_codes_are_exact(builder: Builder) -> None:
    ended = await builder.steps(
        shell("exit 3"),
        shell("kill -9 $$"),
        {"argv": ["no-such-program"]},
        {"argv": ["true"], "user": "nobody-knows"},
    )

    assert [one.code for one in ended] == [3, 137, 127, 126]
    assert "no-such-program: command not found" in ended[2].errors
    assert "the image has no user 'nobody-knows'" in ended[3].errors


async def test_output_comes_by_its_stream(builder: Builder) -> None:
    result = await builder.step("sh", "-c", "echo out; echo errors >&2; printf end")

    assert (result.out, result.errors) == ("out\nend", "errors\n")


async def test_no_process_outlives_its_step(builder: Builder) -> None:
    leaves = "(setsid sleep 1000 >/dev/null 2>&1 &) ; sleep 1000 & echo left"
    script = f"""
print(run({{"argv": ["sh", "-c", {leaves!r}]}})["out"], flush=True)
names = [open(f"/proc/{{pid}}/comm").read().strip() for pid in os.listdir("/proc") if pid.isdigit()]
print("sleep" in names)
"""

    done = await builder.job(script)

    assert [line for line in done.lines if line] == ["left", "False"]


async def test_a_step_can_be_stopped(builder: Builder) -> None:
    script = f"""
stop = stepping.Stop()
place = Path("/cache/stopped")
for name in ("upper", "work"):
    (place / name).mkdir(parents=True)
step = stepping.StepRun(
    layers=(Path({BASE!r}),), upper=place / "upper", work=place / "work",
    argv=("sh", "-c", "echo begun; sleep 1000"), output=lambda *_: stop.stop(),
)
print(stepping.run_step(step, starter, stop), stepping.run_step(step, starter, stop))
"""

    done = await builder.job(script)

    assert done.lines == ["137 137"]


async def test_steps_run_side_by_side(builder: Builder) -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
for number in range(4):
    os.mkfifo(f"/cache/pipe-{number}")
binds = [["Bind", {"source": "/cache", "target": "/pipes", "read_only": False}]]
def step(number):  # each waits for the next one
    word = f"echo {number} > /pipes/pipe-{number} & cat /pipes/pipe-{(number + 1) % 4}; wait"
    return run({"argv": ["sh", "-c", word], "mounts": binds})
with ThreadPoolExecutor(4) as pool:
    print(*(result["out"].strip() for result in pool.map(step, range(4))))
"""

    done = await builder.job(script, patience=60.0)

    assert done.lines == ["1 2 3 0"]


async def test_in_other_jobs_there_are_no_steps(builder: Builder) -> None:
    ask = 'print(run({"argv": ["true"]})["fault"])'

    done = await builder.job(ask, nesting=False, build_cache="")

    assert done.lines == ["images are built in jobs that build images, and in no others"]


# The job around it.


async def test_a_build_knows_its_neighbours(builder: Builder) -> None:
    words = {"neighbours": "ada", "names": ("build-of-ada",)}

    (result,) = await builder.steps(shell("cat /etc/hosts"), **words)

    assert "localhost" in result.out
    assert result.changed == {}


async def test_nobody_executes_beside_a_build(runs: Runs, builder: Builder) -> None:
    ref = await runs.start("sleep", "1000", nesting=True, build_cache="ada")
    await runs.started(ref)

    code, _, errors = await runs.execute(ref, "true")

    assert code == 126
    assert b"nothing but its build runs in a job that builds an image" in errors


async def test_the_cache_is_kept_for_its_owner_alone(runs: Runs, builder: Builder) -> None:
    first = await builder.job("Path('/cache/kept').write_text('kept')")
    again = await builder.job("print(Path('/cache/kept').read_text())")
    other = await builder.job("print(os.listdir('/cache'))", build_cache="bob")
    none = await builder.job("print(os.path.exists('/cache'))", build_cache="")

    assert first.code == 0
    assert again.lines == ["kept"]
    assert other.lines == ["[]"]
    assert none.lines == ["False"]


async def test_a_cache_has_a_name_that_is_no_path(runs: Runs) -> None:
    for key in ("../ada", "a/b", ".hidden"):
        with pytest.raises(EngineFault, match="cannot name the cache of a build"):
            await runs.start("true", nesting=True, build_cache=key)


@pytest.mark.parametrize("words", [{"nesting": True}, {"build_cache": "ada"}])
async def test_engines_that_build_no_images_say_so(
    tmp_path: Path, words: dict[str, object]
) -> None:
    for engine in (MemoryEngine(), PlainEngine(tmp_path / "plain")):
        await engine.open()
        with pytest.raises(EngineFault, match="builds no images"):
            await engine.start(spec("true", **words))
        await engine.close()


async def test_what_a_build_adds_to_its_cache_is_bounded(runs: Runs, builder: Builder) -> None:
    fills = "dd if=/dev/zero of=/cache/filled bs=1M count=200; sleep 1000"
    script = f"""
import subprocess
subprocess.run(["sh", "-c", {fills!r}])
"""

    done = await builder.job(script, disk=50 * MIB, patience=60.0)

    assert done.exited.cause is ExitCause.DISK_LIMIT
    assert "the build added to its cache is more than the 50M" in str(done.exited.message)


async def test_a_build_is_ended_while_its_cache_is_counted(
    runs: Runs, builder: Builder, tmp_path: Path
) -> None:
    for number in range(50_000):
        (builder.cache / str(number)).touch()
    begun = spec("sleep", "1000", nesting=True, build_cache="ada", disk=50 * MIB)
    ref = RunRef(begun.job_id, begun.run)
    place = layout.run_folder(str(tmp_path / "engine"), ref.job_id, ref.run)

    def is_there() -> bool:
        state = layout.read_state(f"{place}/{layout.STATE}")
        return state is not None and state.get("init") is not None

    await runs.engine.start(begun)
    await eventually(is_there, "no supervisor has the run")
    await runs.engine.stop(ref, 0)
    await runs.exited(ref)

    assert not [one for one in runs.told if isinstance(one, Started) and one.ref == ref]


async def test_memory_of_steps_is_the_jobs(builder: Builder) -> None:
    words = {"argv": ["python3", "-c", "data = b'x' * (900 << 20); print('filled')"]}

    done = await builder.job(f"print(run({words!r}))", memory=400 * MIB)

    assert b"filled" not in done.output


async def test_files_in_memory_of_steps_are_the_jobs(builder: Builder) -> None:
    fills = "dd if=/dev/zero of=/large/file bs=1M count=900; sleep 3; echo filled"
    words = {"argv": ["sh", "-c", fills], "mounts": [["Memory", {"target": "/large"}]]}

    done = await builder.job(f"print(run({words!r}))", memory=300 * MIB, patience=60.0)

    assert b"filled" not in done.output


def test_caches_go_that_nobody_used_for_longest(tmp_path: Path) -> None:
    builds = Builds(str(tmp_path))
    for number, key in enumerate(("old", "older", "new")):
        folder, lock = builds.take(key)
        (Path(folder) / "file").write_bytes(b"x" * MIB)
        os.utime(lock, (1000 + (number + 1) % 3 * 10, 1000 + (number + 1) % 3 * 10))
    # By use: new, old, older.

    left = builds.sweep(2 * MIB + MIB // 2)

    assert left < 2 * MIB + MIB // 2
    assert sorted(path.name for path in (tmp_path / "builds").iterdir() if path.is_dir()) == [
        "old",
        "older",
    ]


async def test_a_cache_that_a_build_has_stays(runs: Runs, builder: Builder, tmp_path: Path) -> None:
    ref = await runs.start("sleep", "1000", nesting=True, build_cache="ada")
    await runs.started(ref)
    builds = Builds(str(tmp_path / "engine"))
    Builds(str(tmp_path / "engine")).take("unused")

    builds.sweep(0)

    names = {path.name for path in (tmp_path / "engine" / "builds").iterdir() if path.is_dir()}
    assert names == {"ada"}


async def test_the_engine_sweeps_them(tmp_path: Path) -> None:
    engine = SandboxEngine(tmp_path / "engine", SandboxSettings(builds_kept=0), EVERYWHERE)
    await engine.open()
    folder, _ = Builds(str(tmp_path / "engine")).take("ada")
    (Path(folder) / "file").write_text("kept")

    await engine.tidy_builds()
    await engine.close()

    assert not (tmp_path / "engine" / "builds" / "ada").exists()


def filled(builds: Builds, key: str, mebibytes: int, used: int) -> None:
    folder, lock = builds.take(key)
    (Path(folder) / "file").write_bytes(b"x" * mebibytes * MIB)
    os.utime(lock, (used, used))


def test_who_has_most_gives_up_their_own_caches_first(tmp_path: Path) -> None:
    builds = Builds(str(tmp_path))
    filled(builds, "anna", 1, 1000)
    filled(builds, "boris", 1, 4000)
    filled(builds, "boris-ci", 1, 3000)
    filled(builds, "boris-cd", 1, 2000)

    builds.sweep(3 * MIB + MIB // 2)

    names = {path.name for path in (tmp_path / "builds").iterdir() if path.is_dir()}
    assert names == {"anna", "boris", "boris-ci"}


def test_a_build_begins_while_its_cache_is_counted(tmp_path: Path) -> None:
    builds = Builds(str(tmp_path))
    filled(builds, "anna", 1, 1000)
    lock = str(tmp_path / "builds" / "anna.lock")
    free: list[bool] = []

    def is_over() -> bool:
        one = locks.alone_at_once(lock)
        free.append(one is not None)
        if one is not None:
            one.close()
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Census, "step", lambda census, seconds: False)
        builds.sweep(0, is_over)

    assert free[0]
