from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.platform import NEURO, PATIENCE, Home, Terminal

JOB_ID = re.compile(r"job-[0-9a-f-]{36}")


def detach(person: Home, *words: str) -> str:
    """Start a job that stays; its id."""
    return person.ok("-q", "run", "--detach", *words).strip()


# What a job says where Docker Hub cannot be reached, as in the tests.
OFFLINE = (
    "It runs on this machine's own programs, as docker.io cannot be reached: Connection refused"
)


def test_a_run_looks_as_specified_and_ends_with_the_job(person: Home) -> None:
    done = person.run(
        "run", "--preset", "cpu-small", "--name", "test", "ubuntu", "echo", "Hello, World!"
    )

    assert (done.returncode, done.stdout) == (0, "Hello, World!\n")
    lines = done.stderr.partition("Job ID: ")[2].splitlines()
    assert JOB_ID.fullmatch(lines[0])
    assert lines[1:3] == ["Status: pending", "Name: test"]
    assert lines[3].startswith("Http URL: http://test--")
    assert lines[4:10] == [
        "Shortcuts:",
        "  neuro status test # check job status",
        "  neuro logs test # monitor job stdout",
        "  neuro top test # display real-time job telemetry",
        "  neuro exec test bash # execute bash shell to the job",
        "  neuro kill test # kill job",
    ]
    assert lines[10:12] == ["Status: pending Creating", "Status: pending Scheduling"]
    # Where it is over before it is asked for, it tells nothing of how it ran.
    assert lines[12] in ("Status: running", f"Status: running ({OFFLINE})")
    assert lines[13:] == [
        "Terminal is attached to the remote job, so you receive the job's output.",
        "Use Ctrl-C to detach (it will NOT terminate the job), or restart the job with"
        " `--detach` option.",
    ]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_a_run_exits_with_the_jobs_exit_code(person: Home, code: int) -> None:
    assert person.run("run", "ubuntu", "--", "sh", "-c", f"exit {code}").returncode == code


def test_a_quiet_run_prints_the_raw_output_and_its_id_beside_it(person: Home) -> None:
    done = person.run("-q", "run", "ubuntu", "echo", "raw")

    assert done.stdout == "raw\n"
    assert JOB_ID.search(done.stderr)


def test_a_job_whose_image_is_out_of_reach_says_what_it_runs_on(person: Home) -> None:
    job = detach(person, "unheard-of:7", "sleep", "600")
    logs = person.run("logs", "--no-follow", job)
    on_host = person.run("run", "host", "true")

    assert logs.stderr == f"Job {job}: {OFFLINE}\n"
    assert OFFLINE in person.ok("status", job)
    assert on_host.returncode == 0
    assert OFFLINE not in on_host.stderr


def test_a_program_that_is_not_there_fails_with_its_reason(person: Home) -> None:
    for options in ((), ("-q",)):
        done = person.run(*options, "run", "ubuntu", "no-such-program")

        assert done.returncode == 127
        assert "ContainerCannotRun" in done.stderr


def test_variables_files_and_the_folder_arrive_in_the_job(person: Home) -> None:
    (person.work_dir / "settings.env").write_text("FROM_FILE=file\nBOTH=file\n")

    said = person.ok(
        *("-q", "run", "-e", "BOTH=option", "-e", "COPIED", "--env-file", "settings.env"),
        *("--workdir", "/tmp", "ubuntu", "--", "sh", "-c"),
        "echo $FROM_FILE $BOTH $COPIED $PWD",
        COPIED="here",
    )

    assert said == "file option here /tmp\n"


