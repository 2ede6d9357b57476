"""What ``neuro up`` and ``neuro server status`` say of a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neuro.cli.output import Output
from neuro.cli.render.presets import preset_text
from neuro.cli.render.sizes import gnu_size
from neuro.client.accounts import Account
from neuro.client.installation import EngineState, ServerState
from neuro.domain.resources import Amount

NEXT = (
    ("neuro run ubuntu echo 'Hello, World!'", "run a job and see its output"),
    ("neuro cp -r ./data storage:data", "copy files to the storage"),
    ("neuro ps", "what runs now"),
    ("neuro down", "stop the server; jobs go on running"),
)


def amount_text(amount: Amount) -> str:
    """``2 CPU, 7.6G, 1 GPU``."""
    gpu = f", {amount.gpu} GPU" if amount.gpu else ""
    return f"{amount.cpu:g} CPU, {gnu_size(amount.memory)}{gpu}"


def facts(account: Account, state: ServerState, data_dir: Path) -> Iterator[tuple[str, str]]:
    """The facts about a running server, as labels and values."""
    yield "API URL", account.url
    yield "User", account.user
    yield "Cluster", account.cluster
    for engine in state.engines:
        yield "Engine", _engine_text(engine)
    presets = account.current_cluster.resource_presets
    yield "Presets", ", ".join(preset_text(preset) for preset in presets)
    yield "Data", str(data_dir)


def _engine_text(engine: EngineState) -> str:
    jobs = f"{engine.running} running, {engine.pending} pending"
    whole, free = amount_text(engine.capacity), amount_text(engine.free)
    return f"{engine.name}: {whole} (free: {free}); jobs: {jobs}"


def print_facts(
    out: Output,
    account: Account,
    state: ServerState,
    data_dir: Path,
    chosen: str | None = None,
) -> None:
    """The facts, and what the administrator should know; ``chosen`` is why it is this engine."""
    for label, value in facts(account, state, data_dir):
        out.print(f"  {out.style(f'{label:<8}', fg='cyan')}  {value}")
    for notice in [*([chosen] if chosen else []), *notices(state)]:
        out.print(f"  {out.style('Note    ', fg='yellow')}  {notice}")


def notices(state: ServerState) -> list[str]:
    """What the administrator should know of the settings and of the engines."""
    return [*state.notices, *(notice for engine in state.engines for notice in engine.notices)]


def print_next(out: Output) -> None:
    """What to try next."""
    width = max(len(line) for line, _ in NEXT)
    out.print("\nTry next:")
    for line, text in NEXT:
        out.print(f"  {out.style(f'{line:<{width}}', bold=True)}  # {text}")
