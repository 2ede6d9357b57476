from __future__ import annotations

import base64
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.platform import Home


@pytest.fixture
def running(home: Home) -> Iterator[Home]:
    home.ok("up", "--port", "0")
    yield home
    if jobs := home.run("-q", "ps").stdout.split():
        home.run("kill", *jobs)
        for job in jobs:
            home.run("logs", job)
    home.run("down")


def test_the_server_starts_logs_its_owner_in_and_says_what_to_try_next(running: Home) -> None:
    again = running.ok("up")

    assert "The platform is up already (pid " in again
    for word in ("API URL", "User", "Engine", "sandbox", "cpu-small", "Try next:", "neuro run"):
        assert word in again
    assert running.ok("ps").startswith("ID")


def test_the_configuration_is_shown_as_specified(running: Home) -> None:
    lines = running.ok("config", "show").splitlines()

    assert lines[0] == "User Configuration:"
    assert [line.split(":")[0].strip() for line in lines[1:4]] == [
        "User Name",
        "Current Cluster",
        "API URL",
    ]
    assert lines[4] == "  Resource Presets:"
    assert lines[5] == "    Name         CPU    Memory    Preemptible    GPU    Engine"
    assert lines[6].startswith("    cpu-small    1.0    2.0G          No")


def test_stopping_leaves_jobs_running_and_says_how_many(running: Home) -> None:
    job = running.ok("-q", "run", "--detach", "ubuntu", "sleep", "100").strip()

    said = running.run("down")

    assert "1 job goes on running" in said.stderr
    assert running.run("ps").returncode == 74
    assert running.run("server", "status").returncode == 3
    running.ok("up", "--port", "0")
    assert running.ok("-q", "ps", "-s", "running").split() == [job]


def test_a_run_outlives_a_restart_of_the_server_and_loses_nothing(running: Home) -> None:
    port = running.ok("server", "status").split("127.0.0.1:")[1].split("/")[0]
    script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; exit 3"
    with running.start("run", "--name", "lasting", "ubuntu", "--", "sh", "-c", script) as it:
        it.until("one\n")
        running.ok("down")
        running.ok("up", "--port", port)
        # The job may see the file and end before the command that made it does.
        running.run("exec", "-T", "lasting", "touch", "/tmp/go")
        said = it.until("two\n")

        assert it.end() == 3
        assert "one" not in said


def test_a_terminal_outlives_a_restart_of_the_server(running: Home) -> None:
    port = running.ok("server", "status").split("127.0.0.1:")[1].split("/")[0]
    with running.terminal("run", "-t", "ubuntu", "--", "bash", "--norc", "--noprofile") as it:
        it.until("Use Ctrl-P Ctrl-Q to detach")
        it.until("# ")
        it.press("WORD=kept\r")
        it.until("# ")
        running.ok("down")
        it.until("The server does not answer; waiting for it…")
        running.ok("up", "--port", port)
        it.until("Connected again.")
        it.press("echo it was $WORD; exit 3\r")
        it.until("it was kept")

        assert it.end() == 3


def test_stopping_what_does_not_run_is_told(home: Home) -> None:
    done = home.run("down")

    assert done.returncode == 3
    assert "No server runs" in done.stderr


