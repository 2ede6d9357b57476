"""Our commands as forks of a warm process: nobody can tell them from new processes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.cli.platform import Home

# What a program can find out about how it was started.
PROBE = """
import gc, json, locale, os, resource, signal, socket, sys, threading, time

def stream(it):
    raw = getattr(it.buffer, 'raw', it.buffer)
    kinds = [type(each).__name__ for each in (it, it.buffer, raw)]
    return kinds + [it.name, it.mode, it.encoding, it.errors, it.line_buffering, it.write_through,
                    it.newlines, it.fileno(), it.isatty(), it.seekable(), raw.name, raw.closefd]

status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
told = ("Umask", "TracerPid", "Uid", "Gid", "Groups", "Threads", "SigBlk", "SigIgn", "SigCgt",
        "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": str(sys.flags),
    "main": [__name__, __file__, __spec__.name, sys.modules["__main__"].__dict__ is globals()],
    "environ": dict(os.environ), "folder": os.getcwd(), "descriptors": os.listdir("/proc/self/fd"),
    "inheritable": [os.get_inheritable(number) for number in range(3)],
    "status": {name: status[name] for name in told}, "group": [os.getpgrp(), os.getsid(0)],
    "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
    "wakes": signal.set_wakeup_fd(-1), "timer": signal.getitimer(signal.ITIMER_REAL),
    "limits": {name: resource.getrlimit(getattr(resource, name))
               for name in dir(resource) if name.startswith("RLIMIT_")},
    "nice": os.nice(0), "groups": open("/proc/self/cgroup").read(), "tz": time.tzname,
    "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding()],
    "streams": [stream(it) for it in (sys.stdin, sys.stdout, sys.stderr)],
    "originals": sys.__stdout__ is sys.stdout and sys.__stderr__ is sys.stderr,
    "collecting": [gc.isenabled(), gc.get_threshold()], "hook": sys.excepthook.__name__,
    "threads": [thread.name for thread in threading.enumerate()], "said": sys.stdin.read(),
    "waits": socket.getdefaulttimeout(), "children": os.path.exists("/proc/self/task/%d/children"
        % os.getpid()) and open("/proc/self/task/%d/children" % os.getpid()).read(),
}, indent=1))
print("and an error", file=sys.stderr)
"""


@pytest.fixture
def other_umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def other_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def program(folder: Path, text: str) -> str:
    """Where it stands, a program has its own name."""
    folder.mkdir(exist_ok=True)
    (folder / "asked.py").write_text(text)
    return "asked"


@pytest.mark.usefixtures("other_umask", "other_limit")
def test_a_fork_is_given_what_a_new_process_is(tmp_path: Path) -> None:
    name = program(tmp_path / "work", PROBE)
    early = {name: value for name, value in os.environ.items() if commands.EARLY.match(name)}
    environment = {**early, "TZ": "Asia/Tokyo", "ODD": "\udcff ü"}
    given: dict[str, Any] = {"environment": environment, "folder": tmp_path / "work"}
    words = ["--option", "", "ü\n"]

    for stdin in (None, "typed\r\nlines"):
        one, other = [
            way(name, words, **given, stdin=stdin, seconds=60)
            for way in (commands.whole, commands.WARM.run)
        ]

        assert one.returncode == 0, one.stderr
        assert json.loads(other.stdout) == json.loads(one.stdout)
        assert other.stderr == one.stderr == "and an error\n"


@pytest.mark.parametrize(
    "text",
    [
        "import sys; print('out'); sys.exit(7)",
        "import sys; sys.exit('a reason')",
        "print('no end of the line', end='')",
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os; print('kept back'); os.abort()",
        "raise KeyboardInterrupt",
        "import atexit; atexit.register(print, 'the last word')",
        "import threading, time\n"
        "threading.Thread(target=lambda: (threading.main_thread().join(), print('late'))).start()",
        "print('a\\r\\nb\\rc')",
    ],
)
def test_it_ends_as_a_new_process_does(text: str, home: Home) -> None:
    name = program(home.work_dir, text)

    one, other = [
        way(name, [], environment=home.environment(), folder=home.work_dir, seconds=60)
        for way in (commands.whole, commands.WARM.run)
    ]

    assert (other.returncode, other.stdout) == (one.returncode, one.stdout)
    assert other.stderr.splitlines()[-1:] == one.stderr.splitlines()[-1:]


def test_an_error_is_told_with_its_place(home: Home) -> None:
    name = program(home.work_dir, "1 / 0")

    told = commands.WARM.run(
        name, [], environment=home.environment(), folder=home.work_dir, seconds=60
    )

    assert told.returncode == 1
    assert f'File "{home.work_dir}/asked.py", line 1' in told.stderr
    assert told.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("called", "words", "more"),
    [
        ("neuro.cli", ["--version"], {}),
        ("neuro.cli", ["--help"], {"COLUMNS": "60"}),
        ("neuro.cli", ["job", "run", "--help"], {"COLUMNS": "200"}),
        ("neuro.cli", ["--color", "yes", "help", "ps-format"], {"NO_COLOR": "1"}),
        ("neuro.cli", ["ps"], {}),
        ("neuro.cli", ["storage", "cp"], {}),
        ("neuro.cli", ["psss"], {}),
        ("neuro.cli", ["config", "show"], {"NEUROMATION_CONFIG": "/nowhere"}),
        ("neuro.flow", ["--help"], {}),
        ("neuro.flow", ["check"], {}),
        ("neuro.flow", ["schema", "live"], {}),
        ("neuro.flow", ["ps"], {"NEURO_PASSED_CONFIG": "e30="}),
    ],
)
def test_a_command_says_the_same_both_ways(
    called: str, words: list[str], more: dict[str, str], home: Home
) -> None:
    one, other = [
        way(called, words, environment=home.environment(**more), folder=home.work_dir, seconds=60)
        for way in (commands.whole, commands.WARM.run)
    ]

    assert (other.returncode, other.stdout, other.stderr) == (
        one.returncode,
        one.stdout,
        one.stderr,
    )
    assert one.stdout + one.stderr


def test_the_platform_says_the_same_both_ways(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "ubuntu", "sleep", "1000").strip()

    for words in (
        ["-q", "ps"],
        ["exec", "-T", job, "--", "sh", "-c", "echo out; echo err >&2; exit 5"],
        ["storage", "ls", "-l", "storage:nothing"],
        ["config", "show"],
    ):
        one, other = [
            way(
                "neuro.cli",
                words,
                environment=person.environment(),
                folder=person.work_dir,
                seconds=60,
            )
            for way in (commands.whole, commands.WARM.run)
        ]
        assert (other.returncode, other.stdout, other.stderr) == (
            one.returncode,
            one.stdout,
            one.stderr,
        )


def test_nothing_of_one_reaches_the_next(home: Home) -> None:
    name = program(
        home.work_dir,
        "import click, gc, os, signal, sys\n"
        "print(os.environ.get('LEFT'), hasattr(click, 'left'), signal.getsignal(15).name,\n"
        "    os.umask(0o77), os.getcwd(), gc.isenabled(), os.listdir('/proc/self/fd'))\n"
        "os.environ['LEFT'] = '1'; click.left = 1; signal.signal(15, signal.SIG_IGN)\n"
        "gc.disable(); os.dup(0); os.chdir('/')\n",
    )

    said = {
        commands.WARM.run(
            name, [], environment=home.environment(), folder=home.work_dir, seconds=60
        ).stdout
        for _ in range(3)
    }

    assert len(said) == 1
    assert "None False SIG_DFL" in said.pop()


def test_it_has_the_working_folder_that_the_asker_means(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = program(home.work_dir, "import os; print(os.getcwd())")
    monkeypatch.chdir(home.folder)

    told = commands.WARM.run(
        name, [], environment=home.environment(), folder=Path("work"), seconds=60
    )

    assert told.stdout == f"{home.work_dir}\n"


def test_what_takes_too_long_is_killed(home: Home) -> None:
    name = program(
        home.work_dir,
        "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(600)",
    )

    for seconds in (1, 30, 60):  # A busy machine may not have begun it.
        with pytest.raises(subprocess.TimeoutExpired) as told:
            commands.WARM.run(name, [], environment={}, folder=home.work_dir, seconds=seconds)
        if said := told.value.stdout:
            break

    assert not Path(f"/proc/{int(said)}").exists()


def test_many_run_at_once(home: Home) -> None:
    name = program(
        home.work_dir, "import sys; data = sys.stdin.read(); print(data * 50_000); sys.exit(7)"
    )
    told: list[tuple[int, str, str]] = []

    def run(letter: str) -> None:
        done = commands.WARM.run(
            name,
            [],
            environment=home.environment(),
            folder=home.work_dir,
            stdin=letter,
            seconds=60,
        )
        told.append((done.returncode, letter, done.stdout))

    threads = [threading.Thread(target=run, args=(letter,)) for letter in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(told) == [(7, letter, letter * 50_000 + "\n") for letter in "abcdef"]


def test_a_warm_process_dies_with_its_asker_and_takes_its_forks_along(home: Home) -> None:
    name = program(
        home.work_dir,
        "import os, time; open('pids', 'w').write(f'{os.getpid()} {os.getppid()}\\n')\n"
        "print('here', flush=True)\nwhile True: time.sleep(600)",
    )
    asker = (
        "import os, sys, threading, time; from pathlib import Path; from tests import commands\n"
        f"given = dict(environment={{}}, folder=Path({str(home.work_dir)!r}), seconds=600)\n"
        f"start = lambda: commands.WARM.run({name!r}, [], **given)\n"
        "threading.Thread(target=start, daemon=True).start()\n"
        f"pids = Path({str(home.work_dir / 'pids')!r})\n"
        "while not pids.exists() or not pids.read_text().endswith('\\n'): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", asker], cwd=Path(__file__).parents[2], timeout=60, check=False
    )

    assert done.returncode == -9
    deadline = time.monotonic() + 60
    for pid in (home.work_dir / "pids").read_text().split():
        while is_alive(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def is_alive(pid: str) -> bool:
    """A zombie is not, whoever does not wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("at", ["s.send(b'.'); s.recv(1); exit()", "exit()"])
