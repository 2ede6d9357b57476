"""Images come from registries, whatever these are like."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.manifests import Platform
from neuro.engines.images.pulling import Pull
from neuro.engines.images.reach import Reach, plain
from neuro.engines.images.reaching import Place, check_name, is_own
from neuro.engines.images.references import parse
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.stopping import Stopped
from neuro.engines.images.store import HeldImage, Store
from neuro.engines.runs import PullCredentials
from neuro.engines.sandbox import network
from neuro.engines.sandbox.firewall import METADATA, METADATA6
from tests.engines.archives import archive, entry
from tests.engines.small_registry import INDEX, LAYER, LOCAL, MANIFEST, SmallRegistry, running

ME = PullCredentials("me", "secret")
AMD64 = Platform()


@pytest.fixture
def registry() -> SmallRegistry:
    return SmallRegistry()


@pytest.fixture
def host(registry: SmallRegistry) -> Iterator[str]:
    with running(registry) as address:
        yield address


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "images"))
    made.open()
    return made


def pull(store: Store, reference: str, credentials: PullCredentials | None = None) -> HeldImage:
    return Pull(store, parse(reference), credentials, reach=LOCAL, platform=AMD64, pause=0).run()


def fault_of(store: Store, reference: str, credentials: Any = None) -> ImageFault:
    with pytest.raises(ImageFault) as caught:
        pull(store, reference, credentials)
    assert caught.value.sentence.endswith(".")
    return caught.value


def blobs_asked(registry: SmallRegistry) -> list[str]:
    return [path for path, _ in registry.requests if "/blobs/" in path]


def test_an_image_comes_with_its_layers_and_its_config(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("me/trainer", "low", "high", tag="v1", Cmd=["python"])
    told: list[float] = []

    held = Pull(
        store, parse(f"{host}/me/trainer:v1"), reach=LOCAL, platform=AMD64, tell=told.append
    ).run()

    assert [os.listdir(one.files) for one in held.layers] == [["low"], ["high"]]
    assert held.image.config.command == ("python",)
    assert max(told) == 1.0
    assert os.listdir(store.shelves.folder + "/downloads") == []


def test_what_is_here_is_not_pulled_again(registry: SmallRegistry, host: str, store: Store) -> None:
    registry.image("x", "base", "one", tag="one")
    registry.image("x", "base", "two", tag="two")
    pull(store, f"{host}/x:one").close()
    registry.requests.clear()

    pull(store, f"{host}/x:two").close()
    assert len(blobs_asked(registry)) == 2  # a config and one layer

    registry.requests.clear()
    pull(store, f"{host}/x:two").close()
    assert len(blobs_asked(registry)) == 1


def test_two_pulls_at_once_fetch_each_layer_once(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", "b", "c", tag="v1")
    pulls = [threading.Thread(target=pull, args=(store, f"{host}/x:v1")) for _ in range(3)]
    for one in pulls:
        one.start()
    for one in pulls:
        one.join()

    asked = [path for path in blobs_asked(registry) if registry.blobs[path.rpartition("/")[2]]]
    layers = {path for path in asked if registry.blobs[path.rpartition("/")[2]][:2] == b"\x1f\x8b"}
    assert len(layers) == 3
    assert all(asked.count(path) == 1 for path in layers)


def test_the_image_for_this_platform_is_found_in_nested_indexes(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    wanted, other = registry.image("x", "amd64"), registry.image("x", "arm64")
    inner = registry.index("x", ("linux/arm64", other), ("linux/amd64", wanted))
    registry.index("x", ("", registry.index("x", ("linux/arm64", other))), ("", inner), tag="v1")

    held = pull(store, f"{host}/x:v1")

    assert os.listdir(held.layers[0].files) == ["amd64"]


def test_an_index_without_this_platform_is_told(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.index("x", ("linux/arm64", registry.image("x", "arm64")), tag="v1")

    fault = fault_of(store, f"{host}/x:v1")

    assert fault.kind is FaultKind.NOT_FOUND
    assert "linux/amd64" in fault.sentence


def test_indexes_without_an_end_are_refused(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    inner = registry.image("x", "a")
    for _ in range(6):
        inner = registry.index("x", ("", inner))
    registry.index("x", ("", inner), tag="deep")
    many = [("", registry.index("x", ("linux/arm64", {**inner, "size": n}))) for n in range(30)]
    registry.index("x", *many, tag="wide")

    assert fault_of(store, f"{host}/x:deep").kind is FaultKind.REFUSED
    assert fault_of(store, f"{host}/x:wide").kind is FaultKind.REFUSED


@pytest.mark.parametrize("asks", ["basic", "bearer"])
def test_a_registry_that_asks_who_we_are_is_told(
    registry: SmallRegistry, host: str, store: Store, asks: str
) -> None:
    registry.password, registry.asks = "secret", asks
    registry.image("x", "a", "b", tag="v1")

    pull(store, f"{host}/x:v1", ME).close()

    assert registry.tokens_given == (1 if asks == "bearer" else 0)


@pytest.mark.parametrize("asks", ["basic", "bearer"])
@pytest.mark.parametrize("credentials", [None, PullCredentials("me", "wrong")])
def test_without_the_right_credentials_it_is_denied(
    registry: SmallRegistry, host: str, store: Store, asks: str, credentials: Any
) -> None:
    registry.password, registry.asks = "secret", asks
    registry.image("x", "a", tag="v1")

    fault = fault_of(store, f"{host}/x:v1", credentials)

    assert fault.kind is FaultKind.DENIED
    assert "secret" not in fault.sentence
    assert "wrong" not in fault.sentence.replace("wrong password", "")


def test_a_token_that_ends_is_asked_for_anew(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.password = "secret"
    registry.image("x", "a", tag="v1")
    client = Registry(parse(f"{host}/x:v1"), ME, LOCAL)
    client.manifest("v1")

    registry.tokens_given += 1  # the one it has is of no use now

    client.manifest("v1")
    assert registry.tokens_given == 3


def test_blobs_elsewhere_are_asked_for_without_our_credentials(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    storage = SmallRegistry()
    registry.password = "secret"
    registry.image("x", "a", tag="v1")
    storage.blobs = registry.blobs
    with running(storage) as address:
        registry.elsewhere = f"http://{address}"

        pull(store, f"{host}/x:v1", ME).close()

    assert len(storage.requests) == 2
    assert all("Authorization" not in headers for _, headers in storage.requests)


def test_who_we_are_is_not_told_where_the_registry_sends_us(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    storage = SmallRegistry()
    registry.password = storage.password = "secret"
    registry.image("x", "a", tag="v1")
    with running(storage) as address:
        registry.elsewhere = f"http://{address}/v2/x/blobs"

        assert fault_of(store, f"{host}/x:v1", ME).kind is FaultKind.DENIED

    assert all("Authorization" not in headers for _, headers in storage.requests)


def test_an_address_that_is_none_is_refused(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    registry.elsewhere = "http://["

    assert fault_of(store, f"{host}/x:v1").kind is FaultKind.REFUSED
    assert fault_of(store, f"{'a' * 64}.example/x:v1").kind is FaultKind.REFUSED


@pytest.mark.parametrize("length", [b"-1", b"-5"])
def test_a_piece_of_a_negative_length_is_not_all_there_is(length: bytes, store: Store) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.sendall(length + b"\r\n")
            while True:
                connection.sendall(b"x" * (1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as server:
        endless = threading.Thread(target=answer, args=(server,))
        endless.start()
        fault = fault_of(store, f"127.0.0.1:{server.getsockname()[1]}/x:v1")
        endless.join()

    assert fault.kind in (FaultKind.REFUSED, FaultKind.AWAY)


def test_a_registry_that_sends_us_in_circles_is_refused(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    registry.elsewhere = f"http://{host}/v2/x/blobs"

    assert fault_of(store, f"{host}/x:v1").kind is FaultKind.REFUSED


def test_another_scheme_is_no_address(registry: SmallRegistry, host: str, store: Store) -> None:
    registry.image("x", "a", tag="v1")
    registry.elsewhere = "file:///etc"

    assert fault_of(store, f"{host}/x:v1").kind is FaultKind.REFUSED


def test_a_download_that_is_cut_goes_on_where_it_was(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    registry.cut_after = 50

    pull(store, f"{host}/x:v1").close()

    ranges = [headers["Range"] for _, headers in registry.requests if "Range" in headers]
    assert ranges[:2] == ["bytes=50-", "bytes=100-"]


@pytest.mark.parametrize("error", [OSError(113, "No route to host"), ssl.SSLError("bad record")])
def test_a_download_goes_on_whatever_ended_its_connection(
    registry: SmallRegistry,
    host: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
) -> None:
    registry.image("x", "a", tag="v1")
    registry.cut_after = 50
    read1, errors = HTTPResponse.read1, [error, error]

    def breaking(self: HTTPResponse, size: int = -1) -> bytes:
        if self.status == 206 and errors:
            raise errors.pop()
        return read1(self, size)

    monkeypatch.setattr(HTTPResponse, "read1", breaking)
    pull(store, f"{host}/x:v1").close()

    assert not errors


def test_a_download_that_is_always_cut_at_the_same_place_is_given_up(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    registry.cut_after, registry.ranges = 50, False

    fault = fault_of(store, f"{host}/x:v1")

    assert fault.kind is FaultKind.AWAY
    assert len(blobs_asked(registry)) == 1 + 6


def test_a_registry_that_cannot_give_a_layer_is_away(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    for digest, body in list(registry.blobs.items()):
        if body.startswith(b"\x1f\x8b"):
            registry.fails[f"/v2/x/blobs/{digest}"] = (503, b'{"errors":[{"message":"busy"}]}')

    fault = fault_of(store, f"{host}/x:v1")

    assert fault.kind is FaultKind.AWAY
    assert "busy" in fault.sentence


def test_what_came_before_a_stop_is_not_fetched_again(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    (digest,) = (one for one, body in registry.blobs.items() if body.startswith(b"\x1f\x8b"))
    Path(store.shelves.download(f"{host}/x", digest)).write_bytes(registry.blobs[digest][:50])

    pull(store, f"{host}/x:v1").close()

    (headers,) = (headers for path, headers in registry.requests if path.endswith(digest))
    assert headers["Range"] == "bytes=50-"


@pytest.mark.parametrize("change", ["longer", "other", "shorter"])
def test_a_layer_that_is_not_what_its_digest_says_is_corrupt(
    registry: SmallRegistry, host: str, store: Store, change: str
) -> None:
    registry.image("x", "a", tag="v1")
    (digest,) = (one for one, body in registry.blobs.items() if body.startswith(b"\x1f\x8b"))
    body = registry.blobs[digest]
    registry.blobs[digest] = {
        "longer": body + b"more", "other": bytes(len(body)), "shorter": body[:-5],
    }[change]  # fmt: skip

    fault = fault_of(store, f"{host}/x:v1")

    assert fault.kind is (FaultKind.AWAY if change == "shorter" else FaultKind.CORRUPT)
    assert change == "shorter" or os.listdir(store.shelves.folder + "/downloads") == []
    assert os.listdir(store.shelves.folder + "/layers") == []


def test_a_config_or_manifest_that_is_not_what_its_digest_says_is_corrupt(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    one = registry.image("x", "a", tag="v1")
    (digest,) = (name for name, body in registry.blobs.items() if body.startswith(b"{"))
    registry.blobs[digest] += b" "
    registry.document("y", {"manifests": [{**one, "digest": "sha256:" + "0" * 64}]}, INDEX, "v1")

    assert fault_of(store, f"{host}/x:v1").kind is FaultKind.CORRUPT
    assert fault_of(store, f"{host}/y:v1").kind is FaultKind.NOT_FOUND


def test_a_manifest_of_missing_blobs_is_told(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", "b", tag="v1")
    for digest in [one for one, body in registry.blobs.items() if body.startswith(b"\x1f\x8b")]:
        del registry.blobs[digest]

    assert fault_of(store, f"{host}/x:v1").kind is FaultKind.NOT_FOUND
    assert os.listdir(store.shelves.folder + "/drafts") == []


def test_no_such_image_is_told_with_the_registrys_own_reason(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    fault = fault_of(store, f"{host}/x:v1")

    assert fault.kind is FaultKind.NOT_FOUND
    assert fault.sentence == f"There is no image {host}/x:v1: manifest unknown."


@pytest.mark.parametrize(
    ("name", "expected", "told"),
    [
        ("docker.io/library/x:v1", FaultKind.AWAY, "The registry docker.io cannot be reached: "),
        ("lab.example/x:v1", FaultKind.NOT_FOUND, "There is no registry lab.example: check the "),
    ],
)
def test_no_way_out_is_told_apart_from_a_wrong_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, expected: FaultKind, told: str
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    fault = fault_of(store, name)

    assert (fault.kind, fault.sentence[: len(told)]) == (expected, told)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, b"<html>", FaultKind.AWAY),
        (429, b'{"errors":[{"message":"slow down\\nplease"}]}', FaultKind.AWAY),
        (403, b'{"errors":[]}', FaultKind.DENIED),
        (400, b'{"errors":[{"code":"NAME_INVALID"}]}', FaultKind.REFUSED),
        (200, b"not a manifest", FaultKind.CORRUPT),
        (200, b"x" * (5 << 20), FaultKind.REFUSED),
    ],
)
def test_a_bad_answer_is_told(
    registry: SmallRegistry, host: str, store: Store, status: int, body: bytes, expected: FaultKind
) -> None:
    registry.fails["/v2/x/manifests/"] = (status, body)

    fault = fault_of(store, f"{host}/x:v1")

    assert fault.kind is expected
    assert "\n" not in fault.sentence


def test_a_registry_that_is_not_there_is_away(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    fault = fault_of(store, f"127.0.0.1:{port}/x:v1")

    assert fault.kind is FaultKind.AWAY
    assert "refused" in fault.sentence


def test_a_registry_of_another_machine_is_asked_by_https_only(
    registry: SmallRegistry, host: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.image("x", "a", tag="v1")
    port = int(host.rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 5000))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    def connect(*_: object) -> socket.socket:
        made = socket.socket()
        made.connect(("127.0.0.1", port))
        return made

    monkeypatch.setattr(socket, "create_connection", connect)
    reference = parse("registry.example:5000/x:v1")

    with pytest.raises(ImageFault, match="does not speak https") as caught:
        Pull(store, reference, platform=AMD64).run()

    assert caught.value.kind is FaultKind.AWAY
    Pull(store, reference, platform=AMD64, reach=plain("registry.example:5000")).run().close()


def test_a_layer_that_is_refused_ends_the_pull_and_leaves_nothing(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    value = {"config": registry.blob(b'{"rootfs": {"diff_ids": ["sha256:%s"]}}' % (b"0" * 64), "")}
    value["layers"] = [registry.blob(b"not an archive" * 100, LAYER)]  # type: ignore[assignment]
    registry.document("x", value, MANIFEST, "v1")

    assert fault_of(store, f"{host}/x:v1").kind is FaultKind.CORRUPT
    for shelf in ("layers", "images", "names", "drafts", "trash", "downloads"):
        assert os.listdir(f"{store.shelves.folder}/{shelf}") == []


def test_a_pull_can_be_stopped(registry: SmallRegistry, host: str, store: Store) -> None:
    registry.image("x", "a", "b", "c", "d", tag="v1")
    stopped: list[Pull] = []

    def stop(_: float) -> None:
        stopped[0].stop()

    stopped.append(Pull(store, parse(f"{host}/x:v1"), reach=LOCAL, platform=AMD64, tell=stop))
    with pytest.raises(Stopped):
        stopped[0].run()

    assert os.listdir(store.shelves.folder + "/images") == []
    assert os.listdir(store.shelves.folder + "/drafts") == []


def large(registry: SmallRegistry) -> str:
    """The digest of the only layer."""
    (digest,) = (one for one, body in registry.blobs.items() if body.startswith(b"\x1f\x8b"))
    return digest


def test_how_far_it_is_is_told_now_and_then(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", archive(entry("noise", content=os.urandom(8 << 20))), tag="v1")
    told: list[float] = []
    began = time.monotonic()

    Pull(store, parse(f"{host}/x:v1"), reach=LOCAL, tell=told.append).run().close()

    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) <= 2 + (time.monotonic() - began) / 0.1


def test_a_registry_that_keeps_us_waiting_is_away_after_a_while(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    registry.cut_after = 1  # each try brings a byte

    with pytest.raises(ImageFault, match="did not come within") as caught:
        Pull(store, parse(f"{host}/x:v1"), reach=LOCAL, longest=0.3).run()

    assert caught.value.kind is FaultKind.AWAY


def test_a_stop_ends_a_pull_from_a_registry_that_says_nothing(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = Pull(store, parse(f"127.0.0.1:{server.getsockname()[1]}/x:v1"), reach=LOCAL)
        with ThreadPoolExecutor(1) as threads:
            pulled = threads.submit(one.run)
            connection, _ = server.accept()
            connection.recv(1)
            one.stop()

            with pytest.raises(Stopped):
                pulled.result(20)
        connection.close()


def test_what_an_earlier_try_left_damaged_is_fetched_anew(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "a", tag="v1")
    digest = large(registry)
    body = registry.blobs[digest]
    place = Path(store.shelves.download(f"{host}/x", digest))
    for damaged in (b"other" * 5, bytes(len(body)), b"longer" * len(body)):
        place.write_bytes(damaged)

        pull(store, f"{host}/x:v1").close()

        assert os.listdir(store.shelves.folder + "/downloads") == []
        store.sweep(unused_for=-1, most=0)


def test_an_image_that_does_not_fit_on_the_disk_is_told_and_leaves_nothing(
    registry: SmallRegistry, host: str, tmp_path: Path
) -> None:
    registry.image("x", "a", tag="v1")
    full = Store(str(tmp_path / "full"), Limits(spare=1 << 60))
    full.open()

    fault = fault_of(full, f"{host}/x:v1")

    assert fault.kind is FaultKind.NO_ROOM
    assert blobs_asked(registry) == [blobs_asked(registry)[0]]  # the config
    assert os.listdir(full.shelves.folder + "/downloads") == []


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of 4 MiB at a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.root
def test_a_disk_that_fills_up_is_left_as_it_was(
    registry: SmallRegistry, host: str, tmp_path: Path
) -> None:
    registry.image("x", archive(entry("noise", content=os.urandom(1 << 20))), tag="v1")
    place = tmp_path / "small"
    place.mkdir()
    with small_disk(place):
        small = Store(str(place / "images"))
        small.open()
        rest = place / "rest"
        manifest = registry.answer

        def answer(request: Any) -> None:
            if "/blobs/" in request.path and not rest.exists():  # once it was seen to fit
                rest.write_bytes(bytes(3 << 20))
            manifest(request)

        registry.answer = answer  # type: ignore[method-assign]

        fault = fault_of(small, f"{host}/x:v1")

        assert fault.kind is FaultKind.NO_ROOM
        assert os.listdir(small.shelves.folder + "/downloads") == []


# Who may have what is here.


def test_a_layer_is_not_had_by_naming_it(registry: SmallRegistry, host: str, store: Store) -> None:
    """All digests of somebody's private image may be known; its content is not."""
    registry.image("anna/private", "secret", tag="v1")
    pull(store, f"{host}/anna/private:v1").close()
    mine = SmallRegistry()
    mine.copy_without_layers(registry)
    with running(mine) as elsewhere:
        fault = fault_of(store, f"{elsewhere}/anna/private:v1")
        mine.gives_all = True  # it says that it has the layer
        lied = fault_of(store, f"{elsewhere}/anna/private:v1")

    registry.hidden.add("/v2/anna/")
    registry.copy_without_layers(registry, "bob/mine")
    same = fault_of(store, f"{host}/bob/mine:v1")

    assert fault.kind is lied.kind is same.kind is FaultKind.NOT_FOUND


