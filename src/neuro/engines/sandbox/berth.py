"""What every run needs, whichever it is, made before it is asked for.

A berth is a control group, private folders, and the first two processes of the run, in namespaces
of their own and at its root, the second one already in the group. Making it takes longer than all
the rest of a short run, most of it waiting: a process that joins a group waits for a grace period
of the kernel's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import asdict

from neuro.engines.sandbox import becoming, cgroups, init, kernel, launch, layout
from neuro.engines.sandbox.identities import Block


class Berth:
    """One berth; ``name`` is that of its folder and of its control group.

    ``pid`` is the first process, ``channel`` what it tells once the run began. ``address`` is known
    once the berth is occupied.
    """

    def __init__(self, plan: launch.Plan, name: str, block: Block) -> None:
        self.name = name
        self.group = cgroups.Group(plan.groups, name)
        self.pid = 0
        self.channel: socket.socket | None = None
        self.address = ""
        self._plan = plan
        self._block = block
        self._folder = layout.berth_folder(plan.folder, name)
        self._refusal: OSError | None = None

    def make(self, zygote: socket.socket) -> None:
        """Begin to make it. What is impossible is told to the run that comes (``occupy``).

        ``zygote`` is ours alone: it must see our end at once.
        """
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # Before anything else: what this process has touched by then, both will hold a copy of.
            self.pid = kernel.clone(kernel.CLONE_NEWPID)
        except OSError as error:
            self._refusal = error
            return
        if self.pid == 0:
            outer.close()
            zygote.close()
            init.main(self._plan, self._block, self.group, self._folder, inner)
        inner.close()
        self.channel = outer

    def _expect(self, kind: bytes) -> str:
        """The rest of the next message, which is of this kind. Raises OSError."""
        assert self.channel is not None
        message = self.channel.recv(2048)
        if message[:1] == kind:
            return message[1:].decode("utf-8", "replace")
        reason = message[1:].decode("utf-8", "replace") or "its first process ended"
        raise OSError(0, reason)

    def occupy(self, run_folder: str) -> None:
        """Give the private folders to a run, once all is ready.

        Raises OSError where the berth could not be made.
        """
        if self._refusal is not None:
            raise self._refusal
        self.address = self._expect(becoming.READY)
        os.rename(self._folder, f"{run_folder}/layers")

    def begin(self, prepared: launch.Prepared, run_folder: str, passed: tuple[int, ...]) -> None:
        """Let the run begin; ``passed`` are its stdin, its output and the word (``launcher``)."""
        assert self.channel is not None
        etc = launch.own_etc(self._plan, f"{run_folder}/layers")
        launch.write_own_files(etc, prepared.order.hostname, self.address)
        with open(os.memfd_create("order"), "r+b", buffering=0) as file:
            file.write(json.dumps(asdict(prepared.order)).encode())
            everything = [file.fileno(), *passed, *prepared.trees]
            head = becoming.COUNT.pack(len(everything))
            try:
                for start in range(0, len(everything), becoming.BATCH):
                    batch = everything[start : start + becoming.BATCH]
                    socket.send_fds(self.channel, [head], batch)
            except BrokenPipeError:
                pass  # it was killed: its end tells
        for tree in prepared.trees:
            os.close(tree)

    def end_process(self) -> None:
        """Kill the first process, in which no run began, and wait for its end."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def discard(self) -> None:
        """No run began in it: take all of it away."""
        self.end_process()
        self.group.remove()
        layout.remove_tree(self._folder)
