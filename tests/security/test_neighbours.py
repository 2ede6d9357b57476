"""What a job must not reach of another, and what it must not take from all."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess

import pytest

from neuro.engines.base import ExitCause
from tests.engines.harness import MIB, Runs
from tests.security.host import Host

pytestmark = pytest.mark.asyncio(loop_scope="module")


def has_own_network(runs: Runs) -> bool:
    return not any("share the host's network" in notice for notice in runs.engine.notices)


_SERVE = """
import socket, time
s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(64)
a = socket.socket(socket.AF_UNIX); a.bind(b'\\0neuro-private'); a.listen()
six = socket.socket(socket.AF_INET6); six.bind(('::', 0)); six.listen()
address = socket.gethostbyname(socket.gethostname())
print(address, s.getsockname()[1], six.getsockname()[1], flush=True)
time.sleep(600)
"""
_REACH = """
import socket, sys, threading
address, four, six = sys.argv[1:4]
def tried(name, family, where):
    s = socket.socket(family); s.settimeout(0.3)
    try:
        s.connect(where); print('REACHED', name)
    except OSError as error:
        print(name, error)
tried('ipv4', socket.AF_INET, (address, int(four)))
tried('mapped', socket.AF_INET6, ('::ffff:' + address, int(four)))
for scope in range(1, 5):
    tried('link-local', socket.AF_INET6, ('ff02::1', int(six), 0, scope))
tried('abstract', socket.AF_UNIX, b'\\0neuro-private')
tried('metadata', socket.AF_INET, ('169.254.169.254', 80))
for where in sys.argv[5:]:  # of which a machine may have hundreds
    host = 'host ' + where, socket.AF_INET, (where, int(sys.argv[4]))
    threading.Thread(target=tried, args=host).start()
"""


def addresses() -> list[str]:
    """Those of this machine."""
    said = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True)
    return re.findall(r"inet ([0-9.]+)", said.stdout)


async def test_anothers_ports_and_sockets_are_not_reached(runs: Runs) -> None:
    if not has_own_network(runs):
        pytest.skip("jobs share the host's network, as was accepted or must be here")
    other = await runs.start("python3", "-c", _SERVE)
    said = await runs.says(other.job_id, b"\n")
    hosts = await asyncio.to_thread(addresses)
    address, four, six = said.decode().split()

    with socket.create_server(("0.0.0.0", 0)) as service:
        port = str(service.getsockname()[1])
        reach = ("python3", "-c", _REACH, address, four, six, port, *hosts)
        done = await runs.run(*reach)

    assert "REACHED" not in done.output.decode()
    assert done.code == 0
    await runs.engine.stop(other, 0)


async def test_one_job_does_not_take_all_terminals(runs: Runs, host: Host) -> None:
    script = (
        "import os, time\ntry:\n  while True: os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)\n"
        "except OSError as error: print('full', flush=True)\ntime.sleep(600)"
    )
    greedy = [await runs.start("python3", "-c", script) for _ in range(3)]
    for ref in greedy:
        await runs.says(ref.job_id, b"full")

    done = await runs.run("python3", "-c", "import os; os.openpty(); print('mine')", tty=True)

    assert done.lines == ["mine"]
    for ref in greedy:
        await runs.engine.stop(ref, 0)


@pytest.mark.parametrize("place", ["/dev", "/dev/shm", "/run"])
async def test_files_in_memory_are_limited(runs: Runs, place: str) -> None:
    done = await runs.shell(
        f"for n in $(seq 300); do head -c 1000000 /dev/zero > {place}/$n || exit 7; done; sleep 3",
        memory=128 * MIB,
    )

    assert done.code == 7 or done.exited.cause == ExitCause.OUT_OF_MEMORY, done


_FILES_WITHOUT_A_NAME = """
import os, sys, threading
def hold():
    for _ in range(300):
        file = os.memfd_create('x')
        os.write(file, bytes(1 << 20))
{how}
print('all', flush=True)
sys.stdin.read()
"""
_OF_ITS_OWN = """
import ctypes
def alone():
    ctypes.CDLL(None).unshare(0x400)  # CLONE_FILES
    hold()
    threading.Event().wait()
threading.Thread(target=alone, daemon=True).start()
threading.Event().wait(3)
"""


@pytest.mark.parametrize("how", ["hold()", _OF_ITS_OWN], ids=["a process", "a thread"])
async def test_files_without_a_name_that_nobody_maps_are_limited(runs: Runs, how: str) -> None:
    script = _FILES_WITHOUT_A_NAME.format(how=how)

    done = await runs.run("python3", "-c", script, memory=128 * MIB, stdin=True)

    assert done.exited.cause == ExitCause.OUT_OF_MEMORY, done


_SEGMENTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmdt.argtypes = [ctypes.c_void_p]
for number in range(100):
    segment = libc.shmget(0, 4 << 20, 0o600)
    if segment < 0:
        sys.exit(f'{number} segments: {os.strerror(ctypes.get_errno())}')
    place = libc.shmat(segment, None, 0)
    ctypes.memset(place, 1, 4 << 20)
    libc.shmdt(place)
"""


async def test_shared_memory_that_nobody_maps_is_limited(runs: Runs) -> None:
    done = await runs.run("python3", "-c", _SEGMENTS, memory=128 * MIB)

    refused = done.code == 1 and done.output == b"32 segments: No space left on device\n"
    assert refused or done.exited.cause == ExitCause.OUT_OF_MEMORY, done


async def test_queues_and_semaphores_are_limited_where_memory_is_watched(runs: Runs) -> None:
    done = await runs.shell("cat /proc/sys/kernel/msgmni /proc/sys/kernel/sem", memory=128 * MIB)

    if os.geteuid() != 0:
        assert done.lines == ["1024", "250\t32000\t100\t1024"]


async def test_names_in_memory_are_limited(runs: Runs) -> None:
    script = """
import os
for place in ('/dev', '/run'):
    try:
        for number in range(100_000):
            os.mkdir(f'{place}/{number}')
        print('all', place)
    except OSError as error:
        print(error.strerror)
"""
    done = await runs.run("python3", "-c", script)

    assert done.lines == ["No space left on device"] * 2


_HIDE = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
for _ in range(30):
    file = os.open('/tmp/file', os.O_RDWR | os.O_CREAT)
    os.write(file, bytes(2 << 20))
    libc.mmap(None, 4096, 1, 1, file, 0)
    os.close(file)
    os.unlink('/tmp/file')
time.sleep(600)
"""


async def test_mapped_files_without_a_name_are_counted(runs: Runs, as_root: None) -> None:
    ref = await runs.start("python3", "-c", _HIDE, disk=20 * MIB)

    assert (await runs.exited(ref)).cause == ExitCause.DISK_LIMIT
