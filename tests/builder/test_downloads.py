"""Files of URLs: fetched once, held while a build uses them, and within the bound of the cache."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from neuro.builder.cache import Cache, Draft
from neuro.builder.downloading import download
from neuro.builder.faults import BuildFault
from neuro.dockerfile.steps import RemoteFile
from neuro.engines.images import locks
from neuro.engines.images.reach import plain


class Site:
    """A server of files; ``sent`` are the paths whose content it has sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sent: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = site.files[self.path]
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                if self.headers.get("If-None-Match") == tag:
                    self.send_response(304)
                    self.end_headers()
                    return
                site.sent.append(self.path)
                self.send_response(200)
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.reach = plain(f"127.0.0.1:{self.server.server_port}")

    def source(self, path: str, content: bytes, checksum: str = "") -> RemoteFile:
        self.files[path] = content
        return RemoteFile(f"http://127.0.0.1:{self.server.server_port}{path}", "a", checksum)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(str(tmp_path / "cache"), boot="one")
    made.open()
    return made


def _files(cache: Cache) -> set[str]:
    """Contents of all files of URLs."""
    folder = Path(cache.folder, "downloads")
    return {it.read_text() for it in folder.iterdir() if len(it.name) == 32}


def test_a_file_is_fetched_once_and_again_when_it_has_changed(site: Site, cache: Cache) -> None:
    first = download(cache, site.source("/a", b"one"), site.reach)
    again = download(cache, site.source("/a", b"one"), site.reach)

    changed = download(cache, site.source("/a", b"two"), site.reach)

    assert site.sent == ["/a", "/a"]
    assert first.path == again.path
    assert Path(changed.path).read_bytes() == b"two"
    assert Path(first.path).read_bytes() == b"one", "whoever has it goes on with it"


def test_a_file_that_a_build_has_stays(site: Site, cache: Cache) -> None:
    held = download(cache, site.source("/held", b"held"), site.reach)
    download(cache, site.source("/free", b"free"), site.reach).lock.close()

    assert cache.sweep(0) == 1
    assert _files(cache) == {"held"}

    held.lock.close()
    assert cache.sweep(0) == 1
    assert _files(cache) == set()
    assert list(Path(cache.folder, "downloads").iterdir()) == []
    assert list(Path(cache.folder, "locks").iterdir()) == []


def _layer(draft: Draft) -> None:
    Path(draft.files, "f").write_text("x" * 100)


def test_files_go_with_layers_the_oldest_first(site: Site, cache: Cache) -> None:
    download(cache, site.source("/old", b"o" * 100), site.reach).lock.close()
    layer, _ = cache.make("key", _layer)
    layer.close()
    download(cache, site.source("/old", b"o" * 100), site.reach).lock.close()  # it is used again
    download(cache, site.source("/new", b"n" * 100), site.reach).lock.close()

    cache.sweep(200)

    assert _files(cache) == {"o" * 100, "n" * 100}
    assert cache.find("key") is None


def test_what_a_url_meant_before_goes_first(site: Site, cache: Cache) -> None:
    for content in (b"one", b"two"):
        download(cache, site.source("/a", content), site.reach).lock.close()

    cache.sweep(1 << 30)

    assert _files(cache) == {"two"}


def test_a_file_that_is_gone_is_fetched_again(site: Site, cache: Cache) -> None:
    checksum = f"sha256:{hashlib.sha256(b'a').hexdigest()}"
    download(cache, site.source("/a", b"a", checksum), site.reach).lock.close()
    cache.sweep(0)

    there = download(cache, site.source("/a", b"a", checksum), site.reach)

    assert Path(there.path).read_bytes() == b"a"


def test_a_file_with_another_checksum_is_refused_and_not_held(site: Site, cache: Cache) -> None:
    with pytest.raises(BuildFault, match="not what its checksum says"):
        download(cache, site.source("/a", b"a", f"sha256:{'0' * 64}"), site.reach)

    for lock in Path(cache.folder, "locks").iterdir():
        found = locks.alone_at_once(str(lock))
        assert found is not None, lock
        found.close()
