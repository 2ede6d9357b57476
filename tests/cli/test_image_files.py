"""Images between files and the registry, without a container engine."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from neuro.client import Client, run
from neuro.client.image_files import pulling, reading
from neuro.client.image_files.progress import Silent
from neuro.client.messages import done
from neuro.client.transport import Request, Response, ServerUnreachable
from neuro.domain.errors import InvalidInput
from neuro.domain.images import OwnImage
from tests.cli.platform import Home
from tests.cli.saved import layer, save

SIZE = 3 << 20


@pytest.fixture
def client(person: Home) -> Client:
    url = person.ok("server", "status").split("API URL")[1].split()[0]
    return Client.blocking(url, person.ok("config", "show-token").strip())


@pytest.fixture
def fresh(person: Home, request: pytest.FixtureRequest) -> Iterator[bytes]:
    """A layer that nobody has pushed."""
    yield layer(request.node.name, SIZE)
    names = person.ok("-q", "image", "ls").split()
    for name in names:
        for tag in person.ok("image", "tags", name).split():
            person.ok("image", "rm", f"{name}:{tag}")


class Told(Silent):
    """What was told of the parts."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def ended(self, part: str, what: str) -> None:
        self.ends.append(what)


def test_a_saved_image_is_pushed_and_pulled_as_a_file(person: Home, fresh: bytes) -> None:
    config = save(person.work_dir / "image.tar", [fresh, layer("second", 4096)])

    said = person.run("image", "push", "./image.tar", "image:trainer:v1")
    user = json.loads(person.ok("config", "show", "--json"))["user"]
    assert said.stdout == f"image://default/{user}/trainer:v1\n"
    assert said.stderr.count(": pushed\n") == 3
    again = person.run("push", "image.tar", "image:trainer:v2")
    assert again.stderr.count(": there already\n") == 3
    assert person.run("-q", "push", "image.tar", "image:trainer:v2").stderr == ""

    assert person.ok("image", "pull", "image:trainer:v1", "./pulled.tar") == "./pulled.tar\n"
    with tarfile.open(person.work_dir / "pulled.tar") as tar:
        [saved] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert saved["Config"] == f"blobs/{config.replace(':', '/')}"
        assert tar.extractfile(saved["Layers"][0]).read() == fresh  # type: ignore[union-attr]
    person.ok("pull", f"trainer@{person.ok('image', 'digest', 'trainer:v1').strip()}", "./layout/")
    digest = person.ok("image", "digest", "image:trainer:v1")
    for source in ("./layout", "pulled.tar"):
        person.ok("push", source, "image:copied:v1")
        assert person.ok("image", "digest", "image:copied:v1") == digest


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo (apt: skopeo)")
@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_skopeo_writes_what_is_pushed_and_reads_what_is_pulled(
    person: Home, fresh: bytes, tmp_path: Path, form: str
) -> None:
    save(tmp_path / "image.tar", [fresh])
    place, tag = tmp_path / "written.tar", ":x/y:v1" if form == "docker-archive" else ""
    copy = ["skopeo", "copy", "--dest-compress"]
    subprocess.run(
        [*copy, f"docker-archive:{tmp_path}/image.tar", f"{form}:{place}{tag}"], check=True
    )

    person.ok("push", str(place), "image:trainer:v1")
    target = tmp_path / "pulled.tar"
    if form == "oci":
        target.mkdir()
    person.ok("pull", "image:trainer:v1", str(target))

    shown = subprocess.run(
        ["skopeo", "inspect", "--config", f"{form}:{target}"], check=True, capture_output=True
    )
    assert json.loads(shown.stdout)["config"]["Cmd"] == ["sh"]


