"""The whole way with a real platform: make, send, run, watch, stop."""

from __future__ import annotations

import os
import re
import shutil
import signal

from tests.flow.cli.project import Person

SEEN = """
  JOB          │ STATUS  │ RAW ID │ WHEN
╶──────────────┼─────────┼────────┼──────╴
  filebrowser  │ unknown │ N/A    │ N/A
  jupyter      │ unknown │ N/A    │ N/A
  multitrain   │ unknown │ N/A    │ N/A
  remote_debug │ unknown │ N/A    │ N/A
  tensorboard  │ unknown │ N/A    │ N/A
  train        │ unknown │ N/A    │ N/A
               ╵         ╵        ╵
"""


def cells(text: str) -> dict[str, list[str]]:
    """The rows of ``ps`` by job."""
    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()[3:-1]]
    return {row[0]: row[1:] for row in rows}


def test_nothing_has_run_yet(person: Person) -> None:
    names = ("train", "multitrain", "filebrowser", "jupyter", "tensorboard", "remote_debug")
    person.write(
        ".neuro/live.yml",
        "kind: live\nid: fresh\njobs:\n"
        + "".join(f"  {name}: {{image: ubuntu, cmd: 'true'}}\n" for name in names),
    )

    assert person.flow_ok("ps") == SEEN


def test_the_way_of_the_first_hour(person: Person) -> None:
    assert person.flow_ok("mkvolumes") == "Create volume code\nCreate volume results\n"
    sent = person.flow_ok("upload", "ALL")
    assert "Copied 1 file (22B) to storage:example/code" in sent.splitlines()
    assert "greeting.txt" in person.ok("ls", "storage:example/code")

    ran = person.flow("run", "hello")
    assert ran.returncode == 0, ran.stderr
    assert "Job ID: job-" in ran.stderr
    assert "Name: example-hello" in ran.stderr
    assert ran.stdout == "hello from the volume\n"

    status, raw_id, when = cells(person.flow_ok("ps"))["hello"]
    assert status == "succeeded"
    assert when.endswith(("ago", "now"))
    assert person.flow_ok("logs", "hello") == "hello from the volume\n"
    shown = person.flow_ok("status", "hello")
    assert f"Job: {raw_id}" in shown
    assert "project:example" in shown

    (came,) = person.flow_ok("download", "results").splitlines()
    assert came.startswith("Copied 1 file (22B) to /")
    assert (person.project / "results" / "copy.txt").read_text() == "hello from the volume\n"

    person.flow_ok("clean", "results")
    assert "results" not in person.ok("ls", "storage:example")
    assert person.flow_ok("kill", "hello") == "Job hello is not running\n"
    assert person.flow_ok("kill", "ALL") == ""


def test_a_job_that_fails_gives_its_exit_code(person: Person) -> None:
    assert person.flow("run", "fails").returncode == 3


def test_upload_in_an_expression_sends_before_the_job_runs(person: Person) -> None:
    person.write("code/greeting.txt", "changed\n")
    person.write("code/.neuroignore", "*.tmp\n")
    person.write("code/left.tmp", "x")
    try:
        assert person.flow_ok("run", "sends").endswith("changed\n")
        assert "left.tmp" not in person.ok("ls", "storage:example/code")
    finally:
        person.write("code/greeting.txt", "hello from the volume\n")


def test_volumes_of_the_project_are_sent_without_live_jobs(person: Person) -> None:
    live = person.project / ".neuro/live.yml"
    live.unlink()
    project = person.write(
        ".neuro/project.yml",
        "id: example\nvolumes:\n"
        "  code: {remote: 'storage:${{ project.id }}/only', mount: /code, local: code}\n",
    )
    batch = "kind: batch\ntasks: [{id: a, image: ubuntu, volumes: ['${{ volumes.code.ref_ro }}'],"
    batch += " cmd: cat /code/greeting.txt}]\n"
    path = person.write(".neuro/only.yml", batch)
    try:
        told = person.flow("plan", "only").stderr
        (hint,) = re.findall("`neuro-flow (upload code)`", told)
        own = "volumes: {code: {remote: 'storage:example/only', mount: /code}}\n"
        person.write(".neuro/only.yml", batch + own)

        person.flow_ok(*hint.split())
        person.flow_ok("bake", "only", "-n", "only")

        assert person.flow_ok("-q", "show", "only", "a") == "hello from the volume\n"
        assert person.offered("upload", "c") == ["code"]
        assert "Create volume code" in person.flow_ok("mkvolumes")
        person.flow_ok("download", "ALL")
        person.flow_ok("clean", "code")
        assert "only" not in person.ok("ls", "storage:example").split()
        unknown = person.flow("upload", "data")
        assert (unknown.returncode, "Existing volumes: code" in unknown.stderr) == (1, True)
    finally:
        project.unlink()
        path.unlink()
    nowhere = person.flow("upload", "code")
    assert (nowhere.returncode, "project.yml" in nowhere.stderr) == (1, True)


