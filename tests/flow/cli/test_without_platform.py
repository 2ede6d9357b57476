from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from neuro.cli.job.run import command as neuro_run
from tests.cli.shells import Shell, need
from tests.flow.cli.project import NEURO_FLOW, Person
from tests.flow.worked_job import JOB


def test_a_dry_run_prints_the_line_that_neuro_takes(alone: Person) -> None:
    import shlex

    alone.project = alone.work_dir / "my_ws"
    alone.write(".neuro/live.yml", "kind: live\n" + JOB)

    words = shlex.split(alone.flow_ok("run", "--dry-run", "-p", "p", "zz", "job_a"))

    env = {word for word in words if word.startswith("--env=")}
    assert env == {"--env=A=over", "--env=B=12"}
    volumes = {word for word in words if word.startswith("--volume=")}
    assert volumes == {
        "--volume=storage:d:/d",
        "--volume=storage:vol:/vol:ro",
        "--volume=storage:other:/other:rw",
    }
    tags = {word for word in words if word.startswith("--tag=")}
    assert tags == {
        f"--tag={tag}" for tag in ("job:job-a", "flow:live", "project:my-ws", "t1", "t2")
    }
    assert [word for word in words if word not in env | volumes | tags] == [
        "neuro", "run", "--description=live.job_a", "--name=my-ws-job-a", "--preset=cpu",
        "--schedule-timeout=90s", "--http=8080", "--no-http-auth", "--entrypoint=ep",
        "--workdir=/w", "--life-span=86400s", "--browse", "--detach", "--port-forward=1:2",
        "--pass-config", "--restart=always", "image:im:v1",
        "--", "bash", "-euo", "pipefail", "-c", 'echo zz "$X"',
    ]  # fmt: skip
    parsed = neuro_run.make_context("neuro run", words[2:])
    assert parsed.params["image"] == "image:im:v1"
    assert parsed.params["http"] == 8080


def test_a_dry_run_tells_what_upload_would_do(alone: Person) -> None:
    first, second, third = alone.flow_ok("run", "--dry-run", "sends").splitlines()

    code = alone.project / "code"
    assert first == "neuro mkdir --parents storage:example"
    assert second == (
        f"neuro cp --recursive --update --no-target-directory {code} storage:example/code"
    )
    assert third.startswith("neuro run --description=live.sends --name=example-sends ")


def test_parameters_are_two_words_or_one(alone: Person) -> None:
    alone.project = alone.work_dir / "my_ws"
    alone.write(".neuro/live.yml", "kind: live\n" + JOB)

    expected = alone.flow_ok("run", "--dry-run", "-p", "p", "a=b", "job_a")
    for words in (["-p", "p=a=b"], ["-pp=a=b"], ["--param", "p=a=b"], ["--param=p=a=b"]):
        assert alone.flow_ok("run", "--dry-run", *words, "job_a") == expected
    missing = alone.flow("run", "--dry-run", "job_a", "-p", "p")
    assert missing.returncode == 2
    assert "requires 2 arguments" in missing.stderr


def test_who_takes_a_batch_for_a_job_is_told_the_command(alone: Person) -> None:
    alone.write(".neuro/sweep.yml", "kind: batch\ntasks:\n- image: ubuntu\n  cmd: 'true'\n")

    run, bake = alone.flow("run", "sweep"), alone.flow("bake", "sends")

    assert "There is no job sweep, but a batch: `neuro-flow bake sweep` runs it." in run.stderr
    assert "There is no batch sends, but a job: `neuro-flow run sends` runs it." in bake.stderr


