"""The size of a run's private files: counted seldom, in slices, and ended with a clear sentence."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuro.engines.sandbox import layout, watching
from neuro.engines.sandbox.disk import (
    Census,
    Count,
    DiskWatch,
    FirstCount,
    Use,
    entries_for,
    excess_of,
    is_due,
    pause_after,
)
from neuro.engines.sandbox.loop import Loop
from neuro.engines.sandbox.removal import remove_tree
from tests.engines.harness import EngineKind, Runs
from tests.engines.test_sandbox_removal import nest

MIB = 1 << 20
EVERYTHING = Use(1 << 60, 1 << 60)
LIMIT = Use(1000, 100)


def after_a_count(**options: float) -> Count:
    """A count that found 400 bytes in 40 entries, on a disk of which 5000 were used."""
    return Count(Use(400, 40), Use(5000, 500), at=0.0, **options)


@pytest.mark.parametrize(
    ("whole", "now", "due"),
    [
        (Use(5599, 500), 5.0, False),  # it cannot have taken more than 599
        (Use(5600, 500), 5.0, True),
        (Use(5000, 559), 5.0, False),
        (Use(5000, 560), 5.0, True),
        (Use(9000, 900), 0.5, False),  # a moment ago it was counted
        (Use(5000, 500), 1000.0, False),  # nothing changed on the whole disk
        (Use(5001, 500), 61.0, True),
        (Use(4000, 400), 61.0, True),  # others freed what it may have taken
        (Use(4000, 400), 59.0, False),
    ],
)
def test_files_are_counted_only_where_the_limit_may_be_exceeded(
    whole: Use, now: float, due: bool
) -> None:
    assert is_due(after_a_count(), whole, now, LIMIT) is due


def test_a_long_count_is_followed_by_a_long_rest() -> None:
    last = after_a_count(took=2.0)

    assert not is_due(last, Use(9000, 900), 19.0, LIMIT)
    assert is_due(last, Use(9000, 900), 20.0, LIMIT)


def test_what_is_left_decides_how_soon_to_look_again() -> None:
    limit = Use(100 << 30, 1)

    assert pause_after(Count(Use(), Use(), at=0.0), Use(), limit) == 10.0
    assert pause_after(Count(Use(94 << 30), Use(), at=0.0), Use(), limit) == 3.0
    assert pause_after(Count(Use(94 << 30), Use(), at=0.0), Use(20 << 30), limit) == 1.0


def test_the_sentence_has_the_numbers() -> None:
    sentence = excess_of(Use((10 << 30) + (205 << 20), 5), Use(10 << 30, 10))

    assert sentence is not None
    assert "10.2G of the 10G" in sentence
    assert "volume" in sentence
    more = excess_of(Use(5, 200_001), Use(10, 200_000))
    assert more is not None
    assert "200001 private files" in more
    assert excess_of(LIMIT, LIMIT) is None


def test_a_larger_disk_gives_more_files() -> None:
    assert entries_for(1 << 20) == 200_000
    assert entries_for(16 << 30) == 1 << 20


def counted(folder: Path, limit: Use = EVERYTHING) -> Use:
    census = Census(str(folder), limit)
    while not census.step(0.02):
        pass
    return census.use


def on_disk(folder: Path) -> int:
    """The bytes below a folder, as ``du`` counts them."""
    told = subprocess.run(["du", "-s", "-B1", str(folder)], capture_output=True, check=True).stdout
    return int(told.split()[0]) - folder.lstat().st_blocks * 512


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def test_the_count_is_what_is_on_disk(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x" * 5_000_000)
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_bytes(b"x" * 1_000_000)
    os.link(tree / "a" / "b" / "file", tree / "a" / "second name")
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "loop").symlink_to(tree)
    with (tree / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)

    use = counted(tree)

    assert abs(use.bytes - on_disk(tree)) <= 1
    assert use.entries == 7


def test_folders_deeper_than_any_path_are_counted(tree: Path) -> None:
    nest(tree, 1200)

    assert counted(tree).entries == 1201
    remove_tree(str(tree))  # pytest could not


def test_what_is_not_there_has_no_size(tree: Path) -> None:
    assert counted(tree / "nothing" / "more") == Use()


def test_a_count_goes_on_in_slices_and_ends_early_beyond_the_limit(tree: Path) -> None:
    for number in range(3000):
        (tree / str(number)).touch()
    census = Census(str(tree), EVERYTHING)
    steps = 1
    while not census.step(0.0):
        steps += 1

    assert steps > 20
    assert census.use.entries == 3000
    assert 1000 < counted(tree, Use(1 << 60, 1000)).entries < 1200


def test_folders_that_move_under_a_count_do_it_no_harm(tree: Path) -> None:
    for name in ("one", "two"):
        for number in range(100):
            (tree / name / "inner" / str(number)).mkdir(parents=True)
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            os.rename(tree / "one" / "inner", tree / "two" / "moved")
            os.rename(tree / "two" / "moved", tree / "one" / "inner")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        uses = [counted(tree) for _ in range(50)]
    finally:
        stop.set()
        mover.join()

    assert all(use.entries <= 204 + 102 for use in uses)
    assert counted(tree).entries == 204


def test_a_closed_folder_stays_as_the_job_made_it(tree: Path) -> None:
    (tree / "closed").mkdir(mode=0o000)

    assert counted(tree).entries == 1
    assert (tree / "closed").stat().st_mode & 0o777 == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk with the folder of one run and that of another."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], check=True)
    (place / "mine").mkdir()
    (place / "others").mkdir()
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


class PatientLoop(Loop):
    """Knows for how many seconds somebody waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.waited += seconds
        super().after(seconds, action)


