"""Where the private files of a container are."""

from __future__ import annotations

from neuro.engines.sandbox.cgroups import read

_UPPER = "upperdir="


def upper_layer(process: int) -> str | None:
    """The folder of what the container of a process has written; None where that is not one.

    Raises OSError where the process is gone.
    """
    for line in read(f"/proc/{process}/mountinfo").splitlines():
        place, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if place.split(" ")[4] == "/" and kind == "overlay":
            found = [one for one in options.split(",") if one.startswith(_UPPER)]
            return found[0].removeprefix(_UPPER) if found else None
    return None
