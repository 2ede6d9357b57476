"""What is asked of a registry, by the OCI distribution protocol: manifests and blobs.

It blocks, and is used by several threads at once. What a registry answers is believed as far as
its digest goes; where it sends us does not get what was meant for it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from neuro import __version__
from neuro.engines.images.connections import Connections
from neuro.engines.images.faults import FaultKind, ImageFault, corrupt, refused, shown
from neuro.engines.images.manifests import INDEXES, LARGEST_MANIFEST, MANIFESTS
from neuro.engines.images.reach import OUTSIDE, Reach
from neuro.engines.images.reaching import Place, connection_to, place_of
from neuro.engines.images.references import PUBLIC, Reference
from neuro.engines.images.stopping import Stop
from neuro.engines.runs import PullCredentials

_SECONDS = 60.0  # that a registry may say nothing
_WHOLE_SECONDS = 300.0  # for a manifest, a config or a token to come
_MOST_REDIRECTS = 5
_LARGEST_ANSWER = 64 << 10  # of what is no manifest and no blob
_LONGEST_REASON = 600  # characters: a sentence or two, and what to do
_REDIRECTS = (301, 302, 303, 307, 308)
Body = Callable[[], Iterable[bytes]]  # from its beginning, each time that it is called
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


class _InUse:
    """A connection that one request has. ``is_free`` once the next one may have it."""

    def __init__(
        self, connection: http.client.HTTPConnection, place: Place, kept_in: Connections | None
    ) -> None:
        self._connection, self._place, self._kept_in = connection, place, kept_in
        self.is_free = False

    def end(self) -> None:
        """Keep it, or close it."""
        if self.is_free and self._kept_in is not None:
            self._kept_in.give(self._place, self._connection)
        else:
            self._connection.close()


class Answer:
    """An answer whose body is still to be read, in pieces."""

    def __init__(
        self,
        place: Place,
        response: http.client.HTTPResponse,
        in_use: _InUse | None,
        closing: ExitStack,
    ) -> None:
        """``in_use`` is None where the connection cannot be used for anything else."""
        self.place = place
        self.status = response.status
        self.headers = response.headers
        self._response, self._in_use, self._closing = response, in_use, closing

    def read(self, most: int) -> bytes:
        """Some of the body as it comes, nothing at its end.

        Raises ConnectionError where it is cut, and TimeoutError where nothing comes: also of errors
        of TLS and of a network that is gone, which a caller would take for errors of a disk.

        Not ``read``, which takes all there is of a piece whose length is said to be negative.
        """
        try:
            return self._response.read1(most)
        except TimeoutError:
            raise
        except (http.client.HTTPException, ValueError, OSError) as error:
            raise ConnectionError("the connection was cut") from error

    def close(self) -> None:
        """Let go; the connection is for the next request where nothing more comes of this one."""
        if self._in_use is not None:
            self._in_use.is_free = _has_ended(self._response)
        self._response.close()
        self._closing.close()


def _has_ended(response: http.client.HTTPResponse) -> bool:
    if response.length == 0:
        response.read()  # It has come, or there was none to come; this is how it notices.
    return response.isclosed() and not response.will_close


class Registry:
    """The repository of a reference, as who has ``credentials`` sees it.

    It is asked as far as ``reach`` allows. ``stop`` ends whatever is going on, with Stopped.
    ``own`` says that it is the platform's, which is told at once who we are. With ``connections``
    one of these is used, and left there for the next request.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: PullCredentials | None = None,
        reach: Reach = OUTSIDE,
        seconds: float = _SECONDS,
        stop: Stop | None = None,
        *,
        own: bool = False,
        connections: Connections | None = None,
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._reach = reach
        self._seconds = seconds
        self._stop = stop or Stop()
        host = reference.host
        scheme = "http" if host in reach.insecure else "https"
        self._base = f"{scheme}://{host}/v2/{reference.repository}/"
        self._connections = connections
        self._authorization = self._basic() if own and credentials is not None else ""
        self._lock = threading.Lock()

    def manifest(self, version: str) -> tuple[bytes, str, str]:
        """A manifest or index by tag or digest: its bytes, media type and digest.

        Raises ImageFault.
        """
        accept = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
        with self._opened(f"manifests/{quote(version, safe=':')}", accept) as answer:
            body = self._whole(answer, LARGEST_MANIFEST)
            media_type = answer.headers.get("Content-Type", "")
        if ":" in version:
            check_digest(body, version, "manifest")
            return body, media_type, version
        return body, media_type, f"sha256:{hashlib.sha256(body).hexdigest()}"

    def digest_of(self, version: str) -> str | None:
        """The digest of a manifest or index by tag, None where the registry does not tell it.

        It is the registry's word, and to be checked with what it gives. Raises ImageFault where
        nobody answers.
        """
        accept = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
        with self.asked("HEAD", f"manifests/{quote(version, safe=':')}", accept) as answer:
            if answer.status != 200:
                return None  # An answer to HEAD has no reason; the GET that follows has.
            digest = answer.headers.get("Docker-Content-Digest", "")
        return digest if _DIGEST.fullmatch(digest) else None

    def small_blob(self, digest: str, most: int) -> bytes:
        """A blob that is not a layer. Raises ImageFault."""
        with self._opened(f"blobs/{digest}", {}) as answer:
            body = self._whole(answer, most)
        check_digest(body, digest, "config")
        return body

    def has(self, digest: str) -> bool:
        """Whether the registry would give us a blob. That it cannot answer now is a no."""
        try:
            answer = self._ask("HEAD", urljoin(self._base, f"blobs/{digest}"), {}, None)
        except (OSError, ValueError, http.client.HTTPException, ImageFault):
            self._stop.check()
            return False
        answer.close()
        # It sends us only where there is something; and what is signed there may be for GET alone.
        return answer.status == 200 or answer.status in _REDIRECTS

    @contextmanager
    def blob(self, digest: str, offset: int) -> Iterator[Answer]:
        """A blob from ``offset`` on (status 206), or from its beginning (200).

        Raises ImageFault.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._opened(f"blobs/{digest}", headers) as answer:
            yield answer

    def _whole(self, answer: Answer, most: int) -> bytes:
        body = bytearray()
        until = time.monotonic() + _WHOLE_SECONDS
        try:
            while piece := answer.read(1 << 16):
                body += piece
                if time.monotonic() > until:
                    raise TimeoutError
                if len(body) > most:
                    raise refused(f"The image has a manifest or config of more than {most} bytes.")
        except OSError as error:
            self._stop.check()
            raise self._away(error) from error
        return bytes(body)

    @contextmanager
    def _opened(self, path: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """An answer that is not an error. Raises ImageFault."""
        with self.asked("GET", path, headers) as answer:
            if answer.status not in (200, 206):
                raise self._fault(answer)
            yield answer

    @contextmanager
    def asked(
        self, method: str, address: str, headers: Mapping[str, str], body: Body | None = None
    ) -> Iterator[Answer]:
        """Any answer to a request, which may carry a body of the length that its headers say.

        ``address`` begins after the repository's name, or is one that the registry gave, in full.
        What ``body`` raises comes through. Raises ImageFault where nobody answers: of the kind
        AWAY where another try may help.
        """
        try:
            answer = self._ask(method, urljoin(self._base, address), headers, body)
        except (OSError, http.client.HTTPException) as error:
            self._stop.check()
            raise self._away(error) from error
        except ValueError as error:  # an address that is none: the image's, or one we are sent to
            raise refused(f"The registry {self._name} has no address to ask: {error}.") from error
        try:
            yield answer
        finally:
            answer.close()

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Body | None) -> Answer:
        base = place_of(self._base)
        if base.scheme == "https" and place_of(url).scheme != "https":
            raise refused(f"The registry {self._name} wants images to come by http: no.")
        used = self._authorization if place_of(url) == base else ""
        answer = self._follow(method, url, headers, used, body)
        # Who we are is for the registry to ask, and for nobody whom it sends us to.
        if answer.status != 401 or answer.place != base:
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        answer.close()
        with self._lock:
            if self._authorization == used:  # no other thread has been here meanwhile
                self._authorization = self._authorized(challenge)
            now = self._authorization
        return self._follow(method, url, headers, now, body)

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str,
        body: Body | None,
    ) -> Answer:
        first = place_of(url)
        for _ in range(_MOST_REDIRECTS + 1):
            place = place_of(url)
            own = {"Authorization": authorization} if authorization and place == first else {}
            answer = self._send(method, url, {**headers, **own}, body)
            if answer.status not in _REDIRECTS or method == "HEAD":
                return answer
            target = answer.headers.get("Location", "")
            answer.close()
            url = urljoin(url, target)
            if place.scheme == "https" and place_of(url).scheme != "https":
                raise refused(f"The registry {self._name} sends its images by http: no.")
        raise refused(f"The registry {self._name} sends us from one address to the next.")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None
    ) -> Answer:
        parts = urlsplit(url)
        place = place_of(url)
        if place.scheme not in ("http", "https") or not place.host:
            raise refused(
                f"The registry {self._name} sends us to {shown(url)}, which is no address."
            )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kept = None if self._connections is None else self._connections.take(place)
        if kept is not None:
            try:
                return self._exchange(kept, place, method, target, headers, body)
            except (BrokenPipeError, ConnectionResetError):
                # It hung up while we asked, and has not seen it, or said nothing about it.
                if method not in ("GET", "HEAD") and (method != "PUT" or body is None):
                    raise
        opened = connection_to(place, self._seconds, self._reach)
        return self._exchange(opened, place, method, target, headers, body)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        place: Place,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> Answer:
        """Ask over a connection, which is opened if it is not."""
        with ExitStack() as closing:
            in_use = _InUse(connection, place, self._connections)
            closing.callback(in_use.end)
            self._stop.check()
            if connection.sock is None:
                connection.connect()
            # Its end is found out wherever somebody reads, however slowly anything comes.
            closing.enter_context(self._stop.telling(_cutter(connection.sock)))
            agent = {"User-Agent": f"neuro/{__version__}", "Accept-Encoding": "identity"}
            given = None if body is None else body()
            is_sent = True
            try:
                connection.request(method, target, given, {**agent, **headers})
            except (BrokenPipeError, ConnectionResetError):
                # It takes no more: perhaps it has said why, and reading that fails otherwise.
                if given is None:
                    raise
                is_sent = False
            response = connection.getresponse()
            return Answer(place, response, in_use if is_sent else None, closing.pop_all())

    # Who we are

    def _authorized(self, challenge: str) -> str:
        """What to send after a registry asked who we are. Raises ImageFault."""
        scheme, _, rest = challenge.partition(" ")
        asked = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
        if scheme.lower() == "basic" and self._credentials is not None:
            return self._basic()
        if scheme.lower() == "bearer" and "realm" in asked:
            return f"Bearer {self._token(asked)}"
        raise self._denied("it asks who you are")

    def _basic(self) -> str:
        assert self._credentials is not None
        pair = f"{self._credentials.user}:{self._credentials.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def _token(self, asked: Mapping[str, str]) -> str:
        scope = asked.get("scope") or f"repository:{self._reference.repository}:pull"
        query = {"scope": scope, **({"service": asked["service"]} if "service" in asked else {})}
        url = asked["realm"] + ("&" if "?" in asked["realm"] else "?") + urlencode(query)
        place = place_of(url)
        if place.scheme != "https" and place_of(self._base).scheme == "https":
            raise refused(f"The registry {self._name} asks for passwords by http: no.")
        headers = {"Authorization": self._basic()} if self._credentials is not None else {}
        answer = self._send("GET", url, headers)
        try:
            if answer.status in (400, 401, 403):
                raise self._denied(reason(answer))
            if answer.status != 200:
                raise self._fault(answer)
            body = self._whole(answer, _LARGEST_ANSWER)
        finally:
            answer.close()
        try:
            found = json.loads(body)
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise corrupt(f"The registry {self._name} answers something else than a token.")
        return token

    # What went wrong

    @property
    def _name(self) -> str:
        return self._reference.registry

    @property
    def _image(self) -> str:
        return str(self._reference)

    def _fault(self, answer: Answer) -> ImageFault:
        why = reason(answer)
        if answer.status == 404:
            is_sentence = why.startswith("The image ")  # as the platform's own registry says it
            sentence = f"{why}." if is_sentence else f"There is no image {self._image}: {why}."
            return ImageFault(FaultKind.NOT_FOUND, sentence)
        if answer.status in (401, 403):
            return self._denied(why)
        if answer.status == 429 or answer.status >= 500:
            sentence = f"The registry {self._name} cannot answer now: {why}."
            return ImageFault(FaultKind.AWAY, sentence)
        return refused(f"The registry {self._name} does not give {self._image}: {why}.")

    def _denied(self, why: str) -> ImageFault:
        who = (
            f"'{shown(self._credentials.user)}'" if self._credentials else "people it doesn't know"
        )
        sentence = (
            f"The registry {self._name} does not give {self._image} to {who}: {why}. Perhaps there"
            " is no such image, or its registry needs other credentials."
        )
        return ImageFault(FaultKind.DENIED, sentence)

    def _away(self, error: Exception) -> ImageFault:
        has_no_address = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        if has_no_address and self._name not in PUBLIC:
            sentence = f"There is no registry {self._name}: check the image's name, {self._image}."
            return ImageFault(FaultKind.NOT_FOUND, sentence)
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not valid ({error.verify_message})"
        elif isinstance(error, TimeoutError):
            why = f"it says nothing for {self._seconds:.0f} seconds"
        elif isinstance(error, ssl.SSLError):
            why = "it does not speak https; name it among the insecure registries if it is yours"
        elif isinstance(error, OSError):
            why = error.strerror or str(error)
        else:
            why = "it does not answer in HTTP"
        sentence = f"The registry {self._name} cannot be reached: {why}."
        return ImageFault(FaultKind.AWAY, sentence)


def _cutter(sock: socket.socket) -> Callable[[], None]:
    def cut() -> None:
        with suppress(OSError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)

    return cut


def check_digest(body: bytes, digest: str, what: str) -> None:
    """Raises ImageFault where a body is not what its digest says."""
    algorithm, _, wanted = digest.partition(":")
    if hashlib.new(algorithm, body).hexdigest() != wanted:
        raise corrupt(f"The image's {what} is not what its digest says: {digest}.")


def reason(answer: Answer) -> str:
    """What the registry says of an error, or the status's own name."""
    otherwise = http.client.responses.get(answer.status, f"status {answer.status}").lower()
    try:
        found: Any = json.loads(answer.read(_LARGEST_ANSWER))
        error = found["errors"][0] if "errors" in found else found
        text = error.get("message") or error.get("details") or error.get("code")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return otherwise
    if not isinstance(text, str) or not text.strip():
        return otherwise
    return shown(text.strip().rstrip("."), _LONGEST_REASON)
