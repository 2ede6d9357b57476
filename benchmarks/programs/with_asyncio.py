"""The floor: an asyncio loop that notes its tasks in SQLite."""

import asyncio
import sqlite3
import sys

shape, count = sys.argv[1], int(sys.argv[2])
database = sqlite3.connect("tasks.db", isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA synchronous=NORMAL")
database.execute("CREATE TABLE tasks (number INTEGER PRIMARY KEY, status TEXT)")
in_flight = asyncio.Semaphore(1 if shape == "chain" else 8)


async def one(number: int) -> None:
    async with in_flight:
        database.execute("INSERT INTO tasks VALUES (?, 'running')", (number,))
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        database.execute("UPDATE tasks SET status = 'succeeded' WHERE number = ?", (number,))


async def main() -> None:
    await asyncio.gather(*(one(number) for number in range(count)))


asyncio.run(main())
