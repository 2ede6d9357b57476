"""Files of the host and of other jobs that a job was not given."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.engines.sandbox import SandboxEngine
from tests.engines.harness import EVERYWHERE, Runs
from tests.security.host import SECRET, Host, mount

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LOOK = "find {places} -exec head -c 100 {{}} + 2>/dev/null; cat {files} 2>/dev/null; true"


@pytest.fixture
def places(as_root: None) -> Iterator[list[Path]]:
    """A new folder, open to all, in each part of the machine's userland."""
    name = f"neuro-canary-{secrets.token_hex(4)}"
    made = [Path(top) / name for top in ("/etc", "/usr/local/share", "/opt")]
    try:
        for place in made:
            (place / "deep" / "deeper" / "deepest").mkdir(parents=True)
            (place / "before").write_text(SECRET)
            (place / "before").chmod(0o600)
            (place / "closed later").write_text(SECRET)
        yield made
    finally:
        subprocess.run(["rm", "-rf", "--", *map(str, made)], check=True)


def make_private(place: Path) -> None:
    """Files that not everybody may read, each made so in another way."""

    def private(path: Path, mode: int = 0o600) -> Path:
        path.write_text(SECRET)
        path.chmod(mode)
        return path

    deep = place / "deep" / "deeper" / "deepest"
    private(place / "made")
    private(deep / "made")
    private(place / "of the group", 0o640)
    private(place / "of another group", 0o640)
    os.chown(place / "of another group", 0, 42)
    private(place / "of another user", 0o400)
    os.chown(place / "of another user", 1000, 1000)
    private(place / "write only", 0o622)
    (place / "closed later").chmod(0o600)
    os.rename(private(place / "aside"), deep / "moved")
    os.link(place / "made", deep / "linked")
    (deep / "a link").symlink_to(place / "made")
    os.replace(private(place / "aside"), place / "before")
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    (closed / "open").write_text(SECRET)
    (place / "searchable").mkdir()
    (place / "searchable" / "open").write_text(SECRET)
    (place / "searchable").chmod(0o750)
    (place / "open").write_text("everybody may read this")


