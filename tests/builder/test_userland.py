"""The machine's userland as a build sees it: what a step's root is made of, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.builder.bases import Base
from neuro.builder.faults import BuildFault
from neuro.builder.trees import Tree
from neuro.dockerfile.image import Image, ImageConfig
from neuro.domain.images import BASE_LABEL, ON_HOST
from neuro.engines.sandbox import nesting
from neuro.engines.sandbox.nesting import Given

_HOST = Image(architecture="amd64", os="linux", config=ImageConfig(labels={BASE_LABEL: ON_HOST}))


def given(*, shown: Path, covered: tuple[str, ...] = ()) -> Given:
    return Given(
        overlays=("/", "/usr", "/usr/deep/er"),
        lower=(("land/template",), ("land/ours", "0"), ("1",)),
        read_only=(str(shown),),
        covered=covered,
        writable=True,
        plain=False,
        system_calls="",
        pretending="",
    )


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that every job may read, with what a job that builds is given of the userland."""
    place, shown = tmp_path / "nesting", tmp_path / "shown"
    names = ("land/template/usr", "land/template/tmp", f"land/template{shown}", "land/ours/bin")
    for name in (*names, "0/bin", "0/deep/er", "1"):
        (place / name).mkdir(parents=True, exist_ok=True)
    files = {"0/bin/a": "a", "0/bin/b": "b", "land/ours/bin/b": "ours", "0/deep/er/under": ""}
    for name, text in {**files, "1/over": ""}.items():
        (place / name).write_text(text)
    shown.mkdir()
    (shown / "data").write_text("data")
    monkeypatch.setattr(nesting, "PLACE", str(place))
    monkeypatch.setattr(nesting, "read", lambda: given(shown=shown))
    return shown


def test_it_is_the_platforms_own_folders_alone(shown: Path) -> None:
    secret = shown.parent / "config.json"
    secret.write_text("a token")
    with Tree(base=Base(_HOST, ON_HOST)).view() as view:
        found = {entry.path for entry in view.entries()}
        above = {str(one)[1:] for one in shown.parents} - {""}
        below = {"tmp", "usr", "usr/bin", "usr/bin/a", "usr/bin/b", "usr/deep", "usr/deep/er"}

        assert found - above - below == {
            "usr/deep/er/over",
            str(shown)[1:],
            f"{shown}/data"[1:],
        }
        assert below <= found
        assert view.read("usr/bin/b", 9) == "ours"
        assert view.read(f"{shown}/data"[1:], 9) == "data"
        assert view.find(str(secret)[1:]) is None
        assert view.follow("proc/self/status") is None


def test_there_is_none_where_data_of_the_platform_lies_in_it(
    shown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nesting, "read", lambda: given(shown=shown, covered=("/usr/data",)))

    with pytest.raises(BuildFault, match=r"\(/usr/data\)"):
        Tree(base=Base(_HOST, ON_HOST)).view()


def test_there_is_none_but_in_a_job_that_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nesting, "read", lambda: None)

    with pytest.raises(BuildFault, match="in a job that builds images"):
        Tree(base=Base(_HOST, ON_HOST)).view()