def watched(disk: Path, loop: Loop, limit: int = 8 * MIB, inodes: int = 1000) -> list[str]:
    """Sentences of a watch, whose loop then ends."""
    told: list[str] = []

    def exceeded(sentence: str) -> None:
        told.append(sentence)
        loop.running = False

    DiskWatch(loop, f"{disk}/mine", limit=limit, inodes=inodes, on_excess=exceeded)
    return told


@pytest.mark.root
def test_a_run_that_takes_too_much_is_told_of_once(disk: Path) -> None:
    loop = PatientLoop()
    told = watched(disk, loop)
    (disk / "mine" / "file").write_bytes(b"x" * 9 * MIB)

    loop.run()

    assert len(told) == 1
    assert "9M of the 8M" in told[0]
    assert loop.waited < 5


@pytest.mark.root
def test_a_run_that_makes_too_many_files_is_told_of(disk: Path) -> None:
    loop = Loop()
    told = watched(disk, loop, inodes=100)
    for number in range(101):
        (disk / "mine" / str(number)).touch()

    loop.run()

    assert "101 private files" in told[0]


@pytest.mark.root
def test_what_others_write_ends_nobody(disk: Path) -> None:
    loop = Loop()
    told = watched(disk, loop)
    (disk / "mine" / "file").write_bytes(b"x" * 4 * MIB)
    (disk / "others" / "file").write_bytes(b"x" * 40 * MIB)

    loop.after(2.5, lambda: setattr(loop, "running", False))
    loop.run()

    assert not told


@pytest.mark.root
def test_a_watch_that_was_ended_says_nothing(disk: Path) -> None:
    loop = Loop()
    told: list[str] = []
    watch = DiskWatch(loop, f"{disk}/mine", limit=MIB, inodes=10, on_excess=told.append)
    (disk / "mine" / "file").write_bytes(b"x" * 9 * MIB)

    watch.end()
    loop.after(1.5, lambda: setattr(loop, "running", False))
    loop.run()

    assert not told


@pytest.mark.root
def test_what_was_there_counts_for_nobody_and_all_that_comes_does(disk: Path) -> None:
    loop = Loop()
    told: list[str] = []
    (disk / "mine" / "before").write_bytes(b"x" * 9 * MIB)
    seen: list[Use] = []

    def begin(there: Use) -> None:
        seen.append(there)
        DiskWatch(loop, f"{disk}/mine", limit=8 * MIB, inodes=9, on_excess=exceeded, there=there)
        (disk / "mine" / "added").write_bytes(b"x" * 9 * MIB)

    def exceeded(sentence: str) -> None:
        told.append(sentence)
        loop.running = False

    FirstCount(loop, f"{disk}/mine", begin)
    loop.after(15.0, lambda: setattr(loop, "running", False))
    loop.run()

    assert seen == [Use(9 * MIB, 1)]
    assert len(told) == 1


def test_a_first_count_that_was_ended_tells_nothing(tmp_path: Path) -> None:
    loop = Loop()
    told: list[Use] = []

    FirstCount(loop, str(tmp_path), told.append).end()
    loop.after(0.1, lambda: setattr(loop, "running", False))
    loop.run()

    assert not told


async def test_files_that_a_run_deleted_and_holds_open_are_counted(
    own_runs: Runs, folder: Path, kind: EngineKind
) -> None:
    script = "exec 3>/tmp/file; rm /tmp/file; head -c 9000000 /dev/zero >&3; echo ready; sleep 600"
    ref = await own_runs.start("sh", "-c", script)
    await own_runs.says(ref.job_id, b"ready")
    state = layout.read_state(f"{layout.run_folder(str(folder), ref.job_id, 0)}/{layout.STATE}")
    assert state is not None
    init = int(state["init"][0])
    layers = folder / "jobs" / ref.job_id / "runs" / "0" / "layers"

    def processes() -> Iterator[int]:
        return watching.processes(init)

    seen = Census(str(layers), EVERYTHING)
    while not seen.step(0.02):
        pass
    all_of_it = Census(str(layers), EVERYTHING, processes)
    while not all_of_it.step(0.02):
        pass

    assert all_of_it.use.entries == seen.use.entries + 1
    assert all_of_it.use.bytes - seen.use.bytes >= 9_000_000
