"""A list of jobs by aiohttp, SQLite and msgspec alone: what ours can be measured with.

The first argument is a file with the lines to answer, the second a folder for the database. It
prints the port that it listens on. Every request reads the rows, makes typed values of them and
writes those: there is no login, no permission, no filter, no page, nothing that waits.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from neuro.domain.jobs import Job

_decode = msgspec.json.Decoder(Job).decode
_encode = msgspec.json.Encoder().encode


def _database(lines: Path, folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "bare.db")
    database.execute("CREATE TABLE jobs (sequence INTEGER PRIMARY KEY, job BLOB NOT NULL)")
    rows = [(line,) for line in lines.read_bytes().splitlines()]
    database.executemany("INSERT INTO jobs (job) VALUES (?)", rows)
    database.commit()
    return database


async def _main(lines: Path, folder: Path) -> None:
    database = _database(lines, folder)

    async def answer(request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        found = database.execute("SELECT job FROM jobs ORDER BY sequence LIMIT ?", (limit,))
        jobs = [_decode(row[0]) for row in found]
        body = b"".join(_encode(job) + b"\n" for job in jobs)
        return web.Response(body=body, content_type="application/x-ndjson")

    app = web.Application()
    app.router.add_get("/jobs", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1]), Path(sys.argv[2])))