class Breaking:
    """A transport whose connections break off, once for each of these numbers of bytes."""

    def __init__(self, inner: Any, after: list[int]) -> None:
        self.inner, self.after = inner, after
        self.url = inner.url
        self.ranges: list[str] = []
        self.sent = 0
        self.is_slow = False  # what a lost connection brought comes after all
        self._late = b""

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        if request.method == "PATCH":
            request = Request(
                method="PATCH",
                path=request.path,
                headers=request.headers,
                body=self._broken(request.body),
            )
        self.ranges += [request.headers["Range"]] if "Range" in request.headers else []
        async with self.inner.send(request) as response:
            if request.method == "GET" and "/uploads/" in request.path and self._late:
                kind, late, self._late = "application/octet-stream", self._late, b""
                more = Request(
                    method="PATCH", path=request.path, headers={"Content-Type": kind}, body=late
                )
                await done(self.inner, more)
            yield _BrokenResponse(response, self) if "/blobs/sha256" in request.path else response

    def _broken(self, body: Iterator[bytes]) -> Iterator[bytes]:
        limit = self.after.pop(0) if self.after else 1 << 40
        for count, piece in enumerate(body, 1):
            self.sent += len(piece)
            yield piece
            if count << 20 >= limit:
                self._late = next(body, b"") if self.is_slow else b""
                raise ServerUnreachable("The connection to the server was lost.")

    async def sleep(self, seconds: float) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _BrokenResponse:
    def __init__(self, inner: Response, transport: Breaking) -> None:
        self._inner, self._transport = inner, transport

    async def chunks(self, size: int = 0) -> AsyncIterator[bytes]:
        after = self._transport.after
        left = after.pop(0) if after else 1 << 40
        async for chunk in self._inner.chunks():
            # It breaks at this byte, however much has arrived at once.
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                raise ServerUnreachable("The connection to the server was lost.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_broken_push_goes_on_where_it_was(
    client: Client, fresh: bytes, tmp_path: Path, person: Home, is_slow: bool
) -> None:
    save(tmp_path / "image.tar", [fresh])
    images, told = client.images, Told()
    breaking = Breaking(client.transport, [1 << 40, 1 << 20, 1 << 20])  # the config comes first
    images._transport, breaking.is_slow = breaking, is_slow

    # One after the other, so that it is the layer which breaks.
    breaking.gather = _in_turn  # type: ignore[method-assign, assignment]
    run(images.push_file(tmp_path / "image.tar", images.image("trainer:v1"), told))

    assert told.ends == ["pushed", "pushed"]
    assert breaking.after == []
    # What had arrived was not sent again, but for what was on its way.
    assert breaking.sent < len(fresh) + 2 * (1 << 20) + 10_000
    person.ok("pull", "image:trainer:v1", str(tmp_path / "pulled.tar"))


async def _in_turn(calls: Any, *, limit: int) -> list[Any]:
    return [await call for call in calls]


def test_a_broken_pull_goes_on_where_it_was(client: Client, fresh: bytes, tmp_path: Path) -> None:
    save(tmp_path / "image.tar", [fresh])
    images = client.images
    image = images.image("trainer:v1")
    run(images.push_file(tmp_path / "image.tar", image))
    images._transport = breaking = Breaking(client.transport, [1 << 40, 1 << 20, 1 << 20])
    breaking.gather = _in_turn  # type: ignore[method-assign, assignment]

    run(images.pull_file(image, tmp_path / "pulled.tar"))

    assert len(breaking.ranges) == 2
    with tarfile.open(tmp_path / "pulled.tar") as tar:
        assert _last(tar) == fresh


@pytest.mark.parametrize("spoil", [False, True])
def test_a_stopped_pull_goes_on_where_its_file_ends(
    client: Client, fresh: bytes, tmp_path: Path, spoil: bool
) -> None:
    save(tmp_path / "image.tar", [fresh])
    images, target = client.images, tmp_path / "pulled.tar"
    image = images.image("trainer:v1")
    run(images.push_file(tmp_path / "image.tar", image))

    class Stopping(Silent):
        def moved(self, part: str, done: int, size: int) -> None:
            if done > 1 << 20:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images.pull_file(image, target, Stopping()))
    assert not target.exists()
    [unfinished] = tmp_path.glob(".pulled.tar.*.part")
    if spoil:
        with unfinished.open("r+b") as file:
            file.seek(-1000, 2)
            file.write(b"spoilt")
        with pytest.raises(InvalidInput, match="pull it again"):
            run(images.pull_file(image, target))
        run(images.pull_file(image, target))
    else:
        images._transport = breaking = Breaking(client.transport, [])
        run(images.pull_file(image, target))
        assert len(breaking.ranges) == 1

    with tarfile.open(target) as tar:
        assert _last(tar) == fresh
    assert not unfinished.exists()


def test_a_pull_takes_the_place_of_images_alone(
    client: Client, fresh: bytes, tmp_path: Path
) -> None:
    save(tmp_path / "image.tar", [fresh])
    images = client.images
    image = images.image("trainer:v1")
    run(images.push_file(tmp_path / "image.tar", image))
    notes, folder = tmp_path / "notes.tar", tmp_path / "folder"
    notes.write_text("mine")
    folder.mkdir()
    (folder / "index.json").write_text("mine")

    for target, said in (
        (notes, "is not an image"),
        (Path("/dev/null"), "is not an image"),
        (folder, "name a new folder"),
        (tmp_path / "nowhere" / "x.tar", "There is no folder"),
    ):
        with pytest.raises(InvalidInput, match=said):
            run(images.pull_file(image, target))
    assert notes.read_text() == (folder / "index.json").read_text() == "mine"

    run(images.pull_file(image, tmp_path / "image.tar"))
    with tarfile.open(tmp_path / "image.tar") as tar:
        assert "oci-layout" in tar.getnames()


