"""The filter of system calls: by table, by interpreter, and on real processes."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.engines.sandbox import kernel, seccomp, syscalls
from tests.engines import bpf

MACHINES = ("x86_64", "aarch64")
MACHINE = os.uname().machine
OPTIONS = [{"io_uring": ring, "perf": perf} for ring in (False, True) for perf in (False, True)]
SIGCHLD = int(signal.SIGCHLD)
NOBODY = 65534
USERS = [0, NOBODY] if os.geteuid() == 0 else [os.geteuid()]
WORKLOAD = Path(__file__).with_name("workload.py")
HIGH = 1 << 32  # a bit that the kernel ignores where a parameter is an int

# Written out here once more: a call that moves from one list to another must be moved twice.
NOT_PERMITTED = """
    setns mount umount2 pivot_root open_tree open_tree_attr move_mount fsopen fsconfig fsmount
    fspick mount_setattr sethostname setdomainname add_key request_key keyctl bpf userfaultfd
    perf_event_open open_by_handle_at fanotify_init init_module finit_module delete_module
    kexec_load kexec_file_load reboot settimeofday clock_settime swapon swapoff acct quotactl
    quotactl_fd syslog vhangup iopl ioperm lsm_set_self_attr migrate_pages lookup_dcookie sysfs
    uselib ustat
"""
NOT_THERE = """
    clone3 io_uring_setup io_uring_enter io_uring_register io_setup io_destroy io_getevents
    io_pgetevents io_submit io_cancel statmount listmount modify_ldt _sysctl
    afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms get_thread_area getpmsg
    nfsservctl putpmsg query_module security set_thread_area tuxcall vserver
