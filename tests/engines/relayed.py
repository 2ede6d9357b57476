"""A relay to a socket of this machine, as a run that builds has one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.loop import READ, Loop
from neuro.engines.sandbox.relay import Relay


@contextmanager
def relayed(folder: Path, target: str) -> Iterator[str]:
    """Where a relay to ``target`` listens."""
    loop, place = Loop(), str(folder / "place")
    relay = Relay(loop, place, target, Block(-1))
    ended, end = os.pipe()

    def stop(_: int) -> None:
        relay.close()
        loop.running = False

    loop.watch(ended, READ, stop)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield place
    finally:
        os.close(end)
        thread.join()
        os.close(ended)
