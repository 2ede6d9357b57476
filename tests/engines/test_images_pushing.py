"""Images go to registries, whatever these are like; nothing shows before all of it is there."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.engines.images.composing import Base, Composed, NewLayer, digest_of, image_of
from neuro.engines.images.connections import Connections
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.manifests import Manifest, read_config, read_manifest
from neuro.engines.images.processes import Stopped
from neuro.engines.images.pulling import Pull
from neuro.engines.images.pushing import OfBytes, OfFile, OfRegistry, Push
from neuro.engines.images.reach import plain
from neuro.engines.images.references import parse
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.store import Store
from neuro.engines.runs import PullCredentials
from tests.engines.archives import entry, layer
from tests.engines.small_registry import CONFIG, LAYER, MANIFEST, running
from tests.engines.taking_registry import TakingRegistry

NOW = "2026-01-02T03:04:05Z"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def registry() -> TakingRegistry:
    return TakingRegistry()


@pytest.fixture
def host(registry: TakingRegistry) -> Iterator[str]:
    with running(registry) as address:
        yield address


def new_layer(content: bytes) -> tuple[NewLayer, bytes]:
    blob, diff_id = layer(entry("file", content=content))
    return NewLayer(digest_of(blob), len(blob), diff_id, "RUN something"), blob


def pusher(reference: str, credentials: PullCredentials | None = None, **options: object) -> Push:
    wanted = parse(reference)
    return Push(Registry(wanted, credentials, plain(wanted.registry)), wanted, pause=0, **options)  # type: ignore[arg-type]


def whole_pusher(reference: str, connections: Connections | None = None) -> Push:
    """As our builder pushes to the platform's registry."""
    wanted = parse(reference)
    me = PullCredentials("me", "secret")
    registry = Registry(wanted, me, plain(wanted.registry), own=True, connections=connections)
    return Push(registry, wanted, pause=0, whole=True)


def methods(registry: TakingRegistry) -> list[str]:
    return [line.partition(" ")[0] for line in registry.asked]


def one_layer(content: bytes = b"x") -> tuple[Composed, dict[str, OfBytes]]:
    made, blob = new_layer(content)
    return image_of(None, [made], {"Cmd": ["sh"]}, created=NOW), {made.digest: OfBytes(blob)}


def test_what_is_pushed_can_be_pulled(registry: TakingRegistry, host: str, tmp_path: Path) -> None:
    image, sources = one_layer()
    told: list[float] = []

    pusher(f"{host}/me/trainer:v1", tell=told.append).run(image, sources)

    assert registry.manifest("me/trainer", "v1") == (MANIFEST, image.manifest)
    store = Store(str(tmp_path / "images"))
    store.open()
    held = Pull(store, parse(f"{host}/me/trainer:v1"), reach=plain(host)).run()
    assert (Path(held.layers[0].files) / "file").read_bytes() == b"x"
    assert held.image.config.command == ("sh",)
    assert (told[-1], sorted(told)) == (1.0, told)


def test_what_is_there_is_not_sent_again(registry: TakingRegistry, host: str) -> None:
    image, sources = one_layer()
    pusher(f"{host}/x:one").run(image, sources)
    registry.asked.clear()

    pusher(f"{host}/x:two").run(image, sources)

    methods = [line.partition(" ")[0] for line in registry.asked]
    assert methods == ["HEAD", "HEAD", "PUT"]


@pytest.fixture
def own(registry: TakingRegistry) -> TakingRegistry:
    """The registry as the platform's is."""
    registry.knows_whole = registry.takes_small = registry.keeps = True
    registry.password, registry.asks = "secret", "basic"
    return registry


def test_the_platforms_registry_is_asked_once_where_nothing_is_new(
    own: TakingRegistry, host: str
) -> None:
    image, sources = one_layer()

    whole_pusher(f"{host}/x:one").run(image, sources)
    first, own.asked = methods(own), []
    whole_pusher(f"{host}/x:two").run(image, sources)

    assert (first, own.asked) == (["PUT", "POST", "POST", "PUT"], ["PUT x/manifests/two"])
    assert own.manifest("x", "two")[1] == image.manifest
    assert all(one.startswith("Basic ") for one in own.authorizations)


def test_only_what_the_platforms_registry_lacks_is_brought(own: TakingRegistry, host: str) -> None:
    image, sources = one_layer()
    whole_pusher(f"{host}/x:one").run(image, sources)
    own.asked.clear()
    changed = image_of(None, [one_layer_of(image)], {"Cmd": ["other"]}, created=NOW)

    whole_pusher(f"{host}/x:two").run(changed, sources)

    assert methods(own) == ["PUT", "POST", "PUT"]
    assert own.blobs[changed.config_blob.digest] == changed.config


