"""What of the kernel a job must not have: walked and tried inside a job."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from neuro.engines.base import ExitCause
from tests.engines.harness import Runs, drain
from tests.security.host import Host, mount

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PRELUDE = """
import ctypes, errno, os, socket, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_long(number), *arguments)
def tried(name, act):
    try:
        print(name, 'DONE', act())
    except Exception as error:
        print(name, 'refused', error)
"""

# What a job finds writable outside of its own processes and files, each a thing of its own or
# a device that holds nothing.
_WRITABLE = {
    *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "shm")),
    *("/dev", "/dev/pts", "/dev/pts/ptmx"),
    *(f"/proc/pressure/{name}" for name in ("cpu", "memory", "io", "irq")),  # triggers of one's own
}
_WALK = """
for top in ('/proc', '/sys', '/dev'):
    for folder, folders, files in os.walk(top):
        own = folder.split('/')[2:3]
        if top == '/proc' and own and (own[0].isdigit() or own[0] in ('self', 'thread-self')):
            folders[:] = []
            continue
        for name in (*folders, *files, ''):
            path = os.path.join(folder, name) if name else folder
            if os.path.islink(path):
                continue
            try:
                info = os.stat(path)
            except OSError:
                continue
            # The machine's /dev/null lies over what is hidden.
            null = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
            if os.access(path, os.W_OK) and not (null and top == '/proc'):
                print('writable', path)
            if stat.S_ISBLK(info.st_mode):
                print('disk', path)
            if not stat.S_ISREG(info.st_mode) or name in ('kmsg', 'trace_pipe'):
                continue
            if not info.st_mode & stat.S_IROTH:
                try:
                    with open(path, 'rb') as file:
                        file.read(1)
                    print('private', path)
                except OSError:
                    pass
