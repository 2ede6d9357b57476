"""Layers above each other: mounted, and merged where there are too many."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neuro.engines.images.manifests import ImageConfig
from neuro.engines.images.shelves import StoredImage
from neuro.engines.images.store import HeldImage, Store
from tests.engines.archives import entry, layer, tree

ROOT = os.geteuid() == 0
# What the root of a user namespace does and sees, to which the layers' files are mapped.
MAP = """
import json, os, sys
from neuro.engines.images import mounting
from neuro.engines.sandbox import kernel
place, *lowers = sys.argv[1:]
kernel.enter_guard()
ready, made = os.pipe()
over, end = os.pipe()
pid = os.fork()
if pid == 0:
    kernel.unshare(kernel.CLONE_NEWUSER)
    os.write(made, b".")
    os.read(over, 1)
    os._exit(0)
os.read(ready, 1)
kernel.map_ids(pid, "0 1879048192 65536")
users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
kernel.mount("tmpfs", place, "tmpfs", 0, "mode=755")
os.chdir(place)
for name in ("upper", "upper/files", "upper/work", "root"):
    os.mkdir(name)
    os.chown(name, 1879048192, 1879048192)
for number, path in enumerate(lowers):
    os.mkdir(str(number))
    tree = kernel.copy_tree(path)
    kernel.set_attributes(tree, kernel.ATTR_NODEV, users)
    kernel.attach(tree, os.open(str(number), os.O_PATH))
child = os.fork()
if child == 0:
    kernel.setns(users, kernel.CLONE_NEWUSER)
    kernel.become_root_inside()
    kernel.unshare(kernel.CLONE_NEWNS)
    names = [str(number) for number in range(len(lowers))]
    options = ["upperdir=upper/files", "workdir=upper/work", "userxattr"]
    mounting.mount_overlay("root", names, options)
    os.chdir("root")
    found = {name: os.lstat(name).st_uid for name in ("etc", "etc/theirs", "su")}
    os.chown("etc/theirs", 5, 5)
    os.unlink("su")
    print(json.dumps([found, sorted(os.listdir(".")), os.listdir("etc")]))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
os.write(end, b".")
"""
# What a process sees that mounts the folders it is given, the topmost first.
LOOK = """
import json, os, sys
from pathlib import Path
from neuro.engines.images import mounting
from neuro.engines.sandbox import kernel
kernel.enter_guard()
target, how, *lowers = sys.argv[1:]
getattr(mounting, how)(target, lowers, ["userxattr"], kernel.MS_RDONLY | kernel.MS_NODEV)
found = {}
for path in sorted(Path(target).rglob("*")):
    if not os.path.lexists(path):
        continue  # where one layer only has a folder, the kernel lists what is hidden in it
    status = path.lstat()
    is_file = path.is_file() and not path.is_symlink()
    found[str(path.relative_to(target))] = [status.st_mode, path.read_text() if is_file else ""]
print(json.dumps([mounting.most_lowers(10), found]))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "images"))
    made.open()
    return made


def keep(store: Store, place: Path, layers: list[list[Any]]) -> HeldImage:
    """An image of layers with these entries, the lowest first."""
    held, diff_ids = [], []
    for number, entries in enumerate(layers):
        blob, diff_id = layer(*entries)
        path = place / f"blob-{number}"
        path.write_bytes(blob)
        held.append(store.layer(diff_id, lambda path=path: os.open(path, os.O_RDONLY)))
        diff_ids.append(diff_id)
    image = StoredImage("sha256:" + "1" * 64, ImageConfig(diff_ids=tuple(diff_ids)))
    kept = store.keep("x", "y", image)
    assert kept is not None
    for one in held:
        one.close()
    return kept


