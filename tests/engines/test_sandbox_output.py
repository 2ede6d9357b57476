"""The log's files: segments, retention, index, and a disk that is full."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.engines.base import RunRef
from neuro.engines.sandbox.logs import LogReader, Stamper
from neuro.engines.sandbox.output import NoSpace, OutputLog, Retention, kept_bytes, segments
from tests.engines.harness import KINDS, Runs, eventually, spec

SMALL = Retention(total=4000, segment=1000)


def read_all(folder: str, position: int | None = None) -> bytes:
    reader = LogReader(folder, position)
    parts = []
    while data := reader.read_now():
        parts.append(data)
    reader.close()
    return b"".join(parts)


def write_all(log: OutputLog, data: bytes) -> None:
    while data:
        data = data[log.write(data) :]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "output")


def test_the_oldest_is_dropped_beyond_the_limit(place: str) -> None:
    log = OutputLog(place, SMALL)
    data = b"".join(b"%09d\n" % i for i in range(1000))

    write_all(log, data)

    kept = read_all(place)
    assert data.endswith(kept)
    assert 3000 <= len(kept) <= 5000
    assert kept_bytes(place) == len(kept)
    assert log.end == len(data)


def test_reading_goes_across_segments_from_any_offset(place: str) -> None:
    log = OutputLog(place, Retention(segment=100))
    data = os.urandom(1234)
    write_all(log, data)

    assert len(segments(place)) == 13
    for offset in (0, 1, 99, 100, 101, 1200, 1234):
        assert read_all(place, offset) == data[offset:]


def test_an_offset_that_was_dropped_begins_at_what_is_left(place: str) -> None:
    log = OutputLog(place, SMALL)
    write_all(log, b"x" * 9000)

    assert read_all(place, 0) == b"x" * kept_bytes(place)


def test_a_reader_finds_the_segments_that_come_while_it_reads(place: str) -> None:
    log = OutputLog(place, Retention(segment=100))
    reader = LogReader(place)
    write_all(log, b"a" * 100)
    assert reader.read_now() == b"a" * 100
    assert reader.read_now() == b""

    write_all(log, b"b" * 150)

    assert reader.read_now() + reader.read_now() == b"b" * 150
    reader.close()


def test_the_next_run_goes_on_where_the_log_ends(place: str) -> None:
    first = OutputLog(place, Retention())
    write_all(first, b"first\n")
    first.close()

    second = OutputLog(place, Retention())
    assert second.end == 6
    write_all(second, b"second\n")

    assert read_all(place) == b"first\nsecond\n"


def test_a_torn_index_record_does_no_harm(place: str) -> None:
    log = OutputLog(place, Retention())
    write_all(log, b"first\n")
    log.close()
    index = next(Path(place).glob("*.idx"))
    with index.open("ab") as file:
        file.write(b"torn")

    log = OutputLog(place, Retention())
    write_all(log, b"second\n")

    stamped = Stamper(place).stamp(read_all(place), 13)
    assert [line.split(b" ")[1] for line in stamped.splitlines()] == [b"first", b"second"]
    assert index.stat().st_size % 16 == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.root
async def test_a_full_disk_makes_the_job_wait_and_loses_nothing(small_disk: Path) -> None:
    engine = KINDS["sandbox"].make(small_disk / "engine")
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    begun = spec("sh", "-c", "head -c 9000000 /dev/zero; echo end")
    await engine.start(begun)

    await eventually(lambda: _free(small_disk) < 8192, "the disk does not fill up")
    code, _, _ = await runs.execute(RunRef(begun.job_id), "true")
    assert code == 0  # it goes on
    assert not [event for event in runs.told if type(event).__name__ == "Exited"]
    await asyncio.to_thread(_enlarge, small_disk)
    done = await runs.finished(RunRef(begun.job_id))

    assert done.code == 0
    assert done.output == b"\0" * 9_000_000 + b"end\n"
    await runs.close()


@pytest.mark.root
def test_a_disk_without_room_for_another_segment_loses_nothing(small_disk: Path) -> None:
    log = OutputLog(str(small_disk / "output"), Retention(segment=1000))
    write_all(log, b"a" * 1000)
    _change(small_disk, f"nr_inodes={_inodes(small_disk)}")  # as many files as there are

    for _ in range(3):
        with pytest.raises(NoSpace):
            log.write(b"b")
    _change(small_disk, "nr_inodes=1000")

    write_all(log, b"b" * 500)
    assert read_all(str(small_disk / "output")) == b"a" * 1000 + b"b" * 500
    log.close()


def test_a_log_that_somebody_deletes_takes_no_more_space(place: str) -> None:
    log = OutputLog(place, SMALL)
    shutil.rmtree(place)

    write_all(log, b"x" * 10_000)

    assert log.end == 10_000
    assert log.kept() == 0
    log.close()


def _enlarge(place: Path) -> None:
    _change(place, "size=64m")


def _change(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


def _inodes(place: Path) -> int:
    """How many files and folders are on a disk."""
    info = os.statvfs(place)
    return info.f_files - info.f_ffree


def _free(place: Path) -> int:
    info = os.statvfs(place)
    return info.f_bavail * info.f_bsize
