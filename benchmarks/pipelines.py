"""Other ways to run a pipeline, each doing the same: `true` as a local process, per task.

None of them isolates its tasks or limits them, and none's tasks survive its own death. What each
runs is in ``programs/``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import seconds

_PROGRAMS = Path(__file__).parent / "programs"
_CACHE = Path(__file__).parent.parent / ".cache" / "pipelines"
_LONGEST_RUN = 600.0
# Those that would tell their makers of every run, each in the words of its own documentation.
_NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


class PeerFailed(Exception):
    """A peer that cannot be measured here; the text says why in a line."""


class UnknownPeer(Exception):
    """A peer was asked for that there is not; the text says which there are."""


@dataclass(frozen=True)
class Peer:
    """``program`` is run with the shape and the number of tasks, by a Python that has ``needs``.

    ``at_once`` is how many tasks it runs side by side where nothing is needed. ``rounds`` is how
    often it is measured: three times, or once where that takes ten seconds or more for both shapes.
    """

    name: str
    program: str
    needs: tuple[str, ...]
    at_once: int
    rounds: int = 3

    def __str__(self) -> str:
        return f"{self.name}, {self.at_once} at once"

    def prepare(self, folder: Path) -> None:
        """Install it where that was not done yet, and let it make its home in ``folder``.

        The home has what it makes only once, such as an empty database. Raises PeerFailed.
        """
        python = self._python()
        if self.needs and not (python.parent.parent / "complete").exists():
            venv.create(python.parent.parent, clear=True, with_pip=True)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run(
                [str(python), *install, *self.needs], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PeerFailed(f"is not installed: {_last_line(done.stderr)}")
            (python.parent.parent / "complete").touch()
        self._home(folder).mkdir()
        self.seconds("flat", 1, folder)

    def seconds(self, shape: str, tasks: int, folder: Path) -> float:
        """How long its whole process takes for as many tasks, in ``flat`` or ``chain`` shape.

        Raises PeerFailed.
        """
        home = self._home(folder)
        place = Path(tempfile.mkdtemp(dir=folder))
        python = self._python()
        env = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(place),
            "USER": "anna",
            **_NO_TELEMETRY,
        }
        command = [str(python), str(_PROGRAMS / self.program), shape, str(tasks)]
        return seconds(lambda: _run(command, place, env))

    def _python(self) -> Path:
        if not self.needs:
            return Path(sys.executable)
        return _CACHE / "+".join(self.needs).replace("==", "-") / "bin" / "python"

    def _home(self, folder: Path) -> Path:
        return folder / f"home-{Path(self.program).stem}"


def _run(command: list[str], place: Path, env: dict[str, str]) -> None:
    errors = place / "errors.txt"
    with errors.open("wb") as stderr:
        # A group of its own: some leave servers and workers behind when they are ended.
        process = subprocess.Popen(
            command,
            cwd=place,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait(_LONGEST_RUN)
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"did not end within {_LONGEST_RUN:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise PeerFailed(f"ended with code {code}: {_last_line(errors.read_text())}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


# Eight at once only in the loop, as many as tasks of a bake run side by side here; luigi would
# start each task in a process of its own for two.
PEERS = (
    Peer("asyncio and SQLite", "with_asyncio.py", (), 8),
    Peer("luigi 3.8.1", "with_luigi.py", ("luigi==3.8.1",), 1),
    Peer("Snakemake 9.13.7", "with_snakemake.py", ("snakemake==9.13.7",), 2),
    Peer("redun 0.44.1", "with_redun.py", ("redun==0.44.1",), 2, rounds=1),
    Peer("Dagster 1.13.29", "with_dagster.py", ("dagster==1.13.29",), 1, rounds=1),
    # Its server does not start with later versions of FastAPI.
    Peer("Prefect 3.8.8", "with_prefect.py", ("prefect==3.8.8", "fastapi==0.148.0"), 2, rounds=1),
    Peer("Metaflow 2.19.39", "with_metaflow.py", ("metaflow==2.19.39",), 2, rounds=1),
)


def chosen(words: str) -> tuple[Peer, ...]:
    """The peers whose names begin with one of the words, in any case; all for no words.

    Raises UnknownPeer.
    """
    wanted = words.lower().split()
    for word in wanted:
        if not any(peer.name.lower().startswith(word) for peer in PEERS):
            names = ", ".join(peer.name for peer in PEERS)
            raise UnknownPeer(f"no peer {word!r}; there are: {names}")
    if not wanted:
        return PEERS
    return tuple(peer for peer in PEERS if peer.name.lower().startswith(tuple(wanted)))
