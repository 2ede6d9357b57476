"""A build that something goes wrong with: it says what to do, and nothing is lost by it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from neuro.engines.base import RunRef
from neuro.engines.sandbox import layout
from tests.cli.platform import NEURO, PATIENCE, Home, Terminal

pytestmark = pytest.mark.slow
_SETTINGS = """\
stop_grace_seconds = 0.1
[[presets]]
name = "cpu-small"
cpu = 1
memory = "512M"
[[presets]]
name = "tight"
cpu = 1
memory = "200M"
disk = "50M"
"""
_PLAIN = "FROM host\nRUN echo made > /made\n"
_GATED = f"{_PLAIN}RUN echo begun; until test -e /gate/open; do sleep 0.05; done; : %s\n"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A platform that may be killed, with a preset that has little of everything."""
    home = Home(tmp_path_factory.mktemp("faults") / "home")
    (home.data_dir / "server.toml").write_text(_SETTINGS)
    with home.with_platform():
        yield home


@pytest.fixture
def home(started: Home) -> Iterator[Home]:
    """That platform; no job is active afterwards."""
    (started.work_dir / "context").mkdir(exist_ok=True)
    yield started
    started.end_jobs()


def write(home: Home, text: str) -> None:
    (home.work_dir / "context" / "Dockerfile").write_text(text)


def starts_gated(home: Home, name: str) -> tuple[Terminal, str]:
    """A build whose last command waits for ``storage:NAME/open``, and its job."""
    home.ok("mkdir", f"storage:{name}")
    write(home, _GATED % name)
    words = ("-t", f"{name}:v1", "-v", f"storage:{name}:/gate:ro", "context")
    build = home.start("image", "build", *words)
    job = build.until("Status:").split("Job ID: ")[1].split()[0]
    build.until(" begun\n")
    return build, job


def opens_gate(home: Home, name: str) -> None:
    (home.work_dir / "open").touch()
    home.ok("cp", "open", f"storage:{name}/open")


def builds_well(home: Home) -> str:
    """The next build is as good as any; what it says."""
    write(home, _PLAIN)
    return home.ok("image", "build", "-t", "made:v1", "-F", "context")


def job_of(home: Home, job: str) -> dict[str, object]:
    found = json.loads(home.ok("status", "--json", job))
    assert isinstance(found, dict)
    return found


def kills_server(home: Home) -> None:
    """``kill -9``, and another one at the same address."""
    told = json.loads(home.ok("server", "status", "--json"))
    pid = int(told["pid"])
    with open(os.pidfd_open(pid), "rb") as process:
        os.kill(pid, signal.SIGKILL)
        select.select([process], [], [])  # it is gone
    home.ok("up", "--port", str(urlsplit(told["api_url"]).port))


def test_a_line_that_only_the_builder_can_know_to_be_wrong_is_told(home: Home) -> None:
    write(home, "FROM host\n# comment\nRUN true\nCOPY \\\n  no/such /x\n")

    done = home.run("image", "build", "-t", "made:v1", "-F", "context")

    assert done.returncode == 1
    assert "There is no 'no/such'.\n  in \"Dockerfile\", line 4" in done.stdout
    assert "The folder that it is copied from has Dockerfile.\n" in done.stdout


def test_a_build_without_enough_memory_says_so(home: Home) -> None:
    write(home, "FROM host\nRUN python3 -c 'x = b\"x\" * (900 << 20); print(len(x))'\n")

    done = home.run("image", "build", "-t", "made:v1", "-F", "-s", "tight", "context")

    assert done.returncode != 0
    assert "failed (OOMKilled): the memory limit was reached" in done.stderr
    assert "line 2" in done.stdout
    assert "Take a larger preset." in done.stdout
    builds_well(home)


def test_a_build_without_enough_disk_says_so(home: Home) -> None:
    write(home, "FROM host\nRUN head -c 200M /dev/zero > /large && sleep 1000\n")

    done = home.run("image", "build", "-t", "made:v1", "-F", "-s", "tight", "context")

    assert done.returncode != 0
    assert "what the build added to its cache is more than the 50M" in done.stderr
    assert "choose a preset with more disk" in done.stderr
    builds_well(home)


def test_a_build_that_somebody_kills_says_so(home: Home) -> None:
    build, job = starts_gated(home, "killed")
    with build:
        home.ok("kill", job)
        build.until("cancelled (UserRequested)")
        assert build.end() != 0

    assert job_of(home, job)["status"] == "cancelled"
    assert home.run("image", "digest", "killed:v1").returncode == 72
    assert "#2 CACHED" in builds_well(home)  # what was done before is kept