"""


async def python(runs: Runs, script: str, **options: object) -> list[str]:
    done = await runs.run("python3", "-c", _PRELUDE + script, **options)
    assert done.code == 0, done.output.decode()
    return done.lines


async def test_nothing_of_the_kernel_is_writable_or_more_readable_than_outside(
    runs: Runs,
) -> None:
    for privileged in (False, True):
        found = await python(runs, _WALK, privileged=privileged)

        writable = {line.split(" ", 1)[1] for line in found if line.startswith("writable ")}
        assert writable <= _WRITABLE, writable - _WRITABLE
        assert not [line for line in found if line.startswith(("private", "disk"))]


async def test_what_the_kernel_shows_to_root_is_empty(runs: Runs) -> None:
    names = (
        "kcore keys key-users timer_list kmsg slabinfo vmallocinfo kpageflags kpagecount"
        " kpagecgroup pagetypeinfo interrupts softirqs iomem ioports config.gz sched_debug"
    )

    done = await runs.shell(
        f"cd /proc; for f in {names}; do test -e $f && head -c 100 $f 2>/dev/null; done;"
        " find scsi acpi asound driver/nvram /sys/firmware /sys/kernel/debug /sys/kernel/tracing"
        " /sys/kernel/security /sys/fs/bpf /sys/fs/pstore /sys/fs/cgroup -mindepth 1; true"
    )

    shown = [line for line in done.lines if not line.startswith("find: ")]
    assert shown == []


_SYSTEM = """
import platform
x86 = platform.machine() == 'x86_64'
n = lambda a, b: a if x86 else b
for name, number, arguments in (
    ('unshare user', n(272, 97), (0x10000000,)), ('unshare mount', n(272, 97), (0x20000,)),
    ('unshare cgroup', n(272, 97), (0x02000000,)), ('unshare time', n(272, 97), (0x80,)),
    ('clone user', n(56, 220), (0x10000000 | 17, 0, 0, 0, 0)), ('clone3', 435, (0, 0)),
    ('setns', n(308, 268), (0, 0)), ('mount', n(165, 40), (b'none', b'/mnt', b'tmpfs', 0, 0)),
    ('umount', n(166, 39), (b'/proc', 2)), ('pivot_root', n(155, 41), (b'/', b'/')),
    ('open_tree', 428, (-100, b'/', 1)), ('move_mount', 429, (0, b'', 0, b'', 4)),
    ('fsopen', 430, (b'tmpfs', 0)), ('mount_setattr', 442, (-100, b'/', 0, 0, 0)),
    ('add_key', n(248, 217), (b'user', b'x', b'y', 1, -4)),
    ('keyctl user', n(250, 219), (0, -4, 1)), ('keyctl session', n(250, 219), (0, -3, 1)),
    ('request_key', n(249, 218), (b'user', b'x', 0, 0)), ('bpf', n(321, 280), (0, 0, 0)),
    ('perf_event_open', n(298, 241), (0, 0, -1, -1, 0)), ('userfaultfd', n(323, 282), (0,)),
    ('io_uring_setup', 425, (8, bytes(128))), ('fanotify_init', n(300, 262), (0, 0)),
    ('open_by_handle_at', n(304, 265), (-100, bytes(32), 0)), ('swapon', n(167, 224), (b'/x', 0)),
    ('reboot', n(169, 142), (0, 0, 0, 0)), ('kexec_load', n(246, 104), (0, 0, 0, 0)),
    ('init_module', n(175, 105), (0, 0, b'')), ('delete_module', n(176, 106), (b'x', 0)),
    ('acct', n(163, 89), (b'/tmp/x',)), ('syslog', n(103, 116), (3, bytes(99), 99)),
    ('settimeofday', n(170, 170), (bytes(16), 0)), ('sethostname', n(170, 161), (b'x', 1)),
    ('quotactl', n(179, 60), (0x800002 << 8, 0, 0, 0)), ('ptrace init', n(101, 117), (16, 1, 0, 0)),
    ('seize init', n(101, 117), (0x4206, 1, 0, 0)), ('pidfd_open init', 434, (1, 0)),
    ('prlimit init', n(302, 261), (1, 7, bytes(16), 0)),
    ('affinity of init', n(203, 122), (1, 8, b'\\1' + bytes(7))),
    ('scheduler of init', n(144, 119), (1, 5, bytes(4))),
    ('parameters of init', n(142, 118), (1, bytes(4))),
    ('attributes of init', n(314, 274), (1, struct.pack('IIQiIQQQ', 48, 5, 0, 0, 0, 0, 0, 0), 0)),
    ('priority of init', n(141, 140), (0, 1, 19)), ('all of a user', n(141, 140), (2, 0, 19)),
    ('disk priority of init', n(251, 30), (1, 1, 3 << 13)),
    ('readv init', n(310, 270), (1, 0, 0, 0, 0, 0)), ('chroot', n(161, 51), (b'/tmp',)),
    ('mknod', n(133, -1), (b'/tmp/d', 0o60666, os.makedev(254, 0))),
):
    if number < 0:
        continue
    result = call(number, *arguments)
    if result >= 0:
        print(name, 'DONE', result)
        if name.startswith('clone') and result == 0:
            os._exit(0)
"""


async def test_no_system_call_opens_the_fence(runs: Runs) -> None:
    assert await python(runs, _SYSTEM) == []


async def test_no_system_call_opens_the_fence_for_privileged_jobs(runs: Runs) -> None:
    assert set(await python(runs, _SYSTEM, privileged=True)) <= {"chroot DONE 0"}


async def test_no_command_of_exec_has_more_rights(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    code, out, err = await runs.execute(ref, "python3", "-c", _PRELUDE + _SYSTEM)

    assert (code, out, err) == (0, b"", b"")
    _, status, _ = await runs.execute(ref, "cat", "/proc/self/status")
    rights = [line.split() for line in status.decode().splitlines() if line[:3] == "Cap"]
    assert {int(value, 16) for _, value in rights} == {0}
    assert "NoNewPrivs:\t1" in status.decode()
    await runs.engine.stop(ref, 0)


async def test_no_socket_leads_to_the_kernel_or_the_hypervisor(runs: Runs) -> None:
    script = """
