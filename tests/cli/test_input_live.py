"""Standard input that is passed on: to `neuro exec`, and to the job of `neuro run`."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.cli.platform import NEURO, PATIENCE, Home

# Every byte there is, and more of them than all the buffers on the way hold.
BYTES = bytes(range(256)) * (12 << 10)


def piped(
    person: Home, *words: str, given: bytes | int = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run ``neuro`` with these bytes, or this descriptor, as its standard input."""
    source = {"input": given} if isinstance(given, bytes) else {"stdin": given}
    return subprocess.run(
        [*NEURO, *words],
        env=person.environment(),
        cwd=person.work_dir,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        **source,  # type: ignore[arg-type]
    )


def a_host(person: Home) -> str:
    return person.ok("-q", "run", "--detach", "ubuntu", "sleep", "600").strip()


def test_what_is_piped_into_exec_arrives_byte_for_byte(person: Home) -> None:
    done = piped(person, "exec", a_host(person), "cat", given=BYTES)

    assert done.returncode == 0, done.stderr
    assert done.stdout == BYTES


def test_exec_without_input_ends_at_once(person: Home) -> None:
    host = a_host(person)

    assert piped(person, "exec", host, "cat").stdout == b""
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        done = piped(person, "exec", "-T", host, "--", "sh", "-c", "cat; echo over", given=nothing)
    finally:
        os.close(nothing)
    assert (done.returncode, done.stdout) == (0, b"over\n")


def test_exec_in_a_terminal_without_a_terminal_for_the_command_has_no_input(person: Home) -> None:
    with person.terminal("exec", "-T", a_host(person), "--", "sh", "-c", "cat; echo over") as it:
        it.until("over\r\n")
        assert it.end() == 0


def test_a_file_is_the_input_of_exec(person: Home, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(1 + 1)\n")

    with script.open("rb") as file:
        done = piped(person, "exec", a_host(person), "python3", "-", given=file.fileno())

    assert (done.returncode, done.stdout) == (0, b"2\n")


def test_exec_ends_with_its_command_however_much_input_there_is(person: Home) -> None:
    host = a_host(person)
    endless = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    assert endless.stdout is not None

    with endless:
        done = piped(person, "exec", host, "head", "-n", "1", given=endless.stdout.fileno())
        endless.stdout.close()

    assert (done.returncode, done.stdout) == (0, b"y\n")


def test_who_writes_is_told_that_the_command_reads_no_more(person: Home) -> None:
    script = "exec <&-; until [ -e /tmp/go ]; do sleep 0.05; done"
    host = a_host(person)
    endless = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    assert endless.stdout is not None
    command = [*NEURO, "exec", host, "--", "sh", "-c", script]
    reader = subprocess.Popen(command, env=person.environment(), stdin=endless.stdout)
    endless.stdout.close()

    assert endless.wait(PATIENCE) == -13

    person.ok("exec", host, "touch", "/tmp/go")
    assert reader.wait(PATIENCE) == 0


def test_what_is_piped_into_a_run_is_the_jobs_input(person: Home) -> None:
    done = piped(person, "-q", "run", "ubuntu", "sha256sum", given=BYTES)

    expected = subprocess.run(["sha256sum"], input=BYTES, capture_output=True, check=True).stdout
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected


def test_a_script_is_the_input_of_a_run(person: Home, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(1 + 1)\nsys.exit(7)\n")

    with script.open("rb") as file:
        done = piped(person, "-q", "run", "ubuntu", "python3", "-", given=file.fileno())

    assert (done.returncode, done.stdout) == (7, b"2\n")


def test_a_run_without_input_has_none(person: Home) -> None:
    assert piped(person, "-q", "run", "ubuntu", "cat").returncode == 0
    assert person.run("-q", "run", "ubuntu", "cat").returncode == 0


def test_a_job_that_reads_no_input_does_not_wait_for_it(person: Home) -> None:
    reader, writer = os.pipe()
    try:
        done = piped(person, "-q", "run", "ubuntu", "echo", "done", given=reader)
    finally:
        os.close(reader)
        os.close(writer)

    assert done.stdout == b"done\n"


def test_the_input_of_a_job_ends_with_whoever_sends_it(person: Home) -> None:
    reader, writer = os.pipe()
    script = "echo begun; cat; echo ended"
    words = ("-q", "run", "--name", "left", "ubuntu", "--", "sh", "-c", script)
    process = subprocess.Popen(
        [*NEURO, *words], env=person.environment(), stdin=reader, stdout=subprocess.PIPE
    )
    os.close(reader)
    with process:
        assert process.stdout is not None
        while process.stdout.readline() != b"begun\n":
            pass
        os.write(writer, b"a word\n")
        assert process.stdout.readline() == b"a word\n"
        process.kill()
    os.close(writer)

    assert person.ok("logs", "left") == "begun\na word\nended\n"


def test_input_goes_on_where_it_was_after_a_restart_of_the_server(person: Home) -> None:
    reader, writer = os.pipe()
    script = "echo begun; sha256sum"
    process = subprocess.Popen(
        [*NEURO, "-q", "run", "ubuntu", "--", "sh", "-c", script],
        env=person.environment(), stdin=reader, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.close(reader)
    half = len(BYTES) // 2
    with process, os.fdopen(writer, "wb") as given:
        assert process.stdout is not None
        while process.stdout.readline() != b"begun\n":
            pass
        given.write(BYTES[:half])
        given.flush()
        address = re.search(r"API URL: http://[^:]+:(\d+)/", person.ok("config", "show"))
        assert address is not None
        person.ok("down")
        person.ok("up", "--port", address[1])
        given.write(BYTES[half:])
        given.close()
        result, _ = process.communicate(timeout=PATIENCE)

    expected = subprocess.run(["sha256sum"], input=BYTES, capture_output=True, check=True).stdout
    assert result == expected
