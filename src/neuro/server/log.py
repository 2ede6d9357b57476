"""Structured logs: a line of JSON each, readable ones on a terminal. No token ever gets there.

Logging never fails and never stops anything: a line that cannot be written (a full disk, a value
that has no text) is dropped and counted, and the next line that can be written says how many were.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol


@contextlib.contextmanager
def _missing(module: str) -> Iterator[None]:
    """As if a module were not installed."""
    found = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if found is not None:
            sys.modules[module] = found


# It loads rich, which the command line needs, for nothing but tracebacks on a terminal: 3 MB.
with _missing("rich"):
    import structlog

MAX_LOG_BYTES = 10 << 20
KEPT_LOGS = 5
# What is longer is cut in its middle: a traceback of a recursion, or what somebody sent.
MAX_VALUE = 8000
MAX_LINE = 64 << 10
SELDOM_SECONDS = 60.0


class Sink:
    """Where lines go: standard error, or a file of the server's own that is rotated by size.

    The file is standard output and error too, so that what the system's libraries say gets there.
    ``dropped`` counts the lines that could not be written and were not told of yet.
    """

    def __init__(
        self, path: Path | None = None, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOGS
    ) -> None:
        self.dropped = 0
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._lock = threading.Lock()
        self._is_torn = False
        if path is not None:
            with contextlib.suppress(OSError):
                _make_standard(_opened(path))

    def write(self, line: str) -> None:
        """Write a line. Never raises."""
        try:
            raw = line.encode("utf-8", "backslashreplace") + b"\n"
            with self._lock:
                self._write(raw)
        except Exception:
            self.dropped += 1

    def _write(self, raw: bytes) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                if os.fstat(2).st_size + len(raw) > self._max_bytes:
                    self._rotate(self._path)
        if self.dropped:
            raw = _lost_line(self.dropped) + raw
        if self._is_torn:
            raw = b"\n" + raw
        written = os.write(2, raw)
        # A disk that is just full takes a part.
        self._is_torn = written < len(raw)
        self.dropped = self.dropped + 1 if self._is_torn else 0

    def _rotate(self, path: Path) -> None:
        # The new file comes first: where there is no room for it, the old one goes on.
        draft = path.with_name(f"{path.name}.new")
        number = _opened(draft)
        for index in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                _numbered(path, index).replace(_numbered(path, index + 1))
        with contextlib.suppress(FileNotFoundError):
            path.replace(_numbered(path, 1))
        draft.replace(path)
        _make_standard(number)


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _make_standard(number: int) -> None:
    try:
        os.dup2(number, 1)
        os.dup2(number, 2)
    finally:
        os.close(number)


def _numbered(path: Path, index: int) -> Path:
    return path.with_name(f"{path.name}.{index}")


def _lost_line(count: int) -> bytes:
    line = {"event": "lines of this log were lost", "count": count, "level": "warning"}
    return json.dumps(line).encode() + b"\n"


class _Renderer(Protocol):
    def __call__(self, logger: Any, name: str, event: Any) -> Any: ...


class _Safely:
    """A chain of processors that gives a line whatever it is given."""

    def __init__(self, *chain: _Renderer) -> None:
        self._chain = chain

    def __call__(self, logger: Any, name: str, event: Any) -> str:
        said, problem = event.get("event"), "it is too long"
        try:
            for process in self._chain:
                event = process(logger, name, event)
            if len(event) <= MAX_LINE:
                return str(event)
        except Exception as error:
            problem = type(error).__name__
        line = {"event": "a line cannot be logged", "level": "error", "why": problem}
        return json.dumps({**line, "of": said[:200] if isinstance(said, str) else ""})


def _shorten(logger: Any, name: str, event: Any) -> Any:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE:
            event[key] = f"{value[: MAX_VALUE // 4]}\n...\n{value[-MAX_VALUE * 3 // 4 :]}"
    return event


class _Lines:
    """What structlog calls with a finished line."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, message: str) -> None:
        self._sink.write(message)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _FromStandardLibrary(logging.Handler):
    """Libraries speak through ``logging``: their lines have the same form, in the same place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: dict[str, Any] = {"logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            level = min(logging.CRITICAL, max(logging.DEBUG, record.levelno // 10 * 10))
            structlog.get_logger().log(level, record.getMessage(), **event)
        except Exception:
            return  # A message with the wrong number of arguments: nobody reads it.


def configure_logging(*, verbose: bool = False, file: Path | None = None) -> Sink:
    """Send the server's logs to standard error, or to a ``file`` that is rotated by size."""
    sink = Sink(file)
    human = file is None and sys.stderr.isatty()
    level = logging.DEBUG if verbose else logging.INFO
    chain: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if human:
        chain.append(structlog.dev.ConsoleRenderer())
    else:
        chain.append(structlog.processors.format_exc_info)
        chain += [_shorten, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[_Safely(*chain)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(sink),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromStandardLibrary()], force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    sys.excepthook = _log_crash
    return sink


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("neuro.server").critical(
        "the server ends by an error of its own",
        exception="".join(traceback.format_exception(kind, error, trace)),
    )


class Seldom:
    """Lines of one kind that strangers can cause: one a minute, which counts the others."""

    def __init__(
        self,
        logger: Any,
        event: str,
        seconds: float = SELDOM_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._event = event
        self._seconds = seconds
        self._now = now
        self._count = 0
        self._next = -1.0

    def say(self, **values: object) -> None:
        """Log the event, or only count it; ``values`` are of the one that is logged."""
        self._count += 1
        if self._now() >= self._next:
            self._logger.warning(self._event, count=self._count, **values)
            self._count = 0
            self._next = self._now() + self._seconds
