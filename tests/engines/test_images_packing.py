"""A folder becomes a layer from which the same folder is made again, and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.engines.images import tar
from neuro.engines.images.extracting import Extraction
from neuro.engines.images.faults import ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.packing import Packed, Part, pack
from neuro.engines.images.records import Beside, Recorder, read
from tests.engines.archives import archive, entry, unpack

ROOT = os.geteuid() == 0
OPAQUE = "user.overlay.opaque"


@contextmanager
def opened(*parts: tuple[Path, str]) -> Iterator[list[Part]]:
    """Folders as parts of a layer."""
    fds = [os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder, _ in parts]
    try:
        yield [Part(fd, place.encode()) for fd, (_, place) in zip(fds, parts, strict=True)]
    finally:
        for fd in fds:
            os.close(fd)


def packed(folder: Path, **options: Any) -> tuple[Packed, bytes]:
    """What comes of a folder: the layer, and its blob."""
    blob = io.BytesIO()
    with opened((folder, "")) as parts:
        made = pack(parts, blob.write, **options)
    return made, blob.getvalue()


def names(blob: bytes) -> list[str]:
    return [one.name.decode() for one in tar.Archive(iter([gzip.decompress(blob)]))]


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that a layer says of each thing in a folder; files with several names by the first."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        what: object = None
        xattrs: dict[str, bytes] = {}
        if stat.S_ISREG(kind):
            what = path.read_bytes()
        elif stat.S_ISLNK(kind):
            what = os.readlink(path)
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            # Of root's mounts, whoever unpacks adds it; it says nothing that the other does not.
            every = [name for name in os.listxattr(path) if not name.startswith("trusted.")]
            xattrs = {name: os.getxattr(path, name) for name in every}
        name = str(path.relative_to(folder))
        same = first.setdefault(status.st_ino, name) if not stat.S_ISDIR(kind) else name
        hidden = stat.S_ISCHR(kind)
        mode = 0 if hidden or stat.S_ISLNK(kind) else stat.S_IMODE(status.st_mode)
        owner = (0, 0) if hidden else (status.st_uid, status.st_gid)
        time = 0 if hidden else status.st_mtime_ns
        found[name] = kind, mode, owner, time, what, xattrs, name if hidden else same
    return found


# Random folders

NAMES = st.one_of(
    st.sampled_from(["a", "b", "c d", "ü", "x" * 101, "y" * 200, "new\nline"]),
    st.sampled_from([b"\xff\xfe".decode("utf-8", "surrogateescape"), "z" * 99]),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TIMES = st.one_of(
    st.integers(-(1 << 31) * 10**9, (1 << 33) * 10**9), st.sampled_from([0, 10**18, -1, 1])
)
MODES = st.sampled_from([0o644, 0o000, 0o4755, 0o2711, 0o1777, 0o600])
IDS = st.sampled_from([0, 1, 33, 65535])
XATTRS = st.dictionaries(
    st.sampled_from(["user.note", "user.ü"]), st.binary(min_size=1, max_size=50)
)
THINGS = st.tuples(
    PATHS,
    st.sampled_from(["file", "folder", "opaque", "link", "pipe", "whiteout", "hard link"]),
    st.binary(max_size=1500),
    st.tuples(MODES, IDS, IDS, TIMES),
    XATTRS,
)


def make(folder: Path, things: list[Any]) -> None:
    """Put as many of the things into a folder as fit there."""
    files: list[Path] = []
    dressed: list[tuple[Path, int]] = []
    for name, kind, content, (mode, user, group, time), xattrs in things:
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                path.open("xb").write(content)
                files.append(path)
            elif kind in ("folder", "opaque"):
                path.mkdir()
                if kind == "opaque":
                    os.setxattr(path, OPAQUE, b"y")
            elif kind == "link":
                path.symlink_to("/nowhere/" * (len(content) % 30 + 1))
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "whiteout":
                os.mknod(path, stat.S_IFCHR, 0)
                continue
            elif files:
                os.link(files[-1], path, follow_symlinks=False)
                continue
            else:
                continue
        except OSError:
            continue  # something else is there
        if ROOT:
            os.chown(path, user, group, follow_symlinks=False)
        if kind != "link":
            os.chmod(path, mode if ROOT or kind != "folder" else mode | 0o700)
        if kind in ("file", "folder"):
            for key, value in xattrs.items():
                os.setxattr(path, key, value)
        dressed.append((path, time))
    for path, time in reversed(dressed):
        os.utime(path, ns=(time, time), follow_symlinks=False)


def extract(files: Path, blob: bytes) -> dict[bytes, Beside]:
    """Unpack without the fence of a process, as this takes longer than all the rest."""
    told = io.StringIO()
    files.mkdir()
    root = os.open(files, os.O_PATH | os.O_DIRECTORY)
    mask = os.umask(0)
    try:
        run = Extraction(root, Recorder(told, Limits()), Limits(), 1 << 16)
        run.run(tar.Archive(iter([gzip.decompress(blob)])))
    finally:
        os.umask(mask)
        os.close(root)
    told.seek(0)
    return read(told)


@pytest.mark.root
@settings(max_examples=40, deadline=None)
@given(things=st.lists(THINGS, max_size=25))
def test_unpacking_gives_back_what_was_packed(things: list[Any]) -> None:
    place = Path(tempfile.mkdtemp(prefix="neuro-packing-"))
    try:
        (place / "before").mkdir()
        make(place / "before", things)
        before = snapshot(place / "before")

        made, blob = packed(place / "before")
        beside = extract(place / "after", blob)

        assert snapshot(place / "after") == before
        assert not [path for path, one in beside.items() if one.implied]
        assert made.changed == 0
        assert packed(place / "after") == (made, blob)
    finally:
        shutil.rmtree(place)


@pytest.mark.root
@settings(max_examples=10, deadline=None)
@given(things=st.lists(THINGS, max_size=25))
def test_gnu_tar_unpacks_it_as_we_do(things: list[Any]) -> None:
    place = Path(tempfile.mkdtemp(prefix="neuro-packing-"))
    try:
        (place / "before").mkdir()
        make(place / "before", things)
        _, blob = packed(place / "before")
        check_with_gnu_tar(place, blob, snapshot(place / "before"))
    finally:
        shutil.rmtree(place)


def check_with_gnu_tar(place: Path, blob: bytes, before: dict[str, tuple[object, ...]]) -> None:
    """GNU tar makes the same of a blob, but for what marks deleted files."""
    (place / "gnu").mkdir()
    command = [
        "tar",
        "-xzpf",
        "-",
        "--warning=no-timestamp",
        "--xattrs",
        "--xattrs-include=user.*",
        "--numeric-owner",
    ]
    done = subprocess.run([*command, "-C", str(place / "gnu")], input=blob, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")

    def comparable(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
        return {
            name: (*what[:5], {key: one for key, one in xattrs.items() if key != OPAQUE}, what[6])
            for name, what in found.items()
            if isinstance(xattrs := what[5], dict)
            and what[0] != stat.S_IFCHR
            and not Path(name).name.startswith(".wh.")
        }

    assert comparable(snapshot(place / "gnu")) == comparable(before)


# What a layer is named by


def test_digests_and_sizes_are_those_of_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "large").write_bytes(os.urandom(3 << 20))

    made, blob = packed(tmp_path / "files")

    plain = gzip.decompress(blob)
    assert made.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert made.diff_id == "sha256:" + hashlib.sha256(plain).hexdigest()
    assert (made.size, made.unpacked, made.entries) == (len(blob), len(plain), 1)


def test_an_empty_folder_is_an_empty_layer(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()

    made, blob = packed(tmp_path / "files")

    assert (made.entries, names(blob)) == (0, [])


def test_a_layer_has_its_folders_before_what_is_in_them(tmp_path: Path) -> None:
    for name in ("z/a/x", "b/c", "a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    _, blob = packed(tmp_path)

    assert names(blob) == ["a", "b/", "b/c", "z/", "z/a/", "z/a/x"]


# What is not part of it


def test_what_is_left_out_is_left_out_with_all_below(tmp_path: Path) -> None:
    for name in ("etc/hosts", "etc/passwd", "proc/1", "procession"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    _, blob = packed(tmp_path, without=(b"etc/hosts", b"proc"))

    assert names(blob) == ["procession", "etc/", "etc/passwd"]


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the name of a socket has little room
        server.bind("socket")

        _, blob = packed(tmp_path)

    assert names(blob) == []


def test_links_are_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "key").write_text("secret")
    files = tmp_path / "files"
    files.mkdir()
    (files / "folder").symlink_to(secret)
    (files / "file").symlink_to(secret / "key")

    _, blob = packed(files)

    assert names(blob) == ["file", "folder"]
    assert b"secret" not in gzip.decompress(blob).replace(bytes(secret), b"")


def test_what_an_overlay_says_for_itself_is_no_part_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.overlay.origin", b"x")
    os.setxattr(tmp_path / "file", "user.kept", b"x")

    _, blob = packed(tmp_path)

    found = next(iter(tar.Archive(iter([gzip.decompress(blob)]))))
    assert found.xattrs == {"user.kept": b"x"}


# Overlays


def test_files_that_mark_deleted_ones_become_whiteouts(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.setxattr(tmp_path / "folder", OPAQUE, b"x")
    for name in ("gone", "kept"):
        (tmp_path / "folder" / name).touch()
    os.setxattr(tmp_path / "folder" / "gone", "user.overlay.whiteout", b"")

    _, blob = packed(tmp_path)

    assert names(blob) == ["folder/", "folder/.wh.gone", "folder/kept"]


def test_parts_lie_where_they_are_mounted(tmp_path: Path) -> None:
    for name in ("root/usr/shadowed", "root/etc/x", "usr/bin/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    blob = io.BytesIO()

    with opened((tmp_path / "usr", "usr"), (tmp_path / "root", "")) as parts:
        pack(parts, blob.write)

    assert names(blob.getvalue()) == ["etc/", "etc/x", "usr/bin/", "usr/bin/y"]


def test_a_name_that_would_hide_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.passwd").touch()

    with pytest.raises(ImageFault, match=r"/\.wh\.passwd cannot be in an image.*another name"):
        packed(tmp_path)


# Owners and what is told beside a layer


@pytest.mark.root
def test_owners_of_the_disk_become_those_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 100_033, 100_034)

    _, blob = packed(tmp_path, owner=lambda user, group: (user - 100_000, group - 100_000))

    found = next(iter(tar.Archive(iter([gzip.decompress(blob)]))))
    assert (found.user, found.group) == (33, 34)


def test_a_stored_layer_is_packed_with_what_is_told_beside_it(tmp_path: Path) -> None:
    blob = archive(
        entry("implied/disk", "block", device=(8, 1), mode=0o660),
        entry("far", owner=(3_000_000, 5), pax={"SCHILY.xattr.security.selinux": "label"}),
        entry("twin", "hard link", link="far", owner=(3_000_000, 5)),
        entry("late", "folder"),
        entry(".wh.late"),
    )
    _, files, beside = unpack(tmp_path, blob)

    _, again = packed(files, beside=beside)

    found = {one.name.decode(): one for one in tar.Archive(iter([gzip.decompress(again)]))}
    assert sorted(found) == ["far", "implied/disk", "late/", "late/.wh..wh..opq", "twin"]
    assert (found["implied/disk"].kind, found["implied/disk"].device) == (tar.BLOCK_DEVICE, (8, 1))
    assert (found["far"].user, found["far"].group) == (3_000_000, 5)
    assert found["far"].xattrs == {"security.selinux": b"label"}
    assert (found["twin"].kind, found["twin"].link) == (tar.HARD_LINK, b"far")


# Bounds and trouble


def test_a_file_larger_than_a_layer_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(ImageFault, match="larger than 274877906944 bytes"):
        packed(tmp_path)


def test_a_file_that_shrinks_meanwhile_is_filled_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (40 << 20))
    once = iter([lambda: os.truncate(tmp_path / "a", 1 << 20)])
    blob = io.BytesIO()

    def write(piece: bytes) -> None:
        blob.write(piece)
        next(once, lambda: None)()

    with opened((tmp_path, "")) as parts:
        made = pack(parts, write)

    plain = gzip.decompress(blob.getvalue())
    assert made.changed == 1
    assert len(plain) == 3 * 512 + (40 << 20) + 1024  # two blocks are for the time


def test_an_error_of_who_writes_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(64 << 20))

    def full(piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with opened((tmp_path, "")) as parts, pytest.raises(OSError, match="No space left"):
        pack(parts, full)


def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with opened((tmp_path, "")) as parts:
            made = pack(parts, lambda piece: None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert made.unpacked > 1 << 30
    assert most < 64 << 20
