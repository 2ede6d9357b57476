"""What an administrator does at the command line, beside a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.cli.platform import Home


@pytest.fixture
def running(home: Home) -> Iterator[Home]:
    home.ok("up", "--port", "0")
    yield home
    if jobs := home.run("-q", "ps").stdout.split():
        home.run("kill", *jobs)
    home.run("down")


def test_the_folder_of_a_server_is_remembered(home: Home) -> None:
    elsewhere = home.folder / "else where"
    no_variable = {"NEURO_DATA_DIR": ""}
    home.ok("up", "--port", "0", "--data-dir", str(elsewhere), **no_variable)
    try:
        assert "The server has been running since" in home.ok("server", "status", **no_variable)
        shown = home.ok("doctor", **no_variable)
        assert shown.startswith(f"Data folder {elsewhere}: a server runs there")
        assert "The server has stopped." in home.run("down", **no_variable).stderr
        said = home.run("server", "status", **no_variable)
        assert said.returncode == 3
        assert f"neuro up --data-dir '{elsewhere}'" in said.stdout
    finally:
        home.run("down", "--data-dir", str(elsewhere))


def test_the_first_administrator_logs_in_by_the_folder(running: Home) -> None:
    running.ok("logout")

    said = running.ok("login", "--data-dir", str(running.data_dir), NEURO_DATA_DIR="/nowhere")

    assert "Logged into" in said


def test_administrators_see_everybodys_jobs_with_reasons_and_usage(running: Home) -> None:
    token = running.ok("admin", "add-user", "-q", "anna").strip()
    status = running.ok("server", "status")
    assert re.match(
        r"The server has been running since \d{4}-\d\d-\d\dT[\d:]{8}[+-]\d\d:\d\d \(pid", status
    )
    url = status.split("API URL")[1].split()[0]
    anna = running.folder / "anna"
    running.ok("--neuromation-config", str(anna), "config", "login-with-token", token, url)
    preset = ("--preset", "cpu-large")
    first, second = (
        running.ok(
            "--neuromation-config", str(anna), "-q", "run", "--detach", "--no-wait-start", *preset,
            "ubuntu", "sleep", "100",
        ).strip()
        for _ in range(2)
    )  # fmt: skip

    rows = running.ok("ps", "--all-owners", "--wide").splitlines()
    assert rows[0].split() == ["ID", "OWNER", "NAME", "STATUS", "WHEN", "PRESET", "REASON"]
    waiting = next(row for row in rows if row.startswith(second))
    assert "anna" in waiting
    assert "Waits for" in waiting
    usage = running.ok("admin", "usage").splitlines()
    assert usage[1].split()[0] == "anna"
    assert running.ok("admin", "users", "-q").split() == sorted(["anna", usage_owner(running)])
    assert running.run("ps", "--all-owners", "--owner", "anna").returncode == 2
    running.ok("kill", first, second)


def test_a_token_of_no_life_makes_no_user(running: Home) -> None:
    refused = running.run("admin", "add-user", "--expires-in", "0s", "bella")

    assert "at least one second" in refused.stderr
    assert "bella" not in running.ok("admin", "users", "-q").split()


def test_changed_settings_are_told_and_applied(running: Home) -> None:
    settings = running.data_dir / "server.toml"
    good = settings.read_text()
    job = running.ok("-q", "run", "--detach", "ubuntu", "sleep", "100").strip()
    with_tiny = good + "[[presets]]\nname = 'tiny'\ncpu = 0.5\nmemory = '128M'\n"
    settings.write_text(with_tiny)

    assert "was changed since the server read it" in running.run("up").stderr
    running.ok("server", "reload")

    assert "tiny" in running.ok("server", "status")
    assert running.ok("-q", "ps", "-s", "running").split() == [job]
    settings.write_text(good + "[[presets]]\nname = 'mars'\ncpu = 0.5\nmemory = '128M'\ngpu = 99\n")
    warned = running.run("server", "reload").stderr
    assert "preset 'mars' in server.toml needs 99 GPUs (this machine has" in warned
    assert "preset 'mars' in server.toml needs 99 GPUs" in running.ok("up")
    settings.write_text(with_tiny)
    assert "mars" not in running.run("server", "reload").stderr
    assert "was changed" not in running.run("up").stderr
    settings.write_text("clustre = 'lab'\n")
    refused = running.run("server", "reload")
    assert refused.returncode == 70
    assert "line 1: there is no key 'clustre'" in refused.stderr
    settings.write_bytes("log_limit = '2G'".encode("utf-16"))
    refused = running.run("server", "reload")
    assert refused.returncode == 70
    assert "is not UTF-8 text: save it as UTF-8. Nothing was changed." in refused.stderr
    settings.write_text("cluster = 'other'\n")
    refused = running.run("server", "reload")
    assert refused.returncode == 70
    assert "cluster is 'other', and that of this data folder is 'default'" in refused.stderr
    settings.write_text("cluster = 'No Good'\n")
    assert "between them. Nothing was changed." in running.run("server", "reload").stderr
    assert "tiny" in running.ok("server", "status")
    settings.write_text(good)


def test_a_reload_tells_what_cannot_run_and_what_is_not_there(running: Home) -> None:
    settings = running.data_dir / "server.toml"
    before = json.loads(running.ok("server", "status", "--json"))
    settings.write_text("[[presets]]\nname = 'huge'\ncpu = 9000\nmemory = '128M'\n")

    told = running.run("server", "reload").stderr

    assert "the default preset 'huge' in server.toml needs 9000 CPUs (this machine has" in told
    assert "preset 'huge'" in running.ok("up")
    settings.unlink()
    told = running.run("server", "reload").stderr
    assert f"There is no {settings}: the server has its default settings now." in told
    after = json.loads(running.ok("server", "status", "--json"))
    assert after["started_at"] == before["started_at"]


def test_who_cannot_be_removed_is_told_before_it_is_asked(running: Home) -> None:
    owner = usage_owner(running)

    refused = running.run("admin", "remove-user", owner)
    unknown = running.run("admin", "remove-user", "nosuch")

    assert "is the user who runs this server, and cannot be removed" in refused.stderr
    assert "--yes" not in refused.stderr
    assert unknown.returncode == 72
    assert "There is no user 'nosuch': `neuro admin users` lists all." in unknown.stderr


def test_an_earlier_version_is_not_ended_by_a_reload(running: Home) -> None:
    announced = running.data_dir / "run" / "server.json"
    said = json.loads(announced.read_text())
    del said["settings"]  # as versions without it announced themselves
    announced.write_text(json.dumps(said))

    refused = running.run("server", "reload")

    assert refused.returncode == 70
    assert "is of an earlier version, which cannot reload" in refused.stderr
    assert "`neuro down` and `neuro up`" in refused.stderr
    os.kill(said["pid"], 0)


def test_a_server_that_ends_during_a_reload_is_told_at_once(running: Home) -> None:
    """The server that is announced ends at the signal."""
    announced = running.data_dir / "run" / "server.json"
    said = json.loads(announced.read_text())
    running.run("down")
    script = "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX)"
    command = [sys.executable, "-c", f"{script}; print(1, flush=True); time.sleep(600)"]
    with subprocess.Popen([*command, announced.with_name("lock")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        announced.write_text(json.dumps({**said, "pid": other.pid}))
        threading.Thread(target=other.wait).start()  # a dead child of ours would look alive

        failed = running.run("server", "reload")

    assert "ended instead of applying its settings" in failed.stderr


def usage_owner(home: Home) -> str:
    return home.ok("config", "show").split("User Name:")[1].split()[0]


def test_presets_are_added_changed_and_removed(person: Home) -> None:
    person.ok("admin", "add-resource-preset", "tiny", "-m", "64M", "--disk", "2G")
    person.ok("admin", "update-resource-preset", "tiny", "-c", "0.2")

    [tiny] = [
        one
        for one in json.loads(person.ok("admin", "list-resource-presets", "--json"))
        if one["name"] == "tiny"
    ]
    assert (tiny["cpu"], tiny["memory"], tiny["disk"]) == (0.2, 64 << 20, 2 << 30)
    assert "sandbox" in person.ok("admin", "list-resource-presets").splitlines()[-1]
    assert person.ok("run", "-s", "tiny", "ubuntu", "echo", "hello").endswith("hello\n")
    person.ok("admin", "remove-resource-preset", "tiny")
    assert "tiny" not in person.ok("-q", "admin", "list-resource-presets").split()
    for words, code in (
        (("remove-resource-preset", "tiny"), 72),
        (("update-resource-preset", "tiny"), 2),
        (("add-resource-preset", "x", "-m", "much"), 127),
        (("add-resource-preset", "x", "--engine", "absent"), 65),
    ):
        assert person.run("admin", *words).returncode == code
