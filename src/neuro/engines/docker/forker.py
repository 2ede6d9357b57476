"""A small process that has imported what a keeper needs, and forks one for each run.

It dies with the server; the keepers stay. ``python -m neuro.engines.docker.forker FOLDER SOCKET``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import time
import traceback

import msgspec

from neuro.engines.docker import volumes
from neuro.engines.docker.keeper import Keeper
from neuro.engines.docker.order import Order
from neuro.engines.sandbox import kernel, layout, wire
from neuro.engines.sandbox.ending import Ending, ExitRecord

READY, STARTED, EXISTS = b"ready", b"started", b"exists"


def main() -> None:
    """Fork until the server is gone."""
    asked = socket.socket(fileno=int(sys.argv[2]))
    kernel.set_name("neuro-forker")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the keepers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owners = volumes.users()
    gc.freeze()
    asked.send(READY)
    while True:
        data, given = wire.receive_descriptors(asked, 1, 2)
        if not data:
            return
        if len(given) == 2 and os.fork() == 0:
            asked.close()
            try:
                _keep(given[0], given[1], owners)
            finally:  # nothing may return from here: this is a copy
                os._exit(0)
        for fd in given:
            os.close(fd)


def _keep(order_file: int, answer: int, owners: int) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.set_name("neuro-keeper")
    with open(order_file, "rb") as file:
        file.seek(0)
        order = msgspec.json.decode(file.read(), type=Order)
    folder = layout.run_folder(order.folder, order.ref.job_id, order.ref.run)
    try:
        listener = _claim(folder)
    except OSError as error:
        _answer(answer, (error.strerror or str(error)).encode())
        return
    _answer(answer, EXISTS if listener is None else STARTED)
    if listener is None:
        return
    try:
        try:
            keeper = Keeper(order, folder, listener, owners)
        except OSError as error:
            ending = Ending.not_ready(error.strerror or str(error))
            layout.write_exit(folder, ExitRecord.of(ending, time.time_ns()))
        else:
            keeper.run()
    except BaseException:
        with open(f"{folder}/fault", "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)


def _answer(to: int, said: bytes) -> None:
    with contextlib.suppress(OSError):  # the server may have been killed: the run is ours
        os.write(to, said)
    os.close(to)


def _claim(folder: str) -> socket.socket | None:
    """Where the run's keeper listens; None where it has one already. Raises OSError.

    What there is of a run is there at once, so nobody finds half of it.
    """
    draft = f"{os.path.dirname(folder)}/.{os.getpid()}"
    os.makedirs(draft)
    try:
        listener = layout.listen(draft)
        layout.keep_room(draft)
        os.rename(draft, folder)
    except OSError as error:
        layout.remove_claim(draft)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    return listener


if __name__ == "__main__":
    main()
