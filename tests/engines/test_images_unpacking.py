"""A layer becomes a folder that overlayfs can mount, and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.records import Beside, Recorder, folders
from tests.engines.archives import archive, entry, tree, unpack

ROOT = os.geteuid() == 0
CAPABILITY = struct.pack(
    "<IIIII", 0x02000001, 1 << 10, 0, 0, 0
)  # of version 2: one port below 1024


def refusal(place: Path, blob: bytes, limits: Limits | None = None) -> ImageFault:
    with pytest.raises(ImageFault) as caught:
        unpack(place, blob, limits)
    return caught.value


def test_files_keep_their_content_mode_and_time(tmp_path: Path) -> None:
    blob = archive(
        entry("bin", "folder", mode=0o2755),
        entry("bin/su", content=b"program", mode=0o4755, time=12.25),
        entry("empty", mode=0o600),
        entry("closed", "folder", mode=0o000),
        entry("closed/file", content=b"x"),
        entry("pipe", "fifo", mode=0o640),
        entry("link", "link", link="/nowhere/at/all"),
    )

    made, files, _ = unpack(tmp_path, blob)

    su = (files / "bin/su").lstat()
    assert (files / "bin/su").read_bytes() == b"program"
    assert (stat.S_IMODE(su.st_mode), su.st_mtime) == (0o4755, 12.25)
    assert stat.S_IMODE((files / "bin").lstat().st_mode) == 0o2755
    assert (files / "bin").lstat().st_mtime == 1_000_000_000
    assert stat.S_IMODE((files / "closed").lstat().st_mode) == 0
    assert stat.S_ISFIFO((files / "pipe").lstat().st_mode)
    assert os.readlink(files / "link") == "/nowhere/at/all"
    assert made.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert (made.size, made.entries) == (8, 7)


@pytest.mark.parametrize(
    "compress",
    [
        pytest.param(lambda data: data, id="plain"),
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(
            lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]), id="members"
        ),
        pytest.param(lambda data: gzip.compress(data) + bytes(512), id="padded"),
        pytest.param(zstd.compress, id="zstd"),
        pytest.param(lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:]), id="frames"),
        pytest.param(
            lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd.compress(data), id="skippable"
        ),
    ],
)
def test_every_compression_gives_the_same_layer(tmp_path: Path, compress: Any) -> None:
    plain = archive(entry("file", content=os.urandom(3 << 20)))

    made, files, _ = unpack(tmp_path, compress(plain))

    assert made.digest == "sha256:" + hashlib.sha256(plain).hexdigest()
    assert (files / "file").stat().st_size == 3 << 20


def test_an_empty_archive_is_an_empty_layer(tmp_path: Path) -> None:
    made, files, _ = unpack(tmp_path, b"")

    assert (made.entries, tree(files)) == (0, {})


@pytest.mark.root
def test_owners_are_kept_as_numbers(tmp_path: Path) -> None:
    blob = archive(
        entry("mail", "folder", owner=(0, 8), mode=0o2775),
        entry("mail/mine", owner=(0, 0)),
        entry("mail/theirs", owner=(33, 65535), mode=0o4711),
        entry("mail/link", "link", link="x", owner=(7, 7)),
        entry("far", owner=(1_000_000, 5)),
    )

    _, files, beside = unpack(tmp_path, blob)

    owners = {
        str(path.relative_to(files)): (path.lstat().st_uid, path.lstat().st_gid)
        for path in files.rglob("*")
    }
    assert owners == {
        "mail": (0, 8), "mail/mine": (0, 0), "mail/theirs": (33, 65535), "mail/link": (7, 7),
        "far": (65534, 5),
    }  # fmt: skip
    assert stat.S_IMODE((files / "mail/theirs").stat().st_mode) == 0o4711
    assert {path: one.owner for path, one in beside.items()} == {b"far": (1_000_000, 5)}


@pytest.mark.skipif(ROOT, reason="root gives files to others")
def test_owners_that_a_plain_user_cannot_give_are_told_beside(tmp_path: Path) -> None:
    blob = archive(entry("a", owner=(33, 34)), entry("b", owner=(0, 0)), entry("a", owner=(0, 5)))

    _, _, beside = unpack(tmp_path, blob)

    assert {path: one.owner for path, one in beside.items()} == {b"a": (0, 5)}


def test_what_hides_files_of_lower_layers_becomes_overlayfs_own(tmp_path: Path) -> None:
    blob = archive(
        entry(".wh.gone"),
        entry("etc/.wh..wh..opq"),
        entry("etc/new", content=b"1"),
        entry("etc/.wh..wh.plnk", "folder"),
        entry(".wh.kept"),
        entry("kept", content=b"2"),
        entry(".wh.folder"),
        entry("folder", "folder"),
        entry("late", "folder"),
        entry(".wh.late"),
        entry(".wh.implied"),
        entry("implied/file"),
    )

    _, files, beside = unpack(tmp_path, blob)

    found = {path: what[0] for path, what in tree(files).items()}
    whiteout = files / "gone"
    assert whiteout.lstat().st_rdev == 0
    assert stat.S_ISCHR(whiteout.lstat().st_mode)
    assert sorted(found) == [
        "etc", "etc/new", "folder", "gone", "implied", "implied/file", "kept", "late",
    ]  # fmt: skip
    assert (files / "kept").read_bytes() == b"2"
    opaque = {b"etc", b"folder", b"late", b"implied"}
    assert {path for path, one in beside.items() if one.opaque} == opaque
    for name in opaque:
        assert os.getxattr(bytes(files) + b"/" + name, "user.overlay.opaque") == b"y"
        if ROOT:
            assert os.getxattr(bytes(files) + b"/" + name, "trusted.overlay.opaque") == b"y"


def test_folders_without_an_entry_are_told_beside(tmp_path: Path) -> None:
    blob = archive(entry("a/b/c"), entry("d/e"), entry("d", "folder", mode=0o700))

    _, files, beside = unpack(tmp_path, blob)

    assert {path for path, one in beside.items() if one.implied} == {b"a", b"a/b"}
    assert stat.S_IMODE((files / "a/b").stat().st_mode) == 0o755
    assert stat.S_IMODE((files / "d").stat().st_mode) == 0o700


def test_no_device_is_made(tmp_path: Path) -> None:
    blob = archive(
        entry("disk", "block", device=(8, 0), mode=0o660),
        entry("null", "character", device=(1, 3)),
        entry("zero", "character", device=(0, 0)),
    )

    _, files, beside = unpack(tmp_path, blob)

    assert all(what[0] == stat.S_IFREG and what[2] == b"" for what in tree(files).values())
    assert beside[b"disk"].device == ("block", 8, 0)
    assert beside[b"null"].device == ("character", 1, 3)
    assert beside[b"zero"].device == ("character", 0, 0)


def test_attributes_are_kept_where_they_can_be(tmp_path: Path) -> None:
    pax = {
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1"),
        "SCHILY.xattr.security.selinux": "label",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.metacopy": "y",
    }
    blob = archive(entry("ping", content=b"x", pax=pax)).replace(
        CAPABILITY.decode("latin-1").encode(), CAPABILITY
    )

    _, files, beside = unpack(tmp_path, blob)

    kept = os.listxattr(files / "ping")
    assert os.getxattr(files / "ping", "user.note") == b"hello"
    assert os.getxattr(files / "ping", "security.capability")[4:8] == CAPABILITY[4:8]
    assert not [name for name in kept if "overlay" in name]
    assert beside[b"ping"].xattrs == {"security.selinux": b"label"}


def test_the_later_of_two_entries_counts(tmp_path: Path) -> None:
    blob = archive(
        entry("a", "folder"),
        entry("a/deep/file", content=b"old"),
        entry("a", content=b"a file now"),
        entry("b", content=b"long content"),
        entry("b", content=b"short"),
        entry("c", "link", link="b"),
        entry("c", content=b"not through the link"),
        entry("d", content=b"d"),
        entry("d", "folder"),
        entry("d/in", content=b"1"),
        entry("d", "folder", mode=0o700),
        entry("e", "link", link="d"),
        entry("e", "folder"),
        entry("e/in", content=b"2"),
    )

    _, files, _ = unpack(tmp_path, blob)

    assert {path: what[2] for path, what in tree(files).items()} == {
        "a": b"a file now",
        "b": b"short",
        "c": b"not through the link",
        "d": None,
        "d/in": b"1",
        "e": None,
        "e/in": b"2",
    }


def test_hard_links_share_a_file(tmp_path: Path) -> None:
    blob = archive(
        entry("usr/one", content=b"1"),
        entry("two", "hard link", link="usr/one"),
        entry("three", "hard link", link="/usr/one"),
        entry("usr/one", "hard link", link="two"),
        entry("link", "link", link="nowhere"),
        entry("same", "hard link", link="link"),
    )

    _, files, _ = unpack(tmp_path, blob)

    assert (files / "usr/one").stat().st_nlink == 3
    assert os.readlink(files / "same") == "nowhere"


def test_links_on_the_way_lead_to_places_in_the_layer(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    blob = archive(
        entry("usr/lib", "folder"),
        entry("lib", "link", link="/usr/lib"),
        entry("lib/a", content=b"a"),
        entry("usr/up", "link", link="../../../../../../etc"),
        entry("usr/up/b", content=b"b"),
        entry("out", "link", link=str(outside)),
        entry("out/c", content=b"c"),
    )

    _, files, _ = unpack(tmp_path, blob)

    assert (files / "usr/lib/a").read_bytes() == b"a"
    assert (files / "etc/b").read_bytes() == b"b"
    assert list(outside.iterdir()) == []
    assert (files / str(outside).lstrip("/") / "c").read_bytes() == b"c"


HOSTILE = {
    "upwards": [entry("a/../../etc/passwd")],
    "only upwards": [entry("..", "folder")],
    "a hard link upwards": [entry("a", "hard link", link="../../etc/passwd")],
    "a hard link to the machine": [entry("a", "hard link", link="/etc/passwd")],
    "a hard link to what is not there": [entry("a", "hard link", link="b")],
    "a hard link to a folder": [entry("d", "folder"), entry("a", "hard link", link="d")],
    "files in a file": [entry("a"), entry("a/b")],
    "a loop of links": [entry("a", "link", link="b"), entry("b", "link", link="a"), entry("a/c")],
    "a link to nothing": [entry("a", "link", link="")],
    "a root that is a file": [entry("./", "link", link="/etc")],
    "whiteout of nothing": [entry("a/.wh.")],
    "whiteout upwards": [entry("a/.wh...")],
    "files in what is hidden": [entry(".wh.a/b")],
    "a name too long": [entry("n" * 300)],
    "a path too long": [entry("d/" * 2500 + "f")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_entry_is_refused_with_a_sentence(tmp_path: Path, name: str) -> None:
    fault = refusal(tmp_path, archive(*HOSTILE[name]))

    assert fault.kind in (FaultKind.REFUSED, FaultKind.CORRUPT)
    assert fault.sentence.startswith("The layer")
    assert fault.sentence.endswith(".")


def test_absolute_names_are_names_in_the_layer(tmp_path: Path) -> None:
    _, files, _ = unpack(tmp_path, archive(entry("/etc/passwd", content=b"theirs")))

    assert (files / "etc/passwd").read_bytes() == b"theirs"


def test_a_layer_that_grows_without_bounds_is_refused(tmp_path: Path) -> None:
    zeros = archive(entry("zeros", content=bytes(8 << 20)))
    many = archive(*(entry(f"f{number}") for number in range(50)))
    sparse = archive(
        entry(
            "hole",
            pax={"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,0"},
        )
    )
    for number, (blob, limits) in enumerate(
        [
            (zeros, Limits(size=1 << 20)),
            (gzip.compress(zeros), Limits(size=1 << 20)),
            (gzip.compress(zeros), Limits(ratio=100, ratio_from=1 << 20)),
            (zstd.compress(zeros), Limits(ratio=100, ratio_from=1 << 20)),
            (many, Limits(entries=20)),
            (sparse, Limits(size=1 << 30)),
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()

        fault = refusal(place, blob, limits)

        assert fault.kind is FaultKind.REFUSED, number
        assert "more than" in fault.sentence or "larger than" in fault.sentence


def test_what_is_told_beside_a_layer_is_bounded(tmp_path: Path) -> None:
    owners = archive(*(entry(str(number), owner=(1 << 20, 0)) for number in range(50)))
    folders = archive(*(entry(f"{number}/.wh..wh..opq") for number in range(50)))
    for name in ("owners", "folders", "both"):
        (tmp_path / name).mkdir()

    by_size = refusal(tmp_path / "owners", owners, Limits(beside=1000))
    by_lines = refusal(tmp_path / "folders", folders, Limits(told=60))
    made, _, beside = unpack(tmp_path / "both", folders, Limits(told=100))

    assert {by_size.kind, by_lines.kind} == {FaultKind.REFUSED}
    assert "Make it anew from fewer files" in by_size.sentence
    assert made.implied
    assert len([one for one in beside.values() if one.opaque and one.implied]) == 50


def test_only_what_is_told_of_folders_is_read_here(tmp_path: Path) -> None:
    told = io.StringIO()
    recorder = Recorder(told, Limits())
    for number in range(1000):
        recorder.owner(b"file%d" % number, 7, 7)
    recorder.opaque(b"a")
    recorder.implied(b"a/b")
    recorder.implied(b'"implied": ')
    recorder.gone(b"a")
    recorder.implied(b"a")

    found = folders(io.StringIO(told.getvalue()), Limits())

    assert found == {b"a": Beside(implied=True), b'"implied": ': Beside(implied=True)}
    for limits in (Limits(told=2), Limits(beside=1000)):
        with pytest.raises(ValueError, match="larger"):
            folders(io.StringIO(told.getvalue()), limits)


def sparse_map(text: bytes) -> bytes:
    """A sparse file in pax form 1.0 whose map is this."""
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    return archive(entry("sparse", content=text, pax=pax))


@pytest.mark.parametrize("text", [b"9" * 4096, b"1\n" + b"9" * 4096, b"131073\n" + b"0\n" * 2000])
def test_the_map_of_a_sparse_file_is_bounded(tmp_path: Path, text: bytes) -> None:
    assert refusal(tmp_path, sparse_map(text)).kind is FaultKind.CORRUPT


def test_headers_are_bounded(tmp_path: Path) -> None:
    def header(kind: bytes, records: bytes) -> bytes:
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, len(records)
        return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)

    def record(key: str, size: int) -> bytes:
        body = f" {key}=".encode() + b"x" * size + b"\n"
        return str(len(body) + len(str(len(body) + 9))).encode() + body

    last = archive(entry("file"))
    all_of_them = b"".join(header(b"g", record(f"key{number}", 9000)) for number in range(8))
    for name in ("all", "many", "few"):
        (tmp_path / name).mkdir()

    for_all = refusal(tmp_path / "all", all_of_them + last)
    many = refusal(tmp_path / "many", header(b"x", record("comment", 90)) * 70 + last)
    made, _, _ = unpack(tmp_path / "few", header(b"g", record("comment", 90)) * 10 + last)

    assert {for_all.kind, many.kind} == {FaultKind.REFUSED}
    assert "64 KiB of headers" in for_all.sentence
    assert "too many headers before one file" in many.sentence
    assert made.entries == 1


def test_a_layer_leaves_room_on_the_disk(tmp_path: Path) -> None:
    blob = archive(entry("large", content=bytes(65 << 20)))

    fault = refusal(tmp_path, blob, Limits(spare=1 << 60))

    assert fault.kind is FaultKind.NO_ROOM
    assert fault.sentence.startswith("There is no room on the disk of images:")


def test_a_damaged_layer_is_told_from_one_that_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(archive(entry("file", content=os.urandom(5000))))
    for number, blob in enumerate(
        [
            whole[:-100],
            whole[:2000] + b"garbage" + whole[2007:],
            whole + b"something else",
            zstd.compress(archive(entry("file", content=os.urandom(5000))))[:-10],
            gzip.compress(archive(entry("file", content=bytes(5000)))[:3000]),
            b"this is not an archive" * 100,
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()

        assert refusal(place, blob).kind is FaultKind.CORRUPT, number


@pytest.mark.parametrize(
    "form", ["--format=gnu", "--format=posix", "--format=ustar", "--format=v7"]
)
def test_archives_of_gnu_tar_are_read(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/file").write_bytes(os.urandom(100_000))
    (source / "d/link").symlink_to("file")
    os.link(source / "d/file", source / "hard")
    if form in ("--format=gnu", "--format=posix"):
        long = source / "d" / ("long" * 50)
        long.write_bytes(b"long")
        (source / "to-long").symlink_to("x" * 300)
    archived = tmp_path / "archive.tar"
    subprocess.run(["tar", form, "-cf", archived, "-C", source, "."], check=True)
    place = tmp_path / "place"
    place.mkdir()

    _, files, _ = unpack(place, archived.read_bytes())

    assert tree(files) == tree(source)
    assert (files / "hard").stat().st_nlink == 2


@pytest.mark.parametrize(
    "form",
    [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ],
)
def test_sparse_files_are_whole_and_sparse(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(40):  # more than fit in one header
            file.seek(number * 1_000_000)
            file.write(b"%d" % number * 3000)
        file.truncate(50_000_000)
    archived = tmp_path / "archive.tar"
    command = ["tar", *form.split(), "--sparse", "-cf", archived, "-C", source, "."]
    subprocess.run(command, check=True)
    place = tmp_path / "place"
    place.mkdir()

    made, files, _ = unpack(place, archived.read_bytes())

    assert (files / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (files / "sparse").stat().st_blocks * 512 < 10_000_000
    assert made.size == 50_000_000


def test_what_python_writes_in_any_form_is_read(tmp_path: Path) -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        place = tmp_path / str(form)
        place.mkdir()

        blob = archive(entry("p" * 90 + "/" + "f" * 90, content=b"1"), entry("é"), form=form)
        _, files, _ = unpack(place, blob)

        assert (files / ("p" * 90) / ("f" * 90)).read_bytes() == b"1"
        assert (files / "é").exists()


@pytest.mark.root
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_overlayfs_shows_the_layers_as_an_image(tmp_path: Path) -> None:
    lower = [
        entry("etc", "folder"), entry("etc/old"), entry("gone"), entry("stays", content=b"1"),
    ]  # fmt: skip
    upper = [entry("etc/.wh..wh..opq"), entry("etc/new"), entry(".wh.gone")]
    places = []
    for number, entries in enumerate((lower, upper)):
        place = tmp_path / str(number)
        place.mkdir()
        places.append(unpack(place, archive(*entries))[1])
    merged = tmp_path / "merged"
    merged.mkdir()
    for extra in ("", ",userxattr"):
        options = f"lowerdir={places[1]}:{places[0]}{extra}"
        script = f"mount -t overlay overlay -o {options} {merged} && find {merged} -type f"

        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True
        )

        assert sorted(Path(line).name for line in done.stdout.split()) == ["new", "stays"]
