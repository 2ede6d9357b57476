"""HTTP: what a request asks for, whether it may, and the answer."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

from neuro.actions.filebrowser import page, texts
from neuro.actions.filebrowser.archive import send_zip
from neuro.actions.filebrowser.refusal import Refusal, of_system
from neuro.actions.filebrowser.tree import Path, Tree, check_name, parse

_CHUNK = 1 << 18
_LONGEST_FORM = 4 << 20
_MOST_FIELDS = 20_000
# What is read of an upload that was refused, so that the browser gets to see the answer.
_MOST_DRAINED = 16 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


class Server(ThreadingHTTPServer):
    """Shows one folder."""

    daemon_threads = False  # An upload that is cut off cleans up after itself.
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], root: str, *, read_only: bool, names: Iterable[str] = ()
    ) -> None:
        """``names`` are host names under which it may be asked, beside localhost and addresses."""
        self.names = {"localhost", *(name.lower() for name in names)}
        self.tree = Tree(root)
        self.read_only = read_only
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke: that is how browsers end them."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Cut every connection off and return when all that went on is cleaned up."""
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self.tree.close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "neuro-filebrowser"
    sys_version = ""
    timeout = 120
    server: Server

    def setup(self) -> None:
        super().setup()
        self._unread = 0
        self._has_answered = False

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, work: Callable[[Path], None]) -> None:
        """Do what is asked, or say why not."""
        self._has_answered = False
        self._texts = texts.choose(self.headers.get("Accept-Language", ""))
        self._unread = self._length() or 0
        path, _, query = self.path.partition("?")
        self._query = dict(parse_qsl(query, keep_blank_values=True))
        names = [os.fsdecode(unquote_to_bytes(name)) for name in path.split("/")[1:]]
        self._is_folder_url = not names or names[-1] == ""
        if self._is_folder_url:
            names = names[:-1]
        try:
            try:
                self._check_host()
                work(parse(names))
            except OSError as error:
                if isinstance(error, (ConnectionError, TimeoutError)) or self._has_answered:
                    raise
                raise of_system(error, names[-1] if names else "/") from error
        except Refusal as refusal:
            if self._has_answered:  # Only the connection's end can say so now.
                self.close_connection = True
            else:
                self._refuse(refusal)

    def _length(self) -> int | None:
        length = self.headers.get("Content-Length", "")
        return int(length) if length.isascii() and length.isdigit() else None

    def _check_host(self) -> None:
        """Refuse a page of another site whose name its owner let lead to us: it could read all.

        An address in place of a name cannot be made to lead elsewhere.
        """
        host = self.headers.get("Host")
        if host is None:
            return  # every browser names one
        if not self._is_ours(host):
            raise Refusal(HTTPStatus.FORBIDDEN, "other-host", host)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self.server.names or name.endswith(".localhost"):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    # -- reading ---------------------------------------------------------------------------------

    def _get(self, path: Path) -> None:
        self._drain()
        found = self.server.tree.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            if self._is_folder_url:
                raise Refusal(HTTPStatus.NOT_FOUND, "not-found", path[-1])
            self._send_file(path)
        elif not self._is_folder_url:
            # Relative, because a proxy may have put anything before the path.
            query = self.path.partition("?")[2]
            location = f"./{page.quoted(path[-1])}/" + (f"?{query}" if query else "")
            self._send(HTTPStatus.FOUND, b"", "text/plain", Location=location)
        elif "zip" in self._query:
            self._send_zip(path)
        else:
            html = page.folder_page(
                path,
                self.server.tree.entries(path),
                page.Sorting.of(self._query),
                self._texts,
                read_only=self.server.read_only,
            )
            self._send_page(HTTPStatus.OK, html)

    def _send_file(self, path: Path) -> None:
        with self.server.tree.open(path) as file:
            found = os.fstat(file.fileno())
            tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
            part = self._asked_part(found.st_size, tag)
            headers = {
                "Accept-Ranges": "bytes",
                "ETag": tag,
                "Last-Modified": formatdate(found.st_mtime, usegmt=True),
                "Content-Disposition": _attachment(path[-1]),
            }
            if part is None:
                part, status = range(found.st_size), HTTPStatus.OK
            elif not part:
                headers["Content-Range"] = f"bytes */{found.st_size}"
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            else:
                headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{found.st_size}"
                status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Length"] = str(len(part))
            self._send_head(status, "application/octet-stream", headers)
            if self.command != "HEAD" and part:
                self._send_part(file, part)

    def _asked_part(self, size: int, tag: str) -> range | None:
        """The bytes that are asked for: None is all of them, an empty range none there are."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or self.headers.get("If-Range", tag) != tag:
            return None
        first, last = asked.groups()
        if first:
            return range(int(first), min(int(last) + 1, size) if last else size)
        return range(max(0, size - int(last)), size) if last else None

    def _send_part(self, file: BinaryIO, part: range) -> None:
        sent = self.connection.sendfile(file, part.start, len(part))
        if sent < len(part):  # It became shorter: only a connection's end can say so now.
            self.close_connection = True

    def _send_zip(self, path: Path) -> None:
        name = (path[-1] if path else "files") + ".zip"
        headers = {"Content-Disposition": _attachment(name), "Connection": "close"}
        is_chunked = self.request_version != "HTTP/1.0"
        if is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        self.close_connection = True
        self._send_head(HTTPStatus.OK, "application/zip", headers)
        if self.command == "HEAD":
            return

        def send(data: bytes) -> None:
            if data and is_chunked:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            elif data:
                self.wfile.write(data)

        send_zip(self.server.tree, path, send)
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    # -- changing --------------------------------------------------------------------------------

    def _check_may_change(self) -> None:
        if self.server.read_only:
            raise Refusal(HTTPStatus.FORBIDDEN, "read-only")
        if not self._is_same_origin():
            raise Refusal(HTTPStatus.FORBIDDEN, "other-site")

    def _is_same_origin(self) -> bool:
        """Whether a page of ours asks, or something that is no browser.

        Browsers say with every change where it comes from, and no page can make them lie.
        """
        site = self.headers.get("Sec-Fetch-Site")
        if site is not None:
            return site == "same-origin"
        origin = self.headers.get("Origin")
        if origin is None:
            return True
        hosts = {self.headers.get("Host"), self.headers.get("X-Forwarded-Host")}
        return urlsplit(origin).netloc in hosts - {None, ""}

    def _post(self, folder: Path) -> None:
        self._check_may_change()
        names, fields = self._form()
        match fields.get("do"):
            case "folder":
                self._naming(self.server.tree.make_folder, (*folder, check_name(fields["to"])))
            case "move":
                self._move(folder, names, fields["to"])
            case "delete":
                if not names:
                    raise Refusal(HTTPStatus.BAD_REQUEST, "nothing-selected")
                if fields.get("sure") != "yes":
                    self._send_page(HTTPStatus.OK, page.delete_page(folder, names, self._texts))
                    return
                for name in names:
                    self._naming(self.server.tree.delete, (*folder, name))
            case _:
                raise Refusal(HTTPStatus.BAD_REQUEST, "bad-request")
        self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", Location="./")

    def _form(self) -> tuple[list[str], dict[str, str]]:
        """The names that are selected, and the other fields."""
        length = self._length()
        if length is None or not self._is_folder_url:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-request")
        if length > _LONGEST_FORM:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-long")
        body = self.rfile.read(length)
        self._unread = 0
        try:
            pairs = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS
            )
        except ValueError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-request") from None
        names = [
            check_name(os.fsdecode(unquote_to_bytes(value)))
            for key, value in pairs
            if key == "name"
        ]
        return names, {"to": ""} | {key: value for key, value in pairs if key != "name"}

    def _move(self, folder: Path, names: list[str], to: str) -> None:
        """Move to a new name or, with a slash at the end, into a folder.

        What begins with a slash is counted from the top.
        """
        if not names:
            raise Refusal(HTTPStatus.BAD_REQUEST, "nothing-selected")
        is_folder = to.endswith("/")
        if len(names) > 1 and not is_folder:
            raise Refusal(HTTPStatus.BAD_REQUEST, "many-to-one", to)
        base = () if to.startswith("/") else folder
        target = (*base, *parse([part for part in to.split("/") if part]))
        if not is_folder and not to:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-name", to)
        for name in names:
            place = (*target, name) if is_folder else target
            self._naming(self.server.tree.move, (*folder, name), place)

    @staticmethod
    def _naming(work: Callable[..., None], *paths: Path) -> None:
        """Do it; an error of the system names the last name."""
        try:
            work(*paths)
        except OSError as error:
            raise of_system(error, paths[-1][-1]) from error

    def _put(self, path: Path) -> None:
        self._check_may_change()
        if self._is_folder_url:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-request")
        if self._length() is None:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "no-length")
        with self.server.tree.receive(path) as file:
            while self._unread:
                data = self.rfile.read(min(self._unread, _CHUNK))
                if not data:
                    raise Refusal(HTTPStatus.BAD_REQUEST, "cut-off", path[-1])
                self._unread -= len(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        self._send(HTTPStatus.CREATED, b"", "text/plain")

    def _drain(self) -> None:
        """Read what was sent and is not wanted; a connection with too much of it is given up."""
        if self._unread > _MOST_DRAINED or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        left = min(self._unread, _MOST_DRAINED)
        while left and (data := self.rfile.read(min(left, _CHUNK))):
            left -= len(data)
        self._unread = 0

    # -- answering -------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        self._drain()
        name = os.fsencode(refusal.name).decode("utf-8", "replace")
        sentence = self._texts[refusal.reason].format(name)
        if self.command == "PUT":
            self._send(refusal.status, sentence.encode(), "text/plain; charset=utf-8")
        else:
            self._send_page(refusal.status, page.error_page(sentence, self._texts))

    def _send_page(self, status: HTTPStatus, html: str) -> None:
        self._send(status, html.encode(), "text/html; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, **headers: str) -> None:
        self._send_head(status, kind, headers | {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(self, status: HTTPStatus, kind: str, headers: dict[str, str]) -> None:
        self._has_answered = True
        self.send_response(status)
        security = {
            "Content-Security-Policy": page.POLICY,
            "X-Content-Type-Options": "nosniff",
            # Not "no-referrer": browsers then hide where a form comes from, too.
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Vary": "Accept-Language",
        }
        for key, value in {"Content-Type": kind, **security, **headers}.items():
            self.send_header(key, value)
        if self.close_connection and "Connection" not in headers:
            self.send_header("Connection", "close")
        self.end_headers()


def _attachment(name: str) -> str:
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%;' else "_" for c in name
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(os.fsencode(name), safe='')}"
