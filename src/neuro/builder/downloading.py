"""Files of URLs for ADD: fetched once, and asked about at each build whether they are newer."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import urllib.error
import urllib.request
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from neuro import __version__
from neuro.builder import downloads
from neuro.builder.cache import Cache
from neuro.builder.copying import Download
from neuro.builder.downloads import Kept
from neuro.builder.faults import BuildFault
from neuro.dockerfile.steps import RemoteFile
from neuro.engines.images import locks
from neuro.engines.images.faults import ImageFault
from neuro.engines.images.locks import Lock
from neuro.engines.images.reach import Reach
from neuro.engines.images.reaching import check_name, guard, place_of

_SECONDS = 60.0  # that a server may say nothing
_LARGEST = 64 << 30
_PIECE = 1 << 20


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and from https to https alone."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ):
        allowed = ("https://",) if req.full_url.startswith("https://") else ("https://", "http://")
        if not newurl.startswith(allowed):
            raise urllib.error.URLError(f"it sends us to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Guarded(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections as far as ``reach`` allows, and raises ImageFault beyond."""

    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self._reach = reach

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._opened(req, http.client.HTTPConnection)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._opened(req, http.client.HTTPSConnection)

    def _opened(
        self, req: urllib.request.Request, kind: type[http.client.HTTPConnection]
    ) -> http.client.HTTPResponse:
        asked_for = urllib.request.Request(req.full_url).host  # noqa: S310 - as its own scheme
        place = place_of(f"{req.type}://{asked_for}")

        def connection(host: str, **how: Any) -> http.client.HTTPConnection:
            made = kind(host, **how)
            if host == asked_for:
                return guard(made, place, self._reach)
            check_name(place, self._reach)  # ``host`` is a proxy
            return made

        return self.do_open(connection, req)


class _Held(NamedTuple):
    kept: Kept
    lock: Lock


def download(cache: Cache, source: RemoteFile, reach: Reach) -> Download:
    """The file behind a URL. Raises BuildFault, OSError."""
    name = hashlib.sha256(source.url.encode()).hexdigest()
    with locks.alone(f"{cache.folder}/locks/download-{name}"), ExitStack() as unless_it_is_good:
        known = _known(cache, source.url)
        if known is None or source.checksum != f"sha256:{known.kept.digest}":
            known = _newest(cache, source, known, reach)
        unless_it_is_good.callback(known.lock.close)
        path, moment = downloads.place(cache.folder, known.kept.file), _moment(known.kept.modified)
        there = Download(path, known.kept.digest, known.lock, moment)
        _check(source, there)
        unless_it_is_good.pop_all()
        return there


def _known(cache: Cache, url: str) -> _Held | None:
    """What a URL held last, if that is still here."""
    kept = cache.known(downloads.SHELF, url, Kept)
    lock = None if kept is None else downloads.take(cache.folder, kept.file)
    return None if kept is None or lock is None else _Held(kept, lock)


def _newest(cache: Cache, source: RemoteFile, known: _Held | None, reach: Reach) -> _Held:
    """What a URL holds now; ``known`` is given back unless that is it."""
    file = secrets.token_hex(16)
    lock = downloads.hold(cache.folder, file)
    with ExitStack() as unneeded:
        unneeded.callback(lock.close)
        if known is not None:
            unneeded.callback(known.lock.close)
        opener = urllib.request.build_opener(_SameScheme, _Guarded(reach))
        kept = _fetch(cache, source, file, None if known is None else known.kept, opener)
        if known is not None and kept == known.kept:
            unneeded.pop_all()
            lock.remove()
            return known
        unneeded.pop_all()
        if known is not None:
            known.lock.close()
        return _Held(kept, lock)


def _check(source: RemoteFile, there: Download) -> None:
    """Raises BuildFault for a file that is not what the Dockerfile says."""
    algorithm = source.checksum.partition(":")[0]
    if source.checksum in ("", f"sha256:{there.digest}"):
        return
    with open(there.path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if f"{algorithm}:{found}" != source.checksum:
        raise BuildFault(
            f"{source.url} is not what its checksum says.",
            f"Its checksum is {algorithm}:{found}.",
        )


def _moment(modified: str) -> int:
    try:
        return int(parsedate_to_datetime(modified).timestamp()) * 10**9
    except (ValueError, TypeError, OverflowError):
        return 0


def _fetch(
    cache: Cache,
    source: RemoteFile,
    file: str,
    kept: Kept | None,
    opener: urllib.request.OpenerDirector,
) -> Kept:
    """What a URL holds: ``kept``, or else something new, of which the content is in ``file``."""
    headers = {"User-Agent": f"neuro/{__version__}", "Accept-Encoding": "identity"}
    if kept is not None and kept.etag:
        headers["If-None-Match"] = kept.etag
    elif kept is not None and kept.modified:
        headers["If-Modified-Since"] = kept.modified
    request = urllib.request.Request(source.url, headers=headers)  # noqa: S310 - checked by the plan
    path = downloads.place(cache.folder, file)
    try:
        with opener.open(request, timeout=_SECONDS) as answer, open(path, "xb") as target:
            seen, size = hashlib.sha256(), 0
            while piece := answer.read(_PIECE):
                size += len(piece)
                if size > _LARGEST:
                    raise BuildFault(f"{source.url} is larger than {_LARGEST >> 30} GiB.")
                seen.update(piece)
                target.write(piece)
            length = answer.headers.get("Content-Length")
            if length is not None and length.isdecimal() and int(length) != size:
                raise BuildFault(f"{source.url} was cut after {size:,} bytes.", "Build again.")
            etag = answer.headers.get("ETag", "")
            modified = answer.headers.get("Last-Modified", "")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and kept is not None:
            return kept
        raise BuildFault(f"{source.url} cannot be had: {error.code} {error.reason}.") from None
    except BaseException as error:
        if os.path.exists(path):
            os.unlink(path)
        if isinstance(error, ImageFault):
            raise BuildFault(error.sentence) from None
        if isinstance(error, urllib.error.URLError):
            why = getattr(error.reason, "strerror", None) or error.reason
            raise BuildFault(f"{source.url} cannot be reached: {why}.") from None
        if isinstance(error, TimeoutError | ConnectionError | http.client.HTTPException):
            raise BuildFault(f"{source.url} cannot be reached: {error}.") from None
        raise
    found = Kept(file, seen.hexdigest(), etag, modified)
    cache.remember(downloads.SHELF, source.url, found)
    return found
