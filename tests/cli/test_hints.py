"""What is said where a command line is nearly right."""

from __future__ import annotations

import pytest

from neuro.cli.job.hints import keyboard_hint, shell_hint
from neuro.client.job_request import Where, parse_volumes
from neuro.domain.errors import InvalidInput
from tests.cli.platform import Home

WHERE = Where("default", "anna")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("ls '|' wc -l", "bash -c 'ls | wc -l'"),
        ("ls | wc -l", "bash -c 'ls | wc -l'"),
        ("cat 'a file' '>' out", "bash -c 'cat \"a file\" > out'"),
        ("echo '$HOME' '|' wc", "bash -c 'echo $HOME | wc'"),
        ("echo hi; echo there", "bash -c 'echo hi; echo there'"),
        ("make '&&' make test", "bash -c 'make && make test'"),
        ("work.sh '2>&1'", "bash -c 'work.sh 2>&1'"),
    ],
)
def test_a_word_that_only_a_shell_understands_is_remarked_on(command: str, line: str) -> None:
    hint = shell_hint(command, "neuro run ubuntu")

    assert hint is not None
    assert hint.endswith(f"\n  neuro run ubuntu -- {line}")


@pytest.mark.parametrize(
    "command",
    [
        None, "", "echo 'a | b'", "bash -c 'ls | wc'", "expr 3 '>' 2", "find . -exec ls {} ';'",
        "echo 'x", "echo a|b", "grep -e '|'x", "curl 'http://a/?b=1&c=2'",
        "echo 'hi;' there", "find . -exec ls {} \\; -print", "echo hi;",
    ],
)  # fmt: skip
def test_other_commands_are_not(command: str | None) -> None:
    assert shell_hint(command, "neuro run ubuntu") is None


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        ("hello:/data", "did you mean 'storage:hello:/data'?"),
        ("hello:/data:ro", "did you mean 'storage:hello:/data:ro'?"),
        ("stroage:hello:/data", "did you mean 'storage:hello:/data'?"),
        ("Storage:hello:/data", "did you mean 'storage:hello:/data'?"),
        ("storage:hello", "the path in the job is missing. Write it like storage:hello:/data."),
        (
            "./nets/:/code:ro",
            "`neuro cp -r ./nets/ storage:nets`, then mount 'storage:nets:/code:ro'",
        ),
        ("/srv/data:/data", "not of this machine"),
        ("s3:bucket:/data", "write it like storage:FOLDER:/PATH:ro (or :rw)."),
    ],
)
def test_a_volume_of_another_form_is_refused_with_what_was_meant(volume: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_volumes([volume], WHERE)

    assert says in str(refused.value)


def test_a_shell_that_nobody_can_type_into_is_remarked_on() -> None:
    assert keyboard_hint(("bash",), "ubuntu") is not None
    assert keyboard_hint(("--", "/usr/bin/python3"), "ubuntu") is not None
    assert keyboard_hint(("bash", "-c", "ls"), "ubuntu") is None
    assert keyboard_hint((), "ubuntu") is None


def test_run_and_exec_say_what_a_shell_would_have_done(person: Home) -> None:
    with person.terminal("run", "--name", "host", "ubuntu", "bash") as it:
        it.until("Nobody can type into this job, so bash has ended.")
        it.until("neuro run -t ubuntu bash")
        assert it.end() == 0
    host = person.ok("-q", "run", "--detach", "ubuntu", "sleep", "600").strip()

    done = person.run("exec", host, "echo", "a", "|", "cat")

    assert done.stdout == "a | cat\n"
    assert f"neuro exec {host} -- bash -c 'echo a | cat'" in done.stderr


def test_an_image_that_became_the_description_is_said(person: Home) -> None:
    done = person.run("run", "-d", "ubuntu", "ls")

    assert "'ubuntu' describes this job, as -d is --description, and 'ls' is its image" in (
        done.stderr
    )
    assert "neuro run --detach ubuntu ls" in done.stderr
    assert "describes" not in person.run("run", "-d", "ubuntu", "ubuntu", "true").stderr


@pytest.mark.parametrize("name", ["ex", "job-1234", "No", "job:/anna/x"])
@pytest.mark.parametrize("command", ["status", "logs", "top", "exec", "attach", "port-forward"])
def test_a_name_that_no_job_can_have_is_that_of_no_job(
    person: Home, name: str, command: str
) -> None:
    more = {"exec": ["ls"], "port-forward": ["8080:80"]}.get(command, [])

    done = person.run(command, name, *more)

    assert done.returncode == 65
    assert done.stderr == f"ERROR: There is no job '{name}'. `neuro ps --all` lists yours.\n"


def test_what_needs_a_terminal_says_so(person: Home) -> None:
    for words in (["run", "-t", "ubuntu", "bash"], ["exec", "-t", "web", "tty"]):
        done = person.run(*words)

        assert done.returncode == 2
        assert "should be executed from a terminal" in done.stderr
        assert "Leave -t out" in done.stderr


def test_a_variable_that_is_not_set_here_is_said(person: Home) -> None:
    (person.work_dir / "names.env").write_text("ALSO_ABSENT\n")
    words = ("-e", "ABSENT", "-e", "THERE", "--env-file", "names.env", "ubuntu", "true")

    done = person.run("run", *words, THERE="1")

    assert "WARNING: ABSENT is not set here: the job gets it empty." in done.stderr
    assert "WARNING: ALSO_ABSENT is not set here" in done.stderr
    assert "THERE is" not in done.stderr


def test_a_folder_that_a_volume_makes_is_said(person: Home) -> None:
    words = ("run", "-v", "storage:typo/данные:/d", "ubuntu", "true")
    says = "typo/данные did not exist: an empty folder was made there."

    assert says in person.run(*words).stderr
    assert says not in person.run(*words).stderr
    refused = person.run("run", "-v", "storage:typo/2:/d:ro", "ubuntu", "true")
    assert refused.returncode == 65
    assert "typo/2 does not exist" in refused.stderr


def test_many_folders_that_volumes_make_are_said_in_a_few_words(person: Home) -> None:
    name = "длинный" * 15
    volumes = [f"--volume=storage:many/{number}-{name}:/v{number}" for number in range(40)]

    done = person.run("run", *volumes, "ubuntu", "true")

    assert done.returncode == 0, done.stderr
    assert "and 37 more did not exist: empty folders were made there." in done.stderr


def test_a_job_that_is_over_is_not_said_to_be_killed(person: Home) -> None:
    person.ok("run", "--name", "brief", "ubuntu", "true")

    done = person.run("kill", "brief")

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Job brief is over already (succeeded).\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("ls stroage:x", 127, "Did you mean 'storage:x'?"),
        ("cp a stroage:x", 127, "Did you mean 'storage:x'?"),
        ("mkdir storage:no/such/folder", 72, "With -p the folders above are made too."),
        ("mv storage:nosuch storage:x", 72, "storage://default/root/nosuch does not exist."),
        ("help ps-formt", 2, "Did you mean 'ps-format'"),
        ("help nosuch", 2, "`neuro --help` lists the commands"),
    ],
)
def test_what_is_nearly_right_is_told(person: Home, words: str, code: int, says: str) -> None:
    done = person.run(*words.split())

    assert done.returncode == code
    assert says in done.stderr


def test_a_copy_into_a_folder_that_is_not_there_says_how_to_make_it(person: Home) -> None:
    (person.work_dir / "a.txt").write_text("a")

    done = person.run("cp", "a.txt", "storage:not/there/yet/")

    assert done.returncode == 72
    assert "`neuro mkdir -p storage://default/root/not/there/yet` makes it" in done.stderr
    person.ok("mkdir", "-p", "storage:not/there/yet")
    person.ok("cp", "a.txt", "storage:not/there/yet/")
    person.ok("rm", "-r", "storage:not")


def test_a_move_into_a_folder_that_is_not_there_says_how_to_make_it(person: Home) -> None:
    person.ok("mkdir", "-p", "storage:moved")

    done = person.run("mv", "storage:moved", "storage:not/there/yet")

    assert done.returncode == 72
    assert "`neuro mkdir -p storage://default/root/not/there` makes it" in done.stderr