def command(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


@pytest.fixture
def shared_place(host: Host, as_root: None) -> Iterator[Path]:
    """A folder whose mounts show up in copies of it, as systemd makes all of them."""
    place = host.place / "shared"
    place.mkdir()
    command("mount", "--bind", place, place)
    try:
        command("mount", "--make-shared", place)
        yield place
    finally:
        command("umount", "-R", place)
        command("rm", "-rf", place, host.place / "engine-of-shared")


async def test_private_files_of_the_host_stay_so(
    runs: Runs, host: Host, places: list[Path]
) -> None:
    # Of a job that looked before, the kernel may remember what it saw.
    before = await runs.start("sh", "-c", f"ls -lR {' '.join(map(str, places))}; exec sleep 600")
    await runs.says(before.job_id, b"deepest")
    for place in places:
        make_private(place)
    files = " ".join(f"'{p}'" for place in places for p in sorted(place.rglob("*")))
    look = _LOOK.format(places=" ".join(map(str, places)), files=files)

    seen = [(await runs.shell(look, privileged=privileged)).output for privileged in (False, True)]
    _, out, err = await runs.execute(before, "sh", "-c", look)

    for output in (*seen, out + err):
        host.check_output(output)
    for output in seen:
        assert output.count(b"everybody may read this") >= len(places)
    await runs.engine.stop(before, 0)


async def test_a_job_cannot_open_a_private_file_up(
    runs: Runs, host: Host, places: list[Path]
) -> None:
    """To its own root they seem to belong: what it changes is a copy that it cannot make."""
    files = " ".join(f"'{place}/before'" for place in places)

    done = await runs.shell(
        f"for f in {files}; do chmod 644 $f; chown 0:0 $f; ln $f /tmp/l; mv $f $f.moved;"
        f" cp $f /tmp/c; cat $f $f.moved /tmp/c /tmp/l; echo x >> $f;"
        f" done 2>/dev/null; find {places[0]}; true",
        privileged=True,
    )

    host.check_output(done.output)
    for place in places:
        assert (place / "before").read_text() == SECRET
        assert (place / "before").stat().st_mode & 0o777 == 0o600


async def test_the_servers_own_files_do_not_show(runs: Runs, host: Host) -> None:
    engine = host.place / "engine"

    done = await runs.shell(
        f"ls -a {engine} {host.place} /run /var/run /var/lib /home /srv /mnt /media;"
        f" find / -xdev -name 'zygote*' -not -name '*.py*' -o -name neuro-ids.lock; true"
    )

    for name in ("zygote.lock", "installation", "berths", "canary", "neuro-ids"):
        assert name not in done.output.decode()


async def test_another_jobs_files_and_processes_do_not_show(runs: Runs, host: Host) -> None:
    shared = mount(host.volume(), "/v")
    other = await runs.start(
        *(
            "sh",
            "-c",
            f"echo {SECRET} > /tmp/private; cp /tmp/private /dev/shm/; echo r; sleep 601",
        ),
        volumes=(shared,),
        env={"PRIVATE": SECRET},
    )
    await runs.says(other.job_id, b"r")

    done = await runs.shell(
        "cat /tmp/private /dev/shm/private; cat /proc/[0-9]*/environ; cat /proc/*/cmdline;"
        " for p in $(seq 1 200); do cat /proc/$p/root/tmp/private; kill -0 $p && echo alive $p;"
        " done; ipcs -a; find / -xdev -name private; true",
        volumes=(shared,),
        privileged=True,
    )

    host.check_output(done.output)
    assert "601" not in done.output.decode()
    await runs.engine.stop(other, 0)


_SEND = """
import array, os, socket, sys, time
os.makedirs('/tmp/mine/in', exist_ok=True)
open('/tmp/mine/private', 'w').write('handed over')
s = socket.socket(socket.AF_UNIX); s.bind('/v/socket'); s.listen(); print('listening', flush=True)
c, _ = s.accept()
fds = [os.open(path, os.O_RDONLY) for path in ('/', '/tmp/mine', '/proc/self/ns', '/proc')]
c.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))])
print(c.recv(10)); sys.exit(0)
"""
_RECEIVE = """
import os, socket, time
s = socket.socket(socket.AF_UNIX); s.connect('/v/socket')
_, fds, _, _ = socket.recv_fds(s, 10, 10)
root, mine, ns, proc = fds
s.send(b'end'); s.recv(1)
def tried(act):
    try:
        act()
    except OSError:
        pass
for number in range(200):
    tried(lambda: os.mkdir(f'made-{number}', dir_fd=mine))
    tried(lambda: os.symlink('CANARY', f'link-{number}', dir_fd=mine))
    tried(lambda: os.rename('in', f'in-{number}', src_dir_fd=mine, dst_dir_fd=mine))
    tried(lambda: os.rename(f'in-{number}', 'in', src_dir_fd=mine, dst_dir_fd=mine))
    for up in ('..', '../..', '../../..', '../../../..'):
        for base in (root, mine):
            tried(lambda: print(open(os.open(up + 'CANARY/secret', 0, dir_fd=base)).read()))
            tried(lambda: os.mkdir(up + 'CANARY/made', dir_fd=base))
    for pid in ('1', '2', 'self'):
        tried(lambda: print(open(os.open(pid + '/root' + 'CANARY/secret', 0, dir_fd=proc)).read()))
tried(lambda: os.fchdir(root)); tried(lambda: print(os.getcwd())); print('end')
"""


async def test_what_a_job_hands_to_another_leads_no_further(runs: Runs, host: Host) -> None:
    """A folder of the first job's, in use by the second while the first one's files are deleted."""
    shared = (mount(host.volume(), "/v"),)
    first = await runs.start("python3", "-c", _SEND, volumes=shared)
    await runs.says(first.job_id, b"listening")

    script = _RECEIVE.replace("CANARY", str(host.canary))
    second = await runs.run("python3", "-c", script, volumes=shared)

    assert (await runs.exited(first)).exit_code == 0
    assert second.lines[-1] == "end"
    host.check_output(second.output)
    host.check()


async def test_what_the_host_mounts_later_does_not_arrive(host: Host, shared_place: Path) -> None:
    volume = shared_place / "volume"
    (volume / "in").mkdir(parents=True)
    # Only a server that starts now has a copy that follows the original.
    engine = SandboxEngine(host.place / "engine-of-shared", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    later = Runs(engine)
    ref = await later.start("sleep", "600", volumes=(mount(volume, "/v", read_only=True),))

    command("mount", "-t", "tmpfs", "later", volume / "in")
    (volume / "in").chmod(0o777)
    (volume / "in" / "secret").write_text(SECRET)
    _, out, err = await later.execute(ref, "sh", "-c", "cat /v/in/secret; echo x > /v/in/new")

    host.check_output(out + err)
    assert os.listdir(volume / "in") == ["secret"]
    await later.stop_all()
    await later.close()


async def test_hostile_files_are_removed_and_nothing_else(runs: Runs, host: Host) -> None:
    script = f"""
import os
os.chdir('/tmp')
os.makedirs('up'); os.symlink('..', 'up/up'); os.symlink('/', 'root')
os.symlink('{host.canary}', 'c')
os.symlink('{host.canary}/secret', 'secret'); os.symlink('../' * 30 + '{host.canary}', 'far')
os.mkdir('closed'); os.symlink('{host.canary}', 'closed/c'); os.chmod('closed', 0)
os.mkfifo('fifo'); open('a', 'w').close(); os.chmod('a', 0); os.link('a', 'b')
open('\\n\\x1b[2J', 'w').close(); open(b'\\xff\\xfe', 'w').close()
for _ in range(1500):
    os.mkdir('d' * 100); os.chdir('d' * 100)
    os.symlink('{host.canary}', 'c')
"""
    done = await runs.run("python3", "-c", script)
    assert done.code == 0, done.output

    place = host.place / "engine" / "jobs" / done.ref.job_id
    await runs.engine.remove(done.ref.job_id)

    assert not place.exists()
    host.check()
