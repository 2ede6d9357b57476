"""The store of layers and images: shared, whole, and swept of what nobody uses."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuro.engines.images import locks
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.manifests import ImageConfig
from neuro.engines.images.shelves import StoredImage
from neuro.engines.images.stopping import Stop, Stopped
from neuro.engines.images.store import HeldImage, Origin, Store
from neuro.engines.images.unpacking import Unpacking
from tests.engines.archives import entry, layer

DAY = 86400.0
PLENTY = 1 << 40


class Source:
    """Blobs, as a registry would give them, and how often each was asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self.asked: list[str] = []

    def make(self, name: str, size: int = 1) -> str:
        """A layer with one file; its diff id."""
        blob, diff_id = layer(entry(name, content=bytes(size)))
        (self._folder / diff_id).write_bytes(blob)
        return diff_id

    def path(self, diff_id: str) -> Path:
        return self._folder / diff_id

    def open(self, diff_id: str) -> int:
        self.asked.append(diff_id)
        return os.open(self._folder / diff_id, os.O_RDONLY)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def store(folder: Path) -> Store:
    made = Store(str(folder))
    made.open()
    return made


def pull(store: Store, source: Source, name: str, *diff_ids: str) -> HeldImage:
    """What a pull does: each layer, then the image."""
    held = [store.layer(one, lambda one=one: source.open(one)) for one in diff_ids]
    identity = "sha256:" + name.encode().hex().zfill(64)
    image = StoredImage(identity, ImageConfig(diff_ids=diff_ids))
    kept = store.keep(f"docker.io/library/{name}:latest", f"sha256:{name}", image)
    for one in held:
        one.close()
    assert kept is not None
    return kept


def layers(folder: Path) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(folder / "layers")}


def test_an_image_is_found_with_its_layers_in_order(store: Store, source: Source) -> None:
    low, high = source.make("low"), source.make("high")

    pull(store, source, "image", low, high).close()

    named = store.named("docker.io/library/image:latest")
    identity, digest = (named.identity, named.digest) if named else ("", "")
    held = store.image(identity)
    assert held is not None
    assert [one.diff_id for one in held.layers] == [low, high]
    assert [os.listdir(one.files) for one in held.layers] == [["low"], ["high"]]
    assert digest == "sha256:image"
    held.close()


def test_a_layer_is_fetched_once_whoever_wants_it(folder: Path, source: Source) -> None:
    diff_id = source.make("wanted", 1 << 20)
    stores = [Store(str(folder)) for _ in range(4)]
    stores[0].open()

    with ThreadPoolExecutor(4) as threads:
        held = list(
            threads.map(lambda one: one.layer(diff_id, lambda: source.open(diff_id)), stores)
        )

    assert source.asked == [diff_id]
    assert len({one.layer.files for one in held}) == 1


def test_a_layer_that_is_not_what_the_config_says_leaves_nothing(
    store: Store, source: Source, folder: Path
) -> None:
    other, wanted = source.make("other"), "sha256:" + "a" * 64

    with pytest.raises(ImageFault) as caught:
        store.layer(wanted, lambda: source.open(other))

    assert caught.value.kind is FaultKind.CORRUPT
    assert layers(folder) == set()
    assert os.listdir(folder / "drafts") == os.listdir(folder / "trash") == []


def test_a_refused_layer_leaves_nothing_and_can_be_tried_again(
    folder: Path, source: Source
) -> None:
    diff_id = source.make("large", 1 << 20)
    small = Store(str(folder), Limits(size=1000))
    small.open()

    with pytest.raises(ImageFault):
        small.layer(diff_id, lambda: source.open(diff_id))

    assert os.listdir(folder / "drafts") == os.listdir(folder / "trash") == []
    Store(str(folder)).layer(diff_id, lambda: source.open(diff_id)).close()


def test_an_unpacking_can_be_stopped(store: Store, folder: Path, tmp_path: Path) -> None:
    blob, diff_id = layer(entry("a"))
    (tmp_path / "blob").write_bytes(blob)
    began: list[Unpacking] = []

    def stop(unpacking: Unpacking) -> None:
        began.append(unpacking)
        unpacking.stop()

    with pytest.raises(Stopped):
        store.layer(diff_id, lambda: os.open(tmp_path / "blob", os.O_RDONLY), stop)

    assert len(began) == 1
    assert layers(folder) == set()