def test_a_layer_that_is_here_is_given_to_who_may_have_it(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("anna/base", "base", tag="v1")
    registry.image("bob/own", "base", "more", tag="v1")
    pull(store, f"{host}/anna/base:v1").close()
    before = len(blobs_asked(registry))

    pull(store, f"{host}/bob/own:v1").close()
    asked = list(registry.asked_whether)
    pull(store, f"{host}/bob/own:v1").close()

    assert len(asked) == 1
    assert registry.asked_whether == asked  # it is known of this image
    assert len(blobs_asked(registry)) == before + 2 + 1  # of each pull a config, and one layer


def test_who_brings_the_same_layer_from_elsewhere_has_it(
    registry: SmallRegistry, host: str, store: Store
) -> None:
    registry.image("x", "same", tag="v1")
    first = pull(store, f"{host}/x:v1")
    with running(registry) as elsewhere:
        second = pull(store, f"{elsewhere}/x:v1")
        asked = len(blobs_asked(registry))
        pull(store, f"{elsewhere}/x:v1").close()

    assert first.layers == second.layers
    assert len(blobs_asked(registry)) == asked + 1


# What is not asked for images.


@pytest.mark.parametrize(
    "name",
    [
        *("{host}", "localhost:{port}", "127.1.2.3:{port}", "169.254.169.254", "0.0.0.0:{port}"),
        *("168.63.129.16", "192.0.0.192"),
    ],
)
def test_registries_on_this_machine_are_not_asked(
    registry: SmallRegistry, host: str, store: Store, name: str
) -> None:
    reference = name.format(host=host, port=host.rpartition(":")[2])

    with pytest.raises(ImageFault) as caught:
        Pull(store, parse(f"{reference}/x:v1")).run()

    assert caught.value.kind is FaultKind.REFUSED
    assert "`images_insecure`" in caught.value.sentence
    assert registry.requests == []


def test_the_machines_other_addresses_are_its_own() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no way out, so no other address")
        address = probe.getsockname()[0]

    assert is_own(address)
    assert is_own(f"::ffff:{address}")


def test_addresses_of_jobs_are_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "exists", lambda address: address == "10.213.0.7")

    assert is_own("10.213.0.7")
    assert not is_own("10.213.0.8")