def test_an_unknown_job_is_said_with_those_that_there_are(alone: Person) -> None:
    done = alone.flow("run", "helo")

    assert done.returncode == 1
    assert "Unknown job helo" in done.stderr
    assert "Existing jobs: asks, fails, hello, multitrain, sends, serves, waits\n" in done.stderr
    assert "Did you mean 'hello'?" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "hello", "-s", "a"], 2, "not a multi-job"),
        (["run", "hello", "more"], 2, "Additional job arguments are supported by multi-jobs only"),
        (["run", "multitrain", "-p", "lrr", "1"], 1, "Did you mean 'lr'?"),
        (["run", "hello", "-p", "lr", "1"], 1, "it has none"),
        (["status", "multitrain"], 2, "Please provide a suffix for multi-job"),
        (["logs", "nope"], 1, "Unknown job nope"),
        (["upload", "nope"], 1, "Existing volumes: code, elsewhere, results"),
        (["upload", "elsewhere"], 2, "no local folder"),
        (["build", "nope"], 1, "Existing images: own, public"),
        (["build", "public"], 2, "context"),
        (["build", "own"], 1, "You are not logged in"),
        (["nope"], 2, "No such command 'nope'"),
        (["help", "run"], 2, "`neuro-flow COMMAND --help` tells of one."),
        (["ps"], 1, "You are not logged in"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    alone: Person, words: list[str], code: int, says: str
) -> None:
    alone.run("logout")

    done = alone.flow(*words)

    assert (done.returncode, says in done.stderr) == (code, True), done.stderr


def test_multi_arguments_are_taken_with_a_warning(alone: Person) -> None:
    done = alone.flow("run", "--dry-run", "multitrain", "-s", "a", "--", "x y")

    assert "args are deprecated, use --param instead" in done.stderr
    assert done.stdout.rstrip().endswith("'x y'")


def test_a_mistake_is_shown_with_its_place(alone: Person) -> None:
    alone.write(".neuro/live.yml", "kind: live\njobs:\n  a:\n    imge: ubuntu\n")

    done = alone.flow("run", "a")

    assert done.returncode == 1
    assert "ERROR: " in done.stderr
    assert 'in ".neuro/live.yml", line 4, column 5' in done.stderr
    assert "imge: ubuntu" in done.stderr


def test_check_finds_every_mistake_of_every_file(alone: Person) -> None:
    alone.write(
        ".neuro/live.yml",
        "kind: live\njobs:\n  a:\n    image: ubuntu\n    cmd: ${{ params.nope }}\n"
        "  b:\n    imge: ubuntu\n",
    )
    alone.write(".neuro/other.yml", "kind: batch\ntasks: 7\n")

    done = alone.flow("check")

    assert done.returncode == 1
    for place in ('live.yml", line 7', 'other.yml", line 2'):
        assert place in done.stdout
    assert done.stdout.splitlines()[-1].startswith(("2 problems", "3 problems", "4 problems"))

    found = json.loads(alone.flow("check", "--json").stdout)
    assert {Path(problem["file"]).name for problem in found} == {"live.yml", "other.yml"}
    assert all(problem["line"] and problem["column"] for problem in found)


def test_check_says_that_all_is_well(alone: Person) -> None:
    assert alone.flow_ok("check") == "1 file is fine.\n"
    assert json.loads(alone.flow_ok("check", "--json")) == []


@pytest.mark.parametrize("page", ["docs/flow/files.md", "docs/ru/flow/files.md"])
def test_the_documented_file_is_right(alone: Person, page: str) -> None:
    text = (Path(__file__).parents[3] / page).read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    (alone.project / ".neuro" / "live.yml").write_text(example)

    assert alone.flow_ok("check") == "1 file is fine.\n"
    assert "train.py --epochs 10" in alone.flow_ok("show", "train")


def test_schema_prints_what_editors_complete_from(alone: Person) -> None:
    printed = json.loads(alone.flow_ok("schema", "live"))

    assert printed["title"] == "Live workflow"
    assert alone.flow("schema", "lively").returncode == 2


def test_show_prints_the_job_as_it_would_be_run(alone: Person) -> None:
    shown = yaml.safe_load(alone.flow_ok("show", "multitrain", "-s", "a", "-p", "lr", "0.5"))

    job = shown["multitrain"]
    assert job["name"] == "example-multitrain-a"
    assert job["life_span"] == "1h"
    assert "multi:a" in job["tags"]
    assert "lr=0.5 suffix=a" in job["cmd"]


