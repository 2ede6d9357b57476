"""The process that becomes a run's command: number 2 in its pid namespace.

It makes the run's root, waits until the run is asked for, does what the run wants besides, and
begins the command in its own place. From its entry into the run's namespaces on it has no rights
over the host, and what it was given by descriptor is all that it can reach of it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import NoReturn

from neuro.engines.sandbox import (
    cgroups,
    image_root,
    init,
    inside,
    ipc,
    kernel,
    launch,
    launcher,
    nesting,
    network,
    stage,
    wire,
)
from neuro.engines.sandbox.identities import Block

COUNT = struct.Struct("<I")
BATCH = 200  # descriptors in one message; the kernel takes 253

# What is told while the berth is made: that it is ready, with its address, or the reason why not.
READY, REFUSED = b"r", b"x"


def main(
    plan: launch.Plan,
    block: Block,
    group: cgroups.Group,
    folder: str,
    channel: socket.socket,
    lifeline: socket.socket,
) -> NoReturn:
    """Become a run's command. Does not return.

    ``channel`` leads to the supervisor, ``lifeline`` to the first process. The run will be in
    ``group``, its users are those of ``block``, its private files in ``folder``.
    """
    try:
        kernel.set_name("neuro-command")
        try:
            address, limits = _prepare(plan, block, group, folder)
            init.lead(lifeline, launch.namespaces(plan))
        except Exception as error:
            channel.send(REFUSED + str(error).encode("utf-8", "replace")[:1024])
            os._exit(1)
        channel.send(READY + address.encode())
        descriptors = _receive(channel)
        if descriptors:
            _run(plan, descriptors, limits)
    finally:  # nothing may return from here: this is a copy
        os._exit(1)


def _prepare(
    plan: launch.Plan, block: Block, group: cgroups.Group, folder: str
) -> tuple[str, dict[str, int]]:
    """Everything that does not depend on the run; its address, and limits yet to be set (``ipc``).

    Raises OSError.
    """
    os.umask(0o022)
    group.create()
    launch.make_layers(plan, folder, block)
    group.join()
    address = "127.0.1.1"
    if plan.network.kind == launch.OWN:
        net = plan.network
        address = network.enter_new(net.subnet, net.mtu, net.prefix)
    stage.build(plan, folder, block)
    inside.mount_proc()
    _leave_the_host(plan, block)
    if plan.network.kind == launch.PASTA:
        network.raise_loopback()
        network.open_low_ports()
    limits = ipc.open_limits() if plan.groups.version == 0 else {}
    inside.make_root(plan.userland, plain=plan.plain)
    return address, limits


def _leave_the_host(plan: launch.Plan, block: Block) -> None:
    """Enter namespaces of the run's own; from here on there are no rights over the machine."""
    if plan.plain:
        kernel.unshare(kernel.CLONE_NEWUSER)
        kernel.map_own_ids(0, 0)
    else:
        os.setgroups([])
        kernel.setns(block.users, kernel.CLONE_NEWUSER)
    kernel.become_root_inside()
    kernel.hide_memory()  # not before: who is hidden may not name the users of its own namespace
    new = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
    kernel.unshare(new | (kernel.CLONE_NEWNET if plan.network.kind == launch.PASTA else 0))


def _receive(channel: socket.socket) -> list[int]:
    received: list[int] = []
    while True:
        head, fds = wire.receive_descriptors(channel, COUNT.size, BATCH)
        received += fds
        if not head or len(received) == COUNT.unpack(head)[0]:
            return received if head else []


def _run(plan: launch.Plan, descriptors: Sequence[int], limits: Mapping[str, int]) -> NoReturn:
    given, stdin, output, word, *trees = descriptors
    order = launch.Order(**json.loads(wire.read_whole(given)))
    try:
        ipc.bound(limits, order.memory)
        _arrange(plan, order, trees)
        command = launch.command_of(plan, order)
    except (OSError, ValueError, inside.Refused) as error:
        code = launcher.code_of(error)
        if code == launcher.NOT_READY and isinstance(error, inside.Refused):
            volumes = trees[len(order.devices) :][: len(order.volumes)]
            code = launcher.VOLUME_NOT_READY if inside.lies_on(error.place, volumes) else code
        os.write(word, launcher.refused(code, launcher.reason_of(error)))
        os._exit(1)
    for tree in trees:
        os.close(tree)
    launcher.become(command, (stdin, output, output), word)


def _arrange(plan: launch.Plan, order: launch.Order, trees: Sequence[int]) -> None:
    devices, volumes = len(order.devices), len(order.volumes)
    layers = trees[devices + volumes :]
    if order.layers is not None:
        private = layers[-1] if plan.userland.writable else None
        image_root.enter(layers[:-1], private, launch.upper_of_image(plan), order.memory)
    kernel.set_hostname(order.hostname)
    inside.mount_shared_memory(order.shm)
    inside.mount_devices(list(zip(trees, order.devices, strict=False)))
    given = zip(trees[devices:][:volumes], order.volumes, strict=True)
    if order.nesting:
        nesting.arrange(plan, layers)
    closed = nesting.closed(plan) if order.nesting else ()
    inside.mount_volumes([(tree, *volume) for tree, volume in given], closed)
    if order.nesting:
        nesting.freeze(plan)
    inside.make_working_folder(order.working_dir)
