"""What programs are told: JSON wherever people are shown a table or a report."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.cli.platform import Home


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