def test_upload_sends_what_differs_and_download_loses_no_newer_work(person: Person) -> None:
    folder = person.project / "results"
    (folder / "old").mkdir(parents=True)
    (folder / "old/note").write_text("sent\n")
    person.flow_ok("upload", "results")
    (folder / "old/note").write_text("unpacked, and longer\n")
    os.utime(folder / "old/note", (0, 0))
    (folder / "old/dangling").symlink_to("nowhere")

    again = person.flow("upload", "results")
    (folder / "old/note").write_text("worked on here since\n\n")
    os.utime(folder / "old/note", (2**31, 2**31))
    kept = person.flow_ok("download", "results")

    assert again.returncode == 72
    assert "Copied 1 file (21B)" in again.stdout
    assert "1 NOT copied" in again.stdout
    assert person.ok("cp", "storage:example/results/old/note", "/dev/stdout") == (
        "unpacked, and longer\n"
    )
    assert "1 newer here and kept" in kept
    assert (folder / "old/note").read_text() == "worked on here since\n\n"
    person.flow_ok("clean", "results")
    shutil.rmtree(folder / "old")


def test_a_running_job_is_found_again(person: Person) -> None:
    first = person.flow_ok("-q", "run", "serves").strip()

    assert person.flow_ok("run", "serves") == "Job serves is running, connecting...\n"
    assert person.ok("-q", "ps").split() == [first]
    assert person.flow_ok("run", "asks").endswith(f"asked {first}\n")
    assert person.flow_ok("kill", "serves") == "Killed job serves\n"
    assert cells(person.flow_ok("ps"))["serves"][0] == "cancelled"
    assert person.flow_ok("-q", "ps").split()[-1] == first


def test_connecting_shows_the_output_and_detaches(person: Person) -> None:
    with person.watch("run", "waits") as first:
        first.until("begun")
        with person.watch("run", "waits") as second:
            second.until("Job waits is running, connecting...")
            second.until("begun")
            second.process.send_signal(signal.SIGINT)
            assert second.end() == 0
            assert "Detached: job example-waits goes on running" in second.shown
        person.flow_ok("kill", "waits")
        assert first.end() != 0


def test_ctrl_c_in_a_terminal_leaves_the_job_alone(person: Person) -> None:
    for _ in ("first", "again"):  # The second one connects.
        with person.flow_terminal("run", "waits") as shown:
            shown.until("Use Ctrl-C to detach (it will NOT terminate the job)")
            shown.until("begun")
            shown.press("\x03")
            shown.until("Detached: job example-waits goes on running")
            assert shown.end() == 0

    assert cells(person.flow_ok("ps"))["waits"][0] == "running"


def test_several_of_a_multi_job(person: Person) -> None:
    person.flow_ok("run", "multitrain", "-s", "a", "-p", "lr", "0.1")
    person.flow_ok("run", "multitrain", "--suffix", "wide")
    told = person.flow("run", "multitrain")
    suffix = re.findall("`neuro-flow logs multitrain (\\w+)`", told.stderr)[0]
    assert f"`neuro-flow kill multitrain {suffix}` stops it" in told.stderr
    assert person.flow_ok("kill", "multitrain", suffix) == f"Killed job multitrain {suffix}\n"
    made_up = person.flow_ok("-q", "run", "multitrain").strip()

    seen = cells(person.flow_ok("ps"))
    assert {"multitrain a", "multitrain wide"} < set(seen)
    assert len([name for name in seen if name.startswith("multitrain ")]) == 4
    assert made_up in [row[1] for row in seen.values()]
    assert person.offered("status", "multitrain", "w") == ["wide"]

    again = person.flow("run", "multitrain", "-s", "a", "--", "more")
    assert (again.returncode, "already running" in again.stderr) == (1, True)
    assert person.flow_ok("kill", "multitrain", "a") == "Killed job multitrain a\n"
    assert "lr=0.1 suffix=a" in person.flow_ok("logs", "multitrain", "a")
    killed = person.flow_ok("kill", "ALL").splitlines()
    assert "Killed job multitrain wide" in killed
    assert len(killed) == 2