def test_a_killed_pull_leaves_no_lock_and_no_half_layer(
    store: Store, source: Source, folder: Path
) -> None:
    diff_id = source.make("wanted")
    code = (
        "import sys, os; from neuro.engines.images.store import Store\n"
        "def began(unpacking):\n"
        "    print('unpacking', flush=True); sys.stdin.read()\n"
        f"blob = os.open({str(source.path(diff_id))!r}, os.O_RDONLY)\n"
        f"Store({str(folder)!r}).layer({diff_id!r}, lambda: blob, began)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"unpacking\n"
        assert os.listdir(folder / "drafts") != []
        other.send_signal(signal.SIGKILL)

    held = store.layer(diff_id, lambda: source.open(diff_id))

    assert os.listdir(held.layer.files) == ["wanted"]
    store.sweep(unused_for=DAY, most=PLENTY)
    assert os.listdir(folder / "drafts") == os.listdir(folder / "trash") == []


def test_what_nobody_uses_goes_after_a_while(store: Store, source: Source, folder: Path) -> None:
    base, old, new = source.make("base"), source.make("old"), source.make("new")
    pull(store, source, "old", base, old).close()
    pull(store, source, "new", base, new).close()
    (name,) = (path for path in (folder / "images").iterdir() if b"old".hex() in path.name)
    now = name.stat().st_mtime
    os.utime(name, (now - 2 * DAY, now - 2 * DAY))

    store.sweep(unused_for=DAY, most=PLENTY, now=now)

    assert layers(folder) == {base, new}
    assert store.named("docker.io/library/old:latest") is None
    assert store.named("docker.io/library/new:latest") is not None
    assert len(os.listdir(folder / "locks")) == 3


def test_the_oldest_go_when_there_is_no_more_room(
    store: Store, source: Source, folder: Path
) -> None:
    made = {}
    for age, name in enumerate(("newest", "middle", "oldest")):
        made[name] = source.make(name, 1000)
        pull(store, source, name, made[name]).close()
        path = folder / "images" / name.encode().hex().zfill(64)
        os.utime(path, (1000 - age, 1000 - age))

    store.sweep(unused_for=DAY, most=2500, now=1000)

    assert layers(folder) == {made["newest"], made["middle"]}


def test_what_is_in_use_leaves_others_their_room(
    store: Store, source: Source, folder: Path
) -> None:
    used, base, idle = source.make("used", 9000), source.make("base", 9000), source.make("idle", 5)
    held = pull(store, source, "used", base, used)
    pull(store, source, "idle", base, idle).close()

    store.sweep(unused_for=DAY, most=10)
    stay = layers(folder)
    store.sweep(unused_for=DAY, most=4)
    held.close()

    assert stay == {used, base, idle}
    assert layers(folder) == {used, base}


def test_one_layer_is_brought_from_two_places_and_a_slow_one_holds_up_nobody(
    store: Store, source: Source
) -> None:
    diff_id = source.make("wanted")
    is_slow, goes_on = threading.Event(), threading.Event()

    def origin(host: str) -> Origin:
        return Origin(host, f"{host}/x", "sha256:" + "b" * 64, lambda: True)

    def slowly() -> int:
        is_slow.set()
        assert goes_on.wait(60)
        return source.open(diff_id)

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(store.layer, diff_id, slowly, origin=origin("slow"))
        assert is_slow.wait(60)
        fast = store.layer(diff_id, lambda: source.open(diff_id), origin=origin("fast"))
        goes_on.set()

        assert slow.result().layer == fast.layer
    assert len(source.asked) == 2


def test_who_waits_for_a_layer_hears_of_it_and_can_stop(store: Store, source: Source) -> None:
    diff_id = source.make("wanted")
    stop, goes_on = Stop(), threading.Event()

    def slowly() -> int:
        assert goes_on.wait(60)
        return source.open(diff_id)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(store.layer, diff_id, slowly, stop=Stop())
        lock = store.shelves.fetch_lock("", diff_id)
        while (free := locks.alone_at_once(lock)) is not None:
            free.close()
        second = threads.submit(
            store.layer, diff_id, lambda: source.open(diff_id), stop=stop, waiting=stop.set
        )

        with pytest.raises(Stopped):
            second.result(60)
        goes_on.set()
        first.result().close()
    assert source.asked == [diff_id]


def test_what_is_used_stays_whatever_becomes_of_who_pulled_it(
    store: Store, source: Source, folder: Path
) -> None:
    diff_id = source.make("used")
    held = pull(store, source, "used", diff_id)
    lock = locks.shared(store.shelves.image_lock(held.image.identity))  # as a run's supervisor
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock.fd]) as run:
        held.close()
        lock.close()

        store.sweep(unused_for=-DAY, most=0)

        assert layers(folder) == {diff_id}
        run.communicate()

    store.sweep(unused_for=-DAY, most=0)
    assert layers(folder) == set()


