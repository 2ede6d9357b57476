"""Files that people copy and files that jobs write are the same files."""

from __future__ import annotations

from tests.cli.platform import Home


def test_a_job_changes_what_was_copied_up(person: Home) -> None:
    tree = person.work_dir / "project"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "notes").write_text("mine\n")
    (tree / "old").write_text("old\n")
    person.ok("cp", "-r", "project", "storage:changed")
    person.ok("mkdir", "-p", "storage:changed/made/below")

    person.ok(
        *("run", "-v", "storage:changed:/c:rw", "ubuntu", "--", "sh", "-ec"),
        "echo jobs >> /c/sub/notes; echo new > /c/sub/new; rm /c/old; chmod 750 /c/sub;"
        " echo new > /c/made/below/new; mv /c/made /c/moved",
    )

    person.ok("cp", "-r", "storage:changed", "back")
    back = person.work_dir / "back"
    assert (back / "sub" / "notes").read_text() == "mine\njobs\n"
    assert (back / "sub" / "new").read_text() == "new\n"
    assert (back / "moved" / "below" / "new").read_text() == "new\n"
    assert not (back / "old").exists()


def test_people_change_what_a_job_wrote_and_a_job_goes_on_with_it(person: Home) -> None:
    volume = ("-v", "storage:written:/w:rw", "ubuntu", "--", "sh", "-ec")
    person.ok("mkdir", "storage:written")
    person.ok("run", *volume, "umask 077; mkdir /w/d; echo 1 > /w/d/kept; echo 1 > /w/d/gone")

    (person.work_dir / "kept").write_text("2\n")
    person.ok("cp", "kept", "storage:written/d/kept")
    person.ok("cp", "kept", "storage:written/d/uploaded")
    person.ok("rm", "storage:written/d/gone")
    person.ok("mv", "storage:written/d", "storage:written/e")

    said = person.ok(
        *("run", *volume, "cd /w/e; echo 3 >> kept; echo 3 >> uploaded; cat kept uploaded; ls")
    )
    assert said.endswith("2\n3\n2\n3\nkept\nuploaded\n")


def test_every_job_changes_what_another_wrote(person: Home) -> None:
    volume = ("-v", "storage:shared:/s:rw", "ubuntu", "--", "sh", "-ec")
    person.ok("mkdir", "storage:shared")
    person.ok("run", *volume, "umask 077; mkdir /s/d; echo first > /s/d/file")

    said = person.ok("run", *volume, "echo second >> /s/d/file; cat /s/d/file; stat -c %u /s/d")

    assert said.endswith("first\nsecond\n0\n")


def test_a_job_gets_the_folder_and_the_variables_that_were_written(person: Home) -> None:
    for name in ("ab", "a\nb"):
        (person.work_dir / name).write_text(repr(name))
        person.ok("mkdir", "-p", f"storage:line/{name}")
        person.ok("cp", name, f"storage:line/{name}/file")
    (person.work_dir / "env").write_bytes(b"\xef\xbb\xbfA=1\r\nB=2\r\n")

    said = person.ok(
        *("run", "--env-file", "env", "-v", "storage:line/a\nb:/line:ro", "ubuntu", "--"),
        *("sh", "-c", 'cat /line/file; echo " $A-$B-"'),
    )

    assert said.endswith("'a\\nb' 1-2-\n")
    refused = person.run("run", "--env-file", "/dev/null", "-e", "export C=1", "ubuntu", "true")
    assert (refused.returncode, "has a blank in it" in refused.stderr) == (127, True)
