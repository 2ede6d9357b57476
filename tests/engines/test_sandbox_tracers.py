"""Jobs that try to keep their own processes from being buried, and so their runs from ending."""

from __future__ import annotations

from neuro.engines.base import ExitCause
from tests.engines.harness import Runs

_LIBC = "import ctypes, os, signal\nlibc = ctypes.CDLL(None, use_errno=True)\n"
# A zombie that is traced is its tracer's to wait for.
_TRACED = (
    _LIBC
    + """
seen, tell = os.pipe()
if os.fork() == 0:
    os.write(tell, b"%d" % libc.ptrace(0x4206, os.getppid(), 0, 0))  # PTRACE_SEIZE
    while True:
        signal.pause()
print("seized", os.read(seen, 2).decode(), flush=True)
os._exit(7)
"""
)
_SIBLING = (
    _LIBC
    + """
made = libc.syscall(56, 0x8000 | 17, 0, 0, 0, 0)  # clone(CLONE_PARENT)
if made == 0:
    os._exit(0)
print(made, os.strerror(ctypes.get_errno()), flush=True)
"""
)
_SEIZES_WHAT_IS_EXECUTED = (
    _LIBC
    + """
while True:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{name}/cmdline").read()
        except OSError:
            continue
        if command.startswith("cat\\0") and libc.ptrace(0x4206, int(name), 0, 0) == 0:
            print("seized", flush=True)
"""
)


async def test_a_command_that_is_traced_ends_its_run(runs: Runs) -> None:
    done = await runs.run("python3", "-c", _TRACED)

    assert (done.code, done.output) == (7, b"seized 0\n")


async def test_no_process_of_a_run_is_made_a_child_of_its_supervisor(runs: Runs) -> None:
    done = await runs.run("python3", "-c", _SIBLING)

    assert (done.code, done.output) == (0, b"-1 Operation not permitted\n")


async def test_a_run_that_traces_what_is_executed_in_it_can_be_stopped(runs: Runs) -> None:
    ref = await runs.start("python3", "-c", _SEIZES_WHAT_IS_EXECUTED)
    await runs.started(ref)
    session = await runs.engine.exec(ref.job_id, ["cat"], tty=False)
    await runs.says(ref.job_id, b"seized")
    await session.write_eof()

    await runs.engine.stop(ref, 0)

    assert (await runs.exited(ref)).cause is ExitCause.ERROR
    await session.close()
