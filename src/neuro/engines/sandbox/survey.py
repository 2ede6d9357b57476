"""Which layers of the fence this machine has, and what to install or set where one is missing.

Everything is tried, in a folder of its own, and nothing stays of it: the machine's rules, control
groups and a server that runs here are as they were. All of it blocks.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuro.engines.sandbox import cgroups, hierarchies, machine, nat, trials
from neuro.engines.sandbox import network as network_of_runs
from neuro.engines.sandbox.settings import SandboxSettings

_KERNEL_ROOT, _KERNEL_PLAIN = (5, 19), (5, 12)
_SYSCTL = Path("/proc/sys")
_MOST_USERS = "user/max_user_namespaces"
_DEBIAN = "kernel/unprivileged_userns_clone"
_UBUNTU = "kernel/apparmor_restrict_unprivileged_userns"
_NVIDIA, _DISPLAYS = "0x10de", "0x03"
_LITTLE_ROOM, _NO_ROOM = 1 << 30, 16 << 20  # bytes
_MANAGERS = (
    ("apt-get", "apt-get install"),
    *(("dnf", "dnf install"), ("zypper", "zypper install"), ("pacman", "pacman -S")),
    ("apk", "apk add"),
)


@dataclass(frozen=True)
class Finding:
    """One layer: its name, how it is, a sentence, and the commands that mend it, one a line.

    Where it is "failed" jobs cannot run here; where it is "warning" they can, with less of a fence
    or without something that jobs may want.
    """

    name: str
    state: Literal["ok", "warning", "failed"]
    text: str
    command: str = ""


def survey(folder: str, settings: SandboxSettings, storage: str | None = None) -> list[Finding]:
    """Look at everything that jobs need.

    ``folder`` is empty, on the file system of the engine's own, and for nothing else. ``storage``
    is on that of the volumes.
    """
    for name in ("jobs", "berths", "land", "stage"):
        os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/{name}", 0o755)  # noqa: S103 - the folder around them is closed
    plain = os.geteuid() != 0
    return [
        _kernel(plain=plain),
        _user_namespaces(plain=plain),
        _system_calls(),
        *([] if plain else _mapped_mounts(folder, storage, settings)),
        *_sandbox(folder, storage, settings),
        _control_groups(settings, plain=plain),
        *(_networks_of_a_user(settings) if plain else [_networks(settings)]),
        _gpus(settings),
        _disk(folder),
    ]


def _kernel(*, plain: bool) -> Finding:
    release = os.uname().release
    needed = _KERNEL_PLAIN if plain else _KERNEL_ROOT
    found = re.match(r"(\d+)\.(\d+)", release)
    wanted = ".".join(map(str, needed))
    if found and (int(found[1]), int(found[2])) < needed:
        text = f"This is Linux {release}; jobs need {wanted} or newer."
        return Finding("kernel", "failed", text)
    return Finding("kernel", "ok", f"This is Linux {release}; jobs need {wanted}.")


def _user_namespaces(*, plain: bool) -> Finding:
    name = "user namespaces"
    whose = "A plain user" if plain else "Root"
    reason = trials.refusal("user-namespaces")
    if reason is None:
        return Finding(name, "ok", f"{whose} may make them.")
    if _setting(_MOST_USERS) == "0":
        text = "This machine allows none (user.max_user_namespaces is 0)."
        return Finding(name, "failed", text, _set(_MOST_USERS, "65536"))
    if plain and _setting(_DEBIAN) == "0":
        text = "This machine allows a plain user none (kernel.unprivileged_userns_clone is 0)."
        return Finding(name, "failed", text, _set(_DEBIAN, "1"))
    if plain and _setting(_UBUNTU) not in (None, "0"):
        text = (
            "AppArmor allows a plain user's programs none until a profile allows it"
            " (kernel.apparmor_restrict_unprivileged_userns is 1)."
        )
        commands = (
            "neuro doctor --apparmor | sudo tee /etc/apparmor.d/neuro",
            "sudo apparmor_parser -r /etc/apparmor.d/neuro",
        )
        return Finding(name, "failed", text, "\n".join(commands))
    text = (
        f"{whose} may not make them: {reason}. In a container, whoever starts it decides"
        " (Docker: --privileged)."
    )
    return Finding(name, "failed", text)


def _system_calls() -> Finding:
    reason = trials.refusal("system-calls")
    if reason is not None:
        text = f"The filter of system calls (seccomp) cannot be installed: {reason}."
        return Finding("system calls", "failed", text)
    return Finding("system calls", "ok", "The kernel takes the filter of system calls (seccomp).")


def _mapped_mounts(
    folder: str, storage: str | None, settings: SandboxSettings
) -> Iterator[Finding]:
    better = "a data folder on ext4, xfs, btrfs or tmpfs with --data-dir"
    yield _mapped("id-mapped mounts", "data folder", folder, better, settings)
    if storage is not None and os.stat(storage).st_dev != os.stat(folder).st_dev:
        better = "one on ext4, xfs, btrfs or tmpfs with `folder` below [storage] in server.toml"
        yield _mapped("storage", "storage", storage, better, settings)


def _mapped(name: str, whose: str, folder: str, better: str, settings: SandboxSettings) -> Finding:
    kind, place = _file_system(folder)
    if trials.refusal("mapped-mount", folder) is None:
        text = f"The {whose}'s file system ({kind}) has id-mapped mounts."
        return Finding(name, "ok", text)
    text = f"The {whose}'s file system ({kind} at {place}) does not have id-mapped mounts."
    if settings.shared_ids:
        return Finding(name, "warning", f"{text} So all jobs are one user (shared_ids).")
    advice = (
        f" Choose {better}, or accept a weaker fence between jobs: `shared_ids = true` below"
        " [sandbox] in server.toml."
    )
    return Finding(name, "failed", text + advice)


def _sandbox(folder: str, storage: str | None, settings: SandboxSettings) -> Iterator[Finding]:
    notices: list[str] = []
    try:
        blank = machine.unfenced(folder, settings, cgroups.Groups())
        plan = machine.fence(blank, settings, notices, storage)
    except machine.NoFence as error:
        text = f"A job cannot be fenced in here: {error.reason}."
        yield Finding("sandbox", "failed", text)
        return
    except (OSError, ValueError) as error:
        yield Finding("sandbox", "failed", f"A job cannot be fenced in here: {error}.")
        return
    if plan.shared_ids:
        yield Finding("sandbox", "warning", f"A sandbox was made here. {_sentence(notices.pop(0))}")
    elif plan.plain:
        who = "jobs are this user, in user namespaces of their own"
        yield Finding("sandbox", "ok", f"A sandbox was made here: {who}.")
    else:
        who = "each job has users of its own, which nobody else on this machine is"
        yield Finding("sandbox", "ok", f"A sandbox was made here: {who}.")
    for notice in notices:
        yield Finding("overlays", "warning", _sentence(notice))
    if not notices:
        text = "Jobs may write to /usr and /etc, each in layers of its own."
        yield Finding("overlays", "ok", text)


def _control_groups(settings: SandboxSettings, *, plain: bool) -> Finding:
    name = "control groups"
    version, controllers = hierarchies.prospect(settings.cgroup_root)
    missing = [one for one in ("memory", "cpu", "pids") if one not in controllers]
    if not version:
        text = "None may be made from here: memory is held by watching, CPU by choosing cores."
        unified = os.path.exists(f"{settings.cgroup_root}/cgroup.controllers")
        delegated = plain and unified and shutil.which("systemd-run") is not None
        command = "systemd-run --user --scope -p Delegate=yes neuro up" if delegated else ""
        return Finding(name, "warning", text, command)
    if missing:
        text = f"Version {version} is there without {', '.join(missing)}: jobs have no limit of it."
        return Finding(name, "warning", text)
    text = f"Version {version} holds the memory, CPU and processes of each job."
    return Finding(name, "ok", text)


_SHARED = "Jobs share this machine's network, as server.toml says: no fence is between their ports."


def _networks(settings: SandboxSettings) -> Finding:
    if settings.network == "shared":
        return Finding("network", "warning", _SHARED)
    identity = secrets.token_hex(4)
    try:
        subnet = nat.choose_subnet()
        notices = nat.prove(machine.rules_for(identity, subnet, settings))
        machine.prove_veth(subnet, nat.default_mtu(), network_of_runs.interfaces(identity))
    except (nat.NoNetwork, OSError) as error:
        text = (
            f"Jobs cannot have networks of their own: {error}. Or accept the machine's own, without"
            " a fence: `shared = true` below [network] in server.toml."
        )
        return Finding("network", "failed", text, "" if _has_rules() else _install("nftables"))
    if notices:
        text = f"{_sentence(notices[0])} {_private(settings)}"
        return Finding("network", "warning", text, _install("nftables"))
    text = f"Each job has a network of its own, behind rules of nft. {_private(settings)}"
    return Finding("network", "ok", text)


def _private(settings: SandboxSettings) -> str:
    if settings.private_networks:
        return (
            "Jobs reach private networks such as your LAN: `[network] private = false` in"
            " server.toml closes them."
        )
    return "Jobs do not reach private networks, as server.toml says."


def _has_rules() -> bool:
    return shutil.which("nft") is not None


def _networks_of_a_user(settings: SandboxSettings) -> Iterator[Finding]:
    if settings.network == "shared":
        yield Finding("network", "warning", _SHARED)
        return
    if os.access(machine.TUN, os.R_OK | os.W_OK):
        yield Finding(machine.TUN, "ok", "This user may open it.")
    else:
        there = os.path.exists(machine.TUN)
        command = f"sudo chmod 666 {machine.TUN}" if there else "sudo modprobe tun"
        what = "This user may not open it" if there else "It is not there"
        yield Finding(machine.TUN, "warning", f"{what}, and pasta needs it.", command)
    command = _install("passt") if shutil.which("pasta") is None else ""
    try:
        machine.pasta_network(settings)
    except nat.NoNetwork as error:
        text = f"Jobs share this machine's network, without a fence between their ports: {error}."
        yield Finding("network", "warning", text, command)
        return
    text = f"Each job has a network of its own, through pasta. {_private(settings)}"
    yield Finding("network", "ok", text)


def _gpus(settings: SandboxSettings) -> Finding:
    found = machine.gpus(settings.device_folder)
    if found:
        model = machine.gpu_model()
        count = "1 GPU" if len(found) == 1 else f"{len(found)} GPUs"
        return Finding("GPUs", "ok", f"Jobs may use {count}{f' ({model})' if model else ''}.")
    if _has_nvidia_hardware():
        text = (
            "There is an NVIDIA GPU without device files: install NVIDIA's driver, or make the"
            " files if it is installed."
        )
        return Finding("GPUs", "warning", text, _as_root("nvidia-modprobe -u -c 0"))
    return Finding("GPUs", "ok", "There is no NVIDIA GPU: jobs use the CPU.")


def _has_nvidia_hardware() -> bool:
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor = (device / "vendor").read_text("ascii").strip()
            kind = (device / "class").read_text("ascii")
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAYS):
            return True
    return False


def _disk(folder: str) -> Finding:
    disk = os.statvfs(folder)
    if not disk.f_blocks:
        return Finding("disk", "ok", "The data folder's file system does not say what is free.")
    free = disk.f_bavail * disk.f_frsize
    amount = f"{free / (1 << 30):.1f} GiB" if free >= 1 << 30 else f"{free >> 20} MiB"
    text = f"{amount} are free where the data folder is"
    if free < _LITTLE_ROOM:
        state: Literal["warning", "failed"] = "failed" if free < _NO_ROOM else "warning"
        return Finding("disk", state, f"{text}: free some space there.")
    return Finding("disk", "ok", f"{text}.")


def _file_system(path: str) -> tuple[str, str]:
    """The kind of the file system that ``path`` is on, and where that is mounted."""
    best, kind = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            place = fields.split()[4].encode().decode("unicode_escape")
            inside = place == "/" or path == place or path.startswith(place + "/")
            if inside and len(place) >= len(best):  # the last of several at one place is on top
                best, kind = place, rest.split()[0]
    return kind, best


def _setting(name: str) -> str | None:
    try:
        return (_SYSCTL / name).read_text("ascii").strip()
    except OSError:
        return None


def _set(name: str, value: str) -> str:
    text = f"{name.replace('/', '.')}={value}"
    tee = _as_root("tee /etc/sysctl.d/60-neuro.conf")
    return f"echo {text} | {tee}\n{_as_root('sysctl --system')}"


def _install(package: str) -> str:
    """The command that installs it with this machine's package manager."""
    for program, words in _MANAGERS:
        if shutil.which(program):
            return _as_root(f"{words} {package}")
    return ""


def _as_root(command: str) -> str:
    return command if os.geteuid() == 0 else f"sudo {command}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
