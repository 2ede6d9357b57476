"""``neuro image build``: from a folder here to an image in the registry."""

from __future__ import annotations

import json
import os
import re
import time
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
    left = person.ok("ls", "storage:.builds").split()
    assert [it for it in left if not it.endswith(".kept")] == []
    for name in left:
        assert person.ok("ls", f"storage:.builds/{name}").split() == ["context", "manifest"]
        person.ok("rm", "-r", f"storage:.builds/{name}")


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


def test_short_names_are_of_ones_own_images(person: Home, owner: str, context: Path) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM host\nRUN echo lies below > /below\n")
    person.ok("image", "build", "-t", "made:v1", "-t", "neuro/base:v1", "context")

    for base in ("image:made:v1", f"image:/{owner}/made:v1", "neuro/base:v1"):
        dockerfile.write_text(f"FROM {base}\nRUN echo {base} $(cat /below)\n")
        assert f" {base} lies below\n" in person.ok(
            "image", "build", "-F", "-t", "other:v1", "context"
        )

    dockerfile.write_text("FROM image:nothing:v1\n")
    missing = person.run("image", "build", "-F", "-t", "other:v1", "context")
    assert missing.returncode == 1
    assert f"The image 'image:/{owner}/nothing' was not found" in missing.stdout


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


SENT = re.compile(r"Sent (\d+) files")


def settle(folder: Path) -> None:
    """Let the clock that tells when a file was changed go on from the last change."""
    changed = max(it.lstat().st_ctime for it in (folder, *folder.rglob("*")))
    while time.time() < changed + 0.2:
        time.sleep(0.01)


def sent(person: Home, *words: str) -> tuple[int, str]:
    """How many files a build has sent, and what it printed.

    Only of what was not changed in this very moment is it known what has been sent.
    """
    settle(person.work_dir / "context")
    done = person.run("-v", "image", "build", "-F", "-t", "made:v1", *words, "context")
    assert done.returncode == 0, done.stdout + done.stderr
    found = SENT.search(done.stdout + done.stderr)
    assert found is not None, done.stderr
    return int(found[1]), done.stdout


def test_only_what_has_changed_is_sent_again(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM host\nCOPY . /sent\n"
        "RUN cd /sent; for f in $(find . -type f | sort); do"
        " echo $f $(stat -c %a $f; cat $f); done\n"
    )
    names = ("same", "changed", "gone", "program", "folder/gone", "kind/inner", "x")
    for name in names:
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text(f"{name}")
    assert sent(person, "--secret", "id=a,src=context/x")[0] == len(names) + 1
    before = (context / "changed").stat()
    (context / "changed").write_text("CHANGED")
    os.utime(context / "changed", ns=(before.st_atime_ns, before.st_mtime_ns))
    (context / "program").chmod(0o755)
    (context / "gone").unlink()
    (context / "folder" / "gone").unlink()
    (context / "folder").rmdir()
    (context / "kind" / "inner").unlink()
    (context / "kind").rmdir()
    (context / "kind").write_text("a file now")
    (context / "x").unlink()
    (context / "x").mkdir()
    (context / "x" / "y").write_text("in a folder now")

    count, shown = sent(person)

    assert count == 4
    lines = [line.partition(" ./")[2] for line in shown.splitlines() if " ./" in line]
    assert [it for it in lines if not it.startswith("Dockerfile")] == [
        "changed 644 CHANGED",
        "kind 644 a file now",
        "program 755 program",
        "same 644 same",
        "x/y 644 in a folder now",
    ]
    assert sent(person)[0] == 0


def test_what_other_arguments_make_wrong_is_said_in_the_same_words(
    person: Home, context: Path
) -> None:
    text = "ARG BASE=scratch\nFROM $BASE\nCOPY Dockerfile /\n"
    (context / "Dockerfile").write_text(text)
    (person.work_dir / "elsewhere").write_text(text)
    words = ("image", "build", "-F", "-t", "made:v1", "--build-arg", "BASE=A::")
    built(person)

    by_the_builder = person.run(*words, "context")
    here = person.run(*words, "-f", "elsewhere", "context")

    assert (by_the_builder.returncode, here.returncode) == (1, 127)
    said = here.stderr.replace('"elsewhere"', '"Dockerfile"').removeprefix("ERROR: ")
    assert said.startswith("'A::' is not an image or a stage.")
    assert said in by_the_builder.stdout
    (person.work_dir / "elsewhere").unlink()


