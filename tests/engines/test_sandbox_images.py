"""Runs that have an image: its files, its users, what its configuration says, and hostile ones."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from neuro.engines.base import (
    EngineFault,
    ExitCause,
    File,
    NotReady,
    PullCredentials,
    RunRef,
    Waiting,
)
from neuro.engines.images.manifests import ImageConfig
from neuro.engines.images.stopping import Stop
from neuro.engines.sandbox import SandboxEngine, layout
from neuro.engines.sandbox.images import (
    ImageRefused,
    InvalidImageName,
    RegistryAway,
    Root,
)
from neuro.engines.sandbox.settings import SandboxSettings
from tests.engines import made_images
from tests.engines.harness import EVERYWHERE, Runs, eventually, mounted, spec
from tests.engines.made_images import MadeImages

is_root = os.geteuid() == 0


class Shelf:
    """Images of a test, made of folders below ``place``."""

    def __init__(self, place: Path, images: MadeImages) -> None:
        self._place = place
        self._images = images

    def layer(self) -> Path:
        """A new folder, open to all as layers are."""
        path = self._place / str(len(list(self._place.iterdir())))
        path.mkdir()
        path.chmod(0o755)
        return path

    def put(self, name: str, *layers: Path, on: Root | None = None, **config: object) -> None:
        """Let an image of that name have these layers on a userland with a shell."""
        below = made_images.userland() if on is None else on
        given = {"command": below.config.command, **config}
        self._images.roots[name] = Root((*below.layers, *map(str, layers)), ImageConfig(**given))  # type: ignore[arg-type]


@pytest.fixture
def images() -> MadeImages:
    return MadeImages()


@pytest.fixture
def shelf(tmp_path: Path, images: MadeImages) -> Shelf:
    place = tmp_path / "layers"
    place.mkdir()
    made = Shelf(place, images)
    made.put("plain")
    return made


@pytest_asyncio.fixture
async def runs(tmp_path: Path, images: MadeImages) -> AsyncIterator[Runs]:
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE, images=images)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


def write(layer: Path, name: str, text: str, mode: int = 0o644) -> Path:
    path = layer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def white_out(path: Path) -> None:
    """What hides a name of the layers below: plain users may make it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


# Files.


async def test_nothing_of_the_machines_userland_is_in_an_image(runs: Runs, shelf: Shelf) -> None:
    done = await runs.shell("ls -d /usr/share/doc /home/* /work; ls /; ls -A /etc", image="plain")

    assert done.code == 0
    names = {line for line in done.lines if not line.startswith("ls:")}
    assert names == {
        *("bin", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "proc", "root"),
        *("run", "sbin", "srv", "sys", "tmp", "usr", "var"),
        *("group", "hostname", "hosts", "nsswitch.conf", "passwd", "resolv.conf"),
    }


async def test_upper_layers_change_hide_and_empty_what_is_below(runs: Runs, shelf: Shelf) -> None:
    low, high = shelf.layer(), shelf.layer()
    for name in ("stays", "changes", "goes", "emptied/old", "folder/one", "folder/two"):
        write(low, f"data/{name}", "low\n")
    write(high, "data/changes", "high\n")
    white_out(high / "data/goes")
    white_out(high / "data/folder/one")
    write(high, "data/emptied/new", "high\n")
    os.setxattr(high / "data/emptied", "user.overlay.opaque", b"y")
    shelf.put("layered", low, high)

    done = await runs.shell("cd /data; find . -type f | sort; cat stays changes", image="layered")

    assert done.lines == ["./changes", "./emptied/new", "./folder/two", "./stays", "low", "high"]


async def test_layers_never_change_and_runs_share_no_files(runs: Runs, shelf: Shelf) -> None:
    layer = shelf.layer()
    write(layer, "data/file", "original\n")
    write(layer, "data/gone", "original\n")
    shelf.put("shared", layer)
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in layer.rglob("*"))
    script = "cat /data/file; echo mine >> /data/file; rm /data/gone; touch /new; ls /data"

    first = await runs.shell(script, image="shared")
    second = await runs.shell(script, image="shared")

    assert first.lines == second.lines == ["original", "file"]
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in layer.rglob("*")) == before


