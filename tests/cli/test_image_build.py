"""``neuro image build``: from a folder here to an image in the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.platform import Home


@pytest.fixture
def context(person: Home) -> Iterator[Path]:
    """A folder to build from; images that a test makes are gone afterwards."""
    folder = person.work_dir / "context"
    folder.mkdir()
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
    for image in person.ok("image", "ls").split():
        person.ok("image", "rm", "-f", f"{image}:v1")
    assert person.ok("ls", "storage:.builds") == ""


@pytest.fixture(scope="module")
def owner(platform: Home) -> str:
    return str(json.loads(platform.ok("config", "show", "--json"))["user"])


def built(person: Home, *words: str) -> str:
    return person.ok("image", "build", "-t", "image:made:v1", *words, "context")


def test_an_image_is_built_and_pushed(person: Home, owner: str, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nCOPY a /a\nRUN echo said $(cat /a)\n")
    (context / "a").write_text("hello")

    shown = built(person)

    assert "RUN echo said $(cat /a)" in shown
    assert " said hello\n" in shown
    digest = person.ok("image", "digest", "image:made:v1").strip()
    size = person.ok("image", "size", "image:made:v1").strip()
    assert shown.splitlines()[-1] == f"image://default/{owner}/made:v1 ({digest}, {size})"
    again = person.run("image", "build", "-t", "made:v1", "context")
    assert again.returncode == 1
    assert "exists already: build another tag, or overwrite it with -F" in again.stderr
    assert "#2 CACHED" in built(person, "-F")


def test_a_job_runs_in_what_was_built(person: Home, context: Path) -> None:
    # As jobs on the machine's programs: the same ones first.
    (context / "Dockerfile").write_text(
        "FROM host\nCOPY a /app/a\nRUN command -v python3 > /app/python\nWORKDIR /app\n"
    )
    (context / "a").write_text("copied\n")
    (context / "a").chmod(0o600)
    built(person)

    shown = person.ok(
        "-q", "run", "image:made:v1", "--",
        "sh", "-c", "cat a python; command -v python3; stat -c %a a",
    )  # fmt: skip

    copied, then, now, mode = shown.split()[-4:]
    assert (copied, mode) == ("copied", "644")
    assert then == now


def test_short_names_are_of_ones_own_images(person: Home, context: Path) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM host\nRUN echo lies below > /below\n")
    person.ok("image", "build", "-t", "made:v1", "-t", "neuro/base:v1", "context")

    for base in ("image:made:v1", "neuro/base:v1"):
        dockerfile.write_text(f"FROM {base}\nRUN echo {base} $(cat /below)\n")
        assert f" {base} lies below\n" in person.ok(
            "image", "build", "-F", "-t", "other:v1", "context"
        )

    dockerfile.write_text("FROM image:nothing:v1\n")
    missing = person.run("image", "build", "-F", "-t", "other:v1", "context")
    assert missing.returncode == 1
    assert "There is no image" in missing.stdout


def test_the_end_is_told_to_programs(person: Home, owner: str, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    words = ("image", "build", "--json", "-t", "made:v1", "-t", "other:v1", "context")

    done = person.run(*words)

    told = json.loads(done.stdout)
    assert told["images"] == [f"image://default/{owner}/{it}:v1" for it in ("made", "other")]
    assert told["digest"] == person.ok("image", "digest", "other:v1").strip()
    assert (told["exit_code"], told["job"][:4], told["size"] > 0) == (0, "job-", True)
    assert "exporting layers" in done.stderr


def test_mistakes_are_told_before_anything_is_sent(person: Home, context: Path) -> None:
    before = person.ok("-q", "ps", "-a")
    (context / "Dockerfile").write_text("FROM host AS base\nRUNN true\n")

    wrong = person.run("image", "build", "-t", "made:v1", "context")
    (context / "Dockerfile").write_text("FROM host AS base\n")
    target = person.run("image", "build", "-t", "made:v1", "--target", "bas", "context")

    assert wrong.returncode == target.returncode == 127
    assert 'in "context/Dockerfile", line 2' in wrong.stderr
    assert "Did you mean 'RUN'?" in wrong.stderr
    assert "There is no stage 'bas'." in target.stderr
    assert "Did you mean 'base'?" in target.stderr
    assert person.ok("-q", "ps", "-a") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "made:v1", "nowhere"), "is not a folder of this machine"),
        (("-t", "made:v1", "context"), "There is no Dockerfile in context"),
        (("-t", "made:v1", "-f", "Other", "context"), "There is no Other in context"),
        (("-t", "made:v1", "storage:nowhere"), "copy the Dockerfile there with `neuro cp`"),
        (("-t", "Made:v1", "context"), "Invalid image"),
        (("-t", f"made@sha256:{'0' * 64}", "context"), "which only a build can tell"),
        (("-t", "made:v1", "--secret", "x", "context"), "is not a secret"),
        (("-t", "made:v1", "--secret", "id=x,env=UNSET_HERE", "context"), "is not set here"),
    ],
)
def test_what_cannot_be_built(
    person: Home, context: Path, words: tuple[str, ...], said: str
) -> None:
    done = person.run("image", "build", *words)

    assert (done.returncode, said in done.stderr) == (127, True), done.stderr


def test_what_is_ignored_is_not_sent(person: Home, context: Path) -> None:
    ignored = "**\n!keep\nkeep/*.tmp\n!src/**/*.py\n"
    (context / ".dockerignore").write_text(ignored)
    (context / "Dockerfile").write_text("FROM host\nCOPY . /sent\nRUN cd /sent && find . -type f\n")
    for name in ("keep/a", "keep/b.tmp", "src/deep/x.py", "src/deep/y.txt", "big"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("x")

    shown = built(person, "--no-cache")

    found = {line.split()[-1] for line in shown.splitlines() if " ./" in line}
    assert found == {"./keep/a", "./src/deep/x.py"}


def test_a_dockerfile_outside_has_patterns_of_its_own(person: Home, context: Path) -> None:
    outside = person.work_dir / "outside"
    outside.mkdir()
    (outside / "Other").write_text("FROM host\nCOPY . /sent\nRUN cd /sent && find . -type f\n")
    (outside / "Other.dockerignore").write_text("b\n")
    (context / ".dockerignore").write_text("a\n")
    for name in ("a", "b"):
        (context / name).write_text("x")

    shown = built(person, "--no-cache", "-f", "outside/Other")

    found = {line.split()[-1] for line in shown.splitlines() if " ./" in line}
    assert found == {"./.dockerignore", "./a"}


def test_arguments_secrets_and_a_dockerfile_outside(person: Home, context: Path) -> None:
    (context / "a").write_text("from the context")
    (person.work_dir / "Other").write_text(
        "FROM host AS first\nARG ONE\nARG TWO\nCOPY a /a\n"
        "RUN --mount=type=secret,id=key echo $ONE $TWO $(cat /a) $(cat /run/secrets/key)\n"
        "FROM first\nRUN exit 1\n"
    )
    (person.work_dir / "key").write_text("hush")

    shown = person.ok(
        "image", "build", "-t", "made:v1", "-f", "Other", "--target", "first", "--no-cache",
        "--build-arg", "ONE=1", "--build-arg", "TWO", "-e", "TWO=2",
        "--secret", "id=key,src=key", "context",
    )  # fmt: skip

    assert " 1 2 from the context hush\n" in shown


def test_commands_see_volumes(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nRUN cp /data/in /data/out; ls /kaniko; true\n")
    (person.work_dir / "in").write_text("stored")
    person.ok("mkdir", "storage:seen")
    person.ok("cp", "in", "storage:seen/in")

    shown = built(person, "--no-cache", "-v", "storage:seen:/data")

    assert "cannot access '/kaniko'" in shown
    assert person.ok("cp", "storage:seen/out", "-") == "stored"
    person.ok("rm", "-r", "storage:seen")


def test_a_folder_of_the_storage_is_built_from(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nCOPY a /a\nRUN cat /a\n")
    (context / "a").write_text("stored\n")
    person.ok("cp", "-r", "-T", "context", "storage:from")

    shown = person.ok("image", "build", "-t", "made:v1", "storage:from")

    assert " stored\n" in shown
    person.ok("rm", "-r", "storage:from")


def test_a_command_that_fails_fails_the_build(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nRUN echo before; exit 7\n")

    done = person.run("image", "build", "-t", "made:v1", "context")

    assert done.returncode == 1
    assert " before\n" in done.stdout
    assert "line 2" in done.stdout
    assert person.run("image", "digest", "made:v1").returncode == 72


def test_an_interrupted_build_ends(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nRUN echo begun; sleep 1000\n")

    with person.start("image", "build", "-t", "made:v1", "--no-cache", "context") as build:
        job = build.until("Status:").split("Job ID: ")[1].split()[0]
        build.until(" begun")
        build.interrupt()
        build.until("The build was stopped")
        assert build.end() == 130

    assert json.loads(person.ok("status", "--json", job))["status"] == "cancelled"
