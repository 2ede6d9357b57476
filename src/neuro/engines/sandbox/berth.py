"""What every run needs, whichever it is, made before it is asked for.

A berth is a control group, private folders, and the process that will become the sandbox, already
in the group and in a network of its own. Making it takes longer than all the rest of a short run,
most of it waiting: a process that joins a group waits for a grace period of the kernel's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from dataclasses import asdict, replace

from neuro.engines.sandbox import bwrap, cgroups, launch, layout, network, tree, wire

_COUNT = struct.Struct("<I")
_ROOT = "root"
_BATCH = 200  # descriptors in one message; the kernel takes 253


class Berth:
    """One berth; ``name`` is that of its folder and of its control group."""

    def __init__(self, plan: launch.Plan, name: str) -> None:
        self.name = name
        self.group = cgroups.Group(plan.groups, name)
        self.pid = 0
        self._plan = plan
        self._folder = layout.berth_folder(plan.folder, name)
        self._channel: socket.socket | None = None
        self._has_tree = False
        self._refusal: OSError | None = None

    def make(self) -> None:
        """Begin to make it. What is impossible is told to the run that comes (``occupy``)."""
        try:
            self.group.create()
            launch.make_layers(self._plan, self._folder)
            if self._plan.userland.writable and not self._plan.user_namespace:
                layers = launch.layers_in(self._plan, self._folder)
                self._has_tree = tree.build(layers, f"{self._folder}/{_ROOT}")
            outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.pid = os.fork()
        except OSError as error:
            self._refusal = error
            return
        if self.pid == 0:
            outer.close()
            _wait_and_become(self._plan, self.group, inner)
        inner.close()
        self._channel = outer

    def occupy(self, run_folder: str) -> bwrap.Layers:
        """Give the private folders to a run. Raises OSError where the berth could not be made."""
        if self._refusal is not None:
            raise self._refusal
        place = f"{run_folder}/layers"
        os.rename(self._folder, place)
        layers = launch.layers_in(self._plan, place)
        return replace(layers, mounted=f"{place}/{_ROOT}") if self._has_tree else layers

    def clear(self, place: str) -> None:
        """Delete the private folders, which are at ``place`` now. Raises OSError."""
        tree.clear(f"{place}/{_ROOT}")  # or all that it shows would be deleted
        layout.remove_tree(place)

    def begin(self, prepared: launch.Prepared, streams: tuple[int, int]) -> None:
        """Let the process become the sandbox with ``streams`` as its stdin and output."""
        assert self._channel is not None
        text = json.dumps(asdict(prepared.order)).encode()
        with open(os.memfd_create("order"), "r+b", buffering=0) as file:
            file.write(text)
            everything = [file.fileno(), *streams, *prepared.passed]
            head = _COUNT.pack(len(everything))
            try:
                for start in range(0, len(everything), _BATCH):
                    batch = everything[start : start + _BATCH]
                    socket.send_fds(self._channel, [head], batch)
            except BrokenPipeError:
                pass  # it was killed: its status tells
        self._channel.close()
        self._channel = None
        for fd in prepared.passed:
            os.close(fd)

    def discard(self) -> None:
        """No run began in it: take all of it away."""
        if self._channel is not None:
            self._channel.close()
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.group.remove()
        self.clear(self._folder)


def _wait_and_become(plan: launch.Plan, group: cgroups.Group, channel: socket.socket) -> None:
    """The process: prepare, wait for the order, become bubblewrap. Does not return."""
    try:
        refusal, address = None, "127.0.1.1"
        try:
            os.setsid()
            group.join()
            if plan.network.kind == launch.OWN:
                net = plan.network
                address = network.enter_new(net.subnet, net.mtu, net.prefix)
        except OSError as error:
            refusal = error
        descriptors = _receive(channel)
        if descriptors:
            _become(plan, address, refusal, descriptors)
    finally:  # nothing may return from here: this is a copy
        os._exit(1)


def _receive(channel: socket.socket) -> list[int]:
    received: list[int] = []
    while True:
        head, fds = wire.receive_descriptors(channel, _COUNT.size, _BATCH)
        received += fds
        if not head or len(received) == _COUNT.unpack(head)[0]:
            return received if head else []


def _become(
    plan: launch.Plan, address: str, refusal: OSError | None, descriptors: list[int]
) -> None:
    given, stdin, output, *passed = descriptors
    try:
        if refusal is not None:
            raise refusal
        with open(given, "rb") as file:
            file.seek(0)
            order = launch.Order(**json.load(file))
        launch.write_own_files(order.etc, order.hostname, address)
        launch.limit_process(plan.groups.version, order.cpu)
        if os.geteuid() == 0:
            os.setgroups([])
        launch.reset_signals()
        for fd, number in zip(passed, launch.passed_numbers(len(passed)), strict=True):
            os.dup2(fd, number)
        for number, fd in enumerate((stdin, output, output)):
            os.dup2(fd, number)
        os.chdir("/")
        os.execve(plan.bwrap, order.command, {launch.MARK: order.mark})
    except BaseException as error:
        os.write(output, f"the sandbox cannot start: {error}\n".encode())
