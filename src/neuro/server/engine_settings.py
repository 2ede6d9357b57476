"""What ``server.toml`` says of the engine that is embedded, in the engine's words."""

from __future__ import annotations

from pathlib import Path

from neuro.domain.sizes import parse_bytes
from neuro.engines.sandbox.output import Retention
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.server.settings import Settings


def sandbox_settings(settings: Settings, folder: Path, port: int) -> SandboxSettings:
    """Jobs reach ``port`` of this machine, the API's, and never see ``folder``."""
    return SandboxSettings(
        shared_ids=settings.sandbox.shared_ids,
        io_uring=settings.sandbox.io_uring,
        perf=settings.sandbox.perf,
        masked=(str(folder),),
        network="shared" if settings.network.shared else "auto",
        private_networks=settings.network.private,
        host_port=port,
        retention=Retention(total=parse_bytes(settings.log_limit)),
    )
