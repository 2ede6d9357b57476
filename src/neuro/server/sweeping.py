"""Doing something now and then, for as long as the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from neuro.domain.errors import PlatformError

log = structlog.get_logger("neuro.server")

SWEEP_SECONDS = 600.0


async def sweep_regularly(sweep: Callable[[], Awaitable[object]], what: str) -> None:
    """Sweep for ever; a sweep that fails is logged (as that of ``what``), and tried again."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await sweep()
        except PlatformError as error:  # A full disk, a damaged database: it says all.
            log.error("a sweep failed", what=what, error=error.message)
        except Exception:
            log.exception("a sweep failed", what=what)