def test_a_full_disk_is_told_with_the_file(client: Client, fresh: bytes, tmp_path: Path) -> None:
    save(tmp_path / "image.tar", [fresh])
    image = client.images.image("trainer:v1")
    run(client.images.push_file(tmp_path / "image.tar", image))

    class Full(Silent):
        def moved(self, part: str, done: int, size: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*pulled\.tar"):
        run(client.images.pull_file(image, tmp_path / "pulled.tar", Full()))


def _last(tar: tarfile.TarFile) -> bytes:
    file = tar.extractfile(tar.getmembers()[-1])
    assert file is not None
    return file.read()


def _without(path: Path, name: str) -> None:
    with tarfile.open(path) as tar, tarfile.open(path.with_suffix(".less"), "w") as less:
        for member in tar:
            if member.name != name:
                less.addfile(member, tar.extractfile(member))
    path.with_suffix(".less").replace(path)


def _index(count: int, *notes: dict[str, str]) -> bytes:
    part = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 3}
    parts: list[dict[str, object]] = [{**part, "annotations": one} for one in notes]
    return json.dumps({"manifests": parts + [part] * count}).encode()


_NAME, _TAG = "io.containerd.image.name", "org.opencontainers.image.ref.name"


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: path.write_bytes(b""), "has no image|not a whole archive"),
    "text": (lambda path: path.write_bytes(b"hello" * 1000), "not a whole archive"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x")), "gunzip"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:3000]), "image|archive|whole"),
    "no layer": (lambda path: _without(path, "0/layer.tar"), "not whole"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_not_an_image_is_told_so(tmp_path: Path, case: str) -> None:
    spoil, said = SPOILT[case]
    path = tmp_path / "image.tar"
    save(path, [layer("a", 4096)])
    spoil(path)

    with pytest.raises(InvalidInput, match=said):
        reading.read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "damaged"),
        (b'{"manifests": 5}', "damaged"),
        (b"[" * 100_000, "damaged"),
        (_index(0), "has 0 images"),
        (_index(2), "has 2 images"),
        (_index(0, {_NAME: "a:v1", _TAG: "v1"}, {_TAG: "b:v2"}), r"2 images \(a:v1, b:v2\)"),
        (_index(1), "not whole"),
        (_index(1).replace(b"sha256:", b"../../sha:"), "right digest"),
        (_index(10_001), "10001 parts"),
        (b" " * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_a_wrong_layout_is_told_so(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "index.json").write_bytes(content)

    with pytest.raises(InvalidInput, match=said):
        reading.read(tmp_path)


def test_a_folder_is_never_left(tmp_path: Path) -> None:
    # What `docker save` writes names its layers by paths: those of a folder could lead out of it.
    save(tmp_path / "image.tar", [layer("a", 4096)])
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "image.tar") as tar:
        tar.extractall(tmp_path / "folder", filter="data")

    with pytest.raises(InvalidInput, match="has no image"):
        reading.read(tmp_path / "folder")


def test_what_is_wrong_before_anything_is_copied(person: Home) -> None:
    nowhere = {"DOCKER_HOST": "unix:///nowhere"}
    for words, code, said in (
        (("push", "./absent.tar", "image:x:v1"), 72, "No such file"),
        (("push", "./absent.tar"), 127, "Say how ./absent.tar is called"),
        (("push", "ghcr.io/x/y"), 127, "Say how ghcr.io/x/y is called"),
        (("push", "x", f"image:x@sha256:{'0' * 64}"), 127, "write a tag"),
        (("push", "x"), 76, "The Docker daemon at /nowhere does not answer"),
        (("pull", "image:absent:v1", "./x.tar"), 72, "was not found"),
    ):
        done = person.run(*words, **nowhere)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    done = person.run("push", "x", DOCKER_HOST="ssh://there")
    assert (done.returncode, "tcp://HOST:PORT" in done.stderr) == (76, True), done.stderr


def test_a_manifest_that_is_another_than_was_asked_for_is_refused() -> None:
    image = OwnImage("default", "anna/trainer", f"@sha256:{'0' * 64}")

    with pytest.raises(InvalidInput, match="arrived damaged"):
        pulling._check_digest(b"{}", image.version[1:], image)