def one_layer_of(image: Composed) -> NewLayer:
    (layer,), config = image.layers, json.loads(image.config)
    return NewLayer(layer.digest, layer.size, config["rootfs"]["diff_ids"][0], "RUN something")


def test_what_is_collected_between_two_requests_is_brought_again(
    own: TakingRegistry, host: str
) -> None:
    image, sources = one_layer()
    collected = [image.config_blob.digest]

    def collect() -> None:
        if collected and own.blobs.pop(collected[0], None) is not None:
            collected.pop()

    own.before_whole = collect

    whole_pusher(f"{host}/x:v1").run(image, sources)

    assert methods(own) == ["PUT", "POST", "POST", "PUT", "POST", "PUT"]
    assert own.blobs.keys() >= {image.config_blob.digest, *sources}


def test_a_registry_that_never_has_all_is_pushed_to_as_any_other(
    own: TakingRegistry, host: str
) -> None:
    image, sources = one_layer()
    own.before_whole = own.blobs.clear

    whole_pusher(f"{host}/x:v1").run(image, sources)

    assert methods(own) == [*["PUT", "POST", "POST"] * 3, "HEAD", "HEAD", "PUT"]


@pytest.mark.parametrize("answer", [b"[" * 100_000, b"{}", b'{"errors": [{"detail": {}}]}'])
def test_another_answer_than_what_is_missing_is_told_in_the_registrys_words(
    own: TakingRegistry, host: str, answer: bytes
) -> None:
    image, sources = one_layer()
    own.fails["/v2/x/manifests/"] = 404, answer
    own.fails["/v2/x/blobs/uploads/"] = 403, b'{"errors": [{"message": "it is not yours"}]}'

    with pytest.raises(ImageFault, match="it is not yours"):
        whole_pusher(f"{host}/x:v1").run(image, sources)


def test_a_small_blob_that_is_not_taken_at_once_goes_on(own: TakingRegistry, host: str) -> None:
    own.takes_small = False
    image, sources = one_layer()

    whole_pusher(f"{host}/x:v1").run(image, sources)

    assert methods(own) == ["PUT", *["POST", "PATCH", "PUT"] * 2, "PUT"]
    assert own.blobs[image.config_blob.digest] == image.config


def test_a_large_layer_comes_in_pieces_and_a_base_is_mounted(
    own: TakingRegistry, host: str
) -> None:
    image, sources = one_layer(os.urandom(2 << 20))
    (digest,) = sources

    whole_pusher(f"{host}/x:v1").run(image, sources)
    assert methods(own) == ["PUT", "POST", "PATCH", "PUT", "POST", "PUT"]
    own.blobs.clear()
    own.asked.clear()
    own.mounts, sources[digest].place = {("base", digest)}, "base"
    whole_pusher(f"{host}/x:v1").run(image, sources)

    assert methods(own) == ["PUT", "POST", "POST", "PUT"]
    assert own.blobs[digest] == b"mounted"


def test_one_connection_is_enough(registry: TakingRegistry) -> None:
    registry.keeps = True
    image, sources = one_layer()
    with running(registry) as host, Connections() as connections:
        wanted = parse(f"{host}/x:v1")
        asked = Registry(wanted, None, plain(host), connections=connections)

        Push(asked, wanted, pause=0).run(image, sources)

        assert (registry.connections, len(registry.asked)) == (1, 9)
        assert registry.manifest("x", "v1")[1] == image.manifest


def test_a_connection_that_was_closed_meanwhile_is_opened_again(registry: TakingRegistry) -> None:
    registry.keeps, registry.answers_each = True, 1
    image, sources = one_layer()
    with running(registry) as host, Connections() as connections:
        pusher(f"{host}/x:one").run(image, sources)
        registry.asked.clear()
        registry.connections = 0
        wanted = parse(f"{host}/x:two")
        asked = Registry(wanted, None, plain(host), connections=connections)

        Push(asked, wanted, pause=0).run(image, sources)

    # Two of them were hung up when the next request had been sent.
    assert (registry.connections, methods(registry)) == (3, ["HEAD", "HEAD", "PUT"])


def test_what_is_not_read_to_its_end_keeps_no_connection(registry: TakingRegistry) -> None:
    registry.keeps = True
    digest = registry.blob(bytes(1 << 20), LAYER)["digest"]
    with running(registry) as host, Connections() as connections:
        wanted = parse(f"{host}/x:v1")
        asked = Registry(wanted, None, plain(host), connections=connections)

        with asked.blob(digest, 0) as answer:
            answer.read(10)
        assert asked.has(digest)
        assert asked.has(digest)

    assert registry.connections == 2