"""
REFUSED = {
    **dict.fromkeys(NOT_PERMITTED.split(), errno.EPERM),
    **dict.fromkeys(NOT_THERE.split(), errno.ENOSYS),
}

F_GETFL, F_SETLEASE, F_SETDELEG = 3, 1024, 1040
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK = 1, 2, 10, 16, 17, 38, 40
SOCK_STREAM, SOCK_RAW, SOCK_PACKET, SOCK_CLOEXEC, SOCK_NONBLOCK = 1, 3, 10, 0o2000000, 0o4000
CLONE_FS, CLONE_FILES, CLONE_NEWTIME, CLONE_SYSVSEM = 0x200, 0x400, 0x80, 0x40000
NAMESPACES = (
    kernel.CLONE_NEWNS,
    kernel.CLONE_NEWCGROUP,
    kernel.CLONE_NEWUTS,
    kernel.CLONE_NEWIPC,
    kernel.CLONE_NEWUSER,
    kernel.CLONE_NEWPID,
    kernel.CLONE_NEWNET,
)
A_THREAD = 0x003D0F00  # what the C library passes for a new thread
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413
PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE = 0, 16, 0x4206

# Calls whose arguments decide: name, arguments, errno or 0.
BY_ARGUMENT: list[tuple[str, tuple[int, ...], int]] = [
    ("clone", (SIGCHLD,), 0),
    ("clone", (A_THREAD,), 0),
    ("clone", (HIGH | SIGCHLD,), 0),
    # 0x80 is a bit of the signal here, and no time namespace.
    ("clone", (CLONE_NEWTIME,), 0),
    *(("clone", (flag | SIGCHLD,), errno.EPERM) for flag in NAMESPACES),
    *(("clone", (HIGH | flag | A_THREAD,), errno.EPERM) for flag in NAMESPACES),
    ("unshare", (0,), 0),
    ("unshare", (CLONE_FS | CLONE_FILES | CLONE_SYSVSEM,), 0),
    ("unshare", (CLONE_NEWTIME,), errno.EPERM),
    ("unshare", (HIGH,), errno.EPERM),
    ("unshare", (0x00100000,), errno.EPERM),  # an empty mount namespace, in later kernels
    *(("unshare", (flag,), errno.EPERM) for flag in NAMESPACES),
    *(("unshare", (flag | CLONE_FILES,), errno.EPERM) for flag in NAMESPACES),
    *(
        ("socket", (family, kind), 0)
        for family in (AF_UNIX, AF_INET, AF_INET6)
        for kind in (SOCK_STREAM, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, SOCK_RAW)
    ),
    ("socket", (AF_INET, SOCK_PACKET), errno.EAFNOSUPPORT),
    ("socket", (AF_INET, SOCK_PACKET | SOCK_CLOEXEC), errno.EAFNOSUPPORT),
    ("socket", (HIGH | AF_INET, HIGH | SOCK_PACKET), errno.EAFNOSUPPORT),
    ("socket", (AF_NETLINK, SOCK_RAW, 0), 0),
    *(
        ("socket", (AF_NETLINK, SOCK_RAW, protocol), errno.EAFNOSUPPORT)
        for protocol in range(1, 24)
    ),
    ("socket", (HIGH | AF_VSOCK, SOCK_STREAM), errno.EAFNOSUPPORT),
    *(
        ("socket", (family, SOCK_RAW), errno.EAFNOSUPPORT)
        for family in (0, *range(3, 10), *range(11, 16), *range(17, 64), 0xFFFFFFFF)
    ),
    ("socketpair", (AF_UNIX, SOCK_STREAM), 0),
    ("socketpair", (30, SOCK_STREAM), errno.EAFNOSUPPORT),  # AF_TIPC
    ("ioctl", (0, TIOCGWINSZ), 0),
    *(
        ("ioctl", (0, high | command), errno.EPERM)
        for command in (TIOCSTI, TIOCLINUX)
        for high in (0, HIGH)
    ),
    ("fcntl", (0, F_GETFL), 0),
    *(
        ("fcntl", (0, high | command), errno.EINVAL)
        for command in (F_SETLEASE, F_SETDELEG)
        for high in (0, HIGH)
    ),
    *(("personality", (value,), 0) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, HIGH)),
    ("personality", (0x0400000,), errno.EPERM),
    ("ptrace", (PTRACE_TRACEME, 0), 0),
    ("ptrace", (PTRACE_SEIZE, 1234), 0),
    ("ptrace", (PTRACE_ATTACH, 1), errno.EPERM),
    ("ptrace", (PTRACE_SEIZE, HIGH | 1), errno.EPERM),
    *(
        (name, (high | pid,), errno.EPERM if pid == 1 else 0)
        for name in (
            *("process_vm_readv", "process_vm_writev", "pidfd_open", "prlimit64"),
            *("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"),
        )
        for pid in (0, 1, 2)
        for high in (0, HIGH)
    ),
    *(
        (name, (process, high | who), errno.EPERM if who == 1 else 0)
        for name, process in (("setpriority", 0), ("ioprio_set", 1))
        for who in (0, 1, 2)
        for high in (0, HIGH)
    ),
    ("setpriority", (1, 1), 0),  # a process group
    ("setpriority", (HIGH | 2, 0), errno.EPERM),  # all of a user
    ("ioprio_set", (3, 0), errno.EPERM),
]


def ask(program: bytes, machine: str, number: int, *arguments: int) -> int:
    return bpf.answer(program, bpf.ARCHITECTURES[machine], number, arguments).errno


# By table and interpreter


@pytest.mark.pure
@pytest.mark.parametrize("machine", MACHINES)
def test_every_known_call_has_exactly_one_place_in_the_policy(machine: str) -> None:
    lists = (syscalls.ALLOWED, syscalls.DENIED, syscalls.ABSENT, syscalls.CHECKED.keys())

    for name in syscalls.numbers(machine):
        assert sum(name in each for each in lists) == 1, name


@pytest.mark.pure
def test_the_policy_names_no_call_that_the_tables_lack() -> None:
    known = {name for machine in MACHINES for name in syscalls.numbers(machine)}

    assert set(syscalls.verdicts()) == known
    assert set(REFUSED) <= known


@pytest.mark.pure
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_refuses_what_is_on_the_list_and_nothing_else(
    machine: str, options: dict[str, bool]
) -> None:
    program = seccomp.program(machine=machine, **options)
    numbers = syscalls.numbers(machine)
    open_names = {"perf_event_open"} if options["perf"] else set()
    if options["io_uring"]:
        open_names |= {"io_uring_setup", "io_uring_enter", "io_uring_register"}
        open_names |= {"io_setup", "io_destroy", "io_getevents", "io_pgetevents"}
        open_names |= {"io_submit", "io_cancel"}

    for name, number in numbers.items():
        if name not in syscalls.CHECKED:
            wanted = 0 if name in open_names else REFUSED.get(name, 0)
            assert ask(program, machine, number) == wanted, name


@pytest.mark.pure
@pytest.mark.parametrize(("name", "arguments", "wanted"), BY_ARGUMENT)
def test_arguments_decide(name: str, arguments: tuple[int, ...], wanted: int) -> None:
    for machine in MACHINES:
        program = seccomp.program(machine=machine)

        assert ask(program, machine, syscalls.numbers(machine)[name], *arguments) == wanted


@pytest.mark.pure
def test_every_call_with_a_rule_is_in_that_table() -> None:
    assert {name for name, _, _ in BY_ARGUMENT} == syscalls.CHECKED.keys()


@pytest.mark.pure
@pytest.mark.parametrize("machine", MACHINES)
def test_unknown_numbers_and_other_architectures_look_like_an_old_kernel(machine: str) -> None:
    program = seccomp.program(machine=machine)
    known = set(syscalls.numbers(machine).values())
    others = [*set(range(2000)) - known, 0x40000000, 0x40000000 | 39, 0x7FFFFFFF, -1, -(1 << 31)]

    assert {ask(program, machine, number) for number in others} == {errno.ENOSYS}
    for architecture in (0x40000003, 0x40000028, 0, 0xFFFFFFFF, 0x800000B7):  # i386, ARM, …
        for number in range(500):
            assert bpf.answer(program, architecture, number).errno == errno.ENOSYS
    foreign = bpf.ARCHITECTURES[MACHINES[machine == MACHINES[0]]]
    assert bpf.answer(program, foreign, 0).errno == errno.ENOSYS


@pytest.mark.pure
@settings(deadline=None)
@given(
    number=st.integers(0, 1000),
    machine=st.sampled_from(MACHINES),
    options=st.sampled_from(OPTIONS),
    arguments=st.tuples(*[st.integers(0, (1 << 64) - 1)] * 3),
)
def test_the_search_tree_finds_what_a_dictionary_finds(
    number: int, machine: str, options: dict[str, bool], arguments: tuple[int, ...]
) -> None:
    by_number = {at: name for name, at in syscalls.numbers(machine).items()}
    verdict = syscalls.verdicts(**options).get(by_number.get(number, ""), errno.ENOSYS)

    found = ask(seccomp.program(machine=machine, **options), machine, number, *arguments)

    if isinstance(verdict, int):
        assert found == verdict
    else:
        assert found in {errno_ for _, errno_ in verdict}


@pytest.mark.pure
@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 1000), st.sampled_from([0, 1, 13, 97]), max_size=400))
def test_any_table_is_assembled_faithfully(verdicts: dict[int, int]) -> None:
    program = seccomp.assemble(dict(verdicts), bpf.ARCHITECTURES["x86_64"])

    assert bpf.jumps_stay_inside(program)
    for number in {*verdicts, *(each + 1 for each in verdicts), 0, 1001, 0x40000000}:
        assert ask(program, "x86_64", number) == verdicts.get(number, errno.ENOSYS)


@pytest.mark.pure
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_is_short_and_shallow(machine: str, options: dict[str, bool]) -> None:
    program = seccomp.program(machine=machine, **options)

    assert len(program) % 8 == 0
    assert len(program) // 8 < 400
    assert bpf.jumps_stay_inside(program)
    for name, number in syscalls.numbers(machine).items():
        if name in syscalls.ALLOWED:
            cost = bpf.answer(program, bpf.ARCHITECTURES[machine], number).comparisons
            assert cost <= 9, f"{name} takes {cost} comparisons"


@pytest.mark.pure
def test_a_machine_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.program(machine="riscv64")


@pytest.mark.pure
def test_the_filter_is_for_this_machine_by_default() -> None:
    assert seccomp.program() == seccomp.program(machine=MACHINE)


@pytest.mark.pure
@pytest.mark.compiler
@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_tables_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if machine != MACHINE and machine == "x86_64":
        pytest.skip("this machine's headers are another architecture's")
    text = Path(header).read_text()
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", text, re.MULTILINE)
    numbers = syscalls.numbers(machine)

    # Of the generic header's names a few are macros for other names, or of 32 bits only.
    others = {"syscalls", "arch_specific_syscall", "fstatat", "sync_file_range2"}
    for name, number in found:
        if name in numbers or not (name in others or name.endswith("64")):
            assert numbers.get(name) == int(number), name
    assert len(found) > 300


@pytest.mark.pure
def test_installing_a_filter_needs_no_tables_and_no_other_module() -> None:
    def loaded(name: str) -> set[str]:
        code = f"import sys; sys.path[:0] = {sys.path!r}; import {name}; print(*sys.modules)"
        command = [sys.executable, "-S", "-c", code]
        return set(subprocess.run(command, capture_output=True, text=True).stdout.split())

    # Every small process of the sandbox has the latter already.
    more = loaded("neuro.engines.sandbox.seccomp") - loaded("neuro.engines.sandbox.kernel")

    assert more == {"neuro.engines.sandbox.seccomp"}


# On real processes


def in_a_child(uid: int, work: Callable[[], Any], **options: bool) -> Any:
    """What ``work`` returns in a forked child of that user, under the filter."""
    program = seccomp.program(**options)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if uid != os.geteuid():
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            seccomp.install(program)
            os.write(writing, json.dumps(work()).encode())
        except BaseException as error:
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        result = json.load(file)
    os.waitpid(child, 0)
    return result


def call(name: str, *arguments: int) -> int:
    """The errno of a raw system call, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    filled = [ctypes.c_ulong(each) for each in (arguments + (0,) * 6)[:6]]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(syscalls.numbers(MACHINE)[name]), *filled)
    return ctypes.get_errno() if result == -1 else 0