def test_a_database_that_was_named_when_the_server_started_is_to_be_named_again(
    home: Home, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    try:
        home.ok("up", "--port", "0", "--database", url)
        home.ok("run", "--detach", "ubuntu", "sleep", "100")

        said = home.run("down").stderr
        assert "goes on running: `neuro up`, with the same --database, takes over again." in said

        (home.data_dir / "server.toml").write_text(f"database = '{url}'\n")
        home.ok("up", "--port", "0")
        assert "goes on running: `neuro up` takes over again." in home.run("down").stderr
    finally:
        home.ok("up", "--port", "0", "--database", url)
        home.end_jobs()
        home.ok("down")


def test_a_copy_that_was_looked_at_is_forgotten_when_it_stops(
    running: Home, tmp_path: Path
) -> None:
    first = running.ok("config", "show").split("API URL: ")[1].split()[0]
    copy = ("--data-dir", str(tmp_path / "copy"))
    running.ok("up", "--port", "0", *copy)

    said = running.run("down", *copy).stderr

    assert f"The current server is {first} again." in said
    assert running.ok("ps").startswith("ID")
    assert running.ok("config", "get-clusters").count("API URL: ") == 1
    again = running.run("down", *copy)
    assert again.returncode == 3
    assert f"another one does: `neuro down --data-dir {running.data_dir}` stops it" in again.stderr


def test_options_that_a_running_server_does_not_follow_are_told(running: Home) -> None:
    options = ("--host", "1.2.3.4", "--port", "22", "--database", "postgresql://db/neuro")

    told = running.run("up", *options).stderr

    for what in ("change the host", "change the port", "another database"):
        assert f"{what}" in told
    assert running.run("up", "--host", "127.0.0.1", "--port", "0").stderr == ""


def test_a_start_that_takes_long_says_that_it_goes_on(home: Home, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nif 'neuro.server' in sys.orig_argv:\n    open({str(gate)!r}).close()\n"
    )
    try:
        with home.terminal("up", "--port", "0", PYTHONPATH=str(tmp_path)) as shown:
            shown.until("Starting…")
            gate.open("w").close()
            shown.until("The platform is up.")
            assert shown.end() == 0
    finally:
        home.run("down")


def test_a_port_that_is_taken_is_said_with_what_to_do(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = home.run("up", "--port", port)

    assert done.returncode == 74
    assert port in done.stderr
    assert "--port" in done.stderr


def test_a_server_that_cannot_start_says_why(home: Home) -> None:
    (home.data_dir / "server.toml").write_text("nonsense = 1\n")

    done = home.run("up", "--port", "0")

    assert done.returncode == 125
    assert "server.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.root
def test_without_means_for_networks_of_jobs_it_says_what_to_install(home: Home) -> None:
    done = home.run("up", "--port", "0", PATH="/nonexistent")

    assert done.returncode == 125
    assert "apt-get install nftables" in done.stderr
    assert "shared = true" in done.stderr

    with (home.data_dir / "server.toml").open("a") as file:
        file.write("[network]\nshared = true\n")
    said = home.ok("up", "--port", "0", PATH="/nonexistent")
    home.ok("down")

    assert "each reaches the ports of all others" in said


def test_only_the_owner_can_read_what_is_kept_of_the_login(running: Home) -> None:
    for path in (running.config_dir / "servers.json", running.data_dir / "run" / "owner.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.config_dir.stat().st_mode) == 0o700


def test_logging_out_and_in_again_needs_no_browser(running: Home) -> None:
    assert running.ok("logout") == "Logged out\n"
    assert running.run("ps").returncode == 70
    assert running.run("logout").returncode == 70

    said = running.ok("login")

    assert said.startswith("Logged into http://127.0.0.1:")
    assert running.ok("ps").startswith("ID")


def test_without_a_server_there_is_nothing_to_log_in_to(home: Home) -> None:
    done = home.run("login")

    assert done.returncode == 70
    assert "neuro up" in done.stderr


def test_another_person_logs_in_with_the_line_that_the_administrator_gets(
    running: Home, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Home(tmp_path_factory.mktemp("other") / "home")
    line = running.ok("admin", "add-user", "anna").splitlines()[-1].split()
    assert line[:3] == ["neuro", "config", "login-with-token"]

    said = other.ok(*line[1:])

    assert "as anna, current cluster is default" in said
    assert other.run("admin", "users").returncode in (72, 77)
    assert running.ok("-q", "admin", "users").split()[0] == "anna"
    running.ok("admin", "remove-user", "--yes", "anna")
    done = other.run("ps")
    assert done.returncode == 77


def test_removing_a_person_is_asked_about(running: Home) -> None:
    running.ok("admin", "add-user", "boris")
    running.ok(
        "mkdir", "-p", "storage://default/boris/data/.hidden", "storage://default/boris/.own"
    )

    unasked = running.run("admin", "remove-user", "boris")
    assert unasked.returncode == 2
    assert "This would remove boris and stop 0 jobs." in unasked.stderr
    assert "There is no terminal to ask on: add --yes." in unasked.stderr
    with running.terminal("admin", "remove-user", "boris") as shown:
        shown.until("Remove boris? [y/N]: ")
        shown.press("n\n")
        shown.until("Nothing was changed.")
        assert shown.end() == 130
    assert "boris" in running.ok("-q", "admin", "users").split()
    with running.terminal("admin", "remove-user", "boris") as shown:
        shown.until("Remove boris? [y/N]: ")
        shown.press("y\n")
        shown.until("neuro rm -r 'storage://default/boris/*'")
        assert shown.end() == 0

    running.ok("rm", "-r", "storage://default/boris/*")
    running.ok("rm", "-r", "storage://default/boris/.*")
    assert running.ok("-q", "ls", "-a", "storage://default/boris").split() == []

    again = running.run("admin", "add-user", "boris")
    assert again.returncode != 0
    assert "belonged to a user who was removed" in again.stderr
    assert running.run("admin", "remove-user", "--yes", "nobody").returncode != 0


def test_a_token_is_made_listed_and_revoked(running: Home) -> None:
    made = running.run("config", "token", "create", "--label", "ci", "--expires-in", "90d")
    token, token_id = made.stdout.strip(), made.stderr.split()[1]
    url = running.ok("config", "show").split("API URL: ")[1].split()[0]

    row = next(
        line for line in running.ok("config", "token", "ls").splitlines() if token_id in line
    )
    assert row.split()[1] == "ci"
    assert row.endswith("valid")
    running.ok("config", "token", "revoke", token_id)

    done = running.run("config", "login-with-token", token, url)
    assert done.returncode == 77


def own_token(home: Home) -> str:
    """The id of the token that is logged in with."""
    return home.ok("-q", "config", "token", "ls").split()[-1]


@pytest.mark.parametrize("command", [["login"], ["up"]])
def test_the_owner_who_revoked_their_own_token_logs_in_again(
    running: Home, command: list[str]
) -> None:
    done = running.run("config", "token", "revoke", own_token(running))

    assert "It was the token that you were logged in with here" in done.stderr
    refused = running.run("ps")
    assert refused.returncode == 77
    assert "`neuro login`" in refused.stderr
    assert "`neuro config token create --user" in refused.stderr
    running.ok(*command)
    assert running.ok("ps").startswith("ID")


def test_revoking_the_token_in_use_is_asked_about(running: Home) -> None:
    with running.terminal("config", "token", "revoke", own_token(running)) as shown:
        shown.until("logged in with here. Revoke it? [y/N]: ")
        shown.press("n\n")
        shown.until("Nothing was changed.")
        assert shown.end() == 130

    assert running.run("ps").returncode == 0


def test_tokens_that_ended_are_listed_only_with_all(running: Home) -> None:
    ended = running.run("config", "token", "create", "--label", "ci").stderr.split()[1]
    running.ok("config", "token", "revoke", ended)

    assert ended not in running.ok("config", "token", "ls")
    assert ended not in running.ok("config", "token", "ls", "--json")
    assert ended not in running.ok("-q", "config", "token", "ls")
    assert f"{ended}" in running.ok("config", "token", "ls", "--all")
    again = running.run("config", "token", "revoke", "nosuch")
    assert again.returncode == 72
    assert "has no token 'nosuch': `neuro config token ls` lists them." in again.stderr


def test_whoever_confuses_token_and_address_is_told(home: Home) -> None:
    swapped = home.run("config", "login-with-token", "http://lab:8085", "eyJ0")
    cut = home.run("config", "login-with-token", "eyJ0", "http://lab:8085")

    assert swapped.returncode == cut.returncode == 127
    assert "`neuro config login-with-token TOKEN http://lab:8085`" in swapped.stderr
    assert "Passed string does not contain valid JWT structure. It is not" in cut.stderr


def test_a_token_that_nobody_made_is_refused(running: Home) -> None:
    url = running.ok("config", "show").split("API URL: ")[1].split()[0]

    assert running.run("config", "login-with-token", "rubbish", url).returncode == 127
    forged = "eyJhbGciOiJIUzI1NiJ9.eyJpZGVudGl0eSI6InJvb3QifQ.c2ln"
    assert running.run("config", "login-with-token", forged, url).returncode == 77


def test_a_job_is_logged_in_by_what_it_is_passed(running: Home, tmp_path: Path) -> None:
    content = json.loads((running.config_dir / "servers.json").read_text())["accounts"][0]
    passed = {"token": content["token"], "cluster": "default", "url": content["url"]}
    inside = Home(tmp_path / "inside")

    said = inside.ok(
        "config",
        "show",
        NEURO_PASSED_CONFIG=base64.b64encode(json.dumps(passed).encode()).decode(),
    )

    assert f"API URL: {content['url']}" in said
    assert not (inside.config_dir / "servers.json").exists()


def test_two_servers_stand_side_by_side(running: Home, tmp_path: Path) -> None:
    first = running.ok("config", "show").split("API URL: ")[1].split()[0]
    running.ok("up", "--port", "0", "--data-dir", str(tmp_path / "second"))
    try:
        second = running.ok("config", "show").split("API URL: ")[1].split()[0]
        assert second != first

        listed = running.ok("config", "get-clusters")
        assert first in listed
        assert second in listed
        said = running.ok("config", "switch-cluster", "--server", first, "default")

        assert said == f"The current cluster is default at {first}\n"
        assert f"API URL: {first}" in running.ok("config", "show")
        assert running.run("config", "switch-cluster", "nowhere").returncode == 127
        # Its data folder is known from `neuro up`.
        assert f"Logged into {second} as " in running.ok("login", second)
    finally:
        running.ok("down", "--data-dir", str(tmp_path / "second"))


def test_the_configuration_of_a_dead_server_is_shown_as_it_was(running: Home) -> None:
    before = running.ok("config", "show")
    running.ok("down")

    done = running.run("config", "show")

    assert done.stdout == before
    assert "WARNING: Cannot reach the server" in done.stderr


def test_the_server_runs_in_the_foreground_until_it_is_told_to_stop(home: Home) -> None:
    with home.start("server", "run", "--port", "0") as server:
        server.until("ready")
        assert "The server has been running since" in home.ok("server", "status")
        home.ok("login")
        home.ok("down")

        assert server.end() == 0


def test_without_the_servers_packages_it_is_said_how_to_get_them(home: Home) -> None:
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvloop' else real(name, *a)\n"
        "from neuro.cli.main import main\nsys.argv = ['neuro', 'up']\nmain()\n"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], env=home.environment(), capture_output=True, text=True
    )

    assert done.returncode == 70
    assert "pip install '/path/to/clone[server]'" in done.stderr
    assert not (home.data_dir / "run").exists()


def test_why_a_start_failed_is_said_also_where_the_log_is_rotated_meanwhile(
    home: Home, tmp_path: Path
) -> None:
    log = home.data_dir / "logs" / "server.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * 99 + b"\n" * (10 << 20))
    # What nobody foresaw, so that no sentence of the server's tells it.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'neuro.server' in sys.orig_argv:\n"
        "    sys.modules['neuro.engines.sandbox.syscalls'] = None\n"
    )

    done = home.run("up", "--port", "0", PYTHONPATH=str(tmp_path))

    assert done.returncode != 0
    assert "The server ended while starting." in done.stderr
    assert "import of neuro.engines.sandbox.syscalls halted" in done.stderr
    assert '{"' not in done.stderr
    assert log.stat().st_size < 1 << 20
    assert log.with_name("server.log.1").stat().st_size > 10 << 20


def test_the_log_of_the_platform_is_lines_of_json_which_hold_no_token(home: Home) -> None:
    with home.with_platform():
        home.ok("ps")
        lines = (home.data_dir / "logs" / "server.log").read_text().splitlines()
        token = json.loads((home.data_dir / "run" / "owner.json").read_text())["token"]

    assert "ready" in [json.loads(line)["event"] for line in lines]
    assert token not in "".join(lines)
