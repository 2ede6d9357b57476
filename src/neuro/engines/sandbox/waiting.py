"""A supervisor before it has a run: it makes a berth, and waits in it."""

from __future__ import annotations

import signal
import socket
import time

from neuro.engines.sandbox import kernel, launch, launcher, layout
from neuro.engines.sandbox.berth import Berth
from neuro.engines.sandbox.ending import Ending, ExitRecord
from neuro.engines.sandbox.handover import receive_run
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.supervisor import Supervisor


def supervise(plan: launch.Plan, name: str, block: Block, zygote: socket.socket) -> None:
    """Make the berth ``name``, wait for a run, look after it. Returns when all is cleaned up."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    berth = Berth(plan, name, block)
    berth.make(zygote)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    given = receive_run(zygote)
    if given is None:
        berth.discard()
        return
    request, listener = given
    kernel.set_name("neuro-job")
    folder = layout.run_folder(plan.folder, request.job_id, request.run)
    try:
        try:
            supervisor = Supervisor(plan, request, folder, listener, berth, block)
        except OSError as error:
            berth.discard()
            _say_not_ready(folder, error)
        else:
            supervisor.run()
    except BaseException:
        import traceback  # large: sleeping runs would hold it

        with open(f"{folder}/fault", "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)


def _say_not_ready(folder: str, error: OSError) -> None:
    """The exit record of a run that could not even be looked after."""
    ending = Ending.not_ready(launcher.reason_of(error))
    record = ExitRecord.of(ending, time.time_ns())
    while True:
        try:
            layout.write_exit(folder, record)
            return
        except FileNotFoundError:  # somebody deleted the folder
            return
        except OSError:
            time.sleep(layout.FULL_SECONDS)
