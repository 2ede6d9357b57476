"""A socket that the server's event loop takes over, and that ends meanwhile."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, gc, os, socket, uvloop
from neuro.engines.sandbox.taking import take

class Speaker(asyncio.Protocol):
    def __init__(self):
        self.over = asyncio.Event()
    def connection_made(self, transport):
        transport.write(b"hello")
    def connection_lost(self, error):
        self.over.set()

async def main():
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    theirs.sendall(b"unheard")
    theirs.close()
    speaker = Speaker()
    transport = await take(ours, lambda: speaker)
    await speaker.over.wait()
    await asyncio.sleep(0)
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == number  # what was ours is closed, and the number is another's
    del ours, transport
    gc.collect()
    os.close(other)

uvloop.run(main())
"""


def test_a_connection_to_nobody_closes_nothing_of_others() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=20)

    assert done.returncode == 0, done.stderr.decode()
