"""Without any one of the access checks the table fails: asked here of a few of them.

``make mutants`` asks it of all.
"""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

from tests.server.access.mutants import NOT_TO_BE_SEEN, all_sites, mutated_server
from tests.server.access.mutation import MODULES, SOURCES, rewritten

SAMPLE = 8
_ASKS = re.compile(
    r"\.require\(|_guard\.\w+\(connection|\bauthorize\(|\bview\(|needs=|\.scope\(|\.condition\("
)
# They define what the others call.
_MACHINERY = {"neuro.server.access.identity"}


async def test_a_check_that_is_gone_is_missed(tmp_path: Path) -> None:
    sites = all_sites()
    # Others with each change of what is checked, and always the same for the same sources.
    text = "\n".join(f"{site.what}: {site.key}" for site in sites)
    seed = hashlib.sha256(text.encode()).digest()
    some = random.Random(seed).sample(sites, SAMPLE)

    with mutated_server(tmp_path) as mutants:
        survivors = [site async for site in mutants.survivors(some)]

    assert not survivors, "\n".join(map(str, survivors))


def test_every_module_that_asks_is_among_the_mutants() -> None:
    asking = {
        ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for path in (SOURCES / "neuro" / "server").rglob("*.py")
        if _ASKS.search(path.read_text())
    }
    assert asking - _MACHINERY <= set(MODULES)
    silent = set(MODULES) - {site.module for site in rewritten()[1]}
    assert not silent, "without a check: take them out of MODULES"


def test_what_is_left_out_is_there() -> None:
    assert set(NOT_TO_BE_SEEN) <= {site.key for site in rewritten()[1]}
