"""``python -m neuro.server run``: the server in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from neuro.server.log import configure_logging

# That one loads structlog, and only what a server needs of it.
# isort: split
import structlog
import uvloop

from neuro.domain.errors import PlatformError
from neuro.engines.base import EngineFault
from neuro.engines.exhaustion import FULL
from neuro.server.app import Options, serving
from neuro.server.reload import Reload

log = structlog.get_logger("neuro.server")


def main() -> int:
    """Parse the command line and serve until SIGTERM or SIGINT."""
    arguments = _parser().parse_args()
    configure_logging(verbose=arguments.verbose, file=arguments.log_file)
    options = Options(
        data_dir=arguments.data_dir,
        host=arguments.host,
        port=arguments.port,
        database=arguments.database,
        engine=arguments.engine,
        open_files=_raise_open_files(),
        started_at=datetime.now().astimezone().isoformat(),
    )
    os.umask(0o077)
    _leave_no_core()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options, arguments.ready_fd))


def _leave_no_core() -> None:
    """Have no dump made of this process, and of those that it starts: secrets are in their memory.

    One byte is taken as none, also where dumps go to a program. Jobs have a limit of their own.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, hard))


def _raise_open_files() -> int:
    """Let this process open as many files as it may; returns how many it could open before.

    Each job and each stream takes a descriptor, and the usual soft limit is 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # The kernel's own limit may be lower by now.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="neuro server run")
    commands = parser.add_subparsers(required=True, metavar="run")
    run = commands.add_parser("run", help="serve in the foreground")
    run.add_argument("--data-dir", type=Path, required=True)
    run.add_argument("--host", default="127.0.0.1")
    run.add_argument("--port", type=int, default=8085)
    # Usually by the environment: an address may hold a password, and ``ps`` shows arguments.
    run.add_argument(
        "--database",
        default=os.environ.pop("NEURO_DATABASE", None),
        help="a URL such as postgresql://user@host/name (also in $NEURO_DATABASE)",
    )
    run.add_argument("--engine", help="runs the jobs of presets that name none")
    run.add_argument("--ready-fd", type=int, help="write one line of JSON there once ready")
    run.add_argument("--log-file", type=Path, help="log there and rotate it, not to stderr")
    run.add_argument("--verbose", action="store_true")
    return parser


async def _serve(options: Options, ready_fd: int | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reload = Reload(options.data_dir, stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, reload.end)
    loop.add_signal_handler(signal.SIGHUP, reload.ask)
    try:
        while True:
            gc.disable()  # a queue of 100,000 jobs takes it seconds, and holds nothing to collect
            async with serving(options) as server:
                url, reload.check = server.url, server.check
                # What start-up made lives as long as the server: spare the collector looking at it.
                gc.collect()
                gc.freeze()
                gc.enable()
                if server.choice is not None:
                    log.info("engine chosen", engine=server.choice.engine, why=server.choice.why)
                said = server.choice.why if server.choice is not None else None
                _tell(ready_fd, {"url": url, "pid": os.getpid(), "engine": said})
                ready_fd = None
                await stop.wait()
            if not reload.is_due:
                break
            log.info("the server begins again with the changed server.toml")
            # What was chosen at the start is written down by now, and server.toml may change it.
            options = replace(options, port=urlsplit(url).port or options.port, engine=None)
            reload.done()
    except (PlatformError, EngineFault, OSError) as error:
        sentence = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno in FULL:
            sentence = (
                f"The disk that {options.data_dir} is on is full: free some space, and start again."
            )
        _tell(ready_fd, {"error": sentence})
        if sys.stderr.isatty():
            sys.stderr.write(f"ERROR: {sentence}\n")
        else:
            log.error("the server cannot go on", error=sentence)
        return 1
    return 0


def _tell(ready_fd: int | None, message: dict[str, object]) -> None:
    if ready_fd is None:
        return
    try:
        with os.fdopen(ready_fd, "w") as stream:
            stream.write(json.dumps(message) + "\n")
    except OSError:
        pass  # Whoever waited is gone, or was told before.


if __name__ == "__main__":
    sys.exit(main())
