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

_SNAKEMAKE = textwrap.dedent(
    """
    import subprocess, sys, uuid
    from pathlib import Path

    shape, count = sys.argv[1], int(sys.argv[2])
    folder = Path(uuid.uuid4().hex)
    folder.mkdir()
    before = "" if shape == "flat" else (
        "    input: lambda w: [str(int(w.n) - 1) + '.done'] if int(w.n) else []\\n"
    )
    (folder / "Snakefile").write_text(
        f"rule all:\\n    input: expand('{{n}}.done', n=range({count}))\\n"
        "rule one:\\n"
        "    output: touch('{n}.done')\\n" + before + "    shell: 'true'\\n"
    )
    command = [str(Path(sys.executable).with_name("snakemake")), "--quiet", "all"]
    subprocess.run([*command, "--cores", "2"], cwd=folder, check=True)
    """
)

PEERS = (
    Peer("asyncio and SQLite", None, _LOOP),
    Peer("luigi", "luigi==3.8.1", _LUIGI),
    Peer("Snakemake", "snakemake==9.13.7", _SNAKEMAKE),
)
