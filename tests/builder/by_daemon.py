"""Builds in the network of the tests' daemon, beside a registry that both reach.

``python -m tests.builder.by_daemon FOLDER SOCKET`` reads ``Asked`` as JSON, and writes ``Told``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from neuro.docker.build_place import BuildPlace, as_environment
from tests.builder.registry import place
from tests.engines import docker_daemon
from tests.engines.relayed import relayed

_CHECKOUT = Path(__file__).parents[2]


class Asked(msgspec.Struct, kw_only=True):
    """One build: ``HOST`` and ``BASE`` in the text stand for the registry and its small image."""

    text: str
    words: list[str] = []
    owner: str = "ada"
    files: dict[str, str] = {}
    to: str = "me/made:v1"
    password: str = ""
    logged_in: bool = True


class Told(msgspec.Struct, kw_only=True):
    """What came of it; ``layers`` are the names in each, none where nothing was pushed."""

    code: int
    said: str
    layers: list[list[str]] = []
    config: dict[str, Any] = {}


def build(folder: Path, *asked: Asked, busybox: bytes) -> list[Told]:
    """Build all of it, one after the other."""
    socket = docker_daemon.socket_path()
    (folder / "sh").write_bytes(busybox)
    network = f"--net=/proc/{docker_daemon.process()}/ns/net"
    program = [sys.executable, "-m", __name__, str(folder), socket]
    ran = subprocess.run(
        ["nsenter", network, *program],
        input=msgspec.json.encode(asked),
        stdout=subprocess.PIPE,
        check=True,
        cwd=_CHECKOUT,
        timeout=500,
    )
    return msgspec.json.decode(ran.stdout, type=list[Told])


def main() -> None:
    folder, socket = Path(sys.argv[1]), sys.argv[2]
    told = []
    with place(folder, (folder / "sh").read_bytes(), folder / "context") as here:
        here.registry.asks = "basic"
        for one in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Asked]):
            here.registry.password = one.password
            config = folder / "docker"
            config.mkdir(exist_ok=True)
            auths = {here.host: {"username": "me", "password": one.password}}
            known = auths if one.logged_in and one.password else {}
            (config / "config.json").write_text(json.dumps({"auths": known}))
            for name, content in one.files.items():
                (here.context / name).write_text(content)
            environment: Mapping[str, str] = {
                "DOCKER_CONFIG": str(config),
                **as_environment(BuildPlace(here.host, one.owner)),
            }
            text = one.text.replace("HOST", here.host)
            words = [word.replace("CONTEXT", str(here.context)) for word in one.words]
            (folder / "place").unlink(missing_ok=True)
            with relayed(folder, socket) as relay:
                code, said = here.build(text, *words, to=one.to, env=environment, socket=relay)
            here.registry.password = ""
            found = Told(code=code, said=said)
            if code == 0 and one.to:
                repository, _, tag = one.to.partition(":")
                found.layers = here.layers(repository, tag)
                found.config = here.config(repository, tag)  # type: ignore[assignment]
            told.append(found)
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
