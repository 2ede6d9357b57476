"""Which files of a context are sent again, and which of those that are kept go."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.client import kept_contexts
from neuro.client.blocking import run
from neuro.client.build_context import Item, context_items
from neuro.client.jobs import Jobs
from neuro.client.kept_contexts import (
    ContextFolder,
    Entry,
    Folder,
    Kept,
    difference,
    outdated,
)
from neuro.client.storage import Outcome, Storage
from neuro.domain.errors import NotFound, StorageFault
from neuro.domain.uris import ResourceURI

DAY = 86400
NOW = 1_800_000_000


def _context(paths: dict[str, tuple[str, bool]]) -> dict[str, Entry]:
    """A context with these files, and the folders that they are in."""
    found: dict[str, Entry] = {}
    for path, (digest, executable) in paths.items():
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if path in found or any(found.get(it, Entry(True)) != Entry(True) for it in above):
            continue
        found.update(dict.fromkeys(above, Entry(True)))
        found[path] = Entry(False, executable, digest)
    return found


PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "a.b"]), min_size=1, max_size=3).map("/".join)
CONTEXTS = st.dictionaries(PATHS, st.tuples(st.sampled_from(["", "1", "2"]), st.booleans())).map(
    _context
)


@given(CONTEXTS, CONTEXTS)
def test_what_is_removed_and_sent_makes_the_one_of_the_other(
    before: dict[str, Entry], now: dict[str, Entry]
) -> None:
    change = difference(before, now)

    there = dict(before)
    for path in change.removed:
        assert path in there, "a path is removed once"
        there = {it: e for it, e in there.items() if it != path and not it.startswith(f"{path}/")}
    for path in change.sent:
        assert path not in there or not (there[path].is_folder or now[path].is_folder)
        there[path] = now[path]
    assert there == now
    for path, entry in now.items():
        if not entry.is_folder and not entry.digest:
            assert path in change.sent, "of unknown content"


def test_what_is_the_same_is_not_sent() -> None:
    context = _context({"a/b": ("1", True), "c": ("2", False)})

    assert difference(context, context) == ((), frozenset())


def test_what_nobody_comes_back_for_goes() -> None:
    a, b = "a" * 16, "b" * 16
    names = {
        (f"{NOW - 4 * DAY}-left", NOW): True,
        (f"{NOW - 2 * DAY}-left", NOW - 9 * DAY): False,
        (f"{a}.kept", NOW - 8 * DAY): True,
        (f"{b}.kept", NOW - 6 * DAY): False,
        # As clients named them before.
        (f"{NOW - 8 * DAY}-{a}.kept", NOW): True,
        (f"{NOW - 6 * DAY}-{b}.kept", NOW - 9 * DAY): False,
        ("mine", NOW - 9 * DAY): False,
        ("mine.kept", NOW - 9 * DAY): False,
        ("my-own", NOW - 9 * DAY): False,
        ("\u0664-left", NOW - 9 * DAY): False,
    }

    gone = outdated([Folder(*it) for it in names], NOW)

    assert set(gone) == {name for (name, _), goes in names.items() if goes}


def test_the_last_eight_are_kept() -> None:
    folders = [Folder(f"{age:016x}.kept", NOW - age) for age in range(10)]

    assert outdated(folders, NOW) == [it.name for it in folders[8:]]


# A folder of the storage, from one build to the next

KEY = "0123456789abcdef"
KEPT = f"{KEY}.kept"


class MemoryStorage:
    """A storage in memory: what it has, and what was asked of it, one line a request.

    The name of a build's own folder is OWN in these.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: dict[str, int] = {}
        self.asked: list[str] = []

    def uri(self, text: str) -> ResourceURI:
        return ResourceURI("storage", "default", ("me", *text.removeprefix("storage:").split("/")))

    def _note(self, *words: object) -> None:
        line = " ".join(map(str, words)).replace("storage://default/me/.builds", "")
        line = re.sub(r"/\d+-[0-9a-f]{16}\b", "/OWN", line)
        self.asked.append(line.replace(" /", " ").strip())

    def _below(self, uri: ResourceURI) -> list[str]:
        top = str(uri)
        return [it for it in (*self.files, *self.folders) if it == top or it.startswith(f"{top}/")]

    async def rename(self, source: ResourceURI, target: ResourceURI) -> None:
        self._note("rename", source, target)
        if not self._below(source):
            raise NotFound("no such folder")
        is_file = str(source) in self.files
        if not is_file and self._below(target):
            raise StorageFault("ENOTEMPTY")
        for held in (self.files, self.folders):
            for path in [it for it in held if it in self._below(source)]:
                held[f"{target}{path[len(str(source)) :]}"] = held.pop(path)  # type: ignore[index]

    async def read_bytes(self, uri: ResourceURI) -> bytes:
        self._note("read", uri)
        if str(uri) not in self.files:
            raise NotFound("no such file")
        return self.files[str(uri)]

    async def create(self, uri: ResourceURI, data: bytes) -> None:
        self._note("create", uri)
        self.files[str(uri)] = data

    async def mkdir(self, uri: ResourceURI, *, parents: bool, exist_ok: bool) -> None:
        self._note("mkdir", uri)
        self.folders[str(uri)] = 0

    async def upload_items(
        self, items: Iterable[Item], target: ResourceURI, *, progress: object
    ) -> Outcome:
        names = [it.relative for it in items]
        self._note(f"upload {','.join(names)} to", target)
        for name in names:
            self.files[f"{target}/{name}"] = b"sent"
        return Outcome(len(names), 0, ())

    async def remove(self, uri: ResourceURI, *, recursive: bool) -> AsyncIterator[str]:
        self._note("remove", uri)
        for path in self._below(uri):
            self.files.pop(path, None)
            self.folders.pop(path, None)
            yield path

    async def list(self, uri: ResourceURI) -> AsyncIterator[SimpleNamespace]:
        self._note("list", uri)
        for path in {it[len(f"{uri}/") :].split("/")[0] for it in self._below(uri)}:
            yield SimpleNamespace(path=path, modificationTime=int(time.time()))

    def said(self) -> list[str]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context of two files that nobody has changed for long."""
    monkeypatch.setattr(kept_contexts.secrets, "randbelow", lambda _: 1)
    folder = tmp_path / "context"
    folder.mkdir()
    for name in ("Dockerfile", "a"):
        (folder / name).write_text(name)
    monkeypatch.setattr(kept_contexts, "_TICK_NS", -(10**18))
    return folder


def taken(storage: MemoryStorage, key: str = KEY) -> ContextFolder:
    folder = ContextFolder(cast("Storage", storage), key)
    run(folder.take())
    return folder


def built(
    storage: MemoryStorage, top: Path, added: dict[str, bytes] | None = None, checked: str = ""
) -> ContextFolder:
    """What a build of a context does with its folder."""
    folder = taken(storage)
    for name, content in (added or {}).items():
        run(folder.add(name, content))
    change = folder.change(context_items(top, (), ()))
    if folder.is_new or not change.is_empty:
        run(folder.send(change))
    folder.checked = checked or folder.checked
    run(folder.give_back(added or ()))
    run(folder.sweep(cast("Jobs", None), "me"))
    return folder


def test_the_first_build_sends_everything_and_looks_at_what_others_left(
    storage: MemoryStorage, top: Path
) -> None:
    built(storage, top)

    assert storage.said() == [
        f"rename {KEPT} OWN",
        "mkdir OWN/context",
        "upload Dockerfile,a to OWN/context",
        "create OWN/manifest.new",
        "rename OWN/manifest.new OWN/manifest",
        f"rename OWN {KEPT}",
        "list",
    ]


def test_a_context_that_is_as_it_was_takes_three_requests(
    storage: MemoryStorage, top: Path
) -> None:
    built(storage, top, checked="the Dockerfile")
    storage.said()

    folder = built(storage, top)

    assert folder.checked == "the Dockerfile"
    assert storage.said() == [f"rename {KEPT} OWN", "read OWN/manifest", f"rename OWN {KEPT}"]


def test_one_file_that_has_changed_is_sent_and_written_down(
    storage: MemoryStorage, top: Path
) -> None:
    built(storage, top)
    storage.said()
    (top / "a").write_text("changed")

    built(storage, top, added={"secrets/0": b"secret"})

    assert storage.said() == [
        f"rename {KEPT} OWN",
        "read OWN/manifest",
        "mkdir OWN/secrets",
        "create OWN/secrets/0",
        "upload a to OWN/context",
        "remove OWN/secrets",
        "create OWN/manifest.new",
        "rename OWN/manifest.new OWN/manifest",
        f"rename OWN {KEPT}",
    ]
    assert sorted(it.rpartition("/")[2] for it in storage.files) == ["Dockerfile", "a", "manifest"]


def test_another_dockerfile_that_was_checked_is_written_down(
    storage: MemoryStorage, top: Path
) -> None:
    built(storage, top, checked="one")
    storage.said()

    built(storage, top, checked="another")

    assert "create OWN/manifest.new" in storage.said()
    assert taken(storage).checked == "another"


def test_a_context_that_does_not_change_is_marked_as_used_once_a_day(
    storage: MemoryStorage, top: Path
) -> None:
    built(storage, top)
    (place,) = [it for it in storage.files if it.endswith("/manifest")]
    found = msgspec.json.decode(storage.files[place], type=Kept)
    for ago, is_written in ((DAY - 600, False), (DAY + 600, True), (-DAY - 600, True)):
        old = msgspec.structs.replace(found, written=int(time.time()) - ago)
        storage.files[place] = msgspec.json.encode(old)
        storage.said()

        built(storage, top)

        assert ("create OWN/manifest.new" in storage.said()) is is_written, ago


@pytest.mark.parametrize("manifest", [None, b"", b"[]", b'{"files": 1}'])
def test_what_is_not_whole_is_removed_and_sent_anew(
    storage: MemoryStorage, top: Path, manifest: bytes | None
) -> None:
    built(storage, top)
    (place,) = [it for it in storage.files if it.endswith("/manifest")]
    if manifest is None:
        del storage.files[place]
    else:
        storage.files[place] = manifest
    storage.said()

    built(storage, top)

    said = storage.said()
    assert said[:3] == [f"rename {KEPT} OWN", "read OWN/manifest", "remove OWN"]
    assert "upload Dockerfile,a to OWN/context" in said
    assert said[-1] == "list"


def test_of_two_builds_at_once_the_first_to_end_is_kept(storage: MemoryStorage, top: Path) -> None:
    built(storage, top)
    one, other = taken(storage), taken(storage)
    run(other.send(other.change(context_items(top, (), ()))))
    storage.said()

    run(one.give_back())
    run(other.give_back())

    assert storage.said() == [
        f"rename OWN {KEPT}",
        "create OWN/manifest.new",
        "rename OWN/manifest.new OWN/manifest",
        f"rename OWN {KEPT}",
        "remove OWN",
    ]
    assert {it.rpartition(".builds/")[2].split("/")[0] for it in storage.files} == {KEPT}


def test_what_was_taken_for_nothing_is_put_back_as_it_was(
    storage: MemoryStorage, top: Path
) -> None:
    run(taken(storage).put_back())
    assert storage.said() == [f"rename {KEPT} OWN"]
    built(storage, top)
    before = dict(storage.files)
    storage.said()

    run(taken(storage).put_back())

    assert storage.said() == [f"rename {KEPT} OWN", "read OWN/manifest", f"rename OWN {KEPT}"]
    assert storage.files == before


def test_a_folder_without_a_key_asks_for_nothing_and_leaves_nothing(
    storage: MemoryStorage, top: Path
) -> None:
    folder = taken(storage, "")
    run(folder.add("Dockerfile", b"FROM scratch"))
    run(folder.give_back(["Dockerfile"]))

    assert storage.said() == ["mkdir OWN", "create OWN/Dockerfile", "remove OWN"]


def test_one_build_in_twenty_looks_at_what_others_left(
    storage: MemoryStorage, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(storage, top)
    monkeypatch.setattr(kept_contexts.secrets, "randbelow", lambda most: most - 20)
    storage.said()

    built(storage, top)

    assert storage.said()[-1] == "list"
