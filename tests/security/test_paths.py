"""Every option that holds a path, with every kind of path that leads to the host."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from pathlib import Path

import msgspec
import pytest

from neuro.engines.base import ExitCause, RunRef, Volume
from tests.engines.harness import Finished, Runs, spec
from tests.security.host import Host, link, mount

pytestmark = pytest.mark.asyncio(loop_scope="module")

_AT_ONCE = 6
# Whatever of the host can be reached from where the command begins.
_LOOK = (
    "pwd; for up in . .. ../.. ../../..; do for at in '' {canary}/; do"
    " cat $up/$at/secret; ls $up/$at; echo x > $up/$at/written; done; done; cat {canary}/secret;"
    " true"
)


def ways(host: Host) -> list[str]:
    """Paths that would be the canary's folder, if they led to the host."""
    canary = str(host.canary)
    descriptors = [f"/proc/self/fd/{number}" for number in range(3, 14)]
    prefixes = [
        *("/proc/self/root", "/proc/1/root", "/proc/2/root", "/proc/self/task/2/root"),
        *("/proc/self/cwd", "/proc/1/cwd", "/proc/thread-self/root", "/oldroot", "/newroot"),
        *("/dev/fd/3", "/dev/fd/9", "/dev/stdin", "/proc/self/fd/3/..", "/root/..", "/tmp/../.."),
        *("/shown/0", "/base/0", "/stage/base/0", "/.", "//", "/..", "/run/../.."),
    ]
    return [f"{prefix}{canary}" for prefix in prefixes] + descriptors


async def all_of(cases: list[object]) -> list[Finished]:
    """Run coroutines, a few at once."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(case: object) -> Finished:
        async with places:
            return await case  # type: ignore[misc]

    return list(await asyncio.gather(*(one(case) for case in cases)))


async def as_it_is(runs: Runs, script: str, *mounts: Volume) -> Finished:
    """Run with mounts whose sources nobody puts into the storage before: they are links."""
    begun = msgspec.structs.replace(spec("sh", "-c", script), volumes=mounts)
    await runs.engine.start(begun)
    return await runs.finished(RunRef(begun.job_id))


def check(host: Host, done: list[Finished], what: list[str]) -> None:
    host.check()
    for each, tried in zip(done, what, strict=True):
        host.check_output(each.output, tried)
        assert each.exited.cause != ExitCause.LOST, tried
        if each.exited.cause == ExitCause.CANNOT_START:
            assert each.exited.message, tried


async def test_a_working_folder_never_leads_to_the_host(runs: Runs, host: Host) -> None:
    look = _LOOK.format(canary=host.canary)
    paths = [f"{way}{rest}" for way in ways(host) for rest in ("", "/folder/made")]

    done = await all_of([runs.shell(look, working_dir=path) for path in paths])

    check(host, done, paths)


async def test_the_place_of_a_volume_never_leads_to_the_host(runs: Runs, host: Host) -> None:
    volume = host.volume()
    file = volume / "file"
    file.write_text("planted")
    look = _LOOK.format(canary=host.canary)
    paths = [f"{way}/secret" for way in ways(host)]

    done = await all_of(
        [
            runs.shell(look, volumes=(mount(source, f"{path}{rest}"),))
            for source, rest in ((file, ""), (volume, "/made"))
            for path in paths
        ]
    )

    check(host, done, paths * 2)


@pytest.fixture
def planted(host: Host) -> Path:
    """A volume in which an earlier job left links of every kind."""
    volume = host.volume()
    for number, way in enumerate(ways(host)):
        link(volume / f"link-{number}", way)
    link(volume / "absolute", str(host.canary))
    link(volume / "up", "../" * 20 + str(host.canary).lstrip("/"))
    link(volume / "loop", "loop")
    link(volume / "dangling", "/nowhere/at/all")
    link(volume / "chain", "absolute")
    return volume


async def test_links_in_a_volume_never_lead_to_the_host(
    runs: Runs, host: Host, planted: Path
) -> None:
    look = _LOOK.format(canary=host.canary)
    other = host.volume()
    names = sorted(os.listdir(planted))
    first = mount(planted, "/v")

    done = await all_of(
        [runs.shell(look, volumes=(first,), working_dir=f"/v/{name}/made") for name in names]
        + [runs.shell(look, volumes=(first, mount(other, f"/v/{name}/made"))) for name in names]
    )

    check(host, done, names * 2)
    assert sorted(os.listdir(planted)) == names


async def test_a_command_of_exec_never_begins_on_the_host(
    runs: Runs, host: Host, planted: Path
) -> None:
    """The job puts a link in the place of its working folder, and then somebody executes in it."""
    look = _LOOK.format(canary=host.canary)
    ref = await runs.start(
        *("sh", "-c", "cd /; rmdir /w; echo ready; exec sleep 600"),
        working_dir="/w",
        volumes=(mount(planted, "/v"),),
    )
    await runs.says(ref.job_id, b"ready")

    for name in sorted(os.listdir(planted)):
        code, out, err = await runs.execute(ref, "ln", "-sfn", f"/v/{name}", "/w")
        assert code == 0, (out, err)
        _, out, err = await runs.execute(ref, "sh", "-c", look)
        host.check_output(out + err, name)
    host.check()
    await runs.engine.stop(ref, 0)


async def test_a_volume_is_mounted_through_an_absolute_link(runs: Runs, host: Host) -> None:
    """/var/run leads to /run: such links lead below the job's own root."""
    volume = host.volume()
    (volume / "file").write_text("mine")

    done = await runs.shell("cat /run/x/file", volumes=(mount(volume, "/var/run/x"),))

    assert done.output == b"mine"