@pytest.mark.parametrize("uid", USERS)
def test_the_kernel_refuses_every_call_of_the_list(uid: int) -> None:
    names = [name for name in REFUSED if name in syscalls.numbers(MACHINE)]

    found = in_a_child(uid, lambda: {name: call(name) for name in names})

    assert found == {name: REFUSED[name] for name in names}


@pytest.mark.parametrize("uid", USERS)
def test_the_kernel_refuses_by_arguments(uid: int) -> None:
    refused = [row for row in BY_ARGUMENT if row[2]]

    found = in_a_child(uid, lambda: [call(name, *arguments) for name, arguments, _ in refused])

    assert [
        (name, arguments, each) for (name, arguments, _), each in zip(refused, found, strict=True)
    ] == refused


@pytest.mark.parametrize("uid", USERS)
def test_harmless_relatives_of_refused_calls_work(uid: int) -> None:
    def work() -> list[int]:
        return [
            call("unshare", CLONE_FS | CLONE_FILES),
            call("socket", AF_UNIX, SOCK_STREAM),
            call("socket", AF_NETLINK, SOCK_RAW, 0),
            call("personality", 0xFFFFFFFF),
            call("pidfd_open", os.getpid()),
            call("get_mempolicy"),
            call("kcmp", os.getpid(), os.getpid(), 1),
        ]

    assert in_a_child(uid, work) == [0] * 7


