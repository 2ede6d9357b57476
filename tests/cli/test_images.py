"""``neuro image``, of images that somebody has pushed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from neuro.server.registry.blobs import IMAGES
from tests.cli.platform import Home
from tests.server.registry.client import Registry

Push = Callable[[str, str, list[bytes]], str]


@pytest.fixture
def owner(person: Home) -> str:
    return str(json.loads(person.ok("config", "show", "--json"))["user"])


@pytest.fixture
def push(person: Home, owner: str) -> Push:
    """Pushes an image of a name, a tag and layers; returns its digest."""
    url = person.ok("server", "status").split("API URL")[1].split()[0]
    token = person.ok("config", "show-token").strip()

    def push(name: str, tag: str, layers: list[bytes]) -> str:
        async def work() -> str:
            async with aiohttp.ClientSession() as session:
                registry = Registry(session, url, token)
                return await registry.push_image(f"{owner}/{name}", tag, layers)

        return asyncio.run(work())

    return push


def test_images_are_listed_looked_at_and_removed(person: Home, owner: str, push: Push) -> None:
    digest = push("trainer", "v1", [b"x" * 5000])
    push("trainer", "v2", [b"x" * 5000])
    push("reader", "v1", [])

    assert person.ok("image", "ls").split() == ["image:reader", "image:trainer"]
    assert person.ok("image", "ls", "--full-uri", "-n", "t").split() == [
        f"image://default/{owner}/trainer"
    ]
    assert person.ok("image", "ls", "-o", "nobody") == ""
    docker = person.ok("image", "ls", "-l").splitlines()[-1].split()[1]
    assert docker.startswith("127.0.0.1:")
    assert docker.endswith(f"/{owner}/trainer")
    assert person.ok("image", "tags", "image:trainer").split() == ["v1", "v2"]
    lines = person.ok("image", "tags", "-l", "trainer").splitlines()
    assert [line.split()[:2] for line in lines] == [["SIZE", "TAG"], ["4.9K", "v1"], ["4.9K", "v2"]]
    [first, _] = json.loads(person.ok("image", "tags", "-l", "trainer", "--json"))
    assert (first["tag"], first["digest"], first["pulled_at"]) == ("v1", digest, None)
    assert person.ok("image", "size", f"image:/{owner}/trainer:v1") == "4.9K\n"
    assert person.ok("image", "digest", "image:trainer:v1") == f"{digest}\n"

    person.ok("image", "rm", "image:trainer:v1")
    assert person.ok("image", "tags", "image:trainer").split() == ["v2"]
    assert person.ok("image", "digest", "image:trainer:v2") == f"{digest}\n"
    person.ok("image", "rm", "image:trainer:v2", "image:reader:v1")
    assert person.ok("image", "ls") == ""


def test_all_tags_of_an_image_go_where_that_is_wanted(person: Home, push: Push) -> None:
    for tag in ("v1", "v2"):
        push("trainer", tag, [])
    push("trainer", "other", [b"another"])

    person.ok("image", "rm", "-f", "image:trainer:v1")

    assert person.ok("image", "tags", "image:trainer").split() == ["other"]
    person.ok("image", "rm", "image:trainer:other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("digest", "image:absent:v1"), "`neuro image ls` lists those that you may see."),
        (("size", "image:absent:v1"), "was not found"),
        (("tags", "image:absent"), "was not found"),
        (("rm", "image:absent:v1"), "was not found"),
    ],
)
def test_an_image_that_is_not_there_is_told_so(
    person: Home, words: tuple[str, ...], said: str
) -> None:
    done = person.run("image", *words)

    assert (done.returncode, said in done.stderr) == (72, True), done.stderr


def test_a_name_may_begin_with_the_registry(person: Home, owner: str, push: Push) -> None:
    digest = push("trainer", "v1", [])
    shown = person.ok("image", "ls", "-l").split()
    [name] = [word for word in shown if word.endswith(f"/{owner}/trainer")]

    assert person.ok("image", "digest", f"{name}:v1").strip() == digest
    other = person.run("image", "digest", f"ghcr.io/{owner}/trainer:v1")
    assert (other.returncode, "is of the registry ghcr.io" in other.stderr) == (127, True)
    person.ok("image", "rm", f"{name}:v1")


def test_what_is_on_the_disk_is_shown_with_its_reason(person: Home, owner: str, push: Push) -> None:
    before = _on_the_disk(person)
    digest = push("trainer", "v1", [b"y" * 7000])

    [layer] = [one for one in _on_the_disk(person) if one["size"] == 7000]
    assert (layer["why"], layer["of"]) == ("needed", f"{owner}/trainer:v1")
    person.ok("image", "rm", "trainer:v1")

    [layer] = [one for one in _on_the_disk(person) if one["size"] == 7000]
    assert (layer["why"], layer["of"]) == ("recent", f"{owner}/trainer@{digest}")
    files = (person.folder / "data" / "storage" / IMAGES / "blobs").rglob("*")
    total = sum(file.stat().st_size for file in files if file.is_file())
    assert sum(one["size"] for one in _on_the_disk(person) if one["digest"]) == total
    assert len(_on_the_disk(person)) > len(before)
    lines = person.ok("image", "gc", "--dry-run").splitlines()
    assert "which no tag leads to, needs it; kept until" in "".join(lines)
    assert lines[-1].endswith("in all, 0B of it garbage")
    assert "--dry-run" in person.run("image", "gc").stderr


def _on_the_disk(person: Home) -> list[dict[str, Any]]:
    return list(json.loads(person.ok("image", "gc", "--dry-run", "--json")))


def test_rules_are_shown_set_and_cleared(person: Home, owner: str, push: Push) -> None:
    for tag in ("v1", "other"):
        push("ruled", tag, [])
    assert "No rules" in person.ok("image", "rules", "image:ruled")

    said = person.ok(
        *("image", "rules", "image:ruled", "--keep-last", "3", "--keep-for", "30d"),
        *("--keep-tags", "v*", "--immutable", "v1"),
    )
    assert said.splitlines() == [
        f"Rules of image:/{owner}/ruled:",
        "  keep the newest tags: 3",
        "  keep tags that were pushed or pulled in the last 30d",
        "  keep tags like v*",
        "  nobody moves or removes tags like v1",
    ]
    refused = person.run("image", "rm", "image:ruled:v1")
    assert (refused.returncode, "immutable" in refused.stderr) == (77, True), refused.stderr
    assert "immutable" in person.ok("image", "tags", "-l", "image:ruled")
    person.ok("image", "rules", "image:", "--keep-for", "90d")
    person.ok("image", "rules", "image:ruled", "--clear")
    told = json.loads(person.ok("image", "rules", "image:ruled", "--json"))
    assert (told["path"], told["rules"]["keep_seconds"]) == (owner, 90 * 86_400)
    person.ok("image", "rules", "image:", "--clear")
    assert "--clear" in person.run("image", "rules", "image:", "--clear", "--keep-last", "1").stderr
    person.ok("image", "rm", "image:ruled:v1", "image:ruled:other")


def test_a_quota_is_shown_and_set(person: Home, owner: str, push: Push) -> None:
    push("small", "v1", [b"z" * 4096])
    shown = json.loads(person.ok("image", "quota", "--json"))
    assert (shown["owner"], shown["size"], shown["used"] > 4096) == (owner, None, True)

    lines = person.ok("image", "quota", owner, "--set", "2M").splitlines()
    assert lines[1].split()[::2] == [owner, "2.0M"]
    assert owner in person.ok("image", "quota", "--all")
    with pytest.raises(AssertionError, match="this push is larger"):
        push("large", "v1", [b"x" * (2 << 20)])
    assert "any amount" in person.ok("image", "quota", owner, "--set", "default")
    person.ok("image", "rm", "image:small:v1")


def test_damage_is_found_and_told(person: Home, owner: str, push: Push) -> None:
    push("damaged", "v1", [b"whole" * 100])
    assert ", 0 of them damaged" in person.ok("image", "gc", "--scrub").replace("layers", "")
    files = (person.folder / "data" / "storage" / IMAGES / "blobs").rglob("*")
    [layer] = [it for it in files if it.is_file() and it.read_bytes() == b"whole" * 100]
    layer.write_bytes(b"wrong" * 100)

    done = person.run("image", "gc", "--scrub")

    assert (done.returncode, "1 of them damaged" in done.stdout) == (1, True), done.stderr
    assert f"image:/{owner}/damaged:v1 needs it" in done.stdout
    assert json.loads(person.ok("image", "gc", "--scrub", "--json"))["rotten"] == []
    person.ok("image", "rm", "image:damaged:v1")


def test_a_running_job_is_saved(person: Home, owner: str) -> None:
    job = person.ok("-q", "run", "--detach", "ubuntu", "--", "sleep", "600").strip()
    person.ok("exec", job, "true")

    done = person.run("save", job, "image:with-changes:v1")

    assert (done.returncode, done.stdout) == (0, f"image://default/{owner}/with-changes:v1\n")
    assert done.stderr.splitlines() == [
        f"Saving job '{job}' to image 'image://default/{owner}/with-changes:v1'...",
        "Creating image from the job container...",
        "Image created",
        "Pushing image...",
        f"image://default/{owner}/with-changes:v1: pushed",
    ]
    assert person.ok("image", "tags", "with-changes").split() == ["v1"]

    person.ok("kill", job)
    refused = person.run("job", "save", job, "image:with-changes:v2")
    assert refused.returncode != 0
    assert "is not running" in refused.stderr
    assert person.ok("image", "tags", "with-changes").split() == ["v1"]