@pytest.mark.parametrize("address", [*METADATA[1:], *METADATA6[1:]])
def test_no_address_of_metadata_is_a_registrys(address: str) -> None:
    assert is_own(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0"])
def test_an_address_that_a_gateway_makes_of_another_is_as_that_one(address: str) -> None:
    number = int(ipaddress.IPv4Address(address))

    assert is_own(f"64:ff9b::{address}")
    assert is_own(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1")
    assert not is_own("64:ff9b::198.51.100.1")
    assert not is_own("2002:c633:6401::1")


@pytest.mark.parametrize("host", ["64:ff9b::192.0.2.7", "2002:c000:207::1", "2001:db8::1"])
def test_a_closed_network_is_closed_in_each_form_of_its_addresses(host: str) -> None:
    reach = Reach(closed=["192.0.2.0/24", "2001:db8::/32"])

    with pytest.raises(ImageFault):
        check_name(Place("https", host, None), reach)


def test_no_registry_is_asked_in_a_closed_network(store: Store) -> None:
    with pytest.raises(ImageFault) as caught:
        Pull(store, parse("192.0.2.7/x:v1"), reach=Reach(closed=["192.0.2.0/24"])).run()

    assert caught.value.kind is FaultKind.REFUSED


@pytest.mark.parametrize("way", ["blobs", "token"])
def test_no_registry_sends_us_to_this_machine(
    registry: SmallRegistry, host: str, store: Store, way: str
) -> None:
    registry.image("x", "a", tag="v1")
    inner = SmallRegistry()
    with running(inner) as address:
        if way == "blobs":
            registry.elsewhere = f"http://{address}"
        else:
            registry.password, registry.address = "secret", f"http://{address}"

        with pytest.raises(ImageFault) as caught:
            Pull(store, parse(f"{host}/x:v1"), ME, reach=plain(host)).run()

    assert caught.value.kind is FaultKind.REFUSED
    assert inner.requests == []
