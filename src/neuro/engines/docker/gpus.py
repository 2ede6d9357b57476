"""GPUs that a daemon can give to containers: how they are called, and how they are asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from neuro.engines.docker.api import Info

# A whole GPU as the Container Device Interface calls it; vendors list them by UUID as well.
_CDI = re.compile(r"[a-z0-9.-]+/gpu=(\d+)")
_NVIDIA = "nvidia"
VISIBLE = "NVIDIA_VISIBLE_DEVICES"


def gpus_of(info: Info, indexes: Sequence[int], *, has_hook: bool) -> tuple[str, ...]:
    """The GPUs that the daemon can give, by their names.

    ``indexes`` are those of the machine's NVIDIA GPUs; ``has_hook`` is whether the program is there
    by which a daemon without an NVIDIA runtime gives them to containers.
    """
    found = {one.id: match for one in info.devices or () if (match := _CDI.fullmatch(one.id))}
    if found:
        return tuple(sorted(found, key=lambda name: (name.partition("=")[0], int(found[name][1]))))
    if has_hook or _NVIDIA in (info.runtimes or {}):
        return tuple(map(str, indexes))
    return ()


def visible(gpus: Sequence[str]) -> str:
    """What NVIDIA's runtime is told, where it is the daemon's usual one.

    Else it would heed the job's own environment, or the image's, which may say ``all``. What the
    daemon gives by CDI is none of its business.
    """
    return "void" if not gpus or _CDI.fullmatch(gpus[0]) else ",".join(gpus)


def device_requests(gpus: Sequence[str]) -> list[dict[str, Any]]:
    """How a container asks for them."""
    if not gpus:
        return []
    if _CDI.fullmatch(gpus[0]):
        return [{"Driver": "cdi", "DeviceIDs": [*gpus]}]
    return [{"Driver": _NVIDIA, "DeviceIDs": [*gpus], "Capabilities": [["gpu"]]}]
