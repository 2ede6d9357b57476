"""The server's log: lines of JSON, bounded in size, and never a reason to fail."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from neuro.server.log import Seldom


def run(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, for its standard error is the log."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_whatever_is_logged_makes_a_line_and_no_failure() -> None:
    done = run(
        """
        from neuro.server.log import configure_logging
        import structlog

        class Mute:
            def __repr__(self): raise RuntimeError("no text")

        endless = []
        endless.append(endless)
        configure_logging()
        log = structlog.get_logger("x")
        log.info("mute", value=Mute())
        log.info("endless", value=endless)
        log.info("surrogate \\udcff", value="\\ud800")
        log.info("two\\nlines \\x1b[2J")
        log.info("long", value="x" * 10_000_000)
        log.info("wide", value=list(range(100_000)))
        log.info("keys", value={(1, 2): 3, None: 4})

        def deep(): deep()
        try:
            deep()
        except RecursionError:
            log.exception("deep")
        log.info("last")
        """
    )

    assert done.returncode == 0, done.stderr
    said = lines(done.stderr)
    assert len(said) == 9
    assert len(done.stderr) < 50_000
    assert said[0] == {
        "event": "a line cannot be logged",
        "level": "error",
        "why": "RuntimeError",
        "of": "mute",
    }
    assert said[3]["event"] == "two\nlines \x1b[2J"
    assert said[-1]["event"] == "last"


def test_libraries_warnings_and_the_servers_own_end_are_lines_of_json_too() -> None:
    done = run(
        """
        import logging, warnings
        from neuro.server.log import configure_logging

        configure_logging()
        error = ValueError("y")
        logging.getLogger("aiohttp.server").error("Handling %s", "x", exc_info=error)
        logging.getLogger("odd").log(33, "level")
        logging.getLogger("wrong").error("%d %d", "x")
        logging.getLogger("quiet").info("not said")
        warnings.warn("old")
        raise KeyError("the end")
        """
    )

    said = lines(done.stderr)
    assert [line.get("logger") for line in said] == ["aiohttp.server", "odd", "py.warnings", None]
    assert "ValueError: y" in said[0]["exception"]
    assert said[1]["level"] == "warning"
    assert said[-1]["level"] == "critical"
    assert "KeyError: 'the end'" in said[-1]["exception"]


def test_a_log_of_the_servers_own_is_rotated_by_size_and_takes_standard_error_along(
    tmp_path: Path,
) -> None:
    path = tmp_path / "server.log"
    path.write_text("earlier\n")
    done = run(
        """
        import os, sys
        from pathlib import Path
        from neuro.server.log import Sink

        sink = Sink(Path(sys.argv[1]), max_bytes=1000, kept=3)
        for index in range(200):
            sink.write(f"line {index:03} " + "x" * 90)
        os.write(2, b"said by a library\\n")
        """,
        path,
    )

    assert done.returncode == 0
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        "server.log",
        "server.log.1",
        "server.log.2",
        "server.log.3",
    ]
    assert all(file.stat().st_size <= 1100 for file in files)
    assert path.read_text().endswith("said by a library\n")
    kept = "".join(file.read_text() for file in [*reversed(files[1:]), files[0]]).splitlines()[:-1]
    assert [int(line[5:8]) for line in kept] == list(range(200 - len(kept), 200))


def test_lines_that_find_no_room_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    done = run(
        """
        import resource, sys
        from pathlib import Path
        from neuro.server.log import configure_logging
        import structlog

        sink = configure_logging(file=Path(sys.argv[1]))
        log = structlog.get_logger()
        # A file may not grow beyond this, as if the disk were full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        for index in range(50):
            log.info("too much", index=index)
        assert sink.dropped > 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        log.info("room again")
        assert sink.dropped == 0
        """,
        path,
    )

    assert (done.returncode, path.read_text().count("Traceback")) == (0, 0)
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    said = lines("\n".join(whole))
    assert said[-2]["event"] == "lines of this log were lost"
    assert said[-2]["count"] == 50 - sum(line["event"] == "too much" for line in said)
    assert said[-1]["event"] == "room again"


def test_a_log_on_a_full_disk_is_silent() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from neuro.server.log import configure_logging; import structlog, logging;"
                "configure_logging(); structlog.get_logger().error('x'); logging.error('y')",
            ],
            stderr=full,
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    assert (done.returncode, done.stdout) == (0, b"")


def test_what_strangers_can_cause_is_said_once_a_minute_with_its_count() -> None:
    said: list[dict[str, Any]] = []
    now = 100.0

    class Log:
        def warning(self, event: str, **values: Any) -> None:
            said.append({"event": event, **values})

    seldom = Seldom(Log(), "nonsense", seconds=60, now=lambda: now)
    for peer in range(5):
        seldom.say(peer=peer)
    now = 161.0
    seldom.say(peer=9)

    assert said == [
        {"event": "nonsense", "count": 1, "peer": 0},
        {"event": "nonsense", "count": 5, "peer": 9},
    ]
