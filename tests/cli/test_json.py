"""What programs are told: JSON wherever people are shown a table or a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import pytest

from neuro.cli.main import root
from neuro.flow.cli.main import root as flow_root
from tests.cli.platform import Home

# These print the output of jobs, a secret, a script, a URI, a number or a sentence: no table, no
# report.
WITHOUT = """
neuro run, logs, attach, exec, save, port-forward, cp, rm, mkdir, mv, down, login, logout, help
neuro job browse, job bump-life-span, job generate-run-command, project init, server run
neuro server down, server reload, config login, config login-with-token, config logout
neuro config show-token, config docker, config switch-cluster, config token revoke
neuro admin remove-user, admin add-resource-preset, admin update-resource-preset
neuro admin remove-resource-preset
neuro secret add, secret rm, secret restore
neuro acl revoke, acl add-role, acl remove-role, completion generate, completion patch
neuro image rm, image size, image digest, image push, image pull, push, pull
neuro-flow run, logs, cancel, clear-cache, schedule, unschedule, mkvolumes, upload, download
neuro-flow clean, build, init, schema, delete-project, completion generate, completion patch
"""


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command of a group and of the groups in it, by its name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


@pytest.mark.parametrize(("program", "group"), [("neuro", root()), ("neuro-flow", flow_root())])
def test_every_command_that_prints_a_table_or_a_report_has_it_as_json(
    program: str, group: click.Group
) -> None:
    without = {
        word.strip().removeprefix("job ").removeprefix("storage ")
        for row in WITHOUT.splitlines()
        if row.partition(" ")[0] == program
        for word in row.partition(" ")[2].split(",")
    }
    found = {
        name.removeprefix("job ").removeprefix("storage ")
        for name, command in leaves(group)
        if not any("--json" in it.opts for it in command.params) and not command.hidden
    }
    assert found == without


def told(person: Home, *words: str) -> Any:
    return json.loads(person.ok(*words, "--json"))


def test_jobs_are_told_whole(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "-d", "a \u202e b", "ubuntu", "sleep", "100").strip()

    (listed,) = told(person, "ps")
    shown = told(person, "status", job)

    assert (listed["id"], shown["id"]) == (job, job)
    assert (shown["status"], shown["tags"], shown["name"]) == ("running", [], None)
    assert shown["description"] == "a \u202e b"
    assert datetime.fromisoformat(shown["history"]["created_at"]).utcoffset() is not None


def test_an_empty_list_is_a_list(person: Home) -> None:
    assert told(person, "ps") == []


def test_usage_is_a_line_for_each_sample(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "ubuntu", "sleep", "100").strip()

    with person.start("top", "--json", job) as it:
        line = json.loads(it.until("\n"))

    assert line["id"] == job
    assert {"cpu", "memory_bytes", "gpu_duty_cycle"} <= line.keys()
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None


def test_entries_of_the_storage_are_told(person: Home) -> None:
    (person.work_dir / "told").write_text("four")
    person.ok("cp", "told", "storage:told")

    entry = next(it for it in told(person, "ls") if it["name"] == "told")

    assert (entry["type"], entry["size"]) == ("file", 4)
    assert entry["path"].endswith("/told")
    assert datetime.fromisoformat(entry["modified"]).utcoffset() is not None


def test_a_folder_is_told_as_a_tree(person: Home) -> None:
    (person.work_dir / "forest" / "deep").mkdir(parents=True)
    (person.work_dir / "forest" / "deep" / "leaf").write_text("green")
    person.ok("cp", "-r", "forest", "storage:forest")

    top = told(person, "storage", "tree", "storage:forest")

    (folder,) = top["contents"]
    assert [(it["name"], it["type"]) for it in (top, folder)] == [
        ("forest", "directory"),
        ("deep", "directory"),
    ]
    (leaf,) = folder["contents"]
    assert (leaf["name"], leaf["size"], "contents" in leaf) == ("leaf", 5, False)
    assert leaf["path"] == f"{top['path']}/deep/leaf"


def test_what_matches_is_told_as_a_list_of_a_folder_is(person: Home) -> None:
    (person.work_dir / "matched.csv").write_text("1,2")
    person.ok("cp", "matched.csv", "storage:matched.csv")

    (entry,) = told(person, "storage", "glob", "storage:match*.csv", "storage:nothing*")

    assert entry in told(person, "ls")
    asked = person.run("--trace", "storage", "glob", "--json", "storage:match*.csv").stderr
    assert "LISTSTATUS" in asked
    assert "GETFILESTATUS" not in asked  # The listing has told all.
    assert told(person, "storage", "glob", "storage:nothing*") == []


def test_what_became_of_each_job_that_was_to_be_stopped_is_told(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "--name", "stopped", "ubuntu", "sleep", "100").strip()

    said = person.run("kill", "--json", "stopped", "not-there")

    assert said.returncode == 1
    first, second = json.loads(said.stdout)
    assert first == {"job": "stopped", "id": job, "killed": True, "error": None}
    assert (second["job"], second["killed"]) == ("not-there", False)
    assert "not-there" in second["error"]


def test_usage_of_each_person_is_told(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "ubuntu", "sleep", "100").strip()

    (usage,) = told(person, "admin", "usage")

    assert (usage["running"], usage["gpu"]) == (1, 0)
    assert usage["memory"] == told(person, "status", job)["container"]["resources"]["memory"]
    assert usage["cpu_hours"] >= 0


def test_a_token_and_a_user_are_told_once_they_are_made(person: Home) -> None:
    token = told(person, "config", "token", "create", "--label", "ci")
    user = told(person, "admin", "add-user", "told-of")

    assert token["label"] == "ci"
    assert token["id"] in [it["id"] for it in told(person, "config", "token", "ls")]
    assert (user["name"], user["is_admin"]) == ("told-of", False)
    login = ("config", "login-with-token", user["token"]["token"], user["api_url"])
    person.ok("--neuromation-config", str(person.folder / "told-of"), *login)


def test_a_platform_that_is_up_is_told_as_its_status_is(person: Home) -> None:
    assert told(person, "up") == told(person, "server", "status")


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("config show", {"user", "cluster", "api_url", "presets"}),
        ("server status", {"running", "pid", "api_url", "engines", "version"}),
        ("storage df", {"total", "used", "free"}),
    ],
)
def test_reports_are_told_and_no_secret_with_them(person: Home, words: str, keys: set[str]) -> None:
    found = told(person, *words.split())

    assert keys <= found.keys()
    assert person.ok("config", "show-token").strip() not in json.dumps(found)


@pytest.mark.parametrize(
    "words", ["config get-clusters", "config aliases", "config token ls", "admin users"]
)
def test_lists_are_told(person: Home, words: str) -> None:
    assert isinstance(told(person, *words.split()), list)