def test_large_output_arrives_whole(person: Home) -> None:
    size = 30_000_000
    script = f"yes 0123456789abcdef | head -c {size}"

    done = subprocess.run(
        [*NEURO, "-q", "run", "ubuntu", "--", "sh", "-c", script],
        env=person.environment(),
        stdout=subprocess.PIPE,
        check=True,
    )

    assert len(done.stdout) == size
    assert done.stdout == (b"0123456789abcdef\n" * (size // 17 + 1))[:size]


def test_an_interrupted_run_leaves_the_job_alone(person: Home) -> None:
    with person.start(
        "run", "--name", "stays", "ubuntu", "--", "sh", "-c", "echo on; sleep 100"
    ) as it:
        it.until("Terminal is attached")
        it.until("on\n")
        it.interrupt()
        it.until("Detached: job stays goes on running. `neuro attach stays` comes back,")
        assert it.end() == 0

    assert "Status: running" in person.ok("status", "stays")


def test_an_interrupt_that_finds_the_main_thread_elsewhere_is_heard(person: Home) -> None:
    """As one does that comes just before the main thread begins to wait: nothing wakes it."""
    with person.start("run", "ubuntu", "--", "sh", "-c", "echo on; sleep 100") as it:
        it.until("on\n")
        it.interrupt_other_thread()
        it.until("Detached")
        assert it.end() == 0


def test_an_attached_job_is_seen_from_its_start_and_its_end_is_the_end(person: Home) -> None:
    script = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo over; exit 4"
    detach(person, "--name", "attached", "ubuntu", "--", "sh", "-c", script)

    with person.start("attach", "attached") as it:
        it.until("begun\n")
        # The job may see the file and end before the command that made it does.
        person.run("exec", "-T", "attached", "touch", "/tmp/go")
        it.until("over\n")
        assert it.end() == 4


def test_attaching_to_what_is_over_is_refused(person: Home) -> None:
    job = detach(person, "ubuntu", "true")
    person.ok("logs", job)

    done = person.run("attach", job)

    assert done.returncode == 65
    assert "neuro logs" in done.stderr


def test_a_list_has_the_active_jobs_and_all_on_request(person: Home) -> None:
    over = detach(person, "--tag", "listed", "ubuntu", "true")
    person.ok("logs", over)
    job = detach(person, "--name", "listed", "--tag", "listed", "ubuntu", "sleep", "100")

    lines = person.ok("ps", "--tag", "listed").splitlines()

    assert lines[0].split() == [
        "ID",
        "NAME",
        "STATUS",
        "WHEN",
        "IMAGE",
        "OWNER",
        "CLUSTER",
        "DESCRIPTION",
    ]
    assert [line.split()[:3] for line in lines[1:]] == [[job, "listed", "running"]]
    assert "<you>" in lines[1]
    assert person.ok("-q", "ps", "-t", "listed", "--all").split() == [over, job]
    assert person.ok("ps", "-q", "-t", "listed", "-a", "--recent-first").split() == [job, over]
    assert person.ok("-q", "ps", "-t", "listed", "-s", "succeeded").split() == [over]


def test_a_list_is_filtered_by_name_owner_description_and_time(person: Home) -> None:
    job = detach(person, "-n", "filtered", "-d", "look for me", "ubuntu", "sleep", "100")

    for options in (
        ("--name", "filtered"),
        ("--owner", "ME", "--description", "look for me"),
        ("--since", "1m", "-n", "filtered"),
    ):
        assert person.ok("-q", "ps", *options).split() == [job]
    for options in (("--owner", "nobody"), ("--until", "2020-01-01"), ("-d", "other")):
        assert person.ok("-q", "ps", *options) == ""


def test_the_format_of_a_list_is_the_option_or_the_configuration(person: Home) -> None:
    detach(person, "--name", "formed", "ubuntu", "sleep", "100")
    (person.work_dir / ".neuro.toml").write_text('[job]\nps-format = "name/status"\n')

    try:
        assert person.ok("ps", "-n", "formed").splitlines() == ["NAME/STATUS", "formed", "running"]
        assert person.ok("ps", "-n", "formed", "--format", "{name;MINE}").split() == [
            "MINE",
            "formed",
        ]
    finally:
        (person.work_dir / ".neuro.toml").unlink()


def test_a_job_is_found_by_id_name_and_uri(person: Home) -> None:
    job = detach(person, "--name", "found", "ubuntu", "sleep", "100")
    owner = person.ok("ps", "--format", "id", "--name", "found").split()
    user = re.search(r"Owner: (\S+)", person.ok("status", "found"))
    assert user is not None
    assert owner[1] == job

    for word in (
        job,
        "found",
        "job:found",
        f"job:/{user[1]}/found",
        f"job://default/{user[1]}/found",
    ):
        assert person.ok("status", word).splitlines()[0] == f"Job: {job}"


@pytest.mark.parametrize("command", ["status", "logs", "exec", "kill", "attach", "port-forward"])
def test_a_job_that_is_not_there_is_named(person: Home, command: str) -> None:
    more = {"exec": ["true"], "port-forward": ["1:1"]}.get(command, [])

    done = person.run(command, "not-there", *more)

    assert done.returncode == (1 if command == "kill" else 65)
    assert "not-there" in done.stderr


def test_logs_can_be_followed_timed_and_cut(person: Home) -> None:
    script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo second"
    job = detach(person, "ubuntu", "--", "sh", "-c", script)

    with person.start("logs", job) as it:
        it.until("first\n")
        # The job may see the file and end before the command that made it does.
        person.run("exec", "-T", job, "touch", "/tmp/go")
        it.until("second\n")
        assert it.end() == 0

    assert person.ok("logs", job) == "first\nsecond\n"
    timed = person.ok("logs", "--timestamps", job).splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z first", timed[0])
    assert person.ok("logs", "--since", timed[1].split()[0], job) == "second\n"


def test_exec_gives_output_errors_and_the_exit_code(person: Home) -> None:
    job = detach(person, "ubuntu", "sleep", "100")

    done = person.run("exec", job, "--", "sh", "-c", "echo out; echo err >&2; exit 9")

    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 9)


def test_exec_in_what_does_not_run_is_refused(person: Home) -> None:
    job = detach(person, "ubuntu", "true")
    person.ok("logs", job)

    done = person.run("exec", job, "true")

    assert done.returncode == 72
    assert "not running" in done.stderr


def test_killed_jobs_are_printed_and_what_cannot_be_killed_is_named(person: Home) -> None:
    job = detach(person, "--name", "first", "ubuntu", "sleep", "100")

    done = person.run("kill", "not-there", "first")

    assert done.stdout.split() == [job]
    assert "Cannot kill job not-there" in done.stderr
    assert done.returncode == 1
    person.ok("logs", job)
    assert "Status: cancelled (UserRequested)" in person.ok("status", job)


def test_top_shows_what_a_job_uses_until_its_time_is_up(person: Home) -> None:
    job = detach(person, "--name", "busy", "ubuntu", "sleep", "100")

    done = person.run("top", "busy", "--timeout", "3")  # a busy machine is slow

    lines = done.stdout.splitlines()
    assert done.returncode == 124
    assert lines[0].split()[:4] == ["ID", "NAME", "WHEN", "CPU"]
    assert lines[1].startswith(job)
    assert re.search(r"\d+\.\d{3}\s+\d+\.\d{3}$", lines[1])


def test_a_port_leads_into_the_job(person: Home) -> None:
    serve = ("python3", "-u", "-m", "http.server", "8000", "--bind", "127.0.0.1")
    job = detach(person, "ubuntu", "--", *serve)
    with person.start("logs", job) as log:
        log.until("Serving HTTP")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        with person.start("port-forward", job, f"{port}:8000") as forwarding:
            forwarding.until(f"Port localhost:{port} will be forwarded to port 8000 of {job}")
            forwarding.until("Press ^C to stop forwarding")
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            forwarding.interrupt()
            assert forwarding.end() == 0

    assert answer.startswith(b"HTTP/1.0 200 OK")


ANSWERS_AT_THE_END = """\
import socket
s = socket.socket(); s.bind(("127.0.0.1", 9000)); s.listen(); print("listens", flush=True)
while True:
    c, _ = s.accept(); n = 0
    c.sendall(b"hello\\n")
    while data := c.recv(65536): n += len(data)
    c.sendall(b"got %d\\n" % n); c.close()
"""

ENDS_FIRST = """\
import socket
s = socket.socket(); s.bind(("127.0.0.1", 9000)); s.listen(); print("listens", flush=True)
c, _ = s.accept(); c.sendall(b"hello\\n"); c.shutdown(socket.SHUT_WR); n = 0
while data := c.recv(65536): n += len(data)
print("got", n, flush=True)
"""


@contextmanager
def forwarded(person: Home, script: str) -> Iterator[tuple[Terminal, int]]:
    """The log of a job that runs ``script``, and a local port that leads to its port 9000."""
    job = detach(person, "ubuntu", "--", "python3", "-c", script)
    with person.start("logs", job) as log:
        log.until("listens")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with person.start("port-forward", job, f"{port}:9000") as forwarding:
            forwarding.until("will be forwarded")
            yield log, port
            forwarding.interrupt()
            assert forwarding.end() == 0


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_client_that_ends_its_sending_still_gets_its_answer(person: Home, size: int) -> None:
    with (
        forwarded(person, ANSWERS_AT_THE_END) as (_, port),
        socket.create_connection(("127.0.0.1", port), PATIENCE) as client,
    ):
        client.sendall(b"x" * size)
        client.shutdown(socket.SHUT_WR)

        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer == b"hello\ngot %d\n" % size


def test_a_job_that_ends_its_sending_still_hears_the_client(person: Home) -> None:
    with forwarded(person, ENDS_FIRST) as (log, port):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            assert b"".join(iter(lambda: client.recv(65536), b"")) == b"hello\n"
            client.sendall(b"x" * 70_000)

        log.until("got 70000")


def test_an_option_behind_the_description_is_explained(person: Home) -> None:
    done = person.run("run", "-d", "--name", "web", "ubuntu", "true")

    assert done.returncode == 2
    assert "Here -d is --description" in done.stderr
    assert "--detach" in done.stderr


def test_a_folder_that_was_deleted_is_named(person: Home) -> None:
    for program in ("neuro.cli", "neuro.flow"):
        command = f"mkdir gone; cd gone; rmdir ../gone; exec {sys.executable} -P -m {program} ps"
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=person.work_dir,
            env=person.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode != 0
        assert "The folder that you are in was deleted" in done.stderr


def test_a_local_port_that_is_taken_is_named(person: Home) -> None:
    job = detach(person, "ubuntu", "sleep", "100")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = person.run("port-forward", job, f"{port}:80")

    assert done.returncode == 74
    assert f"Cannot listen on port {port}" in done.stderr


def test_a_life_span_can_be_made_longer(person: Home) -> None:
    job = detach(person, "--life-span", "2h", "ubuntu", "sleep", "100")

    said = person.ok("job", "bump-life-span", job, "1d1h")

    assert said.splitlines()[0] == f"Updated job {job} life span to be 1d3h"
    assert said.splitlines()[1].startswith("Life span ends (approx): ")


def test_the_line_that_makes_a_job_again_makes_it_again(person: Home) -> None:
    job = detach(person, "-e", "A=x y", "--tag", "again", "ubuntu", "--", "sh", "-c", 'echo "$A"')
    line = person.ok("job", "generate-run-command", job)

    import shlex

    words = shlex.split(line)
    assert words[:2] == ["neuro", "run"]
    assert person.ok("-q", "run", *words[2:]) == "x y\n"


def test_no_page_is_opened_where_none_is_served(person: Home) -> None:
    programs = person.folder / "programs"
    programs.mkdir()
    for name in ("lynx", "w3m", "www-browser", "firefox", "xdg-open"):
        programs.joinpath(name).write_text(f"#!/bin/sh\ntouch {person.folder}/opened\n")
        programs.joinpath(name).chmod(0o755)
    search = {"PATH": f"{programs}:{os.environ['PATH']}", "BROWSER": str(programs / "firefox")}
    run = ("run", "--detach", "--name", "paged", "--port", "8080", "--browse")

    ran = person.run(*run, "ubuntu", "sleep", "100", **search)
    said = person.run("job", "browse", "paged", **search, DISPLAY=":0")

    assert ran.returncode == said.returncode == 0
    assert said.stdout == "Browsing job, please open: http://localhost:8080/\n"
    assert said.stdout in ran.stdout
    for told in (ran, said):
        assert "`neuro port-forward paged 8080:8080`" in told.stderr
        assert "`neuro logs paged`" in told.stderr
    assert not (person.folder / "opened").exists()
    assert person.run("job", "browse", "not-there").returncode == 65
    person.ok("kill", "paged")
    person.run("logs", "paged")
    over = person.run("job", "browse", "paged")
    assert (over.returncode, over.stdout) == (65, "")
    assert "Job paged is over (cancelled): it has no page now." in over.stderr


def test_the_page_of_a_low_port_is_forwarded_to_one_that_needs_no_privilege(person: Home) -> None:
    detach(person, "--name", "low", "ubuntu", "sleep", "100")

    said = person.run("job", "browse", "low")

    assert said.stdout.endswith("http://localhost:8080/\n")
    assert "`neuro port-forward low 8080:80`" in said.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--preset", "no-such", "ubuntu"), 65, "no-such"),
        (("NOT AN IMAGE",), 65, "image"),
        (("-v", "storage:x:/m:wr", "ubuntu"), 127, "Wrong mode"),
        (("-v", "HOME", "ubuntu"), 127, "no longer supported"),
        (("-n", "No", "ubuntu"), 127, "Invalid job name"),
        (("--life-span", "soon", "ubuntu"), 127, "not a duration"),
        (("--env-file", "absent.env", "ubuntu"), 72, "absent.env"),
        (("--http", "0", "--no-http-auth", "ubuntu"), 2, "--no-http-auth requires --http"),
        (("--browse", "--no-wait-start", "ubuntu"), 2, "--no-wait-start"),
        (("--http", "99999", "ubuntu"), 2, "99999"),
        (("--tty", "ubuntu"), 2, "from a terminal"),
        ((), 2, "IMAGE"),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_its_reason(
    person: Home, words: tuple[str, ...], code: int, message: str
) -> None:
    done = person.run("run", *words)

    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_is_taken_while_its_job_is_active(person: Home) -> None:
    job = detach(person, "--name", "taken", "ubuntu", "sleep", "100")

    done = person.run("run", "--name", "taken", "ubuntu", "true")

    assert done.returncode == 65
    assert job in done.stderr


def test_a_run_that_waits_for_nothing_comes_back_at_once(person: Home) -> None:
    said = person.ok("run", "--no-wait-start", "--name", "queued", "ubuntu", "sleep", "100")

    assert "Job ID: " in said
    assert "Status: running" not in said


def test_a_dead_server_is_said_with_its_address(home: Home, platform: Home) -> None:
    home.config_dir.mkdir(mode=0o700)
    accounts = (platform.config_dir / "servers.json").read_text()
    url = re.search(r"http://127\.0\.0\.1:\d+", accounts)
    assert url is not None
    (home.config_dir / "servers.json").write_text(accounts.replace(url[0], "http://127.0.0.1:1"))

    done = home.run("ps")

    assert done.returncode == 74
    assert "127.0.0.1:1" in done.stderr
    assert "neuro up" in done.stderr


def test_output_to_a_closed_pipe_ends_quietly(person: Home) -> None:
    job = detach(person, "ubuntu", "--", "sh", "-c", "yes | head -c 3000000")
    person.ok("logs", job)
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [*NEURO, "logs", job],
        env=person.environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    os.close(writer)

    assert done.stderr == ""
