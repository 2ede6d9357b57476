"""The supervisor's loop: children are buried as they end, and nothing wakes it up for nothing."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from neuro.engines.sandbox.loop import READ, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = signal.getsignal(signal.SIGCHLD)
    loop = Loop()
    loop.bury_children()
    yield loop
    os.close(signal.set_wakeup_fd(-1))
    signal.signal(signal.SIGCHLD, before)


def child(code: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    return pid


def test_who_asked_is_told_how_a_child_ended(loop: Loop) -> None:
    told: list[int] = []

    def ended(status: int) -> None:
        told.append(os.waitstatus_to_exitcode(status))
        loop.running = False

    nobodys = child(3)
    os.waitid(os.P_PID, nobodys, os.WEXITED | os.WNOWAIT)
    loop.on_end(child(7), ended)
    loop.run()

    assert told == [7]
    with pytest.raises(ChildProcessError):
        os.waitpid(nobodys, os.WNOHANG)


def test_a_loop_that_has_nothing_to_do_takes_no_time(loop: Loop) -> None:
    def stop() -> None:
        loop.running = False

    loop.on_end(child(0), lambda _: None)
    loop.after(0.5, stop)
    began = time.process_time()
    loop.run()

    assert time.process_time() - began < 0.1


def test_the_next_descriptor_of_a_number_is_not_told_what_the_last_one_was(loop: Loop) -> None:
    """As when a session's pipe closes while the next session's connection opens."""
    (first, told), (second, other) = os.pipe(), os.pipe()
    heard: list[int] = []

    def replace(_: int) -> None:
        for fd in (first, second):
            loop.forget(fd)
            os.close(fd)
        new = os.pipe()
        assert second in new
        loop.watch(second, READ, heard.append)
        loop.after(0, stop)

    def stop() -> None:
        loop.running = False

    os.close(other)  # the second one says that it is over, and the first one is heard before
    os.write(told, b"x")
    loop.watch(first, READ, replace)
    loop.watch(second, READ, replace)
    loop.run()

    assert heard == []


class CountedListener(socket.socket):
    """Counts how often it was asked for a connection."""

    asked = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        return super().accept()


def test_without_descriptors_a_connection_waits_and_nothing_spins(loop: Loop) -> None:
    accepted: list[socket.socket] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with CountedListener() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        loop.accept(listener, lambda connection: (accepted.append(connection), stop()))

        def stop() -> None:
            loop.running = False

        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            loop.after(0.35, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
            loop.run()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert len(accepted) == 1
        assert 2 <= listener.asked <= 6  # once every tenth of a second
        accepted[0].close()