def test_a_layer_that_is_being_pulled_stays(store: Store, source: Source, folder: Path) -> None:
    diff_id = source.make("part")
    held = store.layer(diff_id, lambda: source.open(diff_id))

    assert store.sweep(unused_for=-DAY, most=0) == 0
    assert layers(folder) == {diff_id}

    held.close()
    assert store.sweep(unused_for=-DAY, most=0) == 1


def test_layers_that_the_disk_may_not_have_are_made_anew_after_a_restart(
    folder: Path, source: Source
) -> None:
    before = Store(str(folder), boot="one")
    before.open()
    torn, settled = source.make("torn"), source.make("settled")
    pull(before, source, "settled", settled).close()
    before.settle()
    pull(before, source, "torn", torn).close()

    after = Store(str(folder), boot="two")

    names = [after.named(f"docker.io/library/{name}:latest") for name in ("torn", "settled")]
    images = [after.image(one.identity) for one in names if one is not None]
    assert len(images) == 2
    assert images[0] is None
    found = images[1]
    assert found is not None
    pull(after, source, "torn", torn).close()
    assert source.asked == [settled, torn, torn]


@pytest.mark.slow
def test_pulls_uses_and_sweeps_at_once_lose_nothing_that_is_held(
    folder: Path, source: Source
) -> None:
    names = ["a", "b", "c", "d"]
    parts = {name: (source.make("base"), source.make(name)) for name in names}
    first = Store(str(folder))
    first.open()
    over = threading.Event()

    def use(seed: int) -> None:
        chance, store = random.Random(seed), Store(str(folder))
        for _ in range(8):
            name = chance.choice(names)
            held = [store.layer(one, lambda one=one: source.open(one)) for one in parts[name]]
            identity = "sha256:" + name.encode().hex().zfill(64)
            image = StoredImage(identity, ImageConfig(diff_ids=parts[name]))
            kept = store.keep(name, name, image)
            found = [os.listdir(one.layer.files) for one in held]
            for one in held:
                one.close()
            assert found == [["base"], [name]]
            if kept is not None:
                assert [os.listdir(one.files) for one in kept.layers] == [["base"], [name]]
                kept.close()

    def sweep() -> None:
        store = Store(str(folder))
        while not over.is_set():
            store.sweep(unused_for=-DAY, most=0)

    with ThreadPoolExecutor(4) as threads:
        sweepers = [threads.submit(sweep)]
        users = [threads.submit(use, seed) for seed in range(3)]
        try:
            for user in users:
                user.result()
        finally:
            over.set()
        sweepers[0].result()

    first.sweep(unused_for=-DAY, most=0)
    assert layers(folder) == set()
    assert os.listdir(folder / "locks") == os.listdir(folder / "trash") == []


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, source: Source) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        store = Store(str(disk / "images"))
        store.open()
        diff_id = source.make("large", 4 << 20)

        with pytest.raises(ImageFault) as caught:
            store.layer(diff_id, lambda: source.open(diff_id))

        assert caught.value.kind is FaultKind.NO_ROOM
        assert os.listdir(disk / "images/drafts") == os.listdir(disk / "images/trash") == []
    finally:
        subprocess.run(["umount", disk], check=True)
