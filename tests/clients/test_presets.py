"""Presets that the published clients add, change and remove (docs/reference/wire-protocol.md)."""

from __future__ import annotations

from collections.abc import Callable

from tests.clients.reference_client import ReferenceClient


def test_presets_are_added_changed_and_removed(
    client: ReferenceClient, named: Callable[[str], str]
) -> None:
    name = named("added")

    client.run("admin", "add-resource-preset", name, "-c", "0.5", "-m", "256M")
    client.run("admin", "update-resource-preset", name, "-c", "0.3")
    job = client.submit("--preset", name, "ubuntu", "--", "sleep", "100")
    status = client.run("status", job).out
    assert "0.3" in status
    client.run("kill", job)
    client.run("admin", "remove-resource-preset", name)

    refused = client.run("run", "--preset", name, "ubuntu", "--", "true", ok=False)
    assert refused.code != 0
