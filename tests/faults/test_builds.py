"""The clock of the machine passes the end of a build's life span."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.platform import Home
from tests.faults.conftest import Clock


@pytest.mark.compiler
def test_a_build_whose_life_span_is_over_says_what_to_do(clock: Clock, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    context = home.work_dir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM host\nRUN echo begun\nRUN sleep 1000\n")
    with home.with_platform():
        port = urlsplit(json.loads(home.ok("server", "status", "--json"))["api_url"]).port
        with home.start("image", "build", "-t", "made:v1", "context") as build:
            build.until("RUN sleep 1000")
            home.ok("down")
            clock(timedelta(days=2))
            home.ok("up", "--port", str(port))

            said = build.until("gives a running build one more day.")

            assert build.end() != 0
        assert "cancelled (LifeSpanEnded)" in said
        assert "A build may take 1d. Build it again: the steps that were done are kept." in said
        assert home.run("image", "digest", "made:v1").returncode == 72
