"""A job's files are private; volumes are where they should be; nothing else of the host shows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from neuro.engines.base import ExitCause, File, RunRef
from tests.engines.harness import Has, Runs, eventually, mounted, needs, spec

pytestmark = needs(Has.PROGRAMS, Has.FENCE)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir()
    (made / "there").write_text("from the host\n")
    return made


async def test_a_volume_is_at_its_path_and_keeps_what_is_written(runs: Runs, volume: Path) -> None:
    mounts = (mounted(source=str(volume), target="/project/data", read_only=False),)

    done = await runs.shell("cat /project/data/there; echo new > /project/data/new", volumes=mounts)

    assert done.output == b"from the host\n"
    assert (volume / "new").read_text() == "new\n"


async def test_a_read_only_volume_cannot_be_written(runs: Runs, volume: Path) -> None:
    mounts = (mounted(source=str(volume), target="/data"),)

    done = await runs.shell("echo x > /data/new || rm /data/there || echo refused", volumes=mounts)

    assert done.lines[-1] == "refused"
    assert sorted(path.name for path in volume.iterdir()) == ["there"]


async def test_one_file_can_be_a_volume(runs: Runs, volume: Path) -> None:
    mounts = (mounted(source=str(volume / "there"), target="/etc/secrets/key"),)

    assert (await runs.shell("cat /etc/secrets/key", volumes=mounts)).output == b"from the host\n"


async def test_volumes_within_volumes(runs: Runs, tmp_path: Path) -> None:
    for name in ("outer/inner", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "file").write_text("inner\n")
    mounts = (
        mounted(source=str(tmp_path / "other"), target="/a/inner"),
        mounted(source=str(tmp_path / "outer"), target="/a", read_only=False),
    )

    done = await runs.shell("cat /a/inner/file; echo x > /a/new", volumes=mounts)

    assert done.output == b"inner\n"
    assert (tmp_path / "outer" / "new").exists()


@pytest.mark.parametrize("target", ["relative", "/a/../../etc", ""])
async def test_a_volume_at_a_strange_path_cannot_start(
    runs: Runs, volume: Path, target: str
) -> None:
    done = await runs.run("true", volumes=(mounted(source=str(volume), target=target),))

    assert done.exited.cause == ExitCause.CANNOT_START
    assert done.exited.message


async def test_what_a_job_writes_elsewhere_is_its_own(runs: Runs, tmp_path: Path) -> None:
    name = f"neuro-{os.getpid()}"
    places = f"/tmp/{name} /usr/{name} /root/{name} /etc/{name} /var/tmp/{name} /{name}"

    first = await runs.shell(f"for f in {places}; do echo mine > $f || exit 1; done; cat {places}")
    second = await runs.shell(f"ls -d {places} 2>/dev/null; true")

    assert first.lines == ["mine"] * 6
    assert second.output == b""
    assert not any(os.path.exists(place) for place in places.split())


async def test_two_runs_of_a_job_do_not_share_files(runs: Runs) -> None:
    await runs.shell("echo x > /tmp/file", job_id="job-twice")
    second = await runs.shell("cat /tmp/file; true", job_id="job-twice", run=1)

    assert b"No such file" in second.output


async def test_the_hosts_private_folders_do_not_show(runs: Runs, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    tmp_path.chmod(0o755)

    done = await runs.shell(
        f"cat {secret}; ls /home /srv /mnt /media /var/lib /root; ls /proc/1/root{secret}; true"
    )

    for line in done.lines:
        hidden = "No such file" in line or "Permission denied" in line
        assert line.endswith(":") or not line or hidden or line == ".pyenv", line


async def test_the_engines_own_folder_does_not_show(own_runs: Runs, folder: Path) -> None:
    done = await own_runs.shell(f"ls -a {folder} {folder.parent} 2>&1 | grep -v -i 'no such'; true")

    assert "jobs" not in done.output.decode()


async def test_the_passwords_of_the_host_cannot_be_read(runs: Runs) -> None:
    done = await runs.shell("cat /etc/shadow /etc/gshadow 2>/dev/null; true")

    assert done.output == b""


async def test_the_servers_environment_does_not_show(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SECRET", "hush")

    done = await runs.shell("env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'")

    assert "SERVER_SECRET" not in done.output.decode()


async def test_the_environment_is_what_was_asked_for(runs: Runs) -> None:
    odd = {"PLAIN": "1", "EMPTY": "", "with.dot-and-dash": "x", "LINES": "a\nb", "Ü": "ü=ü"}

    done = await runs.run("env", "-0", env=odd)

    told = dict(line.split("=", 1) for line in done.output.decode().split("\0") if line)
    assert odd.items() <= told.items()
    assert told["HOME"] == "/root"


async def test_libraries_named_by_the_jobs_environment_stay_inside(
    runs: Runs, tmp_path: Path
) -> None:
    done = await runs.run("echo", "fine", env={"LD_PRELOAD": "/tmp/no-such-library.so"})

    assert done.code == 0
    assert b"fine" in done.output


async def test_processes_of_the_host_do_not_show(runs: Runs) -> None:
    done = await runs.shell("ls /proc | grep -c '^[0-9]'")

    assert int(done.output) < 8


async def test_a_file_is_no_working_folder(runs: Runs) -> None:
    done = await runs.run("pwd", working_dir="/etc/passwd")

    assert "the working directory /etc/passwd is a file, not a folder" in (
        done.exited.message or ""
    )


async def test_the_working_folder_is_made(runs: Runs) -> None:
    assert (await runs.run("pwd", working_dir="/deep/in/the/project")).output == (
        b"/deep/in/the/project\n"
    )


async def test_the_hostname_is_the_one_asked_for(runs: Runs) -> None:
    done = await runs.shell("hostname; grep -c trainer /etc/hosts", hostname="trainer")

    assert done.lines == ["trainer", "1"]


async def test_nothing_of_the_kernel_can_be_changed(runs: Runs) -> None:
    attempts = [
        "cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern",
        "find /proc/sys /proc/fs /proc/irq /proc/bus -type f -writable | grep .",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "mount -t tmpfs none /mnt",
        "mknod /tmp/disk b 254 0",
        "umount /proc",
        "chroot / true",
    ]
    for attempt in attempts:
        done = await runs.shell(f"({attempt}) 2>/dev/null && echo done; true")

        assert done.output == b"", attempt


async def test_a_job_cannot_write_to_the_programs_that_started_it(runs: Runs) -> None:
    script = (
        "import os, glob\n"
        "for exe in glob.glob('/proc/[0-9]*/exe'):\n"
        "    if os.path.exists(exe) and exe.split('/')[2] == '1':\n"
        "        try: os.close(os.open(exe, os.O_WRONLY)); print('opened', exe)\n"
        "        except OSError as error: print('refused', error.errno)\n"
    )
    done = await runs.run("python3", "-c", script)

    assert "opened" not in done.output.decode()


@needs(Has.PRIVILEGES)
async def test_a_privileged_job_can_change_owners_but_not_mount(runs: Runs) -> None:
    script = "touch /tmp/x && chown 0:0 /tmp/x && echo owner; mount -t tmpfs n /mnt || echo no"

    done = await runs.shell(script, privileged=True)

    assert done.lines[0] == "owner"
    assert done.lines[-1] == "no"


async def test_the_servers_python_is_there(runs: Runs) -> None:
    done = await runs.run("python", "-c", "import msgspec; print(msgspec.__name__)")

    assert done.output == b"msgspec\n"


async def test_packages_installed_by_a_job_stay_in_it(runs: Runs) -> None:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    script = f'd=$(python -c "{where}"); echo "x = 1" > $d/of_the_job.py && python -c "{{}}"'

    first = await runs.shell(script.format("import of_the_job; print(of_the_job.x)"))
    second = await runs.run("python", "-c", "import of_the_job")

    assert first.output == b"1\n"
    assert second.code == 1


async def test_a_full_volume_is_the_jobs_error(runs: Runs) -> None:
    begun = spec("sh", "-c", "head -c 200000000 /dev/zero > /dev/shm/x; echo code $?", shm=False)

    await runs.engine.start(begun)

    assert b"code 1" in (await runs.finished(RunRef(begun.job_id))).output


async def test_a_file_that_is_given_is_there_and_the_runs_alone(runs: Runs) -> None:
    files = (
        File(target="/run/secrets/key", content=b"hush\n"),
        File(target="/etc/app/settings", content=b"a = 1\n" * 20_000, mode=0o444),
    )
    script = "cat /run/secrets/key; stat -c '%a %u' /run/secrets/key /etc/app/settings; wc -c <"

    done = await runs.shell(f"{script} /etc/app/settings; echo x > /run/secrets/key", files=files)

    assert done.lines[:4] == ["hush", "400 0", "444 0", "120000"]
    assert done.code != 0
    assert "Read-only" in done.lines[4]


async def test_the_next_run_of_a_job_has_the_files_that_it_is_given(runs: Runs) -> None:
    for run, content in enumerate((b"first", b"second")):
        file = File(target="/run/secrets/key", content=content)

        done = await runs.run("cat", "/run/secrets/key", job_id="job-files", run=run, files=(file,))

        assert done.output.endswith(content)


async def test_nothing_of_a_file_that_is_given_is_left(own_runs: Runs, folder: Path) -> None:
    file = File(target="/run/secrets/key", content=b"a-word-that-nobody-says")

    done = await own_runs.run("cat", "/run/secrets/key", files=(file,), tty=True)

    assert b"a-word-that-nobody-says" in done.output
    await eventually(lambda: not _files_with(folder, b"a-word"), "the file is kept")


async def test_a_file_that_is_given_is_in_memory_alone(own_runs: Runs, folder: Path) -> None:
    file = File(target="/run/secrets/key", content=b"a-word-that-nobody-says")
    script = "df -T /run/secrets/key | tail -1 | tr -s ' ' | cut -d' ' -f2; exec sleep 1000"

    ref = await own_runs.start("sh", "-c", script, files=(file,))
    await own_runs.started(ref)

    assert await own_runs.says(ref.job_id, b"\n") == b"tmpfs\n"
    # The memory may be mounted below the folder until the run has its own mount.
    await eventually(lambda: not _files_with(folder, b"a-word"), "the file is on the disk")


async def test_a_secret_variable_is_the_runs_alone(own_runs: Runs, folder: Path) -> None:
    word, large = "a-word-that-nobody-says", "x" * 60_000
    values = {"TOKEN": word, "LARGE": large, "WITH": "a=b\nc"}
    script = 'echo "$TOKEN ${#LARGE} $PLAIN"; exec sleep 1000'

    ref = await own_runs.start(
        "sh", "-c", script, env={"PLAIN": "seen"}, secret_env=values, stdin=False
    )
    await own_runs.started(ref)
    assert await own_runs.says(ref.job_id, b"\n") == f"{word} 60000 seen\n".encode()
    _, seen, _ = await own_runs.execute(ref, "sh", "-c", 'echo "$TOKEN ${#LARGE} $WITH"')

    assert seen == f"{word} 60000 a=b\nc\n".encode()
    having = {pid for pid in _pids() if word.encode() in _part(pid, "environ")}
    assert {_part(pid, "comm") for pid in having} == {b"sleep\n"}
    assert not [pid for pid in _pids() if word.encode() in _part(pid, "cmdline")]
    assert not _files_with(folder, word.encode())


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _part(pid: str, name: str) -> bytes:
    """What /proc says of a process; nothing of one that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _files_with(folder: Path, text: bytes) -> list[str]:
    """Files that are not the job's output, while some of them go."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError), open(f"{parent}/{name}", "rb") as file:
                if not name.endswith(".log") and text in file.read():
                    found.append(f"{parent}/{name}")
    return found
