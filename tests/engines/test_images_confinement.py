"""Who unpacks a layer has its folder, and nothing else of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

CODE = """
import ctypes, os, socket, stat, sys
from neuro.engines.images import confinement

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def write_much():
    with open("/much", "wb") as file:
        file.write(bytes(2000))


TRIES = {
    "read a file of the machine": lambda: open("/etc/passwd"),
    "leave upwards": lambda: os.stat("/../../etc"),
    "see processes": lambda: os.listdir("/proc"),
    "end who started it": lambda: os.kill(os.getppid() or int(sys.argv[3]), 0),
    "connect": lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[2]))),
    "make a device": lambda: os.mknod("/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
    "mount": lambda: call("mount", b"none", b"/", b"tmpfs", 0, None),
    "leave for another namespace": lambda: call("unshare", 0x10000000),
    "become somebody else": lambda: os.setuid(1),
    "write more than allowed": write_much,
}


def work(root, owners):
    found = {"sees": os.listdir("/"), "number": os.getpid()}
    for name, attempt in TRIES.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as error:
            found[name] = "refused"
    open("/made", "w").close()
    return found


confinement.run(sys.argv[1], work, passed=0, largest=1000, seconds=1)
"""


# Who was busy for too long may say so, and whoever cannot is ended.
BUSY = """
from neuro.engines.images import confinement


def work(root, owners):
    while True:
        pass


confinement.run(sys.argv[1], work, passed=0, largest=1000, seconds=1)
"""


def answer(code: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a confined process says. Its report is descriptor 3."""
    heard, told = os.pipe()
    command = [sys.executable, "-c", f"import os, sys; os.dup2({told}, 3)\n{code}", str(folder)]
    subprocess.run([*command, *arguments], pass_fds=[told], check=True)
    os.close(told)
    with os.fdopen(heard, "rb") as report:
        found: dict[str, Any] = json.loads(report.read())
    return found


def test_who_takes_too_much_processor_time_is_ended(tmp_path: Path) -> None:
    found = answer(BUSY, tmp_path)

    assert found["kind"] == "refused"
    assert "too much processor time" in found["sentence"]


def test_a_confined_process_reaches_nothing_but_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        found = answer(CODE, folder, port, str(os.getpid()))

    assert found.pop("sees") == ["mine"]
    assert found.pop("number") == 1
    assert set(found.values()) == {"refused"}
    assert len(found) == 10
    assert sorted(os.listdir(folder)) == ["made", "mine", "much"]
