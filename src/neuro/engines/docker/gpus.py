"""GPUs that a daemon can give to containers: how they are called, and how they are asked for.

A GPU has two names. By one it is given to jobs, and their records hold it: that of an NVIDIA GPU is
its number, those of others are the Container Device Interface's. By the other the daemon is asked
for it, and that may change while jobs have it: a daemon that learns of the interface, or forgets
it, has the same GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuro.engines.docker import cdi
from neuro.engines.docker.api import Info

# A whole GPU as the Container Device Interface calls it; vendors list them by UUID as well.
_CDI = re.compile(r"(?P<vendor>[a-z0-9.-]+)/gpu=(?P<number>\d+)")
_NVIDIA = "nvidia"
_OF_NVIDIA = "nvidia.com"
VISIBLE = "NVIDIA_VISIBLE_DEVICES"
# The first of podman's that was seen to give devices to who asks in Docker's words.
_PODMAN_WITH_DEVICES = (5, 4)


def devices_of(info: Info) -> list[str]:
    """What a daemon of Docker can give by the Container Device Interface."""
    if info.devices is not None:
        return [one.id for one in info.devices]
    return cdi.device_names(info.device_folders or ())


def devices_of_podman(info: Info) -> list[str]:
    """What podman's service can give so: it does not tell, and does not understand it always."""
    version = re.match(r"(\d+)\.(\d+)", info.server_version)
    if version is None or (int(version[1]), int(version[2])) < _PODMAN_WITH_DEVICES:
        return []
    return cdi.device_names(cdi.USUAL)


def gpus_of(devices: Iterable[str], by_runtime: Sequence[int]) -> dict[str, str]:
    """The GPUs that the daemon can give, in order: by what it is asked for each of them.

    ``devices`` are what it has of the Container Device Interface, ``by_runtime`` the numbers of
    those that NVIDIA's runtime or hook gives to its containers.
    """
    found: dict[tuple[str, int], str] = {}
    for device in devices:
        match = _CDI.fullmatch(device)
        if match is not None and not match["vendor"].endswith(f".{_OF_NVIDIA}"):
            # Those of NVIDIA's other vendors' names are the same GPUs once more.
            found[match["vendor"], int(match["number"])] = device
    if not any(vendor == _OF_NVIDIA for vendor, _ in found):
        found |= {(_OF_NVIDIA, number): str(number) for number in by_runtime}
    return {
        str(number) if vendor == _OF_NVIDIA else device: device
        for (vendor, number), device in sorted(found.items())
    }


def runtime_gives(info: Info, *, has_hook: bool) -> bool:
    """Whether the daemon gives NVIDIA's GPUs by its number.

    ``has_hook`` is whether the program is there by which a daemon without an NVIDIA runtime does.
    """
    return has_hook or _NVIDIA in (info.runtimes or {})


def asked_for(gpus: Sequence[str], known: Mapping[str, str]) -> tuple[str, ...]:
    """What the daemon is asked for: ``known`` is what it has. Raises KeyError with the first lack.

    A GPU of NVIDIA may also be called as the Container Device Interface does.
    """
    return tuple(known[one.removeprefix(f"{_OF_NVIDIA}/gpu=")] for one in gpus)


def visible(asked: Sequence[str]) -> str:
    """What NVIDIA's runtime is told, where it is the daemon's usual one.

    Else it would heed the job's own environment, or the image's, which may say ``all``. What the
    daemon gives by CDI is none of its business.
    """
    return ",".join(one for one in asked if not _CDI.fullmatch(one)) or "void"


def device_requests(asked: Sequence[str]) -> list[dict[str, Any]]:
    """How a container asks for them."""
    devices = [one for one in asked if _CDI.fullmatch(one)]
    numbers = [one for one in asked if not _CDI.fullmatch(one)]
    requests: list[dict[str, Any]] = []
    if devices:
        requests.append({"Driver": "cdi", "DeviceIDs": devices})
    if numbers:
        requests.append({"Driver": _NVIDIA, "DeviceIDs": numbers, "Capabilities": [["gpu"]]})
    return requests