def test_a_build_of_what_has_not_changed_asks_little(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    sent(person)

    words = ("image", "build", "-F", "-s", "cpu-small", "-t", "made:v1", "context")
    done = person.run("--trace", *words)

    request = re.compile(r"^[\d.]+ > (\w+) \S*?/(config|jobs|\.builds|manifests|uploads)\b", re.M)
    asked = [" ".join(it) for it in request.findall(done.stderr)]
    begun = asked.index("POST jobs")
    may_push = ["POST uploads", "DELETE uploads"]
    assert asked[:begun] == [*may_push, "GET config", "POST .builds", "GET .builds"]
    behind = [it for it in asked[begun + 1 :] if it != "GET jobs"]
    # One build in twenty looks at what others have left.
    assert [it for it in behind if it != "GET .builds"] == ["POST .builds", "GET manifests"]


def test_a_build_leaves_the_context_of_another_one_alone(person: Home, context: Path) -> None:
    (context / "a").write_text("first\n")
    (context / "Dockerfile").write_text("FROM host\nCOPY a /a\nRUN cat /a\n")
    assert sent(person)[0] == 2
    waits = "FROM host\nRUN echo begun; while ! test -e /shared/go; do sleep 0.1; done\n"
    (context / "Dockerfile").write_text(f"{waits}COPY a /a\nRUN cat /a\n")
    person.ok("mkdir", "storage:shared")

    words = ("-F", "-t", "made:v1", "-v", "storage:shared:/shared", "context")
    with person.start("image", "build", *words) as build:
        build.until(" begun")
        (context / "a").write_text("other\n")
        (context / "Dockerfile").write_text("FROM host\nCOPY a /a\nRUN cat /a\n")
        count, shown = sent(person)
        person.ok("cp", "context/a", "storage:shared/go")
        build.until(" first")
        assert build.end() == 0

    assert (count, " other\n" in shown) == (2, True)
    person.ok("rm", "-r", "storage:shared")


def test_what_killed_clients_have_left_goes(person: Home, context: Path) -> None:
    old, new, kept = (f"{int(time.time()) - days * 86400}-{'0' * 16}" for days in (4, 1, 8))
    for name in (old, new, f"{kept}.kept"):
        person.ok("mkdir", "-p", f"storage:.builds/{name}/context/deep")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")

    built(person)

    left = person.ok("ls", "storage:.builds").split()
    assert new in left
    assert old not in left
    assert f"{kept}.kept" not in left
    person.ok("rm", "-r", f"storage:.builds/{new}")


def test_what_a_build_has_that_still_waits_stays(person: Home, context: Path) -> None:
    name = f"{int(time.time()) - 4 * 86400}-{'1' * 16}"
    person.ok("mkdir", "-p", f"storage:.builds/{name}/context")
    volume = f"storage:.builds/{name}:/sent:ro"
    words = ("-s", "cpu-small", "-v", volume, "--detach", "ubuntu", "--", "sleep", "600")
    person.ok("run", "--name", "slow-build", *words)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")

    built(person)
    waits = person.ok("ls", "storage:.builds").split()
    person.ok("kill", "slow-build")
    (kept,) = [it for it in waits if it.endswith(".kept")]
    person.ok("rm", "-r", f"storage:.builds/{kept}")  # a build that finds one seldom looks
    built(person, "-F")

    assert name in waits
    assert name not in person.ok("ls", "storage:.builds").split()


def test_a_kept_context_that_is_not_whole_is_sent_anew(person: Home, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    sent(person)
    (name,) = person.ok("ls", "storage:.builds").split()
    person.ok("cp", "context/Dockerfile", f"storage:.builds/{name}/manifest")

    assert sent(person)[0] == 1


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

    person.ok("logs", job)  # its end is the job's
    assert json.loads(person.ok("status", "--json", job))["status"] == "cancelled"