def test_a_project_is_known_to_the_server_after_a_run_and_can_be_forgotten(
    person: Person,
) -> None:
    person.flow_ok("run", "multitrain", "-s", "c")

    assert person.offered("delete-project", "exa") == ["example"]
    assert (
        person.flow_ok("delete-project", "example")
        == "Project 'example' was successfully removed.\n"
    )
    done = person.flow("delete-project", "example")
    assert (done.returncode, "Unknown project example" in done.stderr) == (1, True)


def test_a_project_without_folders_of_its_own_says_that_there_is_nothing_to_send(
    person: Person,
) -> None:
    person.write(".neuro/live.yml", "kind: live\njobs: {a: {image: ubuntu, cmd: 'true'}}\n")

    for words in (["mkvolumes"], ["upload", "ALL"]):
        done = person.flow(*words)
        assert (done.returncode, done.stdout) == (0, "")
        assert "No volume of this project has a folder here (`local:`)" in done.stderr


def test_what_neuro_refuses_keeps_its_exit_code(person: Person) -> None:
    person.write(
        ".neuro/live.yml",
        "kind: live\njobs: {a: {image: ubuntu, preset: nope, cmd: 'true'}}\n"
        "volumes: {v: {remote: 'storage:none', mount: /v, local: none}}\n",
    )

    assert person.flow("run", "a").returncode == 65
    assert person.flow("upload", "v").returncode == 72
    assert person.flow("clean", "v").returncode == 72


def test_a_job_that_waits_for_its_start_is_left_alone(person: Person) -> None:
    person.write(
        ".neuro/live.yml",
        "kind: live\njobs: {late: {image: ubuntu, preset: large, detach: true, cmd: sleep 1000}}\n",
    )
    person.ok("run", "--detach", "--preset", "large", "ubuntu", "sleep", "1000")
    with person.watch("run", "late") as first:
        first.until("pending")
        again = person.flow("run", "late")
        assert (again.returncode, "Job late is pending, try again later" in again.stderr) == (
            2,
            True,
        )
        assert cells(person.flow_ok("ps"))["late"][0] == "pending"
        assert person.flow_ok("kill", "late") == "Killed job late\n"
        first.end()


def test_jobs_of_other_projects_and_people_are_not_its_own(person: Person) -> None:
    job = person.ok("-q", "run", "--detach", "--tag", "project:example", "ubuntu", "sleep", "99")

    assert person.flow_ok("kill", "ALL") == ""
    assert person.ok("-q", "ps") == job


def test_a_volume_that_is_not_there_yet_says_how_it_comes_there(person: Person) -> None:
    person.write(
        ".neuro/live.yml",
        "kind: live\nvolumes: {code: {remote: storage:new/code, mount: /code, local: code}}\n"
        "jobs: {a: {image: ubuntu, volumes: ['${{ volumes.code.ref_ro }}'], cmd: ls}}\n",
    )
    done = person.flow("run", "a")

    assert done.returncode == 65
    assert "storage://default/" in done.stderr
    assert done.stderr.endswith(
        "It is volume 'code' of this project:\n"
        "  neuro-flow mkvolumes           # makes the folders of all volumes\n"
        "  neuro-flow upload code         # copies code there\n"
    )


def test_values_that_change_on_their_way_are_told_before_a_job_runs(person: Person) -> None:
    person.write(
        ".neuro/live.yml", "kind: live\njobs: {a: {image: ubuntu, env: {V: 3.10}, cmd: 'true'}}\n"
    )
    for words in (["check"], ["run", "--dry-run", "a"]):
        done = person.flow(*words)
        assert done.returncode == 0
        assert "WARNING: 3.10 is sent as the string 3.1" in done.stderr
