"""What a hostile RUN tries: to reach the builder, its credentials, its cache, or the machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import ExitCause, File
from neuro.engines.sandbox import SandboxEngine
from neuro.engines.sandbox.settings import SandboxSettings
from tests.engines.building import BASE, Builder, Result, python, shell
from tests.engines.harness import EVERYWHERE, Runs, mounted

TOKEN = "token-of-the-registry"
CREDENTIALS = File(target="/kaniko/.docker/config.json", content=TOKEN.encode(), mode=0o600)

# Tells what could be done, one word a line.
_TRY = """
import ctypes, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(word, call):
    try:
        if call() not in (-1, False, None):
            print(word, flush=True)
    except OSError:
        pass
def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))
    return True
"""


@pytest_asyncio.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


@pytest.fixture
def builder(runs: Runs, tmp_path: Path) -> Builder:
    made = Builder(runs, tmp_path / "engine")
    made.put_base()
    (made.cache / "poisoned").mkdir()
    return made


async def done(builder: Builder, program: str, **words: object) -> Result:
    """What a program in a step could do, in a build that has credentials."""
    (result,) = await builder.steps(python(_TRY + program, **words), files=(CREDENTIALS,))
    assert (result.code, result.errors) == (0, ""), result
    return result


async def test_it_sees_no_process_but_its_own(builder: Builder) -> None:
    program = """
pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
print(pids == [1, os.getpid()], open("/proc/1/cmdline").read().strip(chr(0)) == "")
"""

    result = await done(builder, program)

    assert result.lines == ["True True"]


async def test_it_reaches_nothing_of_the_process_around_it(builder: Builder) -> None:
    program = """
for name in ("mem", "environ", "root/etc", "cwd/etc", "fd/0", "maps", "auxv", "exe"):
    tried(name, lambda: opened(f"/proc/1/{name}"))
for fd in os.listdir("/proc/1/fd"):
    tried(f"descriptor {fd}", lambda: os.readlink(f"/proc/1/fd/{fd}"))
tried("trace", lambda: libc.ptrace(16, 1, 0, 0))
tried("seize", lambda: libc.ptrace(0x4206, 1, 0, 0))
tried("pidfd", lambda: os.pidfd_open(1))
tried("limits", lambda: libc.prlimit(1, 7, None, None))
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
    os.kill(1, number)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tried("others", lambda: libc.kill(-1, signal.SIGTERM))
print("over")
"""

    result = await done(builder, program)

    # Where nobody but itself is there to be signalled, some kernels say that this worked.
    assert [line for line in result.lines if line != "others"] == ["over"]


async def test_it_finds_neither_credentials_nor_the_cache(builder: Builder) -> None:
    program = f"""
for place in ("/kaniko", "/cache", "/run/nesting", "/run/secrets"):
    tried(place, lambda: os.listdir(place))
for place, folders, files in os.walk("/"):
    folders[:] = [one for one in folders if f"{{place}}/{{one}}" not in ("//proc", "//sys")]
    for name in files:
        path = os.path.join(place, name)
        try:
            if os.path.isfile(path) and os.path.getsize(path) < 4096:
                with open(path, "rb") as file:
                    if {TOKEN.encode()!r} in file.read():
                        print("found", path)
        except OSError:
            pass
for fd in os.listdir("/proc/self/fd"):
    if int(fd) > 2:
        tried(f"descriptor {{fd}}", lambda: os.readlink(f"/proc/self/fd/{{fd}}"))
"""

    result = await done(builder, program)

    assert result.lines == []


async def test_it_makes_no_namespace_and_no_mount(builder: Builder) -> None:
    program = """
for kind in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000):
    tried(f"unshare {kind:x}", lambda: libc.unshare(kind) == 0)
    tried(f"clone {kind:x}", lambda: libc.syscall(56, kind | 17, 0, 0, 0, 0) > 0)
