"""What a person may decide about the sandbox engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neuro.engines.sandbox.output import Retention


@dataclass(frozen=True)
class SandboxSettings:
    """All have defaults that fit a fresh machine.

    ``visible`` are folders of the machine that every job may read, beside its system folders;
    ``masked`` folders that stay invisible wherever they are. ``host_port`` is the port of this
    machine's loopback that runs may reach at the engine's ``host_address``. ``network`` "shared"
    gives all runs the machine's own; ``private_networks`` is whether runs with networks of their
    own reach those that the internet does not (10.0.0.0/8 and the like). ``processes`` bounds
    processes and threads together. ``shared_ids`` lets all runs be one user of the machine where
    file systems cannot map users. ``io_uring`` and ``perf`` allow runs these system calls.
    ``open_files`` is the soft limit of descriptors that runs begin with, None for this process's
    own. ``control_memory`` is bytes that all control runs together may have, None for a quarter of
    the machine's, but 512 MiB or more. ``offline_host``
    lets a run have the machine's own userland where a public registry cannot be reached for its
    image. ``builds_kept`` is bytes that the caches of builds may take together, for builds to come.
    ``device_folder`` and ``cgroup_root`` are where the machine
    has them.
    """

    visible: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    network: Literal["auto", "shared"] = "auto"
    private_networks: bool = True
    host_port: int = 0
    processes: int = 8192
    shared_ids: bool = False
    open_files: int | None = None
    io_uring: bool = False
    perf: bool = False
    control_memory: int | None = None
    offline_host: bool = True
    builds_kept: int = 50 << 30
    retention: Retention = field(default_factory=Retention)
    device_folder: str = "/dev"
    cgroup_root: str = "/sys/fs/cgroup"