def test_a_layer_of_another_repository_is_mounted(registry: TakingRegistry, host: str) -> None:
    image, sources = one_layer()
    (digest,) = sources
    registry.mounts = {("base", digest)}
    sources[digest].place = "base"

    pusher(f"{host}/x:v1").run(image, sources)

    assert registry.blobs[digest] == b"mounted"


def test_a_layer_that_is_not_given_away_is_sent(registry: TakingRegistry, host: str) -> None:
    image, sources = one_layer()
    (digest,) = sources
    sources[digest].place = "base"

    pusher(f"{host}/x:v1").run(image, sources)

    assert len(registry.blobs[digest]) == image.layers[0].size


def test_a_cut_upload_goes_on_where_it_was(
    registry: TakingRegistry, host: str, tmp_path: Path
) -> None:
    made, blob = new_layer(os.urandom(1 << 20))
    (tmp_path / "blob").write_bytes(blob)
    registry.takes_at_once = 100_000
    image = image_of(None, [made], created=NOW)

    with (tmp_path / "blob").open("rb") as file:
        pusher(f"{host}/x:v1").run(image, {made.digest: OfFile(file.fileno())})

    assert registry.blobs[made.digest] == blob
    assert registry.taken == len(blob) + image.config_blob.size + len(image.manifest)


def test_an_upload_that_is_gone_begins_again_and_not_for_ever(
    registry: TakingRegistry, host: str
) -> None:
    image, sources = one_layer(os.urandom(1 << 20))
    registry.takes_at_once, registry.forgets = 100_000, True

    with pytest.raises(ImageFault) as caught:
        pusher(f"{host}/x:v1").run(image, sources)

    assert caught.value.kind is FaultKind.AWAY
    begun = [line for line in registry.asked if line.startswith("POST")]
    assert 2 <= len(begun) <= 6
    assert not [line for line in registry.asked if "manifests" in line]


def test_a_wrong_layer_shows_nowhere(registry: TakingRegistry, host: str) -> None:
    image, sources = one_layer()
    (digest,) = sources

    with pytest.raises(ImageFault, match="the digest is another"):
        pusher(f"{host}/x:v1").run(image, {digest: OfBytes(bytes(image.layers[0].size))})
    with pytest.raises(ImageFault, match="has 2 bytes instead of"):
        pusher(f"{host}/x:v1").run(image, {digest: OfBytes(b"12")})

    assert not [line for line in registry.asked if "manifests" in line]


@pytest.mark.parametrize("asks", ["basic", "bearer"])
def test_who_pushes_says_who_they_are(registry: TakingRegistry, host: str, asks: str) -> None:
    registry.password, registry.asks = "secret", asks
    image, sources = one_layer()

    with pytest.raises(ImageFault) as caught:
        pusher(f"{host}/x:v1").run(image, sources)
    assert caught.value.kind is FaultKind.DENIED

    pusher(f"{host}/x:v1", PullCredentials("me", "secret")).run(image, sources)
    assert registry.manifest("x", "v1")[1] == image.manifest


def test_nobody_else_is_told_who_pushes(registry: TakingRegistry, host: str) -> None:
    registry.password, registry.asks = "secret", "basic"
    image, sources = one_layer()
    other = TakingRegistry()
    with running(other) as elsewhere:
        other.uploads = registry.uploads
        registry.starts_at = other.starts_at = f"http://{elsewhere}"

        wanted = parse(f"{host}/x:v1")
        asked = Registry(wanted, PullCredentials("me", "secret"), plain(host, elsewhere))
        Push(asked, wanted, pause=0).run(image, sources)

    assert [line.partition(" ")[0] for line in other.asked] == ["PATCH", "PUT"] * 2
    assert other.authorizations == set()
    assert registry.authorizations


@pytest.mark.parametrize(
    ("status", "fault", "sentence"),
    [
        (403, FaultKind.DENIED, "does not let you push .*/x:v1: it is not yours"),
        (404, FaultKind.DENIED, r"x:v1: it is not yours\. Push under a name of your own, or"),
        (507, FaultKind.NO_ROOM, "has no room: it is not yours"),
        (413, FaultKind.REFUSED, "does not take .*/x:v1: it is not yours"),
        (503, FaultKind.AWAY, "cannot answer now: it is not yours"),
    ],
)
def test_why_a_registry_does_not_take_it_is_told(
    registry: TakingRegistry, host: str, status: int, fault: FaultKind, sentence: str
) -> None:
    image, sources = one_layer()
    registry.fails["/v2/x/blobs/uploads/"] = (
        status,
        b'{"errors": [{"message": "it is not yours"}]}',
    )

    with pytest.raises(ImageFault, match=sentence) as caught:
        pusher(f"{host}/x:v1").run(image, sources)

    assert caught.value.kind is fault


