"""References, manifests, indexes and configs: what registries and people write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.errors import InvalidInput
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.manifests import (
    INDEXES,
    MANIFESTS,
    Index,
    Manifest,
    Platform,
    choose,
    read_config,
    read_manifest,
)
from neuro.engines.images.references import parse

pytestmark = pytest.mark.pure

DIGEST = "sha256:" + "a" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.mark.parametrize(
    ("written", "registry", "repository", "version"),
    [
        ("ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("me/trainer:v1", "docker.io", "me/trainer", "v1"),
        ("index.docker.io/ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("localhost/trainer", "localhost", "trainer", "latest"),
        ("localhost:5000/a/b:c", "localhost:5000", "a/b", "c"),
        ("ghcr.io/me/trainer", "ghcr.io", "me/trainer", "latest"),
        (f"quay.io/me/trainer@{DIGEST}", "quay.io", "me/trainer", DIGEST),
        (f"quay.io/me/trainer:v1@{DIGEST}", "quay.io", "me/trainer", DIGEST),
    ],
)
def test_a_reference_names_a_registry_a_repository_and_a_version(
    written: str, registry: str, repository: str, version: str
) -> None:
    found = parse(written)

    assert (found.registry, found.repository, found.version) == (registry, repository, version)
    assert parse(str(found)) == found


def test_docker_hub_answers_at_another_host() -> None:
    assert parse("ubuntu").host == "registry-1.docker.io"


@pytest.mark.parametrize(
    "written",
    ["", "Ubuntu", "a b", "../etc", "a/../b", "a:b:c", "-x", "a@sha256:1", "a\n", "a" * 600],
)
def test_a_hostile_reference_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(InvalidInput, match="ubuntu:latest"):
        parse(written)


def descriptor(**more: Any) -> dict[str, Any]:
    return {"digest": DIGEST, "size": 10, **more}


def document(**more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **more}).encode()


def manifest(layers: int = 1, **more: Any) -> bytes:
    made = [descriptor(mediaType=LAYER) for _ in range(layers)]
    return document(config=descriptor(), layers=made, **more)


@pytest.mark.parametrize("media_type", [*MANIFESTS, f"{MANIFESTS[0]}; charset=utf-8", "text/plain"])
def test_both_kinds_of_manifests_are_read(media_type: str) -> None:
    found = read_manifest(manifest(2), media_type)

    assert isinstance(found, Manifest)
    assert [one.digest for one in found.layers] == [DIGEST, DIGEST]


@pytest.mark.parametrize("media_type", [*INDEXES, ""])
def test_both_kinds_of_indexes_are_read(media_type: str) -> None:
    found = read_manifest(document(manifests=[descriptor()]), media_type)

    assert isinstance(found, Index)


REFUSED = {
    "the first schema": (document(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    "too many layers": (manifest(501), MANIFESTS[0]),
    "layers elsewhere": (
        document(config=descriptor(), layers=[descriptor(mediaType=LAYER, urls=["https://x"])]),
        MANIFESTS[0],
    ),
    "no image": (
        document(config=descriptor(), layers=[descriptor(mediaType="application/wasm")]),
        MANIFESTS[0],
    ),
    "a huge config": (
        document(config={"digest": DIGEST, "size": 1 << 40}, layers=[]),
        MANIFESTS[0],
    ),
}
CORRUPT = {
    "no json": b"<html>",
    "a list": b"[]",
    "no layers": document(config=descriptor()),
    "a digest with a path": document(config={"digest": "../../etc", "size": 1}, layers=[]),
    "a size below zero": document(config={"digest": DIGEST, "size": -1}, layers=[]),
    "deep": b"[" * 100_000,
    "not utf-8": b'{"config": "\xff"}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_here_is_refused(name: str) -> None:
    with pytest.raises(ImageFault) as caught:
        read_manifest(*REFUSED[name])

    assert caught.value.kind is FaultKind.REFUSED


@pytest.mark.parametrize("name", CORRUPT)
def test_a_damaged_manifest_is_told(name: str) -> None:
    with pytest.raises(ImageFault) as caught:
        read_manifest(CORRUPT[name], MANIFESTS[0])

    assert caught.value.kind is FaultKind.CORRUPT


def platforms(*names: str) -> Index:
    made = []
    for number, name in enumerate(names):
        one = descriptor(size=number)
        if name:
            os_, architecture, *variant = name.split("/")
            one["platform"] = {"os": os_, "architecture": architecture}
            if variant:
                one["platform"]["variant"] = variant[0]
        made.append(one)
    found = read_manifest(document(manifests=made), INDEXES[0])
    assert isinstance(found, Index)
    return found


@pytest.mark.parametrize(
    ("wanted", "names", "chosen"),
    [
        (Platform(), ["linux/arm64", "linux/amd64", "windows/amd64"], [1]),
        (Platform(), ["unknown/unknown", "linux/amd64"], [1]),
        (Platform(), ["linux/amd64/v3", "linux/amd64"], [1]),
        (Platform(), ["linux/amd64/v3"], []),
        (Platform(), ["", "linux/amd64"], [1, 0]),
        (Platform("linux", "arm64", "v8"), ["linux/arm64"], [0]),
        (Platform("linux", "arm64", "v8"), ["linux/arm/v7", "linux/arm64/v8"], [1]),
        (Platform("linux", "arm", "v7"), ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], [1, 0]),
        (Platform(), ["linux/s390x"], []),
    ],
)
def test_the_right_platform_is_chosen(
    wanted: Platform, names: list[str], chosen: list[int]
) -> None:
    assert [one.size for one in choose(platforms(*names), wanted)] == chosen


def config(**more: Any) -> bytes:
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": [DIGEST]}, **more}).encode()


def the_manifest() -> Manifest:
    found = read_manifest(manifest(), MANIFESTS[0])
    assert isinstance(found, Manifest)
    return found


def test_a_config_says_what_runs() -> None:
    found = read_config(
        config(
            config={
                "Entrypoint": ["/entry"],
                "Cmd": "echo $HOME",
                "Env": ["PATH=/bin", "A=b=c"],
                "WorkingDir": "/work",
                "User": "1000:100",
                "Labels": {"who": "me"},
                "Volumes": None,
                "StopSignal": "SIGINT",
            }
        ),
        the_manifest(),
    )

    assert found.entrypoint == ("/entry",)
    assert found.command == ("/bin/sh", "-c", "echo $HOME")
    assert found.environment == ("PATH=/bin", "A=b=c")
    assert (found.working_folder, found.user) == ("/work", "1000:100")
    assert (found.labels, found.stop_signal) == ({"who": "me"}, "SIGINT")
    assert found.diff_ids == (DIGEST,)


def test_an_empty_config_says_nothing() -> None:
    found = read_config(config(config=None), the_manifest())

    assert (found.entrypoint, found.command, found.user) == ((), (), "")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"rootfs": {"diff_ids": []}}',
        b'{"rootfs": {"diff_ids": ["../../etc"]}}',
        config(config={"Env": 5}),
        config(config={"User": "a\0b"}),
    ],
)
def test_a_config_that_cannot_be_is_refused(body: bytes) -> None:
    with pytest.raises(ImageFault):
        read_config(body, the_manifest())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "config",
                    "layers",
                    "manifests",
                    "digest",
                    "size",
                    "mediaType",
                    "platform",
                    "rootfs",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from([*MANIFESTS, *INDEXES, ""]))
def test_no_document_confuses_it(value: Any, media_type: str) -> None:
    try:
        found = read_manifest(json.dumps(value).encode(), media_type)
    except ImageFault:
        return
    if isinstance(found, Index):
        choose(found, Platform())