allowed = {(1, 0), (2, 0), (10, 0), (16, 0)}
for family in range(1, 46):
    for protocol in range(32) if family == 16 else (0,):
        try:
            socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_STREAM, protocol)
        except OSError:
            continue
        if (family, protocol) not in allowed:
            print('opened', family, protocol)
"""
    assert await python(runs, script) == []


async def test_a_jobs_first_process_cannot_be_harmed_or_seen(runs: Runs) -> None:
    script = """
import signal, time
for name in ('root', 'cwd', 'exe', 'fd/3', 'ns/mnt', 'map_files'):
    tried(name, lambda: os.listdir(f'/proc/1/{name}'))
    tried(name, lambda: os.readlink(f'/proc/1/{name}'))
for name in ('environ', 'maps', 'mem', 'stack', 'syscall', 'auxv', 'pagemap', 'smaps', 'io'):
    tried(name, lambda: open(f'/proc/1/{name}', 'rb').read(1) or 1/0)
for name in ('mem', 'oom_score_adj', 'clear_refs', 'coredump_filter', 'comm'):
    tried('write ' + name, lambda: os.write(os.open(f'/proc/1/{name}', os.O_WRONLY), b'0'))
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
"""
    lines = await python(runs, script)

    done = {line.partition(" DONE ")[0] for line in lines if " DONE " in line}
    # A plain user owns these of the first process too: they harm nobody but the job.
    harmless = {"write oom_score_adj", "write coredump_filter"} if os.geteuid() else set()
    assert done <= harmless


async def test_no_character_is_pushed_into_a_terminal(runs: Runs) -> None:
    script = """
import fcntl
for request in (0x5412, 0x5412 | 1 << 32, 0x541C):
    print(call(16, 0, request, b'x'), ctypes.get_errno() == errno.EPERM)
"""
    done = await runs.run("python3", "-c", _PRELUDE + script, tty=True)

    assert done.lines == ["-1 True"] * 3


async def test_no_core_is_dumped(runs: Runs) -> None:
    done = await runs.shell("ulimit -H -c; ulimit -c unlimited; cat /proc/self/limits | grep core")

    (limits,) = (line.split() for line in done.lines if line.startswith("Max core"))
    assert limits[4:6] == ["1", "1"]  # which the kernel takes as none, also where it pipes


async def test_nothing_of_the_server_is_inherited(
    runs: Runs, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
for fd in os.listdir('/proc/self/fd'):
    try:
        print(fd, os.readlink(f'/proc/self/fd/{fd}').split(':')[0])
    except OSError:
        pass
print(sorted(os.environ))
for name in ('user', 'mnt', 'pid', 'ipc', 'uts', 'cgroup', 'net'):
    print(name, os.readlink(f'/proc/self/ns/{name}'))
print(open('/proc/self/cgroup').read().count('neuro'))
"""
    lines = await python(runs, script)

    descriptors = [line.split()[1] for line in lines if line[0].isdigit() and " " in line]
    assert set(descriptors) <= {"/dev/null", "pipe"}
    for line in lines:
        name, _, found = line.partition(" ")
        shared = runs.engine.notices and any(
            "share the host's network" in n for n in runs.engine.notices
        )
        if found.startswith(name + ":[") and not (name == "net" and shared):
            assert found != os.readlink(f"/proc/self/ns/{name}")
    assert lines[-1] == "0"


async def test_the_hosts_interpreter_cannot_be_written_to(runs: Runs) -> None:
    """A script for /proc/self/exe is executed by whoever executes commands of jobs."""
    script = (
        'printf \'#!/proc/self/exe\\nimport os\\nfor e in ("/proc/self/exe",):\\n'
        '  try: os.open(e, os.O_WRONLY); print("OPENED")\\n'
        "  except OSError as error: print(error.strerror)\\n' > /tmp/s; chmod +x /tmp/s;"
        " echo ready; exec sleep 600"
    )
    ref = await runs.start("sh", "-c", script)
    await runs.says(ref.job_id, b"ready")

    _, out, err = await runs.execute(ref, "/tmp/s")

    assert out in (b"Read-only file system\n", b"Text file busy\n", b"Permission denied\n"), err
    await runs.engine.stop(ref, 0)


