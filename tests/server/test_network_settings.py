"""``[network]`` of server.toml, as the rules of the machine show it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

pytestmark = pytest.mark.root


def rules(server: ServerProcess) -> str:
    """The rules of the server's installation; nothing where it has none."""
    record = json.loads((server.data_dir / "engines" / "sandbox" / "installation").read_text())
    command = ["nft", "list", "table", "inet", f"neuro_{record['id']}"]
    return subprocess.run(command, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("setting", "is_refused"), [("", False), ("private = false", True)])
def test_private_networks(tmp_path: Path, setting: str, *, is_refused: bool) -> None:
    server = ServerProcess(tmp_path / "data", settings=f"[network]\n{setting}\n")
    server.start()
    try:
        shown = rules(server)
    finally:
        server.stop()

    assert ("ip daddr 192.168.0.0/16 reject" in shown) == is_refused
    assert ("ip6 daddr fc00::/7 reject" in shown) == is_refused
    assert f"tcp dport {server.port} accept" in shown
    assert rules(server) == ""


def test_a_shared_network_has_no_rules(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", settings="[network]\nshared = true\n")
    server.start()
    try:
        assert rules(server) == ""
    finally:
        server.stop()
