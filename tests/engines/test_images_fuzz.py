"""Random archives: what comes of them is what a plain model says, and never outside the folder."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.engines.images import tar
from neuro.engines.images.compression import decompressors, kind_of, pieces
from neuro.engines.images.extracting import Extraction
from neuro.engines.images.faults import ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.records import Recorder, read
from tests.engines.archives import archive, entry, tree

# Unpacking is the work of root, if only of its own user namespace.
pytestmark = pytest.mark.root
OWNERS = 1 << 16
LIMITS = Limits(size=1 << 20, entries=200)


@contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """A folder for a layer, and another beside it that nothing may touch."""
    place = Path(tempfile.mkdtemp(prefix="neuro-layer-"))
    try:
        files, outside = place / "files", place / "outside"
        files.mkdir()
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        yield files, outside
    finally:
        shutil.rmtree(place)


def extract(files: Path, data: bytes) -> io.StringIO:
    """Unpack without the fence of a process: only what looks up names keeps it in."""
    beside = io.StringIO()
    root = os.open(files, os.O_PATH | os.O_DIRECTORY)
    mask = os.umask(0)
    try:
        run = Extraction(root, Recorder(beside, LIMITS), LIMITS, OWNERS)
        run.run(tar.Archive(iter([data[:700], data[700:]] if len(data) > 700 else [data])))
    finally:
        os.umask(mask)
        os.close(root)
    beside.seek(0)
    return beside


@contextmanager
def perhaps_refused() -> Iterator[None]:
    """What goes wrong is an ImageFault with a sentence."""
    sentence = "."
    try:
        yield
    except ImageFault as fault:
        sentence = fault.sentence
    assert sentence.endswith(".")


# A model in which a folder is a dict, a file its content in a list (hard links share it), and a
# link a string.
Node = Any


class Refusal(Exception):
    pass


def walk(root: Node, parts: list[str], *, links: int = 0) -> tuple[Node, list[str]]:
    """The folder that these parts lead to from the root, made where there is none."""
    waiting, real = list(reversed(parts)), []
    node = root
    while waiting:
        part = waiting.pop()
        if part == "..":
            real = real[:-1]
            node = root
            for one in real:
                node = node[one]
            continue
        below = node.setdefault(part, {})
        if isinstance(below, str):
            links += 1
            if links > 40:
                raise Refusal
            if below.startswith("/"):
                real, node = [], root
            waiting += [one for one in reversed(below.split("/")) if one]
        elif isinstance(below, dict):
            real.append(part)
            node = below
        else:
            raise Refusal
    return node, real


def place(root: Node, kind: str, name: str, content: bytes, link: str) -> None:
    *above, last = [part for part in name.split("/") if part]
    folder, real = walk(root, above)
    present = folder.get(last)
    if kind == "folder":
        if not isinstance(present, dict):
            folder[last] = {}
    elif kind == "file":
        folder[last] = [content]
    elif kind == "link":
        folder[last] = link
    else:
        *above, original = [part for part in link.split("/") if part]
        target, _ = walk(root, above)
        if original not in target:
            raise Refusal
        found = target[original]
        if isinstance(found, dict):
            raise Refusal
        folder, _ = walk(root, real)
        if folder.get(last) is found and not isinstance(found, str):
            return
        if target is folder and original == last:
            return
        folder.pop(last, None)
        # What was replaced may have held the original.
        target, _ = walk(root, above)
        if original not in target:
            raise Refusal
        folder[last] = target[original]


def flat(node: Node, above: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, below in node.items():
        path = above + name
        if isinstance(below, dict):
            found[path] = None
            found.update(flat(below, path + "/"))
        else:
            found[path] = below if isinstance(below, str) else below[0]
    return found


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
TARGETS = st.sampled_from(["a", "b", "../a", "/b/c", "/", "..", "a/b", "/a", "../../c", "c"])
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["file", "folder", "link", "hard link", "file", "folder"]),
        NAMES,
        st.binary(max_size=40),
        TARGETS,
        NAMES,
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(ENTRIES)
def test_random_layers_become_what_a_plain_model_says(entries: list[Any]) -> None:
    root: Node = {}
    made = []
    refused = False
    for kind, name, content, target, original in entries:
        link = target if kind == "link" else original
        body = content if kind == "file" else b""
        made.append(entry(name, kind, body, link if "link" in kind else ""))
        if not refused:
            try:
                place(root, kind, name, content, link)
            except Refusal:
                refused = True

    with folders() as (files, outside):
        try:
            extract(files, archive(*made))
            assert not refused
        except ImageFault:
            assert refused
            return
        assert {path: what[2] for path, what in tree(files).items()} == flat(root)
        assert os.listdir(outside) == ["secret"]


HOSTILE_NAMES = st.lists(
    st.sampled_from(
        ["a", "b", "..", ".", "", ".wh.a", ".wh...", ".wh..wh..opq", "\udcff", "n" * 256]
    ),
    min_size=1,
    max_size=5,
).map("/".join)


@st.composite
def hostile(draw: st.DrawFn) -> tuple[list[Any], list[tuple[int, int]]]:
    kinds = st.sampled_from(["file", "folder", "link", "hard link", "character", "fifo"])
    entries = draw(
        st.lists(st.tuples(kinds, HOSTILE_NAMES, HOSTILE_NAMES, st.booleans()), max_size=8)
    )
    changes = draw(st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), max_size=6))
    return entries, changes


@settings(max_examples=150, deadline=None)
@given(hostile())
def test_hostile_layers_are_refused_or_stay_in_their_folder(
    given_: tuple[list[Any], list[tuple[int, int]]],
) -> None:
    entries, changes = given_
    with folders() as (files, outside):
        made = []
        for kind, name, link, far in entries:
            target = (f"{outside}/secret" if kind == "hard link" else str(outside)) if far else link
            content = b"theirs" if kind == "file" else b""
            info, _ = entry(name or "x", kind, content, target if "link" in kind else "")
            made.append((info, content))
        data = bytearray(archive(*made))
        for at, value in changes:
            data[at % len(data)] = value
        with perhaps_refused():
            read(extract(files, bytes(data)))
        assert os.listdir(outside) == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"
        assert (outside / "secret").stat().st_nlink == 1
        assert sorted(os.listdir(files.parent)) == ["files", "outside"]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from([b"", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd"]))
def test_bytes_that_are_no_layer_are_told_so(data: bytes, start: bytes) -> None:
    blob = start + data
    with tempfile.TemporaryFile() as file:
        file.write(blob)
        file.seek(0)
        with perhaps_refused():
            for _ in tar.Archive(pieces(file.fileno(), decompressors(kind_of(blob[:4])), LIMITS)):
                pass


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["path", "linkpath", "size", "uid", "mtime", "GNU.sparse.map", "GNU.sparse.size",
             "GNU.sparse.major", "GNU.sparse.realsize", "GNU.sparse.name"]
        ),
        st.one_of(
            st.integers(-5, 1 << 70).map(str),
            st.sampled_from(["0,0", "0,5,3,1", "1", "1.5", "-1.5", "..", "a/b", "/x", "0,3"]),
        ),
    )
)  # fmt: skip
def test_extended_headers_never_confuse_it(pax: dict[str, str]) -> None:
    with folders() as (files, outside):
        with perhaps_refused():
            extract(files, archive(entry("file", content=b"abc", pax=pax), entry("next")))
        assert os.listdir(outside) == ["secret"]
