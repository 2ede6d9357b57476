"""The whole program: arguments, a base that is pulled, an image that is pushed, exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builder.registry import Place, place


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


def test_an_image_is_built_on_a_base_and_pushed(here: Place) -> None:
    (here.context / "a.txt").write_text("a")

    code, said = here.build("FROM BASE\nCOPY --chown=bob a.txt /x/\nCMD run\n")

    assert code == 0, said
    assert here.layers()[-1] == ["x", "x/a.txt"]
    assert len(here.layers()) == 3
    config = here.config()
    assert config["config"]["Env"] == ["A=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "T=1"]  # type: ignore[index]
    assert "Digest: sha256:" in said
