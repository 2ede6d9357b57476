"""Other ways to run a pipeline, each doing the same: `true` as a local process, per task.

None of them isolates its tasks, limits them or survives its own death; they are the floor.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import venv
from dataclasses import dataclass
from pathlib import Path

_CACHE = Path(__file__).parent.parent / ".cache" / "pipelines"


@dataclass(frozen=True)
class Peer:
    """``program`` is Python text; it is run with the shape and the number of tasks."""

    name: str
    package: str | None
    program: str

    def run(self, shape: str, tasks: int, folder: Path) -> None:
        """Run as many tasks, in ``flat`` or ``chain`` shape."""
        python = self._python()
        place = folder / f"peer-{self.name.partition(' ')[0]}"
        place.mkdir(exist_ok=True)
        (place / "program.py").write_text(self.program)
        subprocess.run(
            [str(python), "program.py", shape, str(tasks)],
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    def _python(self) -> Path:
        if self.package is None:
            return Path(sys.executable)
        folder = _CACHE / self.package.replace("==", "-")
        python = folder / "bin" / "python"
        if not (folder / "complete").exists():
            venv.create(folder, clear=True, with_pip=True)
            install = ["-m", "pip", "install", "--quiet", self.package]
            subprocess.run([str(python), *install], check=True)
            (folder / "complete").touch()
        return python


# Eight at once where nothing is needed, as many as tasks of a bake run side by side here.
_LUIGI = textwrap.dedent(
    """
    import subprocess, sys, uuid
    from pathlib import Path
    import luigi

    shape, count = sys.argv[1], int(sys.argv[2])
    folder = Path(uuid.uuid4().hex)
    folder.mkdir()

    class True_(luigi.Task):
        number = luigi.IntParameter()

        def requires(self):
            return [True_(self.number - 1)] if shape == "chain" and self.number else []

        def output(self):
            return luigi.LocalTarget(str(folder / str(self.number)))

        def run(self):
            subprocess.run(["true"], check=True)
            with self.output().open("w"):
                pass

    tasks = [True_(number) for number in range(count)]
    done = luigi.build(tasks, local_scheduler=True, log_level="ERROR", workers=1)
    sys.exit(not done)
    """
)

_LOOP = textwrap.dedent(
    """
    import asyncio, sqlite3, sys, uuid

    shape, count = sys.argv[1], int(sys.argv[2])
    database = sqlite3.connect(f"{uuid.uuid4().hex}.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("CREATE TABLE tasks (number INTEGER PRIMARY KEY, status TEXT)")
    in_flight = asyncio.Semaphore(1 if shape == "chain" else 8)

    async def one(number):
        async with in_flight:
            database.execute("INSERT INTO tasks VALUES (?, 'running')", (number,))
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()
            database.execute("UPDATE tasks SET status = 'succeeded' WHERE number = ?", (number,))

    async def main():
        await asyncio.gather(*(one(number) for number in range(count)))

    asyncio.run(main())
    """
)

_PREFECT = textwrap.dedent(
    """
    import subprocess, sys
    from prefect import flow, task

    shape, count = sys.argv[1], int(sys.argv[2])

    @task
    def true(before=None):
        subprocess.run(["true"], check=True)
        return 1

    @flow
    def pipeline():
        if shape == "chain":
            done = None
            for _ in range(count):
                done = true(done)
        else:
            for future in [true.submit() for _ in range(count)]:
                future.result()

    pipeline()
    """
)

PEERS = (
    Peer("asyncio and SQLite", None, _LOOP),
    Peer("luigi", "luigi==3.8.1", _LUIGI),
    Peer("Prefect", "prefect==3.6.4", _PREFECT),
)
