"""Removing what jobs made: deep, wide, closed, linked, mounted, and what cannot go."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuro.engines.sandbox import launch, layout
from neuro.engines.sandbox.removal import NotRemoved, Stopped, remove_tree

PLAIN_USER = 65534


def nest(folder: Path, depth: int, name: str = "d" * 100) -> None:
    """Folders within folders, deeper than any path reaches, with a file in the last one."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A plain user's folder, where they reach it, on a quick file system."""
    place = Path(f"/dev/shm/neuro-removal-{os.getpid()}")
    place.mkdir()
    os.chown(place, PLAIN_USER if os.geteuid() == 0 else -1, -1)
    yield place
    remove_tree(str(place))


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_work_folders_go_with_what_overlays_leave_in_them_and_nothing_else(tree: Path) -> None:
    elsewhere = tree / "elsewhere/incompat/volatile"
    for volatile in (elsewhere, *(tree / f"{n}.work/work/incompat/volatile" for n in range(3))):
        volatile.mkdir(parents=True)
        (volatile / "dirty").touch()
    (tree / "1.work/work/more").touch()
    (tree / "3.work").mkdir()
    (tree / "3.work/work").symlink_to(tree / "elsewhere")
    (tree / "4").mkdir()

    launch.clear_work(str(tree), 6)

    assert {path.name for path in tree.iterdir()} == {"1.work", "3.work", "4", "elsewhere"}
    assert (tree / "1.work/work/more").exists()
    assert (elsewhere / "dirty").exists()


def test_each_folder_is_read_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel makes for each layer of a run is four folders deep: most of its removal."""
    for layer in range(6):
        deepest = tree / str(layer) / "work" / "incompat" / "volatile"
        deepest.mkdir(parents=True)
        (deepest / "dirty").touch()
    read, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(folder) or scan(folder))

    remove_tree(str(tree))

    assert not tree.exists()
    assert len(read) == 1 + 6 * 4


def test_folders_deeper_than_any_path_go(tree: Path, few_descriptors: None) -> None:
    nest(tree, 3000)

    layout.remove_tree(str(tree))

    assert not tree.exists()


def test_a_hundred_thousand_folders_side_by_side_go_in_little_memory(in_memory: Path) -> None:
    tree = f"{in_memory}/tree"
    os.mkdir(tree)
    for number in range(100_000):
        os.mkdir(f"{tree}/{number}")
        if number % 10 == 0:
            os.mkdir(f"{tree}/{number}/inner")
    tracemalloc.start()

    remove_tree(tree)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not os.path.exists(tree)
    assert peak < 4 << 20


def test_many_folders_at_each_of_many_levels_go(in_memory: Path) -> None:
    place = in_memory / "tree"
    for _ in range(40):
        for number in range(150):
            os.makedirs(f"{place}/{number}/inner")
        place /= "0"

    remove_tree(f"{in_memory}/tree")

    assert not (in_memory / "tree").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (tree / "inner").mkdir()
    (tree / "inner" / "link").symlink_to(outside)
    (tmp_path / "top").symlink_to(outside)

    remove_tree(str(tree))
    remove_tree(str(tmp_path / "top"))

    assert not tree.exists()
    assert not (tmp_path / "top").is_symlink()
    assert (outside / "file").exists()


def test_names_that_are_not_text_go(tree: Path) -> None:
    os.mkdir(os.fsencode(tree) + b"/\xff\xfe")
    os.close(os.open(os.fsencode(tree) + b"/\xff\xfe/\x80\n", os.O_CREAT))

    remove_tree(str(tree))

    assert not tree.exists()


def test_what_is_not_there_is_removed_already(tree: Path) -> None:
    remove_tree(f"{tree}/nothing")
    remove_tree(f"{tree}/nothing/below")


def test_a_file_and_a_folder_by_descriptor_go(tree: Path) -> None:
    (tree / "file").touch()
    (tree / "inner" / "more").mkdir(parents=True)
    fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)

    remove_tree(f"/proc/self/fd/{fd}/file")
    remove_tree(f"/proc/self/fd/{fd}/inner")

    os.close(fd)
    assert not list(tree.iterdir())


@pytest.mark.root
@pytest.mark.parametrize("where", [".", "inner"])
def test_a_mount_is_not_entered_and_all_else_goes(tree: Path, tmp_path: Path, where: str) -> None:
    outside = tmp_path / "outside"  # the same file system: its device does not tell
    outside.mkdir()
    (outside / "file").touch()
    mounted = tree / where / "mounted"
    mounted.mkdir(parents=True)
    (tree / "rest").mkdir()
    (tree / "rest" / "file").touch()
    subprocess.run(["mount", "--bind", str(outside), str(mounted)], check=True)
    try:
        with pytest.raises(NotRemoved, match="mounted"):
            remove_tree(str(tree))
    finally:
        subprocess.run(["umount", str(mounted)], check=True)

    assert (outside / "file").exists()
    assert not (tree / "rest").exists()
    remove_tree(str(tree))
    assert not tree.exists()


@pytest.mark.root
def test_what_cannot_go_is_named_and_all_else_goes(tree: Path) -> None:
    for number in range(50):
        (tree / str(number) / "inner").mkdir(parents=True)
        (tree / str(number) / "inner" / "file").touch()
    firm = tree / "7" / "inner" / "file"
    subprocess.run(["chattr", "+i", str(firm)], check=True)
    try:
        with pytest.raises(NotRemoved) as fault:
            remove_tree(str(tree))
    finally:
        subprocess.run(["chattr", "-i", str(firm)], check=True)

    assert str(firm) in str(fault.value)
    assert [path.name for path in tree.iterdir()] == ["7"]
    remove_tree(str(tree))
    assert not tree.exists()


def test_a_removal_stops_when_it_is_told_to(tree: Path) -> None:
    for number in range(2000):
        (tree / str(number)).mkdir()
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(Stopped):
        remove_tree(str(tree), stop)
    assert tree.exists()


def _as_plain_user(action: Callable[[], None]) -> int:
    """The exit code of ``action`` in a process without rights; 0 where it raised nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
                os.setresuid(PLAIN_USER, PLAIN_USER, PLAIN_USER)
            action()
            code = 0
        except NotRemoved:
            code = 2
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_plain_user_removes_folders_that_are_closed_or_read_only(in_memory: Path) -> None:
    def make() -> None:
        for mode in (0o000, 0o500, 0o300):
            inner = in_memory / "tree" / f"{mode:o}" / "inner"
            inner.mkdir(parents=True)
            (inner / "file").touch()
            inner.chmod(mode)
            inner.parent.chmod(mode)
        (in_memory / "tree").chmod(0o000)

    assert _as_plain_user(make) == 0
    assert _as_plain_user(lambda: remove_tree(f"{in_memory}/tree")) == 0
    assert not (in_memory / "tree").exists()


@pytest.mark.root
def test_a_plain_user_leaves_what_is_not_theirs_and_removes_the_rest(in_memory: Path) -> None:
    foreign = in_memory / "tree" / "foreign"
    foreign.mkdir(parents=True)
    (foreign / "file").touch()
    (in_memory / "tree" / "own").mkdir()
    os.chown(in_memory / "tree", PLAIN_USER, -1)
    os.chown(in_memory / "tree" / "own", PLAIN_USER, -1)

    assert _as_plain_user(lambda: remove_tree(f"{in_memory}/tree")) == 2
    assert [path.name for path in (in_memory / "tree").iterdir()] == ["foreign"]