tried("clone3", lambda: libc.syscall(435, bytes(88), 88) >= 0)
tried("setns", lambda: libc.setns(os.open("/proc/self/ns/mnt", 0), 0))
tried("mount", lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
tried("bind", lambda: libc.mount(b"/etc", b"/tmp", None, 4096, None) == 0)
tried("writable", lambda: libc.mount(None, b"/proc/sys", None, 32 | 4096, None) == 0)
tried("umount", lambda: libc.umount2(b"/proc/sys", 2) == 0)
tried("pivot", lambda: libc.pivot_root(b"/", b"/tmp") == 0)
for number in (428, 429, 430, 442):
    tried(f"call {number}", lambda: libc.syscall(number, -100, b"/", 1, 0, 0) >= 0)
tried("device", lambda: os.mknod("/disk", 0o60600, os.makedev(8, 0)) or opened("/disk"))
tried("handles", lambda: libc.syscall(304, 3, bytes(24), 0) >= 0)
tried("keys", lambda: libc.syscall(250, 0, -3, 1) >= 0)
"""

    result = await done(builder, program)

    assert result.lines == []


async def test_it_changes_no_setting_of_the_kernel(builder: Builder) -> None:
    program = """
for path in ("sys/kernel/core_pattern", "sys/kernel/hostname", "sys/vm/overcommit_memory",
             "sysrq-trigger", "sys/net/ipv4/ip_forward", "kcore", "keys"):
    tried(path, lambda: opened(f"/proc/{path}", os.O_WRONLY) if path != "keys" else
          bool(open("/proc/keys").read()))
tried("sysfs", lambda: opened("/sys/kernel/uevent_helper", os.O_WRONLY))
"""

    result = await done(builder, program)

    assert result.lines == []


async def test_it_cannot_change_the_interpreter_of_the_next_step(builder: Builder) -> None:
    # The step's first program is the builder's interpreter. Held open, it is no longer executed
    # by this process when it is written to.
    hostile = builder.layer("hostile")
    script = hostile / "attack"
    script.write_text(
        "#!/proc/self/exe\n"
        "import os\n"
        "held = os.open('/proc/self/exe', os.O_PATH)\n"
        "os.set_inheritable(held, True)\n"
        "print(os.readlink('/proc/self/exe'), flush=True)\n"
        "os.execv('/bin/sh', ['sh', '-c', f': >> /proc/self/fd/{held} && echo written'])\n"
    )
    script.chmod(0o755)
    home = {"PYTHONHOME": "/usr/local", "PYTHONDONTWRITEBYTECODE": "1"}
    told = f"""
import hashlib
def digest():
    return hashlib.sha256(Path(os.path.realpath(sys.executable)).read_bytes()).hexdigest()
before = digest()
result = run({{"argv": ["/attack"], "layers": [{BASE!r}, "/cache/hostile"], "env": {home!r}}})
read_only = os.statvfs(os.path.realpath(sys.executable)).f_flag & os.ST_RDONLY
print(json.dumps([before == digest(), bool(read_only), result["out"], result["errors"]]))
"""

    result = await builder.job(told)

    same, read_only, out, errors = json.loads(result.lines[0])
    assert out.startswith("/"), errors  # the interpreter is not in the step's root, and began
    assert "written" not in out
    assert same
    assert read_only


async def test_links_in_the_places_of_mounts_lead_nowhere_else(builder: Builder) -> None:
    hostile = builder.layer("hostile")
    for name in ("proc", "sys", "dev", "mnt", "run"):
        (hostile / name).symlink_to("/cache/poisoned")
    (hostile / "etc").mkdir()
    for name in ("resolv.conf", "hosts"):
        (hostile / "etc" / name).symlink_to("/../../cache/poisoned/made")
    (hostile / "etc" / "passwd").symlink_to("/kaniko/.docker/config.json")
    binds = [["Memory", {"target": "/mnt/within"}], ["Secret", {"target": "/run/s", "content": ""}]]
    words = {"layers": [BASE, "/cache/hostile"], "mounts": binds, "working_dir": "/mnt/folder"}

    (result,) = await builder.steps(shell("ls /proc/self/fd/0; pwd -P", **words))

    assert list((builder.cache / "poisoned").iterdir()) == []
    assert result.code == 0 or result.fault
    assert result.lines[:1] in ([], ["/proc/self/fd/0"])


@pytest.mark.parametrize(
    "target", ["/usr/local/lib", "/lib/x", "/run/nesting", "/var/run/x", "/etc"]
)
async def test_nothing_lies_over_the_program_of_a_build(
    builder: Builder, tmp_path: Path, target: str
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    file = File(target=f"{target}/file", content=b"")

    over = await builder.job("", volumes=(mounted(source=volume, target=target),))
    within = await builder.job("", files=(file,))

    for done in (over, within):
        assert done.exited.cause is ExitCause.CANNOT_START
        # Of a plain user's run many of these folders are somebody else's: it makes nothing there.
        message = str(done.exited.message)
        assert "where nothing can be mounted in this job" in message or "cannot be made" in message


async def test_nothing_lies_over_the_interpreter(builder: Builder, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    above = "/" + os.path.realpath(sys.prefix).split("/")[1]

    over = await builder.job("", volumes=(mounted(source=volume, target=above),))

    assert over.exited.cause is ExitCause.CANNOT_START


async def test_a_source_that_is_a_link_is_not_followed(builder: Builder) -> None:
    hostile = builder.layer("hostile")
    (hostile / "out").symlink_to("/kaniko/.docker")
    inside = {"source": "/out", "target": "/x", "layers": [BASE, "/cache/hostile"]}
    plain = {"source": "/cache/hostile/out", "target": "/x"}

    of_layers, of_job = await builder.steps(
        shell("cat /x/config.json", mounts=[["Bind", inside]]),
        shell("cat /x/config.json", mounts=[["Bind", plain]]),
        files=(CREDENTIALS,),
    )

    assert TOKEN not in of_layers.out + of_job.out
    assert "cannot be mounted" in of_layers.fault
    assert "cannot be mounted" in of_job.fault


async def test_a_step_has_no_part_in_another(builder: Builder) -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
for number in range(2):
    os.mkfifo(f"/cache/pipe-{number}")
binds = [["Bind", {"source": "/cache", "target": "/pipes", "read_only": False}]]
def step(number):  # each waits for the other one
    word = f"ls -l /proc/self/ns; echo > /pipes/pipe-{number} & cat /pipes/pipe-{1 - number}; wait"
    return run({"argv": ["sh", "-c", word], "mounts": binds})["out"]
with ThreadPoolExecutor(2) as pool:
    print(json.dumps(list(pool.map(step, range(2)))))
"""

    result = await builder.job(script, patience=60.0)

    first, second = (
        {word for word in out.split() if word.endswith("]")} for out in json.loads(result.output)
    )
    common = {name.partition(":")[0] for name in first & second}
    assert common <= {"net", "time"}
    assert {"pid", "ipc", "mnt", "user"} <= {name.partition(":")[0] for name in first}


async def test_it_may_use_up_its_processes_and_no_more(tmp_path: Path) -> None:
    engine = SandboxEngine(tmp_path / "engine", SandboxSettings(processes=60), EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    builder = Builder(runs, tmp_path / "engine")
    builder.put_base()
    bomb = "for n in $(seq 200); do sleep 1000 & done"
    script = f"""
print(run({{"argv": ["sh", "-c", {bomb!r}]}})["errors"])
print(run({{"argv": ["echo", "well"]}})["out"])
"""

    result = await builder.job(script, patience=60.0)
    await runs.close()

    assert "fork" in result.lines[0]
    assert "well" in result.lines


async def test_a_job_has_no_folder_of_the_machine_that_data_of_the_platform_lies_in(
    tmp_path: Path,
) -> None:
    masked = SandboxSettings(masked=("/usr/share/doc",))
    engine = SandboxEngine(tmp_path / "engine", masked, EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    script = 'print(sorted(os.listdir("/run/nesting")), os.listdir("/usr/share/doc"))'

    result = await Builder(runs, tmp_path / "engine").job(script, patience=60.0)
    await runs.close()

    assert result.lines == [f"{['given', 'land', 'proc', 'step']} []"]
