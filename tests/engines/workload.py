"""What training code asks of the system, in one program: prints "all well" when all of it works."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import mmap
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import shared_memory


def double(number: int) -> int:
    return 2 * number


def write_into(name: str, value: int) -> None:
    memory = shared_memory.SharedMemory(name)
    memory.buf[0] = value
    memory.close()


def threads() -> None:
    seen: list[int] = []
    started = [threading.Thread(target=seen.append, args=(number,)) for number in range(8)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert sorted(seen) == list(range(8))


def processes(method: str) -> None:
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(double, range(10))) == [2 * number for number in range(10)]
    memory = shared_memory.SharedMemory(create=True, size=4096)
    try:
        child = context.Process(target=write_into, args=(memory.name, 7))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert memory.buf[0] == 7
    finally:
        memory.close()
        memory.unlink()


def programs() -> None:
    done = subprocess.run("echo hello | tr a-z A-Z", shell=True, capture_output=True, check=True)
    assert done.stdout == b"HELLO\n"
    subprocess.run(["true"], start_new_session=True, close_fds=False, check=True)  # vfork


def descriptors() -> None:
    with mmap.mmap(-1, 4096) as shared:
        if os.fork() == 0:
            shared[0] = 1
            os._exit(0)
        os.wait()
        assert shared[0] == 1
    descriptor = os.memfd_create("weights")
    os.ftruncate(descriptor, 1 << 20)
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    child = subprocess.Popen(["sleep", "60"])
    handle = os.pidfd_open(child.pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tool")
        with open(path, "w") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 16)
        os.chmod(path, 0o4755)  # packages bring setuid files
        os.link(path, path + "-2")
        os.mkfifo(path + "-fifo")
        assert sorted(os.listdir(folder)) == ["tool", "tool-2", "tool-fifo"]


def networks() -> None:
    socket.if_nameindex()
    # The C library asks the kernel for addresses over netlink before it answers.
    socket.getaddrinfo("localhost", 80, flags=socket.AI_ADDRCONFIG)
    listening = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(listening.getsockname()) as near:
        far, _ = listening.accept()
        near.sendall(b"x")
        assert far.recv(1) == b"x"
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [0])
    assert len(socket.recv_fds(right, 1, 1)[1]) == 1


async def loops() -> None:
    started = await asyncio.create_subprocess_exec("true")
    assert await started.wait() == 0
    await asyncio.to_thread(os.getpid)


def memory_policy() -> None:
    """The C library has no wrapper: numactl's numbers by architecture."""
    number = {"x86_64": 239, "aarch64": 236}[os.uname().machine]
    mode = ctypes.c_int(-1)
    assert ctypes.CDLL(None).syscall(number, ctypes.byref(mode), None, 0, None, 0) == 0
    assert mode.value >= 0


def main() -> None:
    threads()
    for method in ("fork", "spawn", "forkserver"):
        processes(method)
    programs()
    descriptors()
    files()
    networks()
    asyncio.run(loops())
    memory_policy()
    print("all well")


if __name__ == "__main__":
    sys.exit(main())