# What Docker allows, and what one overlay has: of a longer chain the store merges the lowest.
@pytest.mark.parametrize("count", [127, 399])
async def test_an_image_may_have_many_layers(runs: Runs, shelf: Shelf, count: int) -> None:
    layers = [shelf.layer() for _ in range(count)]
    for number, layer in enumerate(layers):
        write(layer, f"data/{number}", f"{number}\n")
        write(layer, "data/last", f"{number}\n")
        if number % 10 == 9:
            white_out(layer / f"data/{number - 9}")
    shelf.put("high", *layers)

    done = await runs.shell("ls /data | wc -l; cat /data/last", image="high")

    assert done.lines == [str(count + 1 - count // 10), str(count - 1)]


async def test_a_layer_that_is_gone_is_fetched_again(runs: Runs, shelf: Shelf) -> None:
    layer = shelf.layer()
    shelf.put("image", layer)
    layer.rmdir()

    done = await runs.run("true", image="image")

    assert done.exited.cause is ExitCause.NOT_READY


@pytest.mark.root
@pytest.mark.skipif(not is_root, reason="a plain user's runs have one user")
async def test_files_belong_to_the_images_users(runs: Runs, shelf: Shelf) -> None:
    layer = shelf.layer()
    own = write(layer, "home/app/own", "own\n", 0o600)
    for path in (own.parent, own):
        os.chown(path, 1000, 100)
    foreign = write(layer, "home/other", "closed\n", 0o600)
    os.chown(foreign, 2000, 2000)
    shelf.put("owned", layer, user="1000:100")
    script = (
        "id -u; id -g; cd /home; stat -c '%u %g' app/own other /etc/passwd; cat app/own; cat other;"
        " echo more > app/new; stat -c '%u %g' app/new"
    )

    done = await runs.shell(script, image="owned")

    assert done.lines[:6] == ["1000", "100", "1000 100", "2000 2000", "0 0", "own"]
    assert "Permission denied" in done.lines[6]
    assert done.lines[7] == "1000 100"


async def test_no_file_of_an_image_gives_rights_or_is_a_device(runs: Runs, shelf: Shelf) -> None:
    layer = shelf.layer()
    shutil.copy(Path(made_images.userland().layers[0]) / "usr/bin/id", layer / "setuid")
    (layer / "setuid").chmod(0o6755)
    if is_root:
        os.mknod(layer / "disk", 0o666 | stat.S_IFBLK, os.stat("/").st_dev)
        (layer / "disk").chmod(0o666)
    shelf.put("image", layer, user="1000" if is_root else "")

    script = "/setuid -u; head -c 1 /disk; grep CapEff /proc/self/status"
    done = await runs.shell(script, image="image")

    assert done.lines[0] == ("1000" if is_root else "0")
    assert "Permission denied" in done.lines[1] or "No such file" in done.lines[1]
    assert done.lines[2].split() == ["CapEff:", "0" * 16]


# Images that lack what others have.


@pytest.mark.compiler
async def test_a_static_program_alone_is_an_image(runs: Runs, shelf: Shelf, tmp_path: Path) -> None:
    layer = shelf.layer()
    source = write(tmp_path, "program.c", _PROGRAM)
    made = await asyncio.create_subprocess_exec("gcc", "-static", "-o", layer / "program", source)
    assert await made.wait() == 0
    shelf.put("scratch", layer, on=Root((), ImageConfig()), command=("/program", "a", "b"))

    done = await runs.run(image="scratch")
    ref = await runs.start("/program", "sleep", image="scratch", working_dir="/made/for/it")
    code, out, err = await runs.execute(ref, "/program", "c")
    missing = await runs.execute(ref, "sh")

    assert done.output == b"/program a b in /\n"
    assert (code, out, err) == (0, b"/program c in /made/for/it\n", b"")
    assert missing[0] == 127
    assert (await runs.engine.usage(ref.job_id)).memory > 0  # type: ignore[attr-defined]


_PROGRAM = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
    char folder[64];
    for (int i = 0; i < count; i++) printf("%s ", words[i]);
    printf("in %s\\n", getcwd(folder, sizeof folder));
    fflush(stdout);
    if (count > 1 && !strcmp(words[1], "sleep")) pause();
    return 0;
}
"""


async def test_an_image_without_any_layer_has_no_command(runs: Runs, shelf: Shelf) -> None:
    shelf.put("empty", on=Root((), ImageConfig()))

    done = await runs.run("sh", image="empty")
    with pytest.raises(EngineFault, match="no command of its own"):
        await runs.engine.start(spec(image="empty"))

    assert (done.code, done.exited.cause) == (127, ExitCause.CANNOT_START)


# Hostile images.


def links(layer: Path) -> None:
    for name in ("proc", "sys", "dev", "etc", "tmp", "run"):
        (layer / name).symlink_to("/usr/bin" if name != "etc" else "/../../../../etc")


def files(layer: Path) -> None:
    for name in ("proc", "sys", "dev", "etc", "tmp", "run"):
        (layer / name).write_text("a file")


def fifos(layer: Path) -> None:
    (layer / "etc").mkdir()
    for name in ("proc", "sys", "dev", "etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf"):
        os.mkfifo(layer / name)


def folders(layer: Path) -> None:
    for name in ("passwd", "group", "hosts", "hostname", "resolv.conf"):
        (layer / "etc" / name).mkdir(parents=True)


def closed(layer: Path) -> None:
    write(layer, "data/file", "x")
    for name in ("etc", "proc", "data"):
        (layer / name).mkdir(exist_ok=True)
        (layer / name).chmod(0)
    layer.chmod(0)


def loops(layer: Path) -> None:
    (layer / "etc").mkdir()
    for name in ("passwd", "group", "hosts", "resolv.conf", "hostname"):
        (layer / "etc" / name).symlink_to(name)
    for name in ("proc", "sys", "dev"):
        (layer / name).symlink_to(name)


def magic(layer: Path) -> None:
    (layer / "etc").mkdir()
    (layer / "etc/passwd").symlink_to("/proc/self/fd/0")
    (layer / "etc/group").symlink_to("/proc/1/root/etc/group")
    (layer / "etc/hosts").symlink_to("/proc/self/root/etc/shadow")
    (layer / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


@pytest.mark.parametrize("hostile", [links, files, fifos, folders, closed, loops, magic])
async def test_a_hostile_image_is_a_root_like_any_other(
    runs: Runs, shelf: Shelf, hostile: Callable[[Path], None]
) -> None:
    layer = shelf.layer()
    hostile(layer)
    shelf.put("hostile", layer, user="7")
    script = "cat /proc/sys/kernel/hostname; test -c /dev/null && test -d /sys/kernel && echo there"

    try:
        done = await runs.shell(script, image="hostile")
        tried = await runs.shell("cat /etc/shadow /etc/hostname | head -c 100", image="hostile")
    finally:
        layer.chmod(0o755)  # for whoever removes it
        for path in layer.iterdir():
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)

    assert done.lines == ["job", "there"]
    assert b"root:" not in tried.output


async def test_a_hostile_passwd_is_told_in_a_sentence(runs: Runs, shelf: Shelf) -> None:
    layer = shelf.layer()
    lines = ("huge:x:99999:0::/:/bin/sh", "odd", ":::", f"long:x:{'9' * 5000}:0::/:")
    write(layer, "etc/passwd", "\n".join(lines))
    names = ("huge", "long", "nobody", "0:staff", "70000")
    for name in names:
        shelf.put(name, layer, user=name)

    said = [(await runs.run("true", image=name)).exited for name in names]

    assert {one.exit_code for one in said} == {126}
    assert [one.message for one in said] == [
        "a run has no user or group 99999: 65535 is the highest",
        "the image has no user 'long': its /etc/passwd does not name one",
        "the image has no user 'nobody': its /etc/passwd does not name one",
        "the image has no group 'staff': its /etc/group does not name one",
        "a run has no user or group 70000: 65535 is the highest",
    ]


# What the configuration says.


async def test_the_configuration_is_what_the_run_does_not_say(runs: Runs, shelf: Shelf) -> None:
    shelf.put(
        "configured",
        entrypoint=("sh", "-c", 'echo "$0" "$@" "$A" "$B" "$PATH" "$HOME"; pwd', "word"),
        command=("one", "two"),
        environment=("A=image", "B=image", "PATH=/usr/bin:/bin", "nonsense"),
        working_folder="made/../data",
    )

    default = await runs.run(image="configured")
    given = await runs.run(
        "three", image="configured", env={"B": "run", "HOME": "/x"}, working_dir="/tmp"
    )
    other = await runs.run("-c", "echo other", image="configured", entrypoint=("sh",))

    assert default.lines == ["word one two image image /usr/bin:/bin /root", "/data"]
    assert given.lines == ["word three image run /usr/bin:/bin /x", "/tmp"]
    assert other.lines == ["other"]


async def test_commands_beside_the_run_are_like_it(runs: Runs, shelf: Shelf) -> None:
    layer = shelf.layer()
    write(layer, "etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    write(layer, "etc/group", "app:x:1000:\nvideo:x:44:app,other\n")
    shelf.put("image", layer, user="app", environment=("A=image",), working_folder="/tmp")
    script = "id -u; id -G; echo $A $HOME; pwd; echo heard > /dev/stdout"

    ref = await runs.start("sh", "-c", f"{script}; echo ready; sleep 600", image="image")
    begun = await runs.says(ref.job_id, b"ready")
    _, out, _ = await runs.execute(ref, "sh", "-c", script)

    ids = ["1000", "1000 44"] if is_root else ["0", "0"]
    assert out.decode().splitlines() == [*ids, "image /home/app", "/tmp", "heard"]
    assert begun.decode().splitlines() == [*out.decode().splitlines(), "ready"]


async def test_a_terminal_belongs_to_the_images_user(runs: Runs, shelf: Shelf) -> None:
    shelf.put("image", user="1000")

    done = await runs.shell("test -O $(tty) && echo more > $(tty)", image="image", tty=True)

    assert done.lines == ["more"]


async def test_a_run_is_stopped_by_its_images_signal(runs: Runs, shelf: Shelf) -> None:
    shelf.put("image", stop_signal="SIGUSR1")
    ref = await runs.start(
        "sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done", image="image"
    )
    await runs.says(ref.job_id, b"ready")

    await runs.engine.stop(ref, 20)

    assert (await runs.exited(ref)).exit_code == 5


async def test_volumes_and_files_lie_on_the_image(runs: Runs, shelf: Shelf, tmp_path: Path) -> None:
    layer, volume = shelf.layer(), tmp_path / "volume"
    write(layer, "data/below", "hidden")
    (layer / "link").symlink_to("/data")
    volume.mkdir()
    (volume / "shown").write_text("shown\n")
    shelf.put("image", layer)

    done = await runs.shell(
        "cat /data/*; cat /etc/secret",
        image="image",
        volumes=(mounted(source=volume, target="/link"),),
        files=(File(target="/etc/secret", content=b"hush\n"),),
    )

    assert done.lines == ["shown", "hush"]


# How an image comes.


class Slow:
    """An image that comes bit by bit, when ``step`` is released."""

    def __init__(self) -> None:
        self.step = threading.Semaphore(0)
        self.ended = threading.Event()
        self.error: Exception | None = None
        self.away: dict[str, str] = {}

    def why_away(self, registry: str) -> str | None:
        return self.away.get(registry)

    def open(self) -> None:
        pass

    def tidy(self) -> None:
        pass

    def ready(
        self,
        reference: str,
        credentials: PullCredentials | None,
        told: Callable[[float], None],
        stop: Stop,
    ) -> Root:
        try:
            for part in range(4):
                told(part / 4)
                while not self.step.acquire(timeout=0.05):
                    stop.check()
            if self.error is not None:
                raise self.error
            return made_images.userland()
        finally:
            self.ended.set()


@pytest_asyncio.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[Slow, Runs]]:
    images = Slow()
    engine = SandboxEngine(tmp_path / "engine", SandboxSettings(), EVERYWHERE, images)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield images, opened
    images.step.release(100)
    await opened.stop_all()
    await opened.close()


async def test_the_fetching_of_an_image_is_told(slow: tuple[Slow, Runs]) -> None:
    images, runs = slow
    images.step.release(4)

    done = await runs.run("true", image="any")

    told = [event for event in runs.told if isinstance(event, Waiting) and event.ref == done.ref]
    assert [event.progress for event in told] == [0, 0.25, 0.5, 0.75]
    assert {event.reason for event in told} == {"Pulling"}


async def test_a_stop_ends_the_fetching_of_an_image(slow: tuple[Slow, Runs]) -> None:
    images, runs = slow
    begun = spec("true", image="any")
    start = asyncio.ensure_future(runs.engine.start(begun))
    ref = (await runs.waits(RunRef(begun.job_id))).ref

    assert not await runs.engine.stop(ref, 0)
    with pytest.raises(EngineFault, match="stopped"):
        await start

    assert await asyncio.to_thread(images.ended.wait, 20)
    assert ref not in await runs.engine.resync([ref])


@pytest.mark.parametrize("refusal", [ImageRefused, InvalidImageName])
async def test_an_image_that_there_is_not_ends_the_run(
    slow: tuple[Slow, Runs], refusal: type[ImageRefused]
) -> None:
    images, runs = slow
    images.error = refusal("the registry has no image any: not found")
    images.step.release(4)

    done = await runs.engine.start(begun := spec("true", image="any"))
    exited = await runs.exited(RunRef(begun.job_id))

    assert done is None
    assert (exited.exit_code, exited.cause) == (None, refusal.cause)
    assert exited.message == "the registry has no image any: not found"


async def test_all_accounts_of_a_person_have_the_turns_of_one(slow: tuple[Slow, Runs]) -> None:
    images, runs = slow
    accounts = [f"anna--{number}" for number in range(5)]
    begun = [spec("true", image="any", neighbours=one, person="anna") for one in accounts]
    starts = [asyncio.ensure_future(runs.engine.start(one)) for one in begun]

    def told(*, at_work: bool) -> set[str]:
        return {
            event.ref.job_id
            for event in runs.told
            if isinstance(event, Waiting) and (event.progress is not None) == at_work
        }

    await eventually(lambda: len(told(at_work=True)) == 4, "four are not fetched")
    await eventually(lambda: told(at_work=False), "all are fetched at once")

    assert told(at_work=True) | told(at_work=False) == {one.job_id for one in begun}
    images.step.release(20)
    await asyncio.gather(*starts)


async def test_a_registry_that_is_away_is_asked_again(slow: tuple[Slow, Runs]) -> None:
    images, runs = slow
    images.step.release(4)
    images.error = RegistryAway("the registry r does not answer", is_public=False)

    with pytest.raises(NotReady, match="does not answer"):
        await runs.engine.start(spec("true", image="any"))


async def test_a_public_image_out_of_reach_is_the_machines_userland(
    slow: tuple[Slow, Runs],
) -> None:
    images, runs = slow
    images.step.release(4)
    images.error = RegistryAway("registry.example cannot be reached from here", is_public=True)

    done = await runs.shell("test -d /usr/share && echo here", image="any")

    began = await runs.started(done.ref)
    assert done.lines == ["here"]
    assert began.where == (
        "this machine's own programs, as registry.example cannot be reached from here"
    )


async def test_an_image_of_a_mirror_is_out_of_reach_with_its_registry(
    slow: tuple[Slow, Runs],
) -> None:
    images, runs = slow
    images.step.release(8)
    images.error = RegistryAway("the mirror cannot answer now", is_public=False)

    with pytest.raises(NotReady, match="the mirror"):  # It may be the mirror that is away.
        await runs.engine.start(spec("true", image="any", mirror_of="docker.io"))
    images.away["docker.io"] = "docker.io cannot be reached: unknown name"
    done = await runs.shell("echo here", image="any", mirror_of="docker.io")

    began = await runs.started(done.ref)
    assert done.lines == ["here"]
    assert (
        began.where == "this machine's own programs, as docker.io cannot be reached: unknown name"
    )


@pytest.mark.parametrize(
    "options",
    [{"image": "host"}, {"image": "neuro/base:v1"}, {"image": "neuro/executor"}, {"control": True}],
)
async def test_the_machines_userland_is_an_image_too(
    runs: Runs, options: dict[str, object]
) -> None:
    done = await runs.shell("test -d /usr/share && echo here", **options)

    assert done.lines == ["here"]


async def test_the_layers_of_an_image_can_lie_above_the_machines_userland(
    runs: Runs, shelf: Shelf, tmp_path: Path
) -> None:
    low, high = shelf.layer(), shelf.layer()
    write(low, "usr/bin/tool", "#!/bin/sh\necho made of $A by $(id -u)\n", 0o755)
    write(low, "etc/tool.conf", "conf\n")
    write(low, "app/data", "low\n")
    write(high, "app/data", "high\n")
    write(high, "usr/share/doc/only", "this\n")
    os.setxattr(high / "usr/share/doc", "user.overlay.opaque", b"y")
    white_out(high / "usr/bin/env")
    labels = {"neuro.base": "host"}
    config = ImageConfig(environment=("A=layers",), working_folder="/app", labels=labels)
    shelf.put("above", low, high, on=Root((), config), **msgspec.structs.asdict(config))

    done = await runs.shell(
        "tool; cat /etc/tool.conf data; ls /usr/share/doc; test -e /usr/bin/env || echo hidden;"
        " cat /etc/hostname; grep -c localhost /etc/hosts; test -d /usr/share/zoneinfo -o -d"
        " /usr/lib && echo userland; echo x > /usr/new && echo x > /etc/new && cat /usr/new;"
        " test -d /proc/self && test -c /dev/null && test -w /run && echo system;"
        f" ls {tmp_path} 2>/dev/null || echo unseen",
        image="above",
        hostname="name",
    )

    assert done.lines == [
        *("made of layers by 0", "conf", "high", "only", "hidden", "name", "2", "userland", "x"),
        *("system", "unseen"),
    ]
    place = layout.run_folder(str(tmp_path / "engine"), done.ref.job_id, 0)
    await eventually(lambda: not os.path.exists(f"{place}/layers"), "its files are there")


async def test_no_link_of_an_image_shows_at_another_place_what_is_covered(
    tmp_path: Path, images: MadeImages, shelf: Shelf
) -> None:
    seen = tmp_path / "p/seen"
    write(seen, "data/secret", "the server's own\n")
    write(seen, "shown", "everybody's\n")
    layer = shelf.layer()
    pub, other = layer / "pub", layer / str(tmp_path)[1:] / "q"
    (pub / "x").mkdir(parents=True)
    (layer / "usr").symlink_to("pub/x/..")
    # Once something is mounted at either, the name behind it leads nowhere.
    (other / "seen/x").mkdir(parents=True)
    (other.parent / "p").symlink_to("q/seen/x/../..")
    config = ImageConfig(labels={"neuro.base": "host"})
    shelf.put("linked", layer, on=Root((), config), **msgspec.structs.asdict(config))
    shelf.put("straight", shelf.layer(), on=Root((), config), **msgspec.structs.asdict(config))
    settings = SandboxSettings(visible=(str(seen),), masked=(str(seen / "data"),))
    engine = SandboxEngine(tmp_path / "engine", settings, EVERYWHERE, images)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    try:
        straight = await opened.shell(f"ls {seen} {seen}/data", image="straight")
        linked = await opened.shell(
            f"cat {tmp_path}/*/seen/data/secret 2>/dev/null; ls /pub; test -L /usr || echo folder",
            image="linked",
        )
    finally:
        await opened.stop_all()
        await opened.close()

    assert {"shown", "data"} < set(straight.lines)
    assert b"secret" not in straight.output
    assert linked.lines == ["x", "folder"]


@pytest.mark.root  # who may make device files
async def test_a_run_with_a_gpu_has_the_files_of_its_driver(
    tmp_path: Path, images: MadeImages, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, driver = tmp_path / "dev", tmp_path / "driver"
    for folder in (devices, driver):
        folder.mkdir()
    for name in ("nvidia0", "nvidiactl"):
        os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    library = write(driver, "libcuda.so.550.1", "library\n")
    program = write(driver, "nvidia-smi", "#!/bin/sh\necho sees $NVIDIA_VISIBLE_DEVICES\n", 0o755)
    place = "/usr/local/nvidia"
    found = (
        (str(library), f"{place}/lib64/libcuda.so.1"), (str(program), f"{place}/bin/nvidia-smi"),
    )  # fmt: skip
    monkeypatch.setattr("neuro.engines.sandbox.drivers.driver_files", lambda: found)
    shelf.put("gpu", environment=("PATH=/usr/bin:/bin", "LD_LIBRARY_PATH=/own"))
    settings = SandboxSettings(device_folder=str(devices))
    engine = SandboxEngine(tmp_path / "gpus", settings, storage=EVERYWHERE, images=images)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    try:
        script = (
            f"nvidia-smi; cat {place}/lib64/*; echo $LD_LIBRARY_PATH;"
            f" echo x > {place}/lib64/libcuda.so.1"
        )
        done = await runs.shell(script, image="gpu", gpus=("0",))
        without = await runs.shell(f"ls {place}", image="gpu")
    finally:
        await runs.close()

    assert done.lines[:3] == ["sees 0", "library", f"/own:{place}/lib64"]
    assert "Read-only" in done.lines[3]
    assert without.code != 0
    assert library.read_text() == "library\n"


async def test_a_run_in_an_image_leaves_nothing(runs: Runs, shelf: Shelf, tmp_path: Path) -> None:
    done = await runs.shell("echo x > /tmp/x; mkdir -p /a/b", image="plain")

    place = layout.run_folder(str(tmp_path / "engine"), done.ref.job_id, 0)
    await eventually(lambda: not os.path.exists(f"{place}/layers"), "its files are there")
    assert made_images.userland().layers[0] not in Path("/proc/self/mountinfo").read_text()
