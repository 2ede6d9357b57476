from __future__ import annotations

import json
import sys
from pathlib import Path

from neuro.cli.server.doctor import profile
from tests.cli.platform import Home

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_layers_are_shown_line_by_line(home: Home) -> None:
    lines = home.ok("doctor").splitlines()

    assert lines[0] == f"Data folder {home.data_dir}: no server runs there."
    assert lines[2].startswith("√ kernel")
    assert any(line.startswith("√ sandbox") for line in lines)
    assert lines[-1] == "Jobs can run on this machine."
    assert max(map(len, lines[1:])) <= 100


def test_the_findings_are_there_for_programs_too(home: Home) -> None:
    report = json.loads(home.ok("doctor", "--json"))

    assert report["ready"] is True
    assert {"name", "state", "text", "command"} == {*report["findings"][0]}
    assert {finding["state"] for finding in report["findings"]} <= {"ok", "warning"}


def test_the_exit_code_says_that_jobs_cannot_run(home: Home) -> None:
    (home.data_dir / "server.toml").write_text("nonsense = 1\n")

    done = home.run("doctor")
    as_json = home.run("doctor", "--json")

    assert (done.returncode, as_json.returncode) == (1, 1)
    assert "\n× settings" in done.stdout
    assert "server.toml" in done.stdout
    assert "Jobs cannot run on this machine" in done.stdout
    assert json.loads(as_json.stdout)["ready"] is False


def test_a_storage_that_is_not_mounted_is_told(home: Home, tmp_path: Path) -> None:
    (home.data_dir / "server.toml").write_text(f"[storage]\nfolder = '{tmp_path}/away/storage'\n")

    done = home.run("doctor")

    assert done.returncode == 1
    assert "is it mounted?" in " ".join(done.stdout.split())

    (tmp_path / "away").mkdir()
    assert home.run("doctor").returncode == 0
    assert not list((tmp_path / "away").iterdir())


def test_a_running_server_and_its_jobs_go_on(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "ubuntu", "sleep", "1000").strip()

    assert ": a server runs there, http://" in person.ok("doctor").splitlines()[0]

    assert person.ok("-q", "ps", "-s", "running").split() == [job]
    assert person.ok("run", "ubuntu", "--", "echo", "still here").endswith("still here\n")
    person.ok("kill", job)


def test_a_profile_for_apparmor_is_filled_in_and_ships(home: Home) -> None:
    done = home.run("doctor", "--apparmor")

    interpreter = str(Path(sys.executable).resolve())
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("profile ")]
    assert line == f"profile neuro {interpreter} flags=(unconfined) {{"
    assert "python3 -m venv --copies" in done.stderr  # this environment links to another one's
    assert (DEPLOY / "apparmor" / "neuro").read_text() == profile("/opt/neuro/bin/python*")
