"""Builds by the BuildKit of a Docker daemon: what it makes, and what it is never given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.builder.by_daemon import Asked, Told, build
from tests.builder.table import BUSYBOX

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BUSYBOX is None, reason="needs a static busybox (apt: busybox-static)"),
]
_DATED = "FROM BASE\nRUN echo at $(cat /proc/sys/kernel/random/uuid) | tee /made\n"
_CACHE = "FROM BASE\nARG WHO\nRUN --mount=type=cache,target=/c echo $WHO >>/c/f; cat /c/f\n"
_SECRET = "FROM BASE\nRUN --mount=type=secret,id=word cat /run/secrets/word\n"
_BUILDS = {
    "first": Asked(
        text="FROM BASE AS one\nCOPY words /d/\nRUN cat /d/words >/made\n"
        "FROM one AS never\nRUN exit 1\n"
        "FROM one\nARG N\nRUN echo n=$N\n",
        files={"words": "hello", "left": "out", ".dockerignore": "left\nDockerfile\n"},
        words=["--build-arg=N=7", "--label=a=b"],
    ),
    "left out": Asked(text="FROM BASE\nCOPY left /\n", files={"left": "out"}),
    "document": Asked(text="FROM BASE\nCOPY <<END /f\nRUN exit 1\nEND\n"),
    "flag": Asked(text="FROM BASE\nCOPY --link words /w\n"),
    "all": Asked(text="# syntax=docker/dockerfile:1\n# escape=`\nFROM `\n BASE\nCOPY . /d/\n"),
    "fails": Asked(text="FROM BASE\nRUN true\nRUN echo one; exit 3\n"),
    "dated": Asked(text=_DATED),
    "dated again": Asked(text=_DATED),
    "dated of another": Asked(text=_DATED, owner="bob"),
    "dated anew": Asked(text=_DATED, words=["--no-cache"]),
    "cache": Asked(text=_CACHE, words=["--build-arg=WHO=ada"]),
    "cache of another": Asked(text=_CACHE, words=["--build-arg=WHO=bob"], owner="bob"),
    "cache again": Asked(text=_CACHE, words=["--build-arg=WHO=eve"]),
    "secret": Asked(text=_SECRET, words=["--secret=id=word,src=CONTEXT/words"]),
    "no secret": Asked(text=_SECRET.replace("id=", "required=true,id=")),
    "large secret": Asked(
        text=_SECRET.replace("cat", "test -f"),
        files={"large": "x" * ((1 << 20) + 1)},
        words=["--secret=id=word,src=CONTEXT/large"],
    ),
    "with password": Asked(text="FROM BASE\nRUN echo private\n", password="p"),
    "without": Asked(text="FROM BASE\nRUN true\n", password="p", logged_in=False),
    "taken without": Asked(
        text="FROM scratch\nCOPY --from=BASE /bin/sh /\n", password="p", logged_in=False
    ),
    "taken": Asked(
        text="FROM scratch\nCOPY --from=BASE /bin/sh /bin/sh\n"
        "RUN --mount=from=BASE,source=/more,target=/m cat /m/file\n"
    ),
    "reserved": Asked(text="FROM BASE\n", words=["--build-arg=BUILDKIT_SYNTAX=me/frontend"]),
    "host": Asked(text="FROM host\nRUN true\n"),
    "network": Asked(text="FROM BASE\nADD http://127.0.0.1:1/f /f\n"),
    "not pushed": Asked(text="FROM BASE\nRUN echo done\n", words=["--no-push"], to=""),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    assert BUSYBOX is not None
    folder = tmp_path_factory.mktemp("by-daemon")
    found = build(folder, *_BUILDS.values(), busybox=Path(BUSYBOX).read_bytes())
    return dict(zip(_BUILDS, found, strict=True))


def _moment(said: str) -> str:
    return re.findall(r" at ([0-9a-f-]{36})$", said, re.MULTILINE)[0]


def test_an_image_is_built_and_pushed(told: dict[str, Told]) -> None:
    first = told["first"]

    assert first.code == 0, first.said
    assert " n=7\n" in first.said
    assert "d/words" in first.layers[2]
    assert first.config["config"]["Labels"] == {"a": "b"}
    assert "Digest: sha256:" in first.said
    assert "Size: " in first.said


def test_the_context_is_without_what_is_ignored(told: dict[str, Told]) -> None:
    assert told["left out"].code == 1
    assert told["all"].code == 0, told["all"].said
    assert told["all"].layers[-1] == ["d", "d/.dockerignore", "d/words"]


def test_a_command_that_fails_is_told_with_its_line(told: dict[str, Told]) -> None:
    fails = told["fails"]

    assert fails.code == 1
    assert 'The command ended with exit code 3.\n  in "Dockerfile", line 3' in fails.said
    assert fails.said.count(" one\n") == 2  # as it came, and at the end


def test_what_a_command_made_is_its_owners_alone(told: dict[str, Told]) -> None:
    assert "CACHED" in told["dated again"].said
    assert told["dated again"].config["rootfs"] == told["dated"].config["rootfs"]
    moments = {_moment(told[name].said) for name in ("dated", "dated of another", "dated anew")}
    assert len(moments) == 3


def test_so_are_folders_of_caches(told: dict[str, Told]) -> None:
    assert " ada\n" in told["cache again"].said
    assert " eve\n" in told["cache again"].said
    assert " bob\n" not in told["cache again"].said
    assert " ada\n" not in told["cache of another"].said


def test_a_command_is_shown_a_secret(told: dict[str, Told]) -> None:
    assert told["secret"].code == 0, told["secret"].said
    assert " hello\n" in told["secret"].said
    assert told["no secret"].code == told["large secret"].code == 1
    assert "\nThe secret 'word' is larger than 1 MiB.\n" in told["large secret"].said


def test_a_base_is_for_those_whom_its_registry_gives_it(told: dict[str, Told]) -> None:
    assert told["with password"].code == 0, told["with password"].said
    for name in ("without", "taken without"):
        assert told[name].code == 1
        assert "asks who you are" in told[name].said
        assert "load build definition" not in told[name].said


def test_files_are_taken_of_images(told: dict[str, Told]) -> None:
    assert told["taken"].code == 0, told["taken"].said
    assert " more\n" in told["taken"].said


def test_no_argument_changes_how_the_daemon_builds(told: dict[str, Told]) -> None:
    reserved = told["reserved"]

    assert reserved.code == 1
    assert "BUILDKIT_SYNTAX is reserved" in reserved.said


def test_what_only_our_builder_can_it_builds(told: dict[str, Told]) -> None:
    host, network = told["host"], told["network"]

    assert "NOTE: The platform's own builder builds this: host:latest is the machine" in host.said
    assert "NOTE: The platform's own builder builds this: ADD in line 2" in network.said
    assert "load build definition" not in host.said + network.said


def test_syntax_that_is_newer_than_the_daemon_is_built_all_the_same(told: dict[str, Told]) -> None:
    for name in ("document", "flag"):
        assert told[name].code == 0, told[name].said
    assert told["document"].layers[-1] == ["f"]
    assert told["flag"].layers[-1] == ["w"]


def test_it_may_only_build(told: dict[str, Told]) -> None:
    assert told["not pushed"].code == 0
    assert told["not pushed"].said.endswith("Built, and not pushed.\n")