@pytest.mark.parametrize("place", ["/proc/x", "/sys/x", "/dev/x", "/dev/shm", "/", "/proc/self"])
async def test_nothing_is_mounted_where_the_kernel_shows_itself(
    runs: Runs, host: Host, place: str
) -> None:
    volume = host.volume()
    around = host.volume()
    link(around / "to", place)

    straight = await runs.run("true", volumes=(mount(volume, place),))
    by_link = await runs.run("true", volumes=(mount(around, "/v"), mount(volume, "/v/to")))

    for done in (straight, by_link):
        assert done.exited.cause == ExitCause.CANNOT_START
        assert done.exited.message


async def test_the_source_of_a_volume_is_no_link(runs: Runs, host: Host) -> None:
    around = host.volume()
    link(around / "link", str(host.canary))
    sources = [around / "link", around / "link" / "folder", around / "link" / "secret"]

    done = await all_of(
        [as_it_is(runs, "cat /v/* /v; true", mount(source, "/v")) for source in sources]
    )

    check(host, done, [str(source) for source in sources])
    assert {each.exited.cause for each in done} == {ExitCause.CANNOT_START}


class Flipping:
    """Exchanges a folder and a link to the canary for each other, as fast as it can."""

    def __init__(self, place: Path, target: str) -> None:
        self._place = place
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._flip)

    def __enter__(self) -> Flipping:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _flip(self) -> None:
        aside, flip, spare = (self._place / name for name in ("aside", "flip", "spare"))
        aside.mkdir(exist_ok=True)
        aside.chmod(0o777)
        link(spare, self._target)
        for number in itertools.count():
            if self._stop.is_set():
                return
            try:
                os.rename(aside, flip)
                os.rename(flip, aside)
                os.rename(spare, flip)
                os.rename(flip, spare)
            except OSError:  # a job was faster, and made a folder there
                os.rename(flip, self._place / f"made-{number}")


async def test_links_that_change_all_the_time_never_lead_to_the_host(
    runs: Runs, host: Host
) -> None:
    volume, other = host.volume(), host.volume()
    look = _LOOK.format(canary=host.canary)
    shared = mount(volume, "/v")

    with Flipping(volume, str(host.canary)):
        done = await all_of(
            [
                case
                for _ in range(12)
                for case in (
                    runs.shell(look, volumes=(shared,), working_dir="/v/flip/folder/made"),
                    runs.shell(look, volumes=(shared, mount(other, "/v/flip/folder/made"))),
                    as_it_is(runs, "cat /x/secret", mount(volume / "flip", "/x")),
                    as_it_is(runs, "cat /x", mount(volume / "flip" / "secret", "/x")),
                )
            ]
        )

    check(host, done, ["a race"] * len(done))


async def test_a_read_only_volume_stays_so(runs: Runs, host: Host) -> None:
    outer, inner = host.volume(), host.volume()
    (outer / "inner").mkdir()
    (inner / "file").write_text("as it was")
    (outer / "inner" / "file").write_text("as it was")
    write = (
        "cd {at}; echo x > file; rm -f file; mv file f; ln file l; chmod 777 file; touch new;"
        " mkdir d; truncate -s 0 file; true > file; ln -s a b; cp /etc/hosts file; chown 1 file;"
        ' python3 -c \'import os; os.setxattr("file", "user.x", b"")\'; mkfifo p; true'
    )

    await runs.shell(
        write.format(at="/a/inner"),
        volumes=(mount(outer, "/a"), mount(inner, "/a/inner", read_only=True)),
    )
    await runs.shell(
        write.format(at="/b/c"),
        volumes=(
            mount(outer, "/b", read_only=True),
            mount(outer / "inner", "/b/c", read_only=True),
        ),
    )
    await runs.shell(
        write.format(at="/a"),
        volumes=(mount(outer, "/a", read_only=True), mount(inner, "/a/inner")),
    )

    for place in (inner, outer / "inner"):
        assert os.listdir(place) == ["file"]
        assert (place / "file").read_text() == "as it was"
    assert os.listdir(outer) == ["inner"]
