"""Images of public registries, brought when somebody asks for them: ``docker.io/library/debian``.

A mirror is an owner named as its registry, which no user can be. What is asked for is brought into
its repositories first, and then given as any image is. A tag is asked for upstream once a minute at
most; where nobody answers there, what the tag was last is given. Whoever is signed in may read all
of it, and nobody's token goes upstream.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import PlatformError, TooManyRequests, Unavailable
from neuro.domain.image_upkeep import ImageRules
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.reach import Reach
from neuro.engines.images.references import DOCKER_HUB, Reference
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.stopping import Stop, Stopped
from neuro.engines.runs import PullCredentials
from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables, manifest_tables, rule_tables
from neuro.server.registry.blobs import BlobStore, Incoming
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.fetches import Fetch
from neuro.server.registry.manifest_tables import KeptManifest
from neuro.server.registry.manifests import parse_manifest, size_in, told_size
from neuro.server.registry.names import (
    DEFAULT_ALGORITHM,
    Repository,
    algorithm_of,
    digest_of,
    is_digest,
)
from neuro.server.registry.quotas import Quotas
from neuro.server.registry.rules import matches
from neuro.server.threads import Threads, person_at_work, working_for

K = TypeVar("K")
T = TypeVar("T")

log = structlog.get_logger("neuro.registry")

# Downloads at once, and of one person; and as many questions, which wait for no download.
THREADS, THREADS_PER_PERSON = 8, 4
# Manifests, and as many blobs, that one person has asked for and that have not come. Whoever has
# asked may have left; what they asked for comes all the same.
MOST_COMING = 128
_RETRY_SECONDS = 5.0
TAG_SECONDS = 60.0  # for which the word of the upstream of a tag, or of what is absent, is good
_MOST_KNOWN = 4096  # tags, and repositories, that are remembered
# Of a mirror for which nobody has set rules: a tag that nobody pulls goes.
USUAL_RULES = ImageRules(keep_seconds=30 * 86_400.0)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Mirror:
    """One public registry. ``host`` is where it answers; ``size`` is bytes, 0 for no limit."""

    registry: str
    host: str
    size: int = 0
    credentials: PullCredentials | None = None
    insecure: bool = False


class Mirrors:
    """All mirrors of one installation, as one server brings what is asked of it."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        mirrors: Mapping[str, Mirror],
        closed: tuple[str, ...] = (),
        *,
        now: Callable[[], datetime] = _now,
        tag_seconds: float = TAG_SECONDS,
    ) -> None:
        """``mirrors`` by their registries' names; ``closed`` are networks where none of them is,
        nor what they send us to, but the insecure ones.
        """
        self._database = database
        self._store = store
        self._mirrors = mirrors
        self._closed = closed
        self._now = now
        self._tag_seconds = tag_seconds
        self._stop = Stop()
        self._downloads = Threads(THREADS, THREADS_PER_PERSON, "downloads")
        self._threads = Threads(THREADS, THREADS_PER_PERSON, "mirrors")
        self._upstreams: OrderedDict[str, Registry] = OrderedDict()
        self._asked: OrderedDict[tuple[str, str], float] = OrderedDict()
        # When the upstream said that it does not have something, and in which words.
        self._absent: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._coming: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._fetches: dict[tuple[str, str], Fetch] = {}
        # How much of both is coming for whom, who asked for it first.
        self._manifests_of: Counter[str] = Counter()
        self._blobs_of: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End whatever is coming."""
        self._stop.set()
        while self._tasks or self._coming:
            await asyncio.wait([*self._tasks, *self._coming.values()])
        await self._downloads.close()
        await self._threads.close()

    # Manifests

    async def bring_manifest(self, repository: Repository, reference: str) -> None:
        """Have a manifest as it is upstream, if the repository is a mirror's.

        Raises RegistryError, Unavailable where nobody answers and nothing is here, TooManyRequests
        where too many are coming for the person who asks.
        """
        mirror = self._mirrors.get(repository.owner)
        key = repository.path, reference
        if mirror is None or self._is_fresh(key):
            return
        self._check_absent(key)
        task = self._coming.get(key)
        if task is None:
            # Whoever waits may leave: the others wait for the same.
            done = _take_place(self._manifests_of, "images")
            task = asyncio.create_task(self._bring(mirror, repository, reference))
            self._coming[key] = task
            task.add_done_callback(lambda _: self._coming.pop(key, None))
            task.add_done_callback(done)
        await asyncio.shield(task)

    def _is_fresh(self, key: tuple[str, str]) -> bool:
        asked_at = self._asked.get(key)
        return asked_at is not None and time.monotonic() - asked_at < self._tag_seconds

    def _check_absent(self, key: tuple[str, str]) -> None:
        """Raise RegistryError for what the upstream said a moment ago that it does not have."""
        said_at, sentence = self._absent.get(key, (None, ""))
        if said_at is not None and time.monotonic() - said_at < self._tag_seconds:
            raise _unknown(sentence)

    def _is_absent(self, key: tuple[str, str], sentence: str) -> None:
        _remember(self._absent, key, (time.monotonic(), sentence))

    def _was_asked(self, key: tuple[str, str]) -> None:
        _remember(self._asked, key, time.monotonic())

    async def _bring(self, mirror: Mirror, repository: Repository, reference: str) -> None:
        def find(connection: Connection) -> tuple[KeptManifest | None, bool]:
            found = manifest_tables.find_manifest(connection, repository.path, reference)
            rules = rule_tables.find_rules(connection, repository.path).rules
            return found, is_digest(reference) or matches(reference, rules.immutable)

        known, is_to_stay = await self._database.read(find)
        if known is not None and is_to_stay:
            return
        upstream = self._upstream(mirror, repository)
        try:
            digest = reference
            if not is_digest(reference):
                told = await self._ask(lambda: upstream.digest_of(reference))
                digest = told or reference
            if known is None or known.digest != digest:
                await self._fetch_manifest(upstream, repository, reference, digest)
        except ImageFault as fault:
            if fault.kind is FaultKind.NOT_FOUND:
                self._is_absent((repository.path, reference), fault.sentence)
            if known is None or not _is_away(fault):
                raise _refusal(fault) from None
            log.warning("mirror is away", image=repository.path, why=fault.sentence)
        if not is_digest(reference):
            self._was_asked((repository.path, reference))

    async def _fetch_manifest(
        self, upstream: Registry, repository: Repository, reference: str, version: str
    ) -> None:
        """Bring a manifest by ``version``; ``reference`` leads to it then, if that is a tag."""
        content, media_type, _ = await self._ask(lambda: upstream.manifest(version))
        algorithm = algorithm_of(version) if is_digest(version) else DEFAULT_ALGORITHM
        kind = media_type.partition(";")[0].strip()
        manifest = parse_manifest(content, kind, digest_of(content, algorithm))
        tagged = () if is_digest(reference) else (reference,)
        now = self._now()

        def put(connection: Connection) -> None:
            self._quotas_of(repository).check(connection, repository.owner, len(content))
            repository_id = blob_tables.make_repository(connection, repository)
            manifest_tables.put_manifest(
                connection, repository_id, manifest, tagged, now, told_size(content)
            )
            manifest_tables.measure_indexes(connection, repository_id, manifest.digest)

        await self._database.write(put)

    # Blobs

    async def size_of_blob(self, repository: Repository, digest: str) -> int | None:
        """How many bytes a blob of a mirror has that is not here; None for any other blob."""
        if repository.owner not in self._mirrors:
            return None

        def find(connection: Connection) -> int | None:
            if blob_tables.find_blob(connection, repository.path, digest) is not None:
                return None
            content = manifest_tables.find_naming(connection, repository.path, digest)
            return None if content is None else size_in(content, digest)

        return await self._database.read(find)

    async def bring_blob(self, repository: Repository, digest: str) -> Fetch | None:
        """A blob of a mirror that is coming; None where it is here, or is no mirror's.

        Only what an image of the repository needs is brought. Raises TooManyRequests where too many
        are coming for the person who asks.
        """
        key = repository.path, digest
        if (fetch := self._fetches.get(key)) is None:
            size = await self.size_of_blob(repository, digest)
            if size is None:
                return None
            fetch = self._fetches.get(key) or self._begin(repository, Fetch(digest, size))
        fetch.people.add(person_at_work())
        if fetch.turn is not None:
            self._downloads.join(fetch.turn)
        return fetch

    def _begin(self, repository: Repository, fetch: Fetch) -> Fetch:
        done = _take_place(self._blobs_of, "layers")
        self._fetches[repository.path, fetch.digest] = fetch
        task = asyncio.create_task(self._fetch(repository, fetch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(done)
        return fetch

    async def _fetch(self, repository: Repository, fetch: Fetch) -> None:
        mirror = self._mirrors[repository.owner]
        upstream = self._upstream(mirror, repository)
        size = fetch.size + self._coming_before(repository.owner, fetch)
        try:
            await self._database.write(
                lambda c: self._quotas_of(repository).check_blob(
                    c, repository.owner, fetch.digest, size
                )
            )
            if not await self._link(upstream, repository, fetch):
                await self._download(upstream, repository, fetch)
            fetch.end()
        except ImageFault as fault:
            fetch.end(_refusal(fault))
        except Stopped:
            fetch.end(Unavailable("The server is stopping: pull again in a moment."))
        except PlatformError as error:
            fetch.end(error)
        except Exception as error:
            log.exception("mirror failed", image=repository.path, blob=fetch.digest)
            fetch.end(error)
        finally:
            self._fetches.pop((repository.path, fetch.digest), None)
            fetch.close()

    def _coming_before(self, owner: str, fetch: Fetch) -> int:
        """Bytes of the other blobs of a mirror that began to come before this one."""
        sizes: dict[str, int] = {}
        for (path, digest), one in self._fetches.items():
            if one is fetch:
                break
            if digest != fetch.digest and path.startswith(f"{owner}/"):
                sizes[digest] = one.size
        return sum(sizes.values())

    async def _link(self, upstream: Registry, repository: Repository, fetch: Fetch) -> bool:
        """Take a blob that another repository has, where the upstream gives it to us as well."""
        size = await self._database.read(lambda c: blob_tables.size_of_blob(c, fetch.digest))
        if size != fetch.size or not await self._ask(lambda: upstream.has(fetch.digest)):
            return False
        if not await self._threads.whole(lambda: self._store.has(fetch.digest)):
            return False
        now = self._now()

        def take(connection: Connection) -> None:
            self._quotas_of(repository).check_blob(
                connection, repository.owner, fetch.digest, fetch.size
            )
            blob_tables.link(connection, repository, fetch.digest, now)

        try:
            await self._database.write(take)
        except IntegrityError:
            return False  # Removed a moment ago.
        return True

    async def _download(self, upstream: Registry, repository: Repository, fetch: Fetch) -> None:
        fetch.turn = self._downloads.do(lambda: fetch.bring(upstream, self._store))
        for person in fetch.people:
            with working_for(person):
                self._downloads.join(fetch.turn)
        incoming = await fetch.turn
        try:
            await self._keep(repository, fetch, incoming)
        except BaseException:
            await self._threads.whole(incoming.discard)
            raise
        finally:
            await self._threads.whole(incoming.close)

    async def _keep(self, repository: Repository, fetch: Fetch, incoming: Incoming) -> None:
        now = self._now()

        def put(connection: Connection) -> None:
            self._quotas_of(repository).check_blob(
                connection, repository.owner, fetch.digest, fetch.size
            )
            blob_tables.put_blob(connection, repository, fetch.digest, fetch.size, now)
            incoming.place(fetch.digest)

        await self._database.write(put)
        await self._threads.whole(lambda: self._store.keep(fetch.digest))

    # The other side

    def _upstream(self, mirror: Mirror, repository: Repository) -> Registry:
        """Whom to ask; it remembers its own short-lived token."""
        found = self._upstreams.get(repository.path)
        if found is None:
            name = repository.path.partition("/")[2]
            if mirror.registry == DOCKER_HUB and "/" not in name:
                name = f"library/{name}"
            plain = (mirror.host,) if mirror.insecure else ()
            found = Registry(
                Reference(mirror.host, name, "", ""),
                mirror.credentials,
                Reach(insecure=plain, local=plain, closed=self._closed),
                stop=self._stop,
            )
        _remember(self._upstreams, repository.path, found)
        return found

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await self._threads.do(question)
        except Stopped:
            raise Unavailable("The server is stopping: pull again in a moment.") from None

    def _quotas_of(self, repository: Repository) -> Quotas:
        return Quotas(self._mirrors[repository.owner].size)


def _take_place(taken: Counter[str], what: str) -> Callable[[object], None]:
    """Count one thing more that is coming for who asks; what is called once it has come.

    Raises TooManyRequests.
    """
    person = person_at_work()
    if taken[person] >= MOST_COMING:
        raise TooManyRequests(
            f"{MOST_COMING} {what} of public registries are coming for you, which is the most for"
            " one person: ask for more when some of them have come.",
            retry_after=_RETRY_SECONDS,
        )
    taken[person] += 1

    def give_back(_: object) -> None:
        taken[person] -= 1
        if not taken[person]:
            del taken[person]

    return give_back


def _remember(known: OrderedDict[K, T], key: K, value: T) -> None:
    """Have it stand last; what has stood the longest is let go where there are too many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MOST_KNOWN:
        known.popitem(last=False)


def _is_away(fault: ImageFault) -> bool:
    """Whether nobody answers: a mirror's name is right, also where it cannot be looked up."""
    return fault.kind is FaultKind.AWAY or isinstance(fault.__cause__, socket.gaierror)


def _refusal(fault: ImageFault) -> Exception:
    if _is_away(fault):
        return Unavailable(fault.sentence)
    if fault.kind is FaultKind.NOT_FOUND:
        return _unknown(fault.sentence)
    if fault.kind is FaultKind.DENIED:
        return RegistryError("DENIED", 403, fault.sentence)
    return Unavailable(fault.sentence)


def _unknown(sentence: str) -> RegistryError:
    return RegistryError("MANIFEST_UNKNOWN", 404, sentence)
