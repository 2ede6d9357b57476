"""The program that a run's first process ends as, on the processors that it is written for."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro.engines.sandbox import kernel, reaper


@pytest.mark.compiler
def test_its_bytes_are_what_an_assembler_makes_of_its_text(tmp_path: Path) -> None:
    text = [".intel_syntax noprefix", *(line for _, line in reaper.SOURCE_X86_64)]
    (tmp_path / "reaper.s").write_text("\n".join(text) + "\n")

    subprocess.run(["as", "--64", "-o", tmp_path / "reaper.o", tmp_path / "reaper.s"], check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", tmp_path / "reaper.o", tmp_path / "code"],
        check=True,
    )

    written = "".join(instruction for instruction, _ in reaper.SOURCE_X86_64)
    assert (tmp_path / "code").read_bytes().hex() == written


def test_another_processor_has_none() -> None:
    assert reaper.executable("riscv64") is None


def first_process(command: Callable[[], None], *, others: int = 0) -> tuple[int, int]:
    """The status that the program tells of ``command``, and its own exit code.

    ``others`` are processes that end before the command, and one that outlives it.
    """
    reaper.prepare()
    heard, tell = os.pipe()
    pid = kernel.clone(kernel.CLONE_NEWPID)
    if pid == 0:
        try:
            if kernel.clone(0) == 0:
                for _ in range(others):
                    if os.fork() == 0:
                        os._exit(9)
                if others and os.fork() == 0:
                    os.setsid()
                    while True:
                        signal.pause()
                command()
            os.dup2(tell, reaper.TELL)
            reaper.become(reaper.descriptor())
        finally:
            os._exit(99)
    os.close(tell)
    said = os.read(heard, 100)
    os.close(heard)
    _, status = os.waitpid(pid, 0)
    return struct.unpack("<i", said)[0], os.waitstatus_to_exitcode(status)


@pytest.mark.root
@pytest.mark.parametrize("others", [0, 5])
def test_it_tells_the_commands_exit_code(others: int) -> None:
    status, own = first_process(lambda: os._exit(7), others=others)

    assert (os.waitstatus_to_exitcode(status), own) == (7, 0)


@pytest.mark.root
def test_it_tells_the_signal_that_ended_the_command() -> None:
    status, _ = first_process(lambda: os.kill(os.getpid(), signal.SIGUSR1))

    assert os.WTERMSIG(status) == signal.SIGUSR1


@pytest.mark.root
def test_nobody_may_look_into_it(tmp_path: Path) -> None:
    reaper.prepare()
    descriptor = reaper.descriptor()
    assert descriptor is not None

    link = os.readlink(f"/proc/self/fd/{descriptor}")
    mode = os.fstat(descriptor).st_mode

    assert re.match("/memfd:neuro-init", link)
    assert mode & 0o777 == 0o111
    with pytest.raises(PermissionError):
        os.write(descriptor, b"x")
