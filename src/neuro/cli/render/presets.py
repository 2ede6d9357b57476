"""Presets and the configuration as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neuro.cli.render.sizes import gnu_size
from neuro.cli.render.table import Cell, Column, Line, Style, Table
from neuro.client.accounts import Account
from neuro.domain.server_config import PresetMessage, ServerConfig

_COLUMNS = (
    Column("Name"),
    Column("CPU"),
    Column("Memory"),
    Column("Preemptible", align="center"),
    Column("GPU"),
)
_ENGINE = Column("Engine")


def presets_table(
    presets: Sequence[PresetMessage], *, indent: int, style: Style | None = None
) -> Iterator[str]:
    """The table of presets; with a column for the engine where the server names it."""
    columns = [*_COLUMNS, *([_ENGINE] if any(preset.engine for preset in presets) else [])]
    rows = [_row(preset)[: len(columns)] for preset in presets]
    table = Table(columns, gap=" " * 4, indent=indent, style=style)
    table.measure(rows)
    yield table.header()
    yield from table.lines(rows)


def _row(preset: PresetMessage) -> list[Cell]:
    preemptible = preset.preemptible_node or preset.scheduler_enabled
    texts = (
        preset.name,
        f"{preset.cpu:.1f}",
        gnu_size(preset.memory),
        "Yes" if preemptible else "No",
        f"{preset.gpu} x {preset.gpu_model or 'GPU'}" if preset.gpu else "",
        preset.engine or "",
    )
    return [(Line(text),) for text in texts]


def config_lines(account: Account, style: Style | None = None) -> Iterator[str]:
    """``neuro config show``."""
    yield "User Configuration:"
    yield f"  User Name: {account.user}"
    yield f"  Current Cluster: {account.cluster}"
    yield f"  API URL: {account.url}"
    cluster = account.current_cluster
    if has_registry(account.config):
        yield f"  Docker Registry URL: {cluster.registry_url}"
    yield "  Resource Presets:"
    yield from presets_table(cluster.resource_presets, indent=4, style=style)


def has_registry(config: ServerConfig) -> bool:
    """Whether there is a registry behind the address: a server of this platform says so."""
    return config.server_version is None or "registry" in config.features


def preset_text(preset: PresetMessage) -> str:
    """One preset in a line: ``cpu-small (1.0 CPU, 2.0G)``."""
    gpu = f", {preset.gpu} x {preset.gpu_model or 'GPU'}" if preset.gpu else ""
    return f"{preset.name} ({preset.cpu:.1f} CPU, {gnu_size(preset.memory)}{gpu})"
