"""What every run needs, whichever it is, made before it is asked for.

A berth is a control group, private folders, and the first two processes of the run, in namespaces
of their own and at its root, the second one already in the group. Making it takes longer than all
the rest of a short run, most of it waiting: a process that joins a group waits for a grace period
of the kernel's.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct

from neuro.engines.sandbox import becoming, cgroups, init, kernel, launch, layout
from neuro.engines.sandbox.identities import Block

_PIDS = struct.Struct("<iii")  # of both processes, and an errno


class Berth:
    """One berth; ``name`` is that of its folder and of its control group.

    ``init`` and ``command`` are the first two processes. ``address`` is known once the berth is
    occupied.
    """

    def __init__(self, plan: launch.Plan, name: str, block: Block) -> None:
        self.name = name
        self.group = cgroups.Group(plan.groups, name)
        self.init = self.command = 0
        self.address = ""
        self._plan = plan
        self._block = block
        self._folder = layout.berth_folder(plan.folder, name)
        self._channel: socket.socket | None = None
        self._lifeline: socket.socket | None = None
        self._refusal: OSError | None = None
        self._mounts: list[int] = []

    def make(self, zygote: socket.socket) -> None:
        """Begin to make it. What is impossible is told to the run that comes (``occupy``).

        ``zygote`` is ours alone: it must see our end at once. From here on orphans become our
        children: the proxy's, and what ``entering`` starts by way of another process.
        """
        try:
            kernel.become_subreaper()
            # Before anything else: what this process has touched, the second one holds a copy of.
            self._make_processes(zygote)
        except OSError as error:
            self._refusal = error

    def _make_processes(self, zygote: socket.socket) -> None:
        self._lifeline, init_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel, command_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with init_end, command_end:
            if self._plan.plain:
                self._make_by_proxy(zygote, init_end, command_end)
                return
            home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            try:
                kernel.unshare(kernel.CLONE_NEWPID)
                try:
                    self._start(zygote, init_end, command_end)
                finally:
                    kernel.setns(home, kernel.CLONE_NEWPID)
            finally:
                os.close(home)

    def _make_by_proxy(
        self, zygote: socket.socket, init_end: socket.socket, command_end: socket.socket
    ) -> None:
        """Let another process start them: without rights over the host there is no way back.

        It ends, and its children become ours.
        """
        heard, told = os.pipe()
        try:
            proxy = os.fork()
            if proxy == 0:
                try:
                    kernel.unshare(kernel.CLONE_NEWPID)
                    self._start(zygote, init_end, command_end)
                    os.write(told, _PIDS.pack(self.init, self.command, 0))
                except OSError as error:
                    os.write(told, _PIDS.pack(self.init, 0, error.errno or errno.EIO))
                finally:
                    os._exit(0)
            os.waitpid(proxy, 0)
            os.write(told, _PIDS.pack(0, 0, errno.ESRCH))  # read only where it said nothing
            self.init, self.command, number = _PIDS.unpack(os.read(heard, _PIDS.size))
        finally:
            os.close(heard)
            os.close(told)
        if number:
            raise OSError(number, os.strerror(number))

    def _start(
        self, zygote: socket.socket, init_end: socket.socket, command_end: socket.socket
    ) -> None:
        """Start both processes as our children, which are born in the new pid namespace."""
        assert self._lifeline is not None
        assert self._channel is not None
        self.init = init.start(init_end)
        self.command = os.fork()
        if self.command == 0:
            try:
                for end in (init_end, self._channel, zygote):
                    end.close()
                becoming.main(
                    self._plan, self._block, self.group, self._folder, command_end, self._lifeline
                )
            finally:  # nothing may return from here: this is a copy
                os._exit(1)

    def _expect(self, kind: bytes) -> str:
        """The rest of the next message, which is of this kind. Raises OSError."""
        assert self._channel is not None
        message = self._channel.recv(2048)
        if message[:1] == kind:
            return message[1:].decode("utf-8", "replace")
        reason = message[1:].decode("utf-8", "replace") or "its processes ended too early"
        raise OSError(0, reason)

    def occupy(self, run_folder: str) -> None:
        """Give the private folders to a run, once all is ready.

        Raises OSError where the berth could not be made.
        """
        if self._refusal is not None:
            raise self._refusal
        self.address = self._expect(becoming.READY)
        os.rename(self._folder, f"{run_folder}/layers")
        self._hold_mounts()

    def _hold_mounts(self) -> None:
        """Let the mounts outlive the processes, so that nobody waits for them to be taken down.

        The kernel waits for each overlay in turn, and until then no end of its process is told.
        """
        self._hold("ns/mnt", os.O_RDONLY)

    def hold_userland(self) -> None:
        """The same for the overlays of the root that a run with an image leaves as it begins."""
        for path in ("/", *self._plan.userland.overlays):
            self._hold(f"root{path}", os.O_PATH)

    def _hold(self, name: str, flags: int) -> None:
        try:
            self._mounts.append(os.open(f"/proc/{self.command}/{name}", flags | os.O_CLOEXEC))
        except OSError:
            pass  # a plain user may not look there: the processes take them down as they go

    def release_mounts(self) -> None:
        """Take down the mounts. Before that, what is deleted below them keeps its space."""
        for fd in self._mounts:
            os.close(fd)
        self._mounts.clear()

    def begin(self, prepared: launch.Prepared, run_folder: str, passed: tuple[int, ...]) -> None:
        """Let the run begin; ``passed`` are its stdin, its output and the word (``launcher``)."""
        assert self._channel is not None
        etc = launch.own_etc(self._plan, f"{run_folder}/layers")
        launch.write_own_files(etc, prepared.order.hostname, self.address)
        with self._channel, open(os.memfd_create("order"), "r+b", buffering=0) as file:
            file.write(json.dumps(vars(prepared.order)).encode())
            everything = [file.fileno(), *passed, *prepared.trees]
            head = becoming.COUNT.pack(len(everything))
            try:
                for start in range(0, len(everything), becoming.BATCH):
                    batch = everything[start : start + becoming.BATCH]
                    socket.send_fds(self._channel, [head], batch)
            except BrokenPipeError:
                pass  # it was killed: its end tells
        for tree in prepared.trees:
            os.close(tree)

    def release_init(self) -> None:
        """Let the first process end, and all that is left of the run with it."""
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None

    def end_processes(self) -> None:
        """Kill the processes, in which no run began, and wait for their end."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.release_init()
        if self.init:
            os.kill(self.init, signal.SIGKILL)
        for pid in (self.command, self.init):
            if pid:
                os.waitpid(pid, 0)
        self.init = self.command = 0

    def discard(self) -> None:
        """No run began in it: take all of it away. What cannot go is swept at a server's start."""
        self.end_processes()
        self.release_mounts()
        try:
            self.group.remove()
            layout.remove_tree(self._folder)
        except OSError:  # perhaps what the run could not begin for: the reason is told, not this
            pass
