"""Modules that only jobs import are compiled once, and not in each job."""

from __future__ import annotations

import asyncio
import os
import py_compile
import sys
import time
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from neuro.server import app, bytecode
from neuro.server.app import Options, serving
from neuro.server.bytecode import keep_compiled, uncompiled

MODULES = ("__init__.py", "one.py", "below/__init__.py", "below/two.py")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose bytecode nobody has made."""
    folder = tmp_path / "package"
    for name in MODULES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"NAME = {name!r}\n")
    return folder


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def _of(package: Path) -> set[str]:
    return {str(path.relative_to(package)) for path in uncompiled(package)}


def test_programs_of_templates_are_left_alone(package: Path) -> None:
    (package / "template" / "code").mkdir(parents=True)
    (package / "template" / "code" / "train.py").write_text("")

    assert _of(package) == set(MODULES)


async def test_all_that_is_not_compiled_is(package: Path) -> None:
    assert _of(package) == set(MODULES)

    await keep_compiled(package)

    assert _of(package) == set()
    for name in MODULES:
        assert Path(cache_from_source(str(package / name))).is_file()


async def test_a_module_that_has_changed_is_compiled_anew(package: Path) -> None:
    await keep_compiled(package)
    os.utime(package / "one.py", (1_000_000_000, 1_000_000_000))
    (package / "below" / "two.py").write_text("NAME = 'longer than it was before'\n")

    assert _of(package) == {"one.py", "below/two.py"}
    await keep_compiled(package)

    assert _of(package) == set()


async def test_a_module_that_makes_no_sense_keeps_no_other_from_it(package: Path) -> None:
    (package / "one.py").write_text("a = = b\n")
    (package / "below" / "two.py").write_bytes(b"\xff\x00")

    await keep_compiled(package)

    assert _of(package) == {"one.py", "below/two.py"}


async def test_what_another_interpreter_has_compiled_is_compiled_for_this_one(
    package: Path,
) -> None:
    await keep_compiled(package)
    compiled = Path(cache_from_source(str(package / "one.py")))
    content = compiled.read_bytes()

    compiled.write_bytes(b"\0\0\r\n" + content[4:])
    assert _of(package) == {"one.py"}
    compiled.write_bytes(content[:7])
    assert _of(package) == {"one.py"}


def test_bytecode_that_goes_by_the_content_stays(package: Path) -> None:
    py_compile.compile(
        str(package / "one.py"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    os.utime(package / "one.py", (1_000_000_000, 1_000_000_000))

    assert "one.py" not in _of(package)


async def test_a_folder_that_may_only_be_read_is_left_as_it_is(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Path | str, mode: int) -> bool:  # Root may write to every folder.
        return Path(path).name != "below"

    monkeypatch.setattr(bytecode.os, "access", access)

    assert _of(package) == {"__init__.py", "one.py"}
    await keep_compiled(package)

    assert not (package / "below" / "__pycache__").exists()


async def test_who_wants_no_bytecode_gets_none(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    await keep_compiled(package)

    assert _of(package) == set(MODULES)


async def test_a_server_compiles_what_is_not(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "keep_compiled", lambda: keep_compiled(package))

    async with serving(Options(tmp_path / "data", port=0, engine="sandbox")):
        deadline = time.monotonic() + 120
        while _of(package):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
