"""Contexts of builds in the storage: what a build was sent stays for the next one.

::

    storage:.builds/<time>-<random>     what a build has, or what a client left that was killed
    storage:.builds/<key>.kept          what is left of a build of the context ``key``
        context/                        its files
        manifest                        digests of them, and which Dockerfile was checked

Whoever builds renames a kept one to a name of its own, so no two builds have one folder, and
nothing is changed below a build that goes on. Then only files are sent whose content is not what
the manifest says, and those are removed that are here no longer. Of two builds of one context that
go on at once, what the first one gives back is kept. Times are of the client's clock, but for when
a kept folder was changed; each build of the context sees to it that it was within the last day.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from neuro.client.storage.local import LocalFile, LocalFolder, Odd
from neuro.client.storage.transfer import Outcome, Progress
from neuro.domain.errors import NotFound, StorageFault
from neuro.domain.jobs import ACTIVE, JobFilter
from neuro.domain.uris import ResourceURI

if TYPE_CHECKING:
    from neuro.client.build_context import Item
    from neuro.client.jobs import Jobs
    from neuro.client.storage import Storage

FOLDER = "storage:.builds"
_CONTEXT, _MANIFEST = "context", "manifest"
_KEPT = ".kept"
_KEPT_NAME = re.compile(r"[0-9a-f]{16}\.kept")
# Where a manifest is written: a folder's time changes when it then takes the place of the old one.
_NEW_MANIFEST = "manifest.new"
_MOST_KEPT = 8  # contexts
_KEPT_SECONDS = 7 * 86400
_LEFT_SECONDS = 3 * 86400  # a client comes no later than that to submit its build
# A kept context that has not changed is marked as used so often.
_MARKED_SECONDS = 86400
# One build of so many looks at what others have left, besides those that find no kept context.
_SWEEPS = 20
_LARGEST_MANIFEST = 256 << 20  # bytes
# A file's time of change is that of the last tick of the kernel's clock, not of now.
_TICK_NS = 100_000_000


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file in the storage, or a folder: that has no digest. Nor has a file of unknown content."""

    is_folder: bool
    executable: bool = False
    digest: str = ""


Manifest = dict[str, Entry]


class Kept(msgspec.Struct, frozen=True):
    """What a kept folder says of itself.

    ``checked`` names the Dockerfile that was found right before the context was sent, ``written``
    is when this was written, in seconds since 1970.
    """

    files: Manifest = {}
    checked: str = ""
    written: int = 0


class Folder(NamedTuple):
    """A folder below ``FOLDER``; ``changed`` is when, in seconds since 1970."""

    name: str
    changed: int


class Difference(NamedTuple):
    """Paths to remove with all that is in them, and then those to send."""

    removed: tuple[str, ...]
    sent: frozenset[str]