async def test_nothing_dangerous_is_left_on_the_host(runs: Runs, host: Host, as_root: None) -> None:
    volume = host.volume()
    script = (
        "cp /bin/sh /v/sh; chmod 6755 /v/sh; cp /bin/sh /tmp/sh; chmod 6755 /tmp/sh;"
        "mkfifo /v/fifo; mknod /v/null c 1 3; mknod /v/disk b 254 0; mkdir -m 7777 /v/d;"
        'python3 -c \'import os; os.setxattr("/v/sh", "security.capability",'
        ' bytes.fromhex("0100000200000020000000000000000000000000"))\';'
        "chown 0:0 /v/sh; chown 1:1 /v/fifo; echo ready; exec sleep 600"
    )
    ref = await runs.start(*("sh", "-c", script), volumes=(mount(volume, "/v"),), privileged=True)
    await runs.says(ref.job_id, b"ready")

    places = (volume, host.place / "engine" / "jobs" / ref.job_id / "runs" / "0" / "layers")
    found = [
        Path(folder) / name
        for place in places
        for folder, folders, files in os.walk(place)
        for name in (*folders, *files)
    ]
    assert volume / "sh" in found
    for path in found:
        info = path.lstat()
        assert info.st_uid >= 1 << 16, path
        assert info.st_gid >= 1 << 16, path
        assert not stat.S_ISBLK(info.st_mode), path
        if stat.S_ISREG(info.st_mode):
            attributes = os.listxattr(path, follow_symlinks=False)
            assert "security.capability" not in attributes or (
                len(os.getxattr(path, "security.capability")) == 24  # of a user namespace's root
            )
        if stat.S_ISCHR(info.st_mode):
            assert info.st_rdev == 0  # a whiteout
    await runs.engine.stop(ref, 0)


async def test_a_job_that_is_told_to_die_by_itself_is_over(runs: Runs) -> None:
    done = await runs.shell("kill -9 -1; kill -9 $$")

    assert done.exited.cause == ExitCause.ERROR


async def test_no_module_of_a_job_is_imported_with_rights(runs: Runs) -> None:
    """Until a command begins its process is Python, in the job's root, with the job's files."""
    plant = """
import os, sys, sysconfig
text = "import posix; posix.write(2, b'IMPORTED')"
places = {sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib')}
for path in sys.path:
    if os.path.isdir(path):
        places.add(path)
names = sorted(sys.stdlib_module_names)
for place in places:
    for name in names:
        folder = f'{place}/{name}'
        target = f'{folder}/__init__.py' if os.path.isdir(folder) else f'{place}/{name}.py'
        try:
            open(target, 'w').write(text)
        except OSError:
            pass
    for name in os.listdir(f'{place}/encodings') if os.path.isdir(f'{place}/encodings') else ():
        try:
            open(f'{place}/encodings/{name}', 'w').write(text)
        except OSError:
            pass
os.execv('/bin/sh', ['sh', '-c', 'rmdir /w; echo ready; exec sleep 600'])
"""
    ref = await runs.start("python3", "-c", plant, working_dir="/w")
    await runs.says(ref.job_id, b"ready")

    for words in (
        ["python3", "-c", "1"],
        ["ls"],
        ["no-such"],
        ["/etc"],
        ["\udcff"],
        ["\ud800"],
        [""],
    ):
        _, out, err = await runs.execute(ref, *words)
        if words[0] != "python3":
            assert b"IMPORTED" not in out + err, words
        elif os.geteuid() == 0:  # else some of Python's folders cannot be written to
            assert b"IMPORTED" in out + err
    session = await runs.engine.exec(ref.job_id, ["no-such"], tty=True)
    out, err = await drain(session)
    assert b"IMPORTED" not in out + err
    await runs.engine.stop(ref, 0)