def test_a_build_outlives_its_server(home: Home) -> None:
    build, job = starts_gated(home, "outlives")
    with build:
        kills_server(home)
        opens_gate(home, "outlives")
        shown = build.until("Digest: ")
        assert build.end() == 0, build.shown

    assert "DONE" in shown
    assert job_of(home, job)["status"] == "succeeded"
    assert "#2 CACHED" in builds_well(home)


def test_a_build_that_is_lost_is_told_and_harms_no_other(home: Home) -> None:
    build, job = starts_gated(home, "lost")
    with build:
        os.kill(supervisor_of(home, job), signal.SIGKILL)
        said = build.until("NotFound")
        assert build.end() != 0
        said += build.shown

    assert "Build it again: the steps that were done are kept." in said
    assert job_of(home, job)["status"] == "failed"
    assert "#2 CACHED" in builds_well(home)
    assert home.ok("-q", "run", "image:made:v1", "--", "cat", "/made") == "made\n"


def test_a_build_whose_log_nobody_reads_is_stopped(home: Home) -> None:
    write(home, "FROM host\nRUN sleep 600\n")
    words = [*NEURO, "image", "build", "-t", "unread:v1", "context"]
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        words,
        env=home.environment(),
        cwd=home.work_dir,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    os.close(writer)

    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("\nThe build was stopped: job-")


def supervisor_of(home: Home, job: str) -> int:
    folder = home.data_dir / "engines" / "sandbox"
    place = layout.run_folder(str(folder), RunRef(job).job_id, RunRef(job).run)
    state = layout.read_state(f"{place}/{layout.STATE}")
    assert state is not None
    return int(state["supervisor"][0])


def immutable(home: Home, owner: str) -> Callable[[], str]:
    builds_well(home)
    home.ok("image", "rules", "image:made", "--immutable", "v*")
    return lambda: home.ok("image", "rules", "image:made", "--clear")


def over_quota(home: Home, owner: str) -> Callable[[], str]:
    used = int(json.loads(home.ok("image", "quota", "--json"))["used"])
    home.ok("image", "quota", owner, "--set", f"{(used >> 20) + 2}M")
    return lambda: home.ok("image", "quota", owner, "--set", "default")


@pytest.mark.parametrize(
    ("refusing", "told"),
    [
        (immutable, "The tag 'v1' of '{owner}/made' is immutable: push under another tag."),
        (over_quota, "or ask an administrator for a larger quota."),
    ],
)
def test_a_registry_that_refuses_the_image_says_what_to_do(
    home: Home, refusing: Callable[[Home, str], Callable[[], str]], told: str
) -> None:
    owner = str(json.loads(home.ok("config", "show", "--json"))["user"])
    undo = refusing(home, owner)
    # A layer that no earlier build has made.
    write(home, f"FROM host\nRUN head -c 3M /dev/urandom > /{refusing.__name__}\n")

    try:
        done = home.run("image", "build", "-t", "made:v1", "-F", "context")
    finally:
        undo()
    again = home.run("image", "build", "-t", "made:v1", "-F", "context")

    assert done.returncode == 1
    assert told.format(owner=owner) in done.stdout
    assert again.returncode == 0, again.stdout
    assert "#2 CACHED" in again.stdout  # nothing that was built is lost


def test_a_quota_that_is_used_up_is_told_before_anything_is_built(home: Home) -> None:
    owner = str(json.loads(home.ok("config", "show", "--json"))["user"])
    write(home, "FROM host\nRUN head -c 3M /dev/urandom > /larger\n")
    home.ok("image", "build", "-t", "made:v1", "-F", "context")
    home.ok("image", "quota", owner, "--set", "1M")

    try:
        done = home.run("image", "build", "-t", "made:v1", "-F", "context")
    finally:
        home.ok("image", "quota", owner, "--set", "default")

    assert (done.returncode, done.stdout) == (77, "")
    assert "or ask an administrator for a larger quota." in done.stderr


def test_who_may_not_push_is_told_what_to_ask_for(home: Home, tmp_path: Path) -> None:
    token = home.ok("admin", "add-user", "-q", "alice").strip()
    url = json.loads(home.ok("server", "status", "--json"))["api_url"]
    owner = str(json.loads(home.ok("config", "show", "--json"))["user"])
    hers = ("--neuromation-config", str(tmp_path / "alice"))
    home.ok(*hers, "config", "login-with-token", token, url)
    write(home, _PLAIN)

    done = home.run(*hers, "image", "build", "-t", f"image:/{owner}/made:v1", "context")

    assert done.returncode == 77
    assert f"You may not push image:/{owner}/made: push under a name of your own" in done.stderr
    # Before the context is sent and anything is built.
    assert home.ok(*hers, "-q", "ps", "--all") == ""
