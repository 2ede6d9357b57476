"""``neuro run``: what a job is given, what it prints, how it ends.

See docs/reference/wire-protocol.md#jobs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from tests.clients.reference_client import ReferenceClient

Named = Callable[[str], str]


def test_a_short_command_prints_once_and_ends_well(client: ReferenceClient) -> None:
    outcome = client.run("run", "ubuntu", "--", "echo", "Hello, World!")

    assert outcome.lines.count("Hello, World!") == 1
    assert outcome.err == ""


def test_the_exit_code_of_the_command_is_the_clients(client: ReferenceClient) -> None:
    assert client.run("run", "ubuntu", "--", "sh", "-c", "exit 7", ok=False).code == 7
    assert client.run("run", "ubuntu", "--", "no-such-command", ok=False).code == 127


def test_output_while_attached_comes_once_and_in_order(client: ReferenceClient) -> None:
    # It prints before, while and after the client attaches, which takes it 0.2 to 0.5 seconds.
    script = "for i in $(seq 100); do echo line $i; sleep 0.01; done; exit 3"

    outcome = client.run("run", "ubuntu", "--", "sh", "-c", script, ok=False)

    lines = [line for line in outcome.lines if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, 101)]
    assert outcome.code == 3
    assert "Connection lost" not in outcome.out + outcome.err


def test_much_output_while_attached_is_complete(client: ReferenceClient) -> None:
    outcome = client.run("run", "ubuntu", "--", "sh", "-c", "seq 100000; sleep 0.5; seq 100000")

    numbers = [line for line in outcome.lines if line.isdecimal()]
    assert numbers == [*map(str, range(1, 100_001))] * 2


def test_output_goes_on_over_a_restart(client: ReferenceClient) -> None:
    script = "echo run; sleep 0.5; echo done; test -e /mark/once || { touch /mark/once; exit 1; }"
    volume = f"storage:restarted-{client.version}:/mark:rw"

    outcome = client.run(
        "run", "--restart", "on-failure", "-v", volume, "ubuntu", "--", "sh", "-c", script
    )

    assert [line for line in outcome.lines if line in ("run", "done")] == ["run", "done"] * 2
    assert client.status(outcome.job_id)["Restarts"] == "1"


def test_a_detached_job_is_named_described_and_tagged(
    client: ReferenceClient, named: Named
) -> None:
    options = [
        "--name", named("described"), "--description", "what it is for",
        "--tag", "kind:a", "--tag", "kind:b", "--life-span", "2h", "--preset", "cpu-small",
        "--http", "8080", "--no-http-auth", "--restart", "always",
    ]  # fmt: skip

    outcome = client.run("run", "--detach", *options, "ubuntu", "--", "sleep", "1000")

    assert f"Name: {named('described')}" in outcome.lines
    rows = client.status(outcome.job_id)
    assert rows["Status"] == "running"
    assert rows["Description"] == "what it is for"
    assert rows["Tags"] == "kind:a, kind:b"
    assert rows["Life span"] == "2h"
    assert rows["Restart policy"] == "always"
    assert (rows["Http port"], rows["Http authentication"]) == ("8080", "False")
    assert rows["Image"] == "ubuntu:latest"
    assert rows["Command"] == "sleep 1000"
    assert rows["Http URL"].startswith(f"http://{named('described')}--{client.user}.")
    client.run("kill", outcome.job_id)


def test_environment_folder_and_entrypoint_are_the_jobs(client: ReferenceClient) -> None:
    env_file = client.home / "variables"
    env_file.write_text("# comment\nFROM_FILE=file\nBOTH=file\n")

    outcome = client.run(
        "run", "-e", "BOTH=option", "-e", "SPACED=a  b", "--env-file", str(env_file),
        "--workdir", "/usr/lib", "--entrypoint", "sh -c",
        "ubuntu", "--", shlex.quote('pwd; echo "$FROM_FILE-$BOTH-$SPACED-$NEURO_JOB_PRESET"'),
    )  # fmt: skip

    assert "/usr/lib" in outcome.lines
    assert "file-option-a  b-cpu-small" in outcome.lines


def test_a_command_is_no_shells_business(client: ReferenceClient) -> None:
    outcome = client.run("run", "ubuntu", "--", "echo", "$HOME", "two  words", "*")

    assert "$HOME two  words *" in outcome.lines


def test_volumes_are_where_they_should_be(client: ReferenceClient) -> None:
    (client.home / "input.txt").write_text("from storage\n")
    folder = f"storage:volumes-{client.version}"
    client.run("mkdir", "-p", f"{folder}/in")
    client.run("cp", str(client.home / "input.txt"), f"{folder}/in/")

    outcome = client.run(
        "run", "-v", f"{folder}/in:/in:ro", "-v", f"{folder}/out:/out:rw", "ubuntu", "--",
        "sh", "-c", "cat /in/input.txt; touch /in/x && exit 1; tr a-z A-Z < /in/input.txt > /out/o",
    )  # fmt: skip

    assert "from storage" in outcome.lines
    client.run("cp", f"{folder}/out/o", str(client.home / "result.txt"))
    assert (client.home / "result.txt").read_text() == "FROM STORAGE\n"


def test_what_cannot_be_run_is_refused_with_the_reason(
    client: ReferenceClient, sleeper: str
) -> None:
    def refusal(code: int, *options: str) -> str:
        outcome = client.run("run", *options, "ubuntu", "--", "true", ok=False)
        assert outcome.code == code, outcome
        return outcome.err

    assert "already exists" in refusal(65, "--name", sleeper)
    assert "can never run here" in refusal(65, "--preset", "cpu-huge")
    assert "does not exist" in refusal(65, "-v", "storage:no-such-folder:/x:ro")
    assert "Invalid job name" in refusal(127, "--name", "Not-A-Name")
    assert "nope" in refusal(2, "--preset", "nope")


def test_a_job_that_is_not_scheduled_in_time_fails(client: ReferenceClient) -> None:
    first = client.submit("--preset", "cpu-large", "ubuntu", "--", "sleep", "1000")

    outcome = client.run(
        "run", "--preset", "cpu-large", "--schedule-timeout", "1s", "ubuntu", "--", "true", ok=False
    )

    assert outcome.code == 125
    assert "ClusterScaleUpFailed" in outcome.out
    client.run("kill", first)


def test_ctrl_c_leaves_a_job_running(client: ReferenceClient) -> None:
    with client.started("run", "ubuntu", "--", "sh", "-c", "echo up; sleep 1000") as going:
        job = going.expect("Job ID").split()[-1]
        going.expect("up")
        going.interrupt()

    assert client.status(job)["Status"] == "running"
    client.run("kill", job)