def seen(place: Path, folders: list[str], how: str = "mount_overlay") -> tuple[int, Any]:
    """What the overlay of these folders shows, the lowest first; how many there could be."""
    target = place / "mounted"
    target.mkdir(exist_ok=True)
    command = [sys.executable, "-c", LOOK, target, how, *reversed(folders)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    most, found = json.loads(done.stdout)
    return most, found


def random_layers(chance: random.Random, count: int) -> list[list[Any]]:
    """Layers that put, replace and hide things, each with entries for all its folders."""
    made = []
    for number in range(count):
        entries: dict[str, Any] = {}
        for _ in range(chance.randrange(1, 6)):
            parts = [chance.choice("abc") for _ in range(chance.randrange(1, 4))]
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder in entries and entries[folder] != "folder":
                    break
                entries[folder] = "folder"
            else:
                entries.setdefault(
                    "/".join(parts), chance.choice(["file", "link", "hide", "opaque"])
                )
        tar = []
        for path, kind in sorted(entries.items()):
            above, _, name = path.rpartition("/")
            if kind == "file":
                tar.append(entry(path, content=b"%d" % number, mode=0o600 + number % 8))
            elif kind == "link":
                tar.append(entry(path, "link", link=f"to-{number}"))
            elif kind == "hide":
                tar.append(entry(f"{above}/.wh.{name}".lstrip("/")))
            else:
                tar.append(entry(path, "folder", mode=0o700 + number % 8))
                if kind == "opaque":
                    tar.append(entry(f"{path}/.wh..wh..opq"))
        made.append(tar)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_merged_layers_look_as_the_kernel_shows_them(
    store: Store, tmp_path: Path, seed: int
) -> None:
    image = keep(store, tmp_path, random_layers(random.Random(seed), 8))

    folders = store.folders(image, 3)
    merged = store.folders(image, 1)

    assert [len(folders), len(merged)] == [3, 1]
    _, shown = seen(tmp_path, store.folders(image, 100))
    assert seen(tmp_path, folders)[1] == shown
    assert {
        path: [kind | mode if kind != stat.S_IFLNK else stat.S_IFLNK | 0o777,
               what.decode() if isinstance(what, bytes) else ""]
        for path, (kind, mode, what) in tree(Path(merged[0])).items()
    } == shown  # fmt: skip


def test_merging_costs_no_copies_and_happens_once(store: Store, tmp_path: Path) -> None:
    image = keep(store, tmp_path, [[entry("a", content=b"a")], [entry("b")], [entry("c")]])

    (merged,) = store.folders(image, 1)

    original = Path(image.layers[0].files) / "a"
    assert (Path(merged) / "a").samefile(original)
    made = Path(merged).stat().st_ino
    assert Path(store.folders(image, 1)[0]).stat().st_ino == made


def test_folders_without_an_entry_are_what_lower_layers_say(store: Store, tmp_path: Path) -> None:
    lower = [
        entry("tmp", "folder", mode=0o1777),
        entry("home/me", "folder", mode=0o700),
        entry("cleared", "folder", mode=0o711),
        entry("cleared/old"),
    ]
    upper = [entry("tmp/file"), entry("home/me/file"), entry("cleared/.wh..wh..opq")]
    image = keep(store, tmp_path, [lower, upper, [entry("above")]])

    merged, above = store.folders(image, 100)

    assert above == image.layers[2].files
    _, shown = seen(tmp_path, [merged, above])
    assert {path: oct(mode) for path, (mode, _) in shown.items() if stat.S_ISDIR(mode)} == {
        "cleared": "0o40711", "home": "0o40755", "home/me": "0o40700", "tmp": "0o41777",
    }  # fmt: skip
    assert "cleared/old" not in shown


def test_folders_without_an_entry_that_no_other_layer_has_cost_nothing(
    store: Store, tmp_path: Path
) -> None:
    lower = [entry("usr", "folder"), entry("etc", "folder", mode=0o700)]
    image = keep(store, tmp_path, [lower, [entry("usr/a"), entry("opt/b"), entry("etc", "folder")]])

    assert store.folders(image, 100) == [layer.files for layer in image.layers]


def test_merged_folders_go_with_the_last_image_that_has_their_layers(
    store: Store, tmp_path: Path
) -> None:
    image = keep(store, tmp_path, [[entry("a")], [entry("b")]])
    store.folders(image, 1)
    store.sweep(unused_for=-1, most=0)
    assert len(os.listdir(tmp_path / "images/merges")) == 1

    image.close()
    store.sweep(unused_for=-1, most=0)

    assert os.listdir(tmp_path / "images/merges") == []
    assert os.listdir(tmp_path / "images/locks") == []


def test_five_hundred_layers_are_mounted(tmp_path: Path) -> None:
    folders = []
    for number in range(500):
        folder = tmp_path / f"layer,{number}:"
        folder.mkdir()
        (folder / f"file-{number}").touch()
        folders.append(str(folder))

    most, _ = seen(tmp_path, folders[:2])
    if most < 500:
        pytest.skip("this kernel takes all layers in one page of options")
    _, shown = seen(tmp_path, folders)

    assert len(shown) == 500


def test_as_many_as_fit_are_mounted_on_older_kernels(tmp_path: Path) -> None:
    folders = []
    for number in range(3):
        folder = tmp_path / f"layer,{number}"
        folder.mkdir()
        (folder / f"file-{number}").touch()
        folders.append(str(folder))

    _, shown = seen(tmp_path, folders, "mount_by_options")

    assert sorted(shown) == ["file-0", "file-1", "file-2"]


@pytest.mark.root
def test_layers_are_a_runs_own_files_where_they_are_mapped_to_it(
    store: Store, tmp_path: Path
) -> None:
    lower = [entry("etc/old"), entry("su", mode=0o4755), entry("gone")]
    upper = [
        entry("etc", "folder"),
        entry("etc/.wh..wh..opq"),
        entry("etc/theirs", owner=(33, 33)),
        entry(".wh.gone"),
    ]
    image = keep(store, tmp_path, [lower, upper])
    target = tmp_path / "stage"
    target.mkdir()
    lowers = list(reversed(store.folders(image, 100)))

    command = [sys.executable, "-c", MAP, target, *lowers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)

    assert json.loads(done.stdout) == [{"etc": 0, "etc/theirs": 33, "su": 0}, ["etc"], ["theirs"]]
    theirs = Path(image.layers[1].files) / "etc/theirs"
    assert theirs.stat().st_uid == 33
    assert (Path(image.layers[0].files) / "su").exists()
