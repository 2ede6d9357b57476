"""How the zygote gives a run to a supervisor that waits for one."""

from __future__ import annotations

import json
import os
import socket

from neuro.engines.sandbox import launch, wire


def hand_over(supervisor: socket.socket, request: bytes, listener: socket.socket) -> None:
    """Give a run to a supervisor that waits for one. Raises OSError where it is gone."""
    with open(os.memfd_create("request"), "r+b", buffering=0) as file:
        file.write(request)
        socket.send_fds(supervisor, [b"r"], [file.fileno(), listener.fileno()])


def receive_run(zygote: socket.socket) -> tuple[launch.Request, socket.socket] | None:
    """Wait for what ``hand_over`` gives. Returns None where the zygote is gone."""
    _, given = wire.receive_descriptors(zygote, 1, 2)
    zygote.close()
    if len(given) != 2:
        return None
    request = launch.request_from(json.loads(wire.read_whole(given[0])))
    return request, socket.socket(fileno=given[1])