def test_one_that_dies_is_told_of(at: str, home: Home, tmp_path: Path) -> None:
    path = tmp_path / "dies.py"
    path.write_text(f"import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\n{at}\n")
    warm = commands.Warm(path)
    given: dict[str, Any] = {"environment": {}, "folder": home.work_dir, "seconds": 60}

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"dies\.py has died"):
            warm.run("asked", [], **given)


LOADING = """
import json, os, sys, threading

class Noting(dict):
    asked = set()
    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)
    def get(self, name, default=None):
        self.asked.add(name)
        return super().get(name, default)
    def __contains__(self, name):
        self.asked.add(name)
        return super().__contains__(name)
    def __iter__(self):
        self.asked.add("all of it")
        return super().__iter__()
    keys = items = values = copy = __or__ = __iter__

sys.path.insert(0, sys.argv[1])
from tests import warm_commands
os.environ = Noting(os.environ)
warm_commands.load()
print(json.dumps([sorted(Noting.asked), sorted(sys.modules), threading.active_count()]))
"""


def test_nothing_is_imported_that_keeps_what_it_reads() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(root)], capture_output=True, text=True, check=True
    )
    asked, modules, threads = json.loads(done.stdout)

    # A command whose environment has others of these than the tests' is a process of its own.
    assert [name for name in asked if not commands.EARLY.match(name)] == []
    assert "LANG" in asked, "it sees what is read"
    assert "neuro.flow.batch.effects" not in modules, "it keeps when it was imported"
    assert {"neuro.cli.job.run", "neuro.flow.cli.bake", "rich.table", "aiohttp"} <= {*modules}
    assert not [name for name in modules if name.startswith(("neuro.server", "neuro.engines"))]
    assert threads == 1


@pytest.mark.parametrize(
    ("more", "is_forked"),
    [
        ({}, True),
        ({"NO_COLOR": "1", "COLUMNS": "40", "TZ": "UTC", "HOME": "/"}, True),
        ({"LC_ALL": "C"}, False),
        ({"PYTHONUTF8": "1"}, False),
        ({"_NEURO_COMPLETE": "bash_complete", "COMP_WORDS": "neuro p"}, False),
        ({"_NEURO_FLOW_COMPLETE": "bash_complete", "COMP_WORDS": "neuro-flow p"}, False),
    ],
)
def test_what_is_read_before_a_fork_has_its_own_makes_a_new_process(
    more: dict[str, str], is_forked: bool, home: Home
) -> None:
    name = program(home.work_dir, "import os; print(os.getppid())")

    told = commands.run(
        name, [], environment=home.environment(**more), folder=home.work_dir, seconds=60
    )

    assert (int(told.stdout) != os.getpid()) is is_forked