def test_what_needs_no_project_works_outside_of_one(alone: Person) -> None:
    outside = alone.work_dir / "outside"
    outside.mkdir()
    # The folder of the client's own configuration would be found above.
    assert "run" in alone.flow_ok("--help", cwd=outside)
    assert "neuro-flow package version: " in alone.flow_ok("--version", cwd=outside)
    assert "--dry-run" in alone.flow_ok("run", "--help", cwd=outside)
    assert "_NEURO_FLOW_COMPLETE" in alone.flow_ok("completion", "generate", "zsh", cwd=outside)
    alone.flow_ok("init", "--no-input", cwd=outside)
    (made,) = outside.iterdir()
    assert (made / ".neuro" / "live.yml").is_file()

    done = subprocess.run(
        [*NEURO_FLOW, "ps"], cwd="/", env=alone.environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "neuro-flow init" in done.stderr


def test_a_project_is_found_from_below_and_by_its_path(alone: Person) -> None:
    below = alone.project / "code"
    expected = alone.flow_ok("show", "hello")

    assert alone.flow_ok("show", "hello", cwd=below) == expected
    assert alone.flow_ok("--config", str(below), "show", "hello", cwd=alone.work_dir) == expected

    done = alone.flow("--config", "nowhere", "show", "hello")
    assert (done.returncode, "nowhere does not exist" in done.stderr) == (1, True)


def test_init_asks_as_neuro_project_init_does(alone: Person) -> None:
    done = alone.flow("init", cwd=alone.work_dir, stdin="My Thing\n\n\n")

    assert done.returncode == 0, done.stderr
    assert (alone.work_dir / "my-thing" / ".neuro" / "live.yml").is_file()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_start_up_file_is_patched_beside_that_of_neuro(alone: Person, shell: str) -> None:
    alone.ok("completion", "patch", shell)
    alone.flow_ok("completion", "patch", shell)
    alone.flow_ok("completion", "patch", shell)

    text = (alone.folder / f".{shell}rc").read_text()
    assert text.count(f'eval "$(neuro-flow completion generate {shell})"') == 1
    assert text.count(f'eval "$(neuro completion generate {shell})"') == 1


def test_names_of_the_flow_file_are_offered(alone: Person) -> None:
    assert alone.offered("run", "s") == ["sends", "serves"]
    assert alone.offered("kill", "A") == ["ALL"]
    assert alone.offered("upload", "") == ["code", "results", "ALL"]
    assert alone.offered("build", "") == ["own", "ALL"]
    assert alone.offered("run", "multitrain", "-p", "") == ["lr"]
    assert alone.offered("mkv") == ["mkvolumes"]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_names_with_blanks_are_completed(alone: Person, tmp_path: Path, name: str) -> None:
    need(name)
    batch = "kind: batch\nparams: {rate: '1'}\ntasks: [{image: ubuntu, cmd: 'true'}]\n"
    alone.write(".neuro/big net/it's one.yml", batch)
    shell = Shell(name, alone, tmp_path / "bin", "neuro-flow", NEURO_FLOW)

    for keys in ("b\t", "big\\ net/i\t", "'big n\t", '"big n\t'):
        assert shell.called(f"plan {keys}", alone.project) == ["plan", "big net/it's one"]
    known = "big\\ net/it\\'s\\ one"
    for keys in (f"plan {known} -p ra\t 2", f"plan {known}  --par\trat\t 2"):
        words = shell.called(keys, alone.project)
        assert (words[1], words[3:]) == ("big net/it's one", ["rate", "2"])


HEAVY = ("asyncio", "aiohttp", "rich", "jinja2", "yaml", "neuro.flow.evaluate")


@pytest.mark.parametrize(("words", "heavy"), [(["--help"], HEAVY), (["ps"], HEAVY[:3])])
def test_the_fast_path_imports_little(alone: Person, words: list[str], heavy: tuple[str]) -> None:
    script = (
        "import sys\nfrom neuro.flow.cli.main import execute\n"
        f"execute({words!r})\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=alone.project,
        env=alone.environment(),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert not set(heavy) & set(done.stderr.splitlines()[-1].split())
