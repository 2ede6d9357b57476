"""A run's first process: the program, and Python where there is none for the processor."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro.engines.sandbox import init, init_program, kernel


@pytest.mark.compiler
def test_its_bytes_are_what_an_assembler_makes_of_its_text(tmp_path: Path) -> None:
    text = [".intel_syntax noprefix", *(line for _, line in init_program.SOURCE_X86_64)]
    (tmp_path / "init.s").write_text("\n".join(text) + "\n")

    subprocess.run(["as", "--64", "-o", tmp_path / "init.o", tmp_path / "init.s"], check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", tmp_path / "init.o", tmp_path / "code"],
        check=True,
    )

    written = "".join(instruction for instruction, _ in init_program.SOURCE_X86_64)
    assert (tmp_path / "code").read_bytes().hex() == written


def test_another_processor_has_none() -> None:
    assert init_program.executable("riscv64") is None


class Pair:
    """A first process in a new pid namespace, and a second one that it follows."""

    def __init__(self, second: Callable[[], None], *, led: bool = True) -> None:
        self.lifeline, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        home = os.open("/proc/self/ns/pid", os.O_RDONLY)
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            self.first = init.start(end)
            self.second = os.fork()
            if self.second == 0:
                try:
                    kernel.unshare(kernel.CLONE_NEWUTS)
                    if led:
                        init.lead(self.lifeline, kernel.CLONE_NEWUTS)
                    self.lifeline.close()
                    second()
                finally:
                    os._exit(99)
        finally:
            kernel.setns(home, kernel.CLONE_NEWPID)
            os.close(home)
            end.close()

    def end(self) -> tuple[int, int]:
        """How both ended, the first one let go of."""
        self.lifeline.close()
        codes = [os.waitpid(pid, 0)[1] for pid in (self.second, self.first)]
        return os.waitstatus_to_exitcode(codes[1]), os.waitstatus_to_exitcode(codes[0])


def wait_for_ever() -> None:
    while True:
        signal.pause()


@pytest.fixture(params=["program", "python"])
def _made_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_program", None)
    if request.param == "program":
        init.prepare()
        assert init.descriptor() is not None


made_of_both = pytest.mark.usefixtures("_made_of")


@pytest.mark.root
@made_of_both
def test_it_ends_when_it_is_let_go_and_all_others_with_it() -> None:
    pair = Pair(wait_for_ever)

    assert pair.end() == (0, -signal.SIGKILL)


@pytest.mark.root
@made_of_both
def test_it_stays_while_the_second_process_is_gone_and_its_lifeline_is_held() -> None:
    told, tell = os.pipe()

    def leave_somebody() -> None:
        if os.fork() == 0:
            os.write(tell, b"x")
            wait_for_ever()
        os._exit(7)

    pair = Pair(leave_somebody)
    os.close(tell)
    assert os.read(told, 1) == b"x"
    assert os.waitstatus_to_exitcode(os.waitpid(pair.second, 0)[1]) == 7
    assert os.waitpid(pair.first, os.WNOHANG) == (0, 0)
    pair.lifeline.close()
    assert os.waitpid(pair.first, 0)[1] == 0
    assert os.read(told, 1) == b""  # whoever was left is gone


@pytest.mark.root
@made_of_both
def test_it_buries_those_whose_parents_end_before() -> None:
    told, tell = os.pipe()

    def leave_one_that_ends() -> None:
        if os.fork() == 0:
            if os.fork() == 0:
                mine = os.pidfd_open(os.getpid())
                if os.fork() == 0:  # sees it buried: a zombie could still be signalled
                    while True:
                        try:
                            signal.pidfd_send_signal(mine, 0)
                        except ProcessLookupError:
                            os.write(tell, b"buried")
                            os._exit(0)
                        os.sched_yield()
            os._exit(0)
        wait_for_ever()

    pair = Pair(leave_one_that_ends)
    assert os.read(told, 6) == b"buried"
    pair.end()


@pytest.mark.root
@made_of_both
def test_it_is_where_the_second_process_is_and_has_no_rights() -> None:
    told, tell = os.pipe()

    def tell_when_led() -> None:
        os.write(tell, b"x")
        wait_for_ever()

    pair = Pair(tell_when_led)
    os.read(told, 1)
    folder = Path(f"/proc/{pair.first}")
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    spaces = {
        name: [os.readlink(f"/proc/{pid}/ns/{name}") for pid in (pair.first, pair.second)]
        for name in ("pid", "uts", "net")
    }
    held = os.listdir(folder / "fd")
    shown = (folder / "cmdline").read_bytes().strip(b"\0"), (folder / "comm").read_text()
    pair.end()

    assert status["NSpid"].split()[-1] == "1"
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16)) == (0, 0)
    assert status["Groups"].strip() == ""
    assert all(ours == its for ours, its in spaces.values())
    assert spaces["uts"][0] != os.readlink("/proc/self/ns/uts")
    assert held == [str(init_program.LIFELINE)]
    assert shown[0] in (b"neuro-init", b"")
    assert shown[1] == "neuro-init\n"


@pytest.mark.root
@made_of_both
def test_it_ends_where_nobody_leads_it() -> None:
    pair = Pair(wait_for_ever, led=False)

    assert pair.end() == (1, -signal.SIGKILL)


@pytest.mark.root
def test_nobody_may_look_into_it(tmp_path: Path) -> None:
    init.prepare()
    descriptor = init.descriptor()
    assert descriptor is not None

    link = os.readlink(f"/proc/self/fd/{descriptor}")
    mode = os.fstat(descriptor).st_mode

    assert re.match("/memfd:neuro-init", link)
    assert mode & 0o777 == 0o111
    with pytest.raises(PermissionError):
        os.write(descriptor, b"x")
