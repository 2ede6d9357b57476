"""A server's life in a process of its own, to be killed at any moment.

``python -m tests.engines.driver KIND FOLDER`` opens the engine, adopts what the first line of its
standard input names, starts the runs of the second, and says each event on a line of its own.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from neuro.engines.base import RunRef, RunSpec
from tests.engines.harness import KINDS


async def main() -> None:
    engine = KINDS[sys.argv[1]].make(Path(sys.argv[2]))
    known = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[RunRef])
    specs = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[RunSpec])
    await engine.open()
    states = await engine.adopt(known)
    print("open", len(states), flush=True)
    await asyncio.gather(*(engine.start(spec) for spec in specs))
    print("begun", flush=True)
    async for event in engine.events():
        print(type(event).__name__, event.ref.job_id, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
