"""The local server as a process: whether it runs, starting it, stopping it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from neuro.cli.failures import CONFIG, IO, MALFUNCTION, Failure
from neuro.cli.paths import lock_file, log_file, server_file
from neuro.cli.server.options import up_command

START_SECONDS = 60.0
SLOW_SECONDS = 1.0
STOP_SECONDS = 60.0
_PAUSE = 0.05
_NEEDED = ("alembic", "joserfc", "sqlalchemy", "structlog", "uvloop")


class LocalServer(msgspec.Struct, frozen=True):
    """What a running server says of itself."""

    pid: int
    url: str
    started_at: str | None = None
    announced_at: str | None = None  # when it read its settings; an earlier version does not say
    settings: str | None = None
    host: str | None = None
    database: str | None = None
    engine: str | None = None


def check_installed() -> None:
    """Raise Failure where only the command line is installed."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise Failure(
            f"The server's packages are not installed here ({', '.join(missing)}):"
            " pip install '/path/to/clone[server]', with the path of a clone of the repository.",
            CONFIG,
        )


def find_running(data_dir: Path) -> LocalServer | None:
    """The server on this data folder, if one lives: a file may be left over, a lock not."""
    if not _is_locked(lock_file(data_dir)):
        return None
    try:
        return msgspec.json.decode(server_file(data_dir).read_bytes(), type=LocalServer)
    except (OSError, msgspec.MsgspecError):
        return None  # It is just starting, or just ending.


def has_changed_settings(server: LocalServer, data_dir: Path) -> bool:
    """Whether ``server.toml`` is another one than the server has read."""
    try:
        content = (data_dir / "server.toml").read_bytes()
    except OSError:
        content = b""
    return server.settings not in (None, hashlib.sha256(content).hexdigest())


def finds_database(server: LocalServer, data_dir: Path) -> bool:
    """Whether the next start has the server's database without being given ``--database``."""
    if server.database is None:  # An earlier version does not say.
        return True
    try:
        settings = tomllib.loads((data_dir / "server.toml").read_text())
    except (OSError, ValueError):
        settings = {}
    database = os.environ.get("NEURO_DATABASE") or settings.get("database") or ""
    return hashlib.sha256(str(database).encode()).hexdigest() == server.database


def reload(server: LocalServer, data_dir: Path) -> None:
    """Let the server read its settings again, and return once it is up with them.

    Raises Failure with what is wrong with them, or where the server is of a version that the signal
    would end: then nothing has changed.
    """
    if server.settings is None:
        raise Failure(
            f"The server (pid {server.pid}) is of an earlier version, which cannot reload its"
            " settings. `neuro down` and `neuro up` apply them; jobs go on running.",
            CONFIG,
        )
    answer = data_dir / "run" / "reload.json"
    end = time.monotonic() + START_SECONDS
    try:
        answer.unlink(missing_ok=True)
        os.kill(server.pid, signal.SIGHUP)
    except PermissionError:
        raise Failure(f"The server (pid {server.pid}) belongs to another user.", 77) from None
    except ProcessLookupError:
        pass  # told below
    while time.monotonic() < end:
        if not _is_locked(lock_file(data_dir)) and not _is_alive(server.pid):
            raise Failure(
                f"The server (pid {server.pid}) ended instead of applying its settings: see"
                f" {log_file(data_dir)}, and start it with `{up_command(data_dir)}`.",
                MALFUNCTION,
            )
        if answer.exists():
            error = json.loads(answer.read_bytes())["error"]
            if error is not None:
                raise Failure(f"{error.rstrip('.')}. Nothing was changed.", CONFIG)
            now = find_running(data_dir)
            if now is not None and _announced(now) != _announced(server):
                return
        time.sleep(_PAUSE)
    raise Failure(
        f"The server did not apply its settings in {START_SECONDS:.0f} seconds: see"
        f" {log_file(data_dir)}.",
        MALFUNCTION,
    )