def test_a_push_can_be_stopped(registry: TakingRegistry, host: str) -> None:
    image, sources = one_layer(os.urandom(2 << 20))
    push = pusher(f"{host}/x:v1", tell=lambda share: push.stop())

    with pytest.raises(Stopped):
        push.run(image, sources)

    assert registry.blobs == {}


# Images of others


def base_of(registry: TakingRegistry, repository: str) -> Base:
    kind, manifest = registry.manifest(repository, "v1")
    found = read_manifest(manifest, kind)
    assert isinstance(found, Manifest)
    return Base(manifest, registry.blobs[found.config.digest])


@pytest.mark.parametrize("media_type", [MANIFEST, DOCKER])
def test_an_image_lies_on_its_base(
    registry: TakingRegistry, host: str, tmp_path: Path, media_type: str
) -> None:
    low, diff_id = layer(entry("low"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=1"], "User": "me", "Entrypoint": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "before"}],
        "unknown": {"is": "kept"},
    }
    value = {
        "config": registry.blob(json.dumps(config).encode(), CONFIG),
        "layers": [registry.blob(low, LAYER)],
    }
    registry.document("base", value, media_type, "v1")
    made, blob = new_layer(b"above")

    image = image_of(
        base_of(registry, "base"), [made], {"Cmd": ["y"], "Entrypoint": None}, created=NOW
    )
    source = OfRegistry(Registry(parse(f"{host}/base:v1"), None, plain(host)), digest_of(low))
    pusher(f"{host}/x:v1").run(image, {made.digest: OfBytes(blob), digest_of(low): source})

    assert registry.manifest("x", "v1")[0] == media_type
    read = read_manifest(image.manifest, "")
    assert isinstance(read, Manifest)
    assert [one.digest for one in read.layers] == [digest_of(low), made.digest]
    assert ("docker" in read.layers[1].media_type) == (media_type == DOCKER)
    found = read_config(image.config, read)
    assert found.diff_ids == (diff_id, made.diff_id)
    assert (found.environment, found.user, found.entrypoint) == (("A=1",), "me", ())
    assert found.command == ("y",)
    whole = json.loads(image.config)
    assert whole["unknown"] == {"is": "kept"}
    assert [one.get("created_by") for one in whole["history"]] == ["before", "RUN something"]


def test_a_layer_goes_from_one_registry_to_another_also_where_it_is_cut(
    registry: TakingRegistry, host: str
) -> None:
    source = TakingRegistry()
    blob = gzip.compress(os.urandom(600_000), 1)
    digest = source.blob(blob, LAYER)["digest"]
    registry.takes_at_once = 250_000
    made = NewLayer(digest, len(blob), "sha256:" + "0" * 64)
    with running(source) as elsewhere:
        copied = OfRegistry(Registry(parse(f"{elsewhere}/base:v1"), None, plain(elsewhere)), digest)
        for source.ranges in (True, False):
            registry.blobs.pop(digest, None)
            pusher(f"{host}/x:v1").run(image_of(None, [made], created=NOW), {digest: copied})
            assert registry.blobs[digest] == blob


def test_a_base_that_cannot_be_read_is_told() -> None:
    with pytest.raises(ImageFault, match="config cannot be read"):
        image_of(Base(b"{}", b"["), [], created=NOW)
    with pytest.raises(ImageFault, match="'rootfs' is not an object"):
        image_of(Base(b"{}", b'{"rootfs": 1}'), [], created=NOW)


def test_whether_one_may_push_is_asked_and_leaves_nothing(
    registry: TakingRegistry, host: str
) -> None:
    pusher(f"{host}/me/made:v1").check()

    assert [line.partition(" ")[0] for line in registry.asked] == ["POST", "DELETE"]
    assert (registry.uploads, [*registry.blobs.values()].count(b"")) == ({}, 0)


def test_whoever_may_not_push_is_told(registry: TakingRegistry, host: str) -> None:
    registry.asks, registry.password = "basic", "p"

    with pytest.raises(ImageFault) as caught:
        pusher(f"{host}/me/made:v1").check()

    assert caught.value.kind is FaultKind.DENIED
    assert registry.uploads == {}