def test_settings_open_io_uring_and_perf() -> None:
    names = ["io_uring_setup", "perf_event_open"]

    found = in_a_child(USERS[0], lambda: [call(name) for name in names], io_uring=True, perf=True)

    # The kernel itself looks at the arguments now: all are zero.
    assert not {errno.ENOSYS, errno.EPERM} & set(found)
    assert 0 not in found


@pytest.mark.skipif(MACHINE != "x86_64", reason="int 0x80 is x86's")
def test_calls_of_32_bits_do_not_pass() -> None:
    def work() -> list[int]:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, getpid; int 0x80; ret
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(ctypes.c_long(0x40000000 | syscalls.numbers(MACHINE)["getpid"]))
        return [ctypes.CFUNCTYPE(ctypes.c_int)(start)(), ctypes.get_errno()]

    assert in_a_child(USERS[0], work) == [-errno.ENOSYS, errno.ENOSYS]


@pytest.mark.parametrize("uid", USERS)
def test_a_filter_cannot_be_taken_off_again(uid: int) -> None:
    def work() -> list[int]:
        allow_all = (0x7FFF0000 << 32 | 0x06).to_bytes(8, "little")
        seccomp.install(allow_all)
        return [call("keyctl"), call("seccomp", 0, 0)]

    found = in_a_child(uid, work)

    assert found[0] == errno.EPERM


def test_a_program_that_is_not_a_filter_is_an_error() -> None:
    def work() -> str:
        try:
            seccomp.install(b"\xff" * 16)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "installed"

    assert in_a_child(USERS[0], work) == "EINVAL"


# What people run


