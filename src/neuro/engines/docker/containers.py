"""What the daemon is told to make for a run. No effects here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from neuro.docker.images import ImageConfig
from neuro.domain.images import BASE_LABEL, ON_HOST
from neuro.engines.base import RunRef, RunSpec
from neuro.engines.docker import launcher_program
from neuro.engines.docker.gpus import VISIBLE, device_requests, visible
from neuro.engines.docker.order import Mount

INSTALLATION, JOB, RUN = "neuro.installation", "neuro.job", "neuro.run"
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as Docker has it
_SMALL_SHM = 64 << 20
_CPU_PERIOD = 100_000
# Docker's own, which podman does not have: programs of no privilege may ping, and serve at port 80.
_SYSCTLS = {
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.ip_unprivileged_port_start": "0",
}
# Of what Docker leaves to root of a container: making device files, and a root within the root.
_DROPPED = ["MKNOD", "SYS_CHROOT", "NET_RAW", "AUDIT_WRITE"]


def label_of(installation: str) -> str:
    """By which the daemon finds what belongs to an installation."""
    return f"{INSTALLATION}={installation}"


def ref_of(labels: Mapping[str, str]) -> RunRef | None:
    """The run that a container is of."""
    run = labels.get(RUN, "")
    return RunRef(labels[JOB], int(run)) if JOB in labels and run.isdecimal() else None


def name_of(installation: str, ref: RunRef) -> str:
    """What a person sees in ``docker ps``."""
    return f"neuro-{installation}-{ref.job_id}-{ref.run}"


def network_of(installation: str, neighbours: str) -> str:
    """The network of the runs that reach each other, or of those that reach none."""
    if not neighbours:
        return f"neuro-{installation}"
    return f"neuro-{installation}-{hashlib.sha256(neighbours.encode()).hexdigest()[:16]}"


def network_body(installation: str, neighbours: str) -> dict[str, Any]:
    """How that network is made."""
    talk = "true" if neighbours else "false"
    return {
        "Name": network_of(installation, neighbours),
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": {INSTALLATION: installation},
        "Options": {"com.docker.network.bridge.enable_icc": talk},
    }


def isolated_network_body(installation: str, neighbours: str) -> dict[str, Any]:
    """The same in podman's words: there networks reach each other unless both are isolated.

    It does not keep the runs of one from each other, so those without neighbours need one each.
    """
    return {
        "name": network_of(installation, neighbours),
        "driver": "bridge",
        "dns_enabled": True,
        "labels": {INSTALLATION: installation},
        "options": {"isolate": "true"},
    }


def unfit(config: ImageConfig) -> str | None:
    """Why containers cannot be made of an image; None where they can."""
    if (config.labels or {}).get(BASE_LABEL) == ON_HOST:
        return (
            "The image was made FROM host: its layers lie above the programs of the machine that"
            " built it, which no container has. Choose a preset of the engine `sandbox`, or build"
            " it from another base."
        )
    return None


def search_path(spec: RunSpec, config: ImageConfig) -> str:
    """Where commands are looked for."""
    if "PATH" in spec.env:
        return spec.env["PATH"]
    given = [line.partition("=")[2] for line in config.env or () if line.startswith("PATH=")]
    return given[-1] if given else USUAL_PATH


def launched(word: str, argv: Sequence[str], path: str) -> list[str]:
    """The launcher's command line for a command."""
    name = argv[0]
    places: list[str] = []
    if name:
        folders = [""] if "/" in name else path.split(":")
        places = [os.path.join(folder, name) for folder in folders]
    return [f"{launcher_program.FOLDER}/{launcher_program.NAME}", word, *places, "", *argv]


def container_body(
    installation: str,
    spec: RunSpec,
    image: str,
    command: Sequence[str],
    mounts: Sequence[Mount],
    processes: int,
) -> dict[str, Any]:
    """A run's container, whose first process is ``command``.

    ``image`` is an id: a name may be taken from its image at any time.
    """
    env = {"TERM": "xterm-256color", **spec.env} if spec.tty else dict(spec.env)
    env[VISIBLE] = visible(spec.gpus)
    # The launcher puts the values in: the daemon would write them to its disk, and tell them.
    env |= dict.fromkeys(spec.secret_env, "")
    network = network_of(installation, spec.neighbours)
    endpoint: dict[str, Any] = {}
    if spec.neighbours:
        endpoint["Aliases"] = [*spec.names]
    host: dict[str, Any] = {
        "NetworkMode": network,
        "LogConfig": {"Type": "none", "Config": {}},
        "Mounts": [_mount(one) for one in mounts],
        "Memory": spec.memory,
        "MemorySwap": spec.memory,
        "CpuPeriod": _CPU_PERIOD,
        "CpuQuota": max(1000, int(spec.cpu * _CPU_PERIOD)),
        "PidsLimit": processes,
        "ShmSize": spec.memory if spec.shm else _SMALL_SHM,
        "CapDrop": _DROPPED,
        "Sysctls": _SYSCTLS,
        "Init": False,
    }
    if spec.gpus:
        host["DeviceRequests"] = device_requests(spec.gpus)
    return {
        "Image": image,
        "Hostname": spec.hostname[:63] or "job",
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Entrypoint": [command[0]],
        "Cmd": [*command[1:]],
        "WorkingDir": spec.working_dir or "",
        "Tty": False,
        "OpenStdin": False,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {INSTALLATION: installation, JOB: spec.job_id, RUN: str(spec.run)},
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}},
    }


def _mount(one: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": one.source,
        "Target": one.target,
        "ReadOnly": one.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
