"""A run is claimed once, and what is taken back can be claimed again."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.engines.sandbox import claims, layout


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_run_is_claimed_once(tmp_path: Path) -> None:
    listener = claims.claim(str(tmp_path), "job-a", 0, "berth")

    assert listener is not None
    assert claims.claim(str(tmp_path), "job-a", 0, "berth") is None
    layout.connect(layout.run_folder(str(tmp_path), "job-a", 0)).close()
    listener.close()


def test_a_claim_is_taken_back_without_a_descriptor(tmp_path: Path) -> None:
    listener = claims.claim(str(tmp_path), "job-a", 0, "berth")
    assert listener is not None

    with listener, no_descriptors():
        claims.withdraw(str(tmp_path), "job-a", 0)

    assert os.listdir(tmp_path / "jobs" / "job-a" / "runs") == []
    again = claims.claim(str(tmp_path), "job-a", 0, "berth")
    assert again is not None
    again.close()
