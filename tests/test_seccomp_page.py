"""The page about system calls names every call that a job may not make, or not always."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuro.engines.sandbox import syscalls

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "guide" / "seccomp.md", DOCS / "ru" / "guide" / "seccomp.md"]
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \| ([^|]*) \|", re.MULTILINE)


def rows(page: Path) -> dict[str, str]:
    """What the page's second column says of each call."""
    return {
        name: told
        for names, told, _ in ROW.findall(page.read_text())
        for name in re.findall(r"\w+", names)
    }


@pytest.mark.parametrize("page", PAGES, ids=["en", "ru"])
def test_every_refusal_is_told(page: Path) -> None:
    told = rows(page)

    for name in syscalls.CHECKED:
        assert told[name] not in ("yes", "no", "да", "нет"), name
    for name in syscalls.DENIED:
        assert told[name].startswith(("no", "нет")), name
    for name in syscalls.ABSENT:
        assert told[name].startswith("`ENOSYS`"), name


@pytest.mark.parametrize("page", PAGES, ids=["en", "ru"])
def test_no_call_is_told_that_does_not_exist(page: Path) -> None:
    calls = set(rows(page)) - {"EPERM", "ENOSYS", "EAFNOSUPPORT", "perf"}

    assert calls <= set(syscalls.verdicts())


def test_both_languages_have_the_same_rows() -> None:
    english, russian = (list(rows(page)) for page in PAGES)

    assert english == russian