def difference(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> Difference:
    """How a context comes from what it was to what it is.

    >>> one, two = Entry(False, digest="1"), Entry(False, digest="2")
    >>> difference({"a": one, "b": one, "c": one}, {"a": one, "b": two})
    Difference(removed=('c',), sent=frozenset({'b'}))
    """
    removed: list[str] = []
    for path in sorted(before, key=lambda it: it.split("/")):
        if removed and path.startswith(f"{removed[-1]}/"):
            continue
        if path not in now or now[path].is_folder != before[path].is_folder:
            removed.append(path)
    gone = set(removed)
    sent = set()
    for path, entry in now.items():
        is_known = entry.is_folder or entry.digest
        if not is_known or entry != before.get(path) or path in gone:
            sent.add(path)
    return Difference(tuple(removed), frozenset(sent))


def context_key(top: Path, ignore_file: str | None) -> str:
    """What names a context: builds of it find what the last one has sent."""
    words = f"{os.path.realpath(top)}\0{ignore_file or ''}"
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Change(NamedTuple):
    """What has to be done so that the folder has the context as it is now."""

    removed: tuple[str, ...]
    wanted: tuple[Item, ...]
    seen: dict[str, Seen]

    @property
    def is_empty(self) -> bool:
        return not self.removed and not self.wanted


class ContextFolder:
    """The folder of one build, from ``take`` until ``give_back``, ``put_back`` or ``remove``.

    All methods raise what the storage's do.
    """

    def __init__(self, storage: Storage, key: str = "") -> None:
        """Without a ``key`` nothing is kept, and nothing kept is taken."""
        self._storage = storage
        self._key = key
        self._top = storage.uri(FOLDER)
        self._kept = self._top.child(f"{key}{_KEPT}")
        self.uri = self._top.child(_own_name())
        self.context = self.uri.child(_CONTEXT)
        self._found: Kept | None = None
        self._manifest: Manifest = {}
        self.checked = ""
        self._sweeps = secrets.randbelow(_SWEEPS) == 0
        self._made: set[ResourceURI] = set()

    async def take(self) -> None:
        """Have the folder: the kept one of this context, or a new one."""
        if not self._key:
            return
        try:
            await self._storage.rename(self._kept, self.uri)
        except NotFound:
            self._sweeps = True
            return
        try:
            stored = await self._storage.read_bytes(self.uri.child(_MANIFEST))
            self._found = msgspec.json.decode(stored, type=Kept)
        except (NotFound, ValueError):  # it is not whole
            self._sweeps = True
            await _remove(self._storage, self.uri)
            return
        self._manifest, self.checked = self._found.files, self._found.checked

    async def add(self, name: str, content: bytes) -> None:
        """Have a file besides the context for this build alone, such as ``secrets/0``."""
        above, _, own = name.rpartition("/")
        folder = self.uri.child(above) if above else self.uri
        if folder not in self._made:
            await self._storage.mkdir(folder, parents=True, exist_ok=True)
            self._made.add(folder)
        await self._storage.create(folder.child(own), content)

    def change(self, items: Iterable[Item]) -> Change:
        """What has to change for the context to be these items. It reads all files, without pause.

        A folder that is new has to be sent even if there is nothing in it.
        """
        items = list(items)
        seen = _looked_at(items)
        found = difference(self._manifest, {path: one.entry for path, one in seen.items()})
        wanted = [it for it in items if isinstance(it, Odd) or it.relative in found.sent]
        return Change(found.removed, tuple(wanted), seen)

    @property
    def is_new(self) -> bool:
        """Whether nothing was kept of this context."""
        return self._found is None

    async def send(self, change: Change, progress: Progress | None = None) -> Outcome:
        """Carry out what ``change`` found."""
        for path in change.removed:
            await _remove(self._storage, self.context.child(*path.split("/")))
        if self.is_new:
            await self._storage.mkdir(self.context, parents=True, exist_ok=True)
        outcome = Outcome(0, 0, ())
        if change.wanted:
            outcome = await self._storage.upload_items(
                change.wanted, self.context, progress=progress
            )
        sent = {it.relative for it in change.wanted if not isinstance(it, Odd)}
        self._manifest = {
            path: one.as_sent() if path in sent else one.entry for path, one in change.seen.items()
        }
        return outcome

    async def give_back(self, added: Iterable[str] = ()) -> None:
        """Keep the context for the next build, without the files that were ``added``."""
        if not self._key:
            await self.remove()
            return
        for name in {name.split("/")[0] for name in added}:
            await _remove(self._storage, self.uri.child(name))
        now = int(time.time())
        found = self._found
        if (
            found is None
            or (found.files, found.checked) != (self._manifest, self.checked)
            or abs(now - found.written) > _MARKED_SECONDS
        ):
            manifest = msgspec.json.encode(Kept(self._manifest, self.checked, now))
            if len(manifest) > _LARGEST_MANIFEST:
                await self.remove()
                return
            new = self.uri.child(_NEW_MANIFEST)
            await self._storage.create(new, manifest)
            await self._storage.rename(new, self.uri.child(_MANIFEST))
        await self._keep()

    async def put_back(self) -> None:
        """Leave everything as it was before ``take``; nothing may have been sent or added."""
        if not self.is_new:
            await self._keep()

    async def _keep(self) -> None:
        try:
            await self._storage.rename(self.uri, self._kept)
        except StorageFault as fault:
            if fault.errno not in ("ENOTEMPTY", "EEXIST"):
                raise
            await self.remove()  # another build of this context was over first

    async def remove(self) -> None:
        """Remove all of it."""
        await _remove(self._storage, self.uri)

    async def sweep(self, jobs: Jobs, user: str) -> None:
        """Remove what nobody comes back for, if this build is one of those that look for that.

        A build may wait in the queue, or go on, for longer than anything is left here: what the
        active jobs of the ``user`` have stays.
        """
        if not self._sweeps:
            return
        try:
            entries = [it async for it in self._storage.list(self._top)]
        except NotFound:
            return
        gone = outdated([Folder(it.path, it.modificationTime) for it in entries], time.time())
        used: set[str] = set()
        if any(not name.endswith(_KEPT) for name in gone):
            query = JobFilter(owner=[user], status=sorted(ACTIVE))
            async for job in jobs.list(query):
                used |= {volume.src_storage_uri for volume in job.container.volumes}
        for name in gone:
            place = self._top.child(name)
            if str(place) in used:
                continue
            if name.endswith(_KEPT):
                own = self._top.child(_own_name())  # so that nobody takes it half removed
                try:
                    await self._storage.rename(place, own)
                except NotFound:
                    continue
                place = own
            await _remove(self._storage, place)


def outdated(folders: Iterable[Folder], now: float) -> list[str]:
    """The names of those that nobody comes back for; ``now`` in seconds since 1970.

    Kept contexts go after a week without a build, and beyond the last eight; what a client left
    that was killed goes after three days, unless a build still has it: see ``sweep``.
    """
    kept: list[tuple[float, str]] = []
    gone = []
    for name, changed in folders:
        if _KEPT_NAME.fullmatch(name):
            kept.append((now - changed, name))
            continue
        began, dash, _ = name.partition("-")
        if not dash or not (began.isascii() and began.isdecimal()):
            continue  # not ours
        age = now - int(began)
        if name.endswith(_KEPT):  # as clients named them before
            kept.append((age, name))
        elif age > _LEFT_SECONDS:
            gone.append(name)
    kept.sort()
    return gone + [
        name
        for number, (age, name) in enumerate(kept)
        if number >= _MOST_KEPT or age > _KEPT_SECONDS
    ]


def _own_name() -> str:
    return f"{int(time.time())}-{secrets.token_hex(8)}"


async def _remove(storage: Storage, uri: ResourceURI) -> None:
    try:
        async for _ in storage.remove(uri, recursive=True):
            pass
    except NotFound:
        pass


# Files of this machine


class Seen(NamedTuple):
    """A file or folder of this machine: what it was when it was read."""

    entry: Entry
    path: str = ""
    identity: tuple[int, ...] = ()

    def as_sent(self) -> Entry:
        """What is known to be in the storage, after it was sent.

        Its digest is not, where the file may have changed between its reading and its sending.
        """
        if self.entry.is_folder:
            return self.entry
        try:
            is_same = _identity(self.path) == self.identity
        except OSError:
            is_same = False
        return self.entry if is_same else Entry(False, self.entry.executable)


def _looked_at(items: Iterable[Item]) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    for item in items:
        if isinstance(item, LocalFolder):
            found[item.relative] = Seen(Entry(True))
        elif isinstance(item, LocalFile):
            found[item.relative] = _read(item)
    return found


def _read(item: LocalFile) -> Seen:
    began = time.time_ns()
    try:
        identity = _identity(item.path)
        with Path(item.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # whoever sends it says so
        return Seen(Entry(False, item.executable), item.path)
    if identity[-1] > began - _TICK_NS:  # a change in this very moment would not show
        digest = ""
    return Seen(Entry(False, item.executable, digest), item.path, identity)


def _identity(path: str) -> tuple[int, ...]:
    found = Path(path).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
