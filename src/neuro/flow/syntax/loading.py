"""Flow files from the disk."""

import stat
from pathlib import Path
from typing import Final

from neuro.domain.problems import Source
from neuro.flow.problems import Report

MAX_BYTES: Final = 10 * 1024 * 1024

_BOM: Final = "\ufeff"


def shown_name(path: Path) -> str:
    """A path as people read it: relative where it is below the current directory."""
    path = path.absolute()
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def load_source(path: Path, report: Report) -> Source | None:
    """Read a flow file; None where problems were reported."""
    name = shown_name(path)
    try:
        # Before opening: a named pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            report.add(f"{name} is not a file", None)
            return None
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        report.add(f"Cannot read {name}: {error.strerror}", None)
        return None
    if len(data) > MAX_BYTES:
        report.add(
            f"{name} is larger than {MAX_BYTES // 1024**2} MB, the most for a flow file", None
        )
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        source = Source(name, data.decode(errors="replace").removeprefix(_BOM))
        place = len(data[: error.start].decode().removeprefix(_BOM))
        report.add(
            f"The byte 0x{data[error.start]:02x} is not UTF-8",
            source.position(place),
            "Save the file as UTF-8.",
        )
        return None
    return Source(name, text.removeprefix(_BOM))
