"""What the engine tells of runs, whenever it came to know them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from neuro.engines.base import Event, Exited, RunRef, Started
from neuro.engines.sandbox import cgroups, layout
from neuro.engines.sandbox.connections import Connections
from neuro.engines.sandbox.ending import Ending, ExitRecord
from neuro.engines.sandbox.tidying import Tidying

REF = RunRef("job-00000000-0000-4000-8000-000000000000")


async def test_a_run_that_ends_while_it_is_connected_to_has_started_all_the_same(
    tmp_path: Path,
) -> None:
    told: asyncio.Queue[Event] = asyncio.Queue()
    connections = Connections(
        str(tmp_path), cgroups.Groups(), Tidying(str(tmp_path)), told.put_nowait, _nothing
    )
    folder = layout.run_folder(str(tmp_path), REF.job_id, REF.run)
    Path(folder).mkdir(parents=True)
    now = time.time_ns()

    def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        layout.write_exit(folder, ExitRecord.of(Ending(0, "exited", None), now, started=now))
        writer.close()

    async with await asyncio.start_unix_server(end, sock=layout.listen(folder)):
        await connections.take_up(REF)
        events = [await told.get(), await told.get()]
    await connections.close()

    assert [type(event) for event in events] == [Started, Exited]


async def _nothing() -> None:
    """Nothing is behind these runs."""
