"""Devices that this machine describes for containers: the files of the Container Device Interface.

Docker's daemon lists them itself since version 1.50 of its API; podman's service never does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

USUAL = ("/etc/cdi", "/var/run/cdi")
_FORMS = (".json", ".yaml")
_LARGEST = 4 << 20  # bytes of one file: those of a machine with many GPUs have some 100 KB

log = logging.getLogger("neuro.engine")


class _Device(msgspec.Struct):
    name: str


class _Specification(msgspec.Struct):
    kind: str
    devices: list[_Device] = []


def device_names(folders: Iterable[str]) -> list[str]:
    """The devices that the files in some folders describe, such as ``nvidia.com/gpu=0``.

    A file that cannot be read or understood is passed over and named in the log.
    """
    found: dict[str, None] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix not in _FORMS:
                continue
            try:
                for name in _names_in(path):
                    found[name] = None
            except (OSError, ValueError) as error:
                log.warning("the devices that %s describes are not used: %s", path, error)
    return list(found)


def _names_in(path: Path) -> list[str]:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
    read = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    specification = read(content, type=_Specification)
    return [f"{specification.kind}={one.name}" for one in specification.devices]
