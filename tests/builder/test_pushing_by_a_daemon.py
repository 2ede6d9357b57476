"""Pushing by a daemon that others use at the same time, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from neuro.builder.buildkit.driving import push_under
from neuro.docker.asking import Refused
from neuro.docker.images import Image, Images, Step

NAME = "registry:5000/me/made:v1"


class DaemonOfMany:
    """Knows which image has a name. Of its first ``taken`` pushes another build takes the name."""

    def __init__(self, names: dict[str, str], taken: int = 0, error: str = "") -> None:
        self.names = names
        self.pushed: list[str] = []
        self._taken, self._error = taken, error

    def image(self, reference: str) -> Image | None:
        return Image(id=self.names[reference]) if reference in self.names else None

    def tag(self, reference: str, name: str, tag: str) -> None:
        self.names[f"{name}:{tag}"] = reference

    def push(self, name: str, tag: str, *_: object, without_tls: bool) -> Iterator[Step]:
        if self._taken:
            self._taken -= 1
            del self.names[f"{name}:{tag}"]
        if self._error:
            yield Step(error=self._error)
        elif f"{name}:{tag}" not in self.names:
            yield Step(error=f"tag does not exist: {name}:{tag}")
        else:
            self.pushed.append(self.names[f"{name}:{tag}"])
            yield Step(status="Pushed")

    def remove_image(self, reference: str) -> None:
        if self.names.pop(reference, None) is None:
            raise Refused(404, "No such image")


def _push(daemon: DaemonOfMany) -> None:
    push_under(cast("Images", daemon), "sha256:new", NAME, {}, lambda step: None)


def test_a_name_that_the_daemon_did_not_have_is_taken_away() -> None:
    daemon = DaemonOfMany({})

    _push(daemon)

    assert (daemon.pushed, daemon.names) == (["sha256:new"], {})


def test_a_name_that_the_daemon_had_stays() -> None:
    daemon = DaemonOfMany({NAME: "sha256:old"})

    _push(daemon)

    assert (daemon.pushed, daemon.names) == (["sha256:new"], {NAME: "sha256:new"})


def test_a_name_that_another_build_takes_away_is_given_again() -> None:
    daemon = DaemonOfMany({NAME: "sha256:of-another-build"}, taken=2)

    _push(daemon)

    assert (daemon.pushed, daemon.names) == (["sha256:new"], {})


@pytest.mark.parametrize(
    ("daemon", "why"),
    [
        (DaemonOfMany({}, taken=9), "tag does not exist"),
        (DaemonOfMany({}, error="denied"), "denied"),
    ],
)
def test_a_push_that_fails_says_why_and_leaves_no_name(daemon: DaemonOfMany, why: str) -> None:
    with pytest.raises(Refused, match=why):
        _push(daemon)

    assert (daemon.pushed, daemon.names) == ([], {})