def _announced(server: LocalServer) -> tuple[str | None, str | None]:
    return server.started_at, server.announced_at


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def server_command(
    *, data_dir: Path, host: str, port: int, engine: str | None, verbose: bool = False
) -> list[str]:
    """The command line of the server in the foreground."""
    words = [sys.executable, "-m", "neuro.server", "run"]
    words += ["--host", host, "--port", str(port), "--data-dir", str(data_dir)]
    words += ["--engine", engine] if engine is not None else []
    return [*words, "--verbose"] if verbose else words


def server_environment(database: str | None) -> dict[str, str]:
    """The server's environment: an address may hold a password, and ``ps`` shows arguments."""
    return {**os.environ, "NEURO_DATABASE": database} if database else dict(os.environ)


def start(
    command: Sequence[str],
    environment: dict[str, str],
    data_dir: Path,
    *,
    slow: Callable[[], None] | None = None,
) -> str | None:
    """Start the server in the background, and return once it is ready.

    Returns a sentence on the engine that it has chosen, if it has. ``slow`` is called where that
    takes over a second.
    Raises Failure with the server's own sentence, or with the end of its log.
    """
    log = log_file(data_dir)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reader, writer = os.pipe()
    with log.open("ab") as output:
        begin = output.tell()
        try:
            process = subprocess.Popen(
                [*command, "--ready-fd", str(writer), "--log-file", str(log)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writer,),
                start_new_session=True,
                env=environment,
                cwd="/",
            )
        finally:
            os.close(writer)
    if slow is not None and not select.select([reader], [], [], SLOW_SECONDS)[0]:
        slow()
    line = _read_line(reader, START_SECONDS)
    if line is None:
        process.terminate()
        raise Failure(
            f"The server was not ready in {START_SECONDS:.0f} seconds.{_tail(log, begin)}",
            MALFUNCTION,
        )
    message = json.loads(line) if line else {}
    if "url" in message:
        said: str | None = message.get("engine")
        return said
    sentence = message.get("error") or f"The server ended while starting.{_tail(log, begin)}"
    raise Failure(str(sentence), IO if "listen" in str(sentence) else MALFUNCTION)


def _read_line(number: int, seconds: float) -> bytes | None:
    """The line; b"" where the other side closed without one, None where nothing came in time."""
    content = b""
    with os.fdopen(number, "rb", buffering=0) as stream:
        while not content.endswith(b"\n"):
            if not select.select([stream], [], [], seconds)[0]:
                return None
            piece = stream.read(4096)
            if not piece:
                return b""
            content += piece
    return content


def _tail(log: Path, begin: int, lines: int = 15) -> str:
    try:
        with log.open("rb") as file:
            # A log that was rotated meanwhile has all of this start in its new file.
            file.seek(begin if begin <= file.seek(0, os.SEEK_END) else 0)
            text = file.read()[-32_000:].decode(errors="replace")
    except OSError:
        return ""
    readable = [part for line in text.strip().splitlines() for part in _readable(line)]
    last = readable[-lines:]
    return "".join([f" The end of {log}:", *(f"\n  {line}" for line in last)]) if last else ""


def _readable(line: str) -> list[str]:
    """A line of the log as a person reads it: lines of JSON hold a whole traceback in one."""
    try:
        said = json.loads(line)
        parts = [str(said[key]) for key in ("event", "error") if key in said]
        return [": ".join(parts), *str(said.get("exception", "")).splitlines()]
    except (ValueError, TypeError, AttributeError):
        return [line]


def stop(server: LocalServer) -> None:
    """Ask the server to end and wait until it has. Raises Failure where it does not."""
    try:
        handle = os.pidfd_open(server.pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], STOP_SECONDS)[0]:
            raise Failure(
                f"The server (pid {server.pid}) has not ended {STOP_SECONDS:.0f} seconds after"
                " it was asked to.",
                MALFUNCTION,
            )
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Failure(f"The server (pid {server.pid}) belongs to another user.", 77) from None
    finally:
        os.close(handle)