def run(
    command: list[str],
    uid: int = USERS[0],
    *,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """The output of a program that runs under the filter as a job does; fails where it fails."""
    program = seccomp.program()

    def become_a_job() -> None:
        kernel.drop_capabilities(())
        seccomp.install(program)

    done = subprocess.run(
        command,
        user=uid if uid != os.geteuid() else None,
        group=uid if uid != os.geteuid() else None,
        extra_groups=[] if uid != os.geteuid() else None,
        cwd=cwd or "/",
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=become_a_job,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def needed(name: str) -> str:
    """A program from a package that CI has; elsewhere it may be missing."""
    found = shutil.which(name)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"needs {name} (apt: {name})")
    return found or name


def optional(name: str, version: str = "--version") -> pytest.MarkDecorator:
    """Compilers and runtimes that are large: run where they happen to be, and say their version.

    A version manager's program may stand for one that is not there.
    """
    found = shutil.which(name)
    is_there = found and not subprocess.run([found, version], capture_output=True).returncode
    return pytest.mark.skipif(not is_there, reason=f"{name} is not installed")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may search: pytest's own is its user's alone."""
    with tempfile.TemporaryDirectory(prefix="neuro-filtered-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_threads_processes_and_shared_memory_of_python() -> None:
    # An interpreter that was copied for a plain user finds its own library only so.
    own = {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}

    assert run([sys.executable, str(WORKLOAD)], environment=own).endswith("all well\n")


@pytest.mark.parametrize("uid", USERS)
def test_strace_follows_children(uid: int) -> None:
    output = run([needed("strace"), "-f", "sh", "-c", "/bin/true; exit 0"], uid)

    assert re.search(r"\[pid +\d+\] execve\(\"/bin/true\"", output)
    assert "+++ exited with 0 +++" in output


@pytest.mark.parametrize("uid", USERS)
def test_gdb_debugs_an_own_child(uid: int) -> None:
    stop = ["-ex", "catch syscall exit_group", "-ex", "run", "-ex", "bt", "-ex", "continue"]

    output = run([needed("gdb"), "-nx", "-batch", *stop, "--args", "/bin/true"], uid)

    assert re.search(r"^#0 .*_exit", output, re.MULTILINE)


@optional("node")
@pytest.mark.parametrize("uid", USERS)
def test_node_has_workers_and_files(uid: int) -> None:
    program = """
        const { Worker } = require('worker_threads');
        const code = 'require("worker_threads").parentPort.postMessage(6 * 7)';
        new Worker(code, { eval: true }).on('message', async (answer) => {
            const text = await require('fs').promises.readFile('/etc/hostname', 'utf8');
            console.log('answer', answer, text.length > 0);
        });
    """

    assert "answer 42 true" in run(["node", "-e", program], uid)


@optional("javac")
def test_java_compiles_and_runs(place: Path) -> None:
    (place / "Hello.java").write_text(
        textwrap.dedent(
            """
            public class Hello {
                public static void main(String[] args) throws Exception {
                    Thread thread = new Thread(() -> System.out.println("hello"));
                    thread.start();
                    thread.join();
                    System.out.println(new ProcessBuilder("true").start().waitFor());
                }
            }
            """
        )
    )

    run(["javac", "Hello.java"], cwd=place)

    for uid in USERS:
        assert run(["java", "-cp", str(place), "Hello"], uid).endswith("hello\n0\n")


@optional("go", "version")
def test_go_compiles_and_runs(place: Path) -> None:
    (place / "hello.go").write_text(
        textwrap.dedent(
            """
            package main

            import ("fmt"; "os/exec")

            func main() {
                said := make(chan string)
                go func() { said <- "hello" }()
                fmt.Println(<-said, exec.Command("true").Run())
            }
            """
        )
    )

    run(["go", "build", "hello.go"], cwd=place)

    for uid in USERS:
        assert run([str(place / "hello")], uid) == "hello <nil>\n"


@optional("rustc")
def test_rust_compiles_and_runs(place: Path) -> None:
    (place / "hello.rs").write_text(
        textwrap.dedent(
            """
            fn main() {
                let said = std::thread::spawn(|| "hello").join().unwrap();
                let done = std::process::Command::new("true").status().unwrap();
                println!("{said} {}", done.success());
            }
            """
        )
    )

    run(["rustc", "hello.rs"], cwd=place)

    for uid in USERS:
        assert run([str(place / "hello")], uid) == "hello true\n"


@pytest.mark.compiler
def test_c_compiles_and_runs(place: Path) -> None:
    """As pip does when it builds a wheel."""
    (place / "hello.c").write_text('#include <stdio.h>\nint main() { puts("hello"); }\n')

    run(["cc", "-pipe", "-o", "hello", "hello.c"], cwd=place)

    for uid in USERS:
        assert run([str(place / "hello")], uid) == "hello\n"


@optional("dpkg-deb")
def test_packages_are_built_and_unpacked(place: Path) -> None:
    control = "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: me\nDescription: hello\n"
    (place / "tree" / "DEBIAN").mkdir(parents=True)
    (place / "tree" / "DEBIAN" / "control").write_text(control)
    (place / "tree" / "hello").write_text("hello")
    (place / "tree" / "hello").chmod(0o4755)

    run(["dpkg-deb", "--root-owner-group", "--build", "tree", "hello.deb"], cwd=place)
    run(["dpkg-deb", "--extract", "hello.deb", "out"], cwd=place)

    assert (place / "out" / "hello").stat().st_mode & 0o7777 == 0o4755
    if os.geteuid() == 0:
        database = [
            "--root",
            str(place / "system"),
            "--force-not-root",
            "--force-script-chrootless",
        ]
        (place / "system" / "var" / "lib" / "dpkg" / "info").mkdir(parents=True)
        (place / "system" / "var" / "lib" / "dpkg" / "updates").mkdir()
        (place / "system" / "var" / "lib" / "dpkg" / "status").touch()
        run(["dpkg", *database, "--install", "hello.deb"], cwd=place)
        assert (place / "system" / "hello").read_text() == "hello"
    run(["apt-get", "--version"])


# Builds of images.


NESTS = {
    *("mount", "umount2", "pivot_root", "sethostname"),
    *("open_tree", "move_mount", "mount_setattr"),
}
PRETENDS = {
    *("chown", "fchown", "lchown", "fchownat", "setuid", "setgid", "setreuid", "setregid"),
    *("setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups"),
}
S_IFREG, S_IFIFO, S_IFCHR, S_IFBLK = 0o100000, 0o10000, 0o20000, 0o60000


def differences(machine: str, **options: bool) -> dict[str, int]:
    """What a filter answers otherwise than that of jobs, to calls without arguments."""
    numbers, architecture = syscalls.numbers(machine), bpf.ARCHITECTURES[machine]
    jobs = seccomp.program(machine=machine)
    other = seccomp.program(machine=machine, **options)
    return {
        name: answer
        for name, number in numbers.items()
        if (answer := bpf.answer(other, architecture, number).errno)
        != bpf.answer(jobs, architecture, number).errno
    }


@pytest.mark.pure
@pytest.mark.parametrize("machine", MACHINES)
def test_who_builds_images_may_make_fences_and_nothing_else(machine: str) -> None:
    nesting = seccomp.program(machine=machine, nesting=True)
    number = syscalls.numbers(machine)["clone"]

    def cloned(flags: int) -> int:
        arguments = (flags | SIGCHLD,)
        return bpf.answer(nesting, bpf.ARCHITECTURES[machine], number, arguments).errno

    assert differences(machine, nesting=True) == dict.fromkeys(NESTS, bpf.ALLOWED)
    assert {cloned(flag) for flag in NAMESPACES} == {bpf.ALLOWED}
    assert cloned(0x8000) == errno.EPERM  # CLONE_PARENT


@pytest.mark.pure
@pytest.mark.parametrize("machine", MACHINES)
def test_a_lone_root_is_told_that_it_gave_files_away(machine: str) -> None:
    numbers, architecture = syscalls.numbers(machine), bpf.ARCHITECTURES[machine]
    pretending = seccomp.program(machine=machine, pretending=True)

    def made(mode: int) -> int:
        arguments = (0, 0, mode | 0o644, 0)
        return bpf.answer(pretending, architecture, numbers["mknodat"], arguments).errno

    expected = dict.fromkeys(PRETENDS & set(numbers), bpf.PRETENDED)
    assert differences(machine, pretending=True) == expected
    assert [made(kind) for kind in (S_IFREG, S_IFIFO)] == [bpf.ALLOWED] * 2
    assert [made(kind) for kind in (S_IFCHR, S_IFBLK)] == [bpf.PRETENDED] * 2
