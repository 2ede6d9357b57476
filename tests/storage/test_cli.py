"""``neuro storage`` in one process with the test: what it prints, and its exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from neuro.cli.main import execute
from tests.storage.server import StorageServer

CLUSTER = "storage://default"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Neuro:
    """The command line of alice, whose working folder is ``work``."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        code = execute(["--neuromation-config", str(self._config), *arguments])
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    def ok(self, *arguments: str) -> str:
        ran = self(*arguments)
        assert ran.code == 0, ran
        return ran.out


@pytest.fixture
def neuro(
    server: StorageServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Neuro:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    neuro = Neuro(tmp_path / "config", capsys)
    neuro.ok("config", "login-with-token", server.tokens.jwt("alice"), server.url)
    return neuro


@pytest.fixture
def home(server: StorageServer) -> Path:
    return server.home("alice")


def fill(top: Path, *names: str) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())


class TestLs:
    @pytest.fixture(autouse=True)
    def _files(self, home: Path) -> None:
        fill(home, "b.txt", "a.txt", ".hidden", "data/inner.txt")
        (home / "a.txt").write_bytes(b"x" * 2000)
        (home / "link").symlink_to("data")
        for number, name in enumerate(("data", "b.txt", "a.txt")):
            os.utime(home / name, (1_700_000_000 + number, 1_700_000_000 + number))

    def test_it_prints_one_name_a_line_without_a_terminal(self, neuro: Neuro) -> None:
        assert neuro.ok("ls") == "a.txt\nb.txt\ndata\nlink\n"
        assert neuro.ok("ls", "-a", "storage:") == ".hidden\na.txt\nb.txt\ndata\nlink\n"
        assert neuro.ok("ls", "storage:/alice/data") == "inner.txt\n"

    def test_the_long_form_has_kind_right_size_time_and_name(self, neuro: Neuro) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_700_000_002))

        lines = neuro.ok("ls", "-l").splitlines()

        assert lines[0] == f"-m  2000  {stamp}  a.txt"
        assert lines[1].startswith("-m     5  ")
        assert lines[2].startswith("dm     0  ")
        assert lines[3].startswith("lm     0  ")
        assert lines[3].endswith("  link -> data")
        assert "2.0K" in neuro.ok("ls", "-lh")

    def test_it_sorts_the_largest_and_the_newest_first(self, neuro: Neuro, home: Path) -> None:
        os.utime(home / "link", (0, 0), follow_symlinks=False)

        assert neuro.ok("ls", "--sort", "size").split() == ["a.txt", "b.txt", "data", "link"]
        assert neuro.ok("ls", "--sort", "time").split() == ["a.txt", "b.txt", "data", "link"]
        os.utime(home / "b.txt")
        assert neuro.ok("ls", "--sort", "time").split()[0] == "b.txt"

    def test_several_paths_have_titles_and_the_missing_one_does_not_stop_it(
        self, neuro: Neuro
    ) -> None:
        ran = neuro("ls", "storage:data", "storage:none", "storage:a.txt")

        assert ran.code == 72
        assert ran.out == "storage:data:\ninner.txt\nstorage:a.txt\n"
        assert ran.err.startswith("ERROR: cannot access 'storage:none': ")

    def test_a_folder_itself(self, neuro: Neuro) -> None:
        assert neuro.ok("ls", "-d", "storage:data") == "storage:data\n"

    def test_names_cannot_play_tricks_with_the_terminal(self, neuro: Neuro, home: Path) -> None:
        (home / "\x1b[31mred\n").touch()

        assert "\\x1b[31mred\\n\n" in neuro.ok("ls")

    def test_a_path_without_scheme_gets_a_hint(self, neuro: Neuro) -> None:
        ran = neuro("ls", "data")

        assert ran.code == 127
        assert "storage:data" in ran.err


def test_tree_draws_lines_and_counts(neuro: Neuro, home: Path) -> None:
    fill(home, "a/b/c.txt", "a/d.txt", "e.txt", ".hidden")

    assert neuro.ok("storage", "tree") == (
        "storage:\n"
        "├── a\n"
        "│   ├── b\n"
        "│   │   └── c.txt\n"
        "│   └── d.txt\n"
        "└── e.txt\n"
        "\n"
        "2 directories, 3 files\n"
    )
    assert "└── [         5]  e.txt" in neuro.ok("storage", "tree", "-s")
    assert "└── [        5B]  e.txt" in neuro.ok("storage", "tree", "-sh")
    assert ".hidden" in neuro.ok("storage", "tree", "-a", "storage:")
    assert neuro("storage", "tree", "storage:e.txt").code == 72


def test_df_tells_total_used_and_free(neuro: Neuro) -> None:
    lines = neuro.ok("storage", "df").splitlines()

    assert lines[0] == "Disk usage for cluster default:"
    assert [line.split(":")[0] for line in lines[1:]] == ["Total", "Used", "Free"]


def test_glob_prints_full_uris(neuro: Neuro, home: Path) -> None:
    fill(home, "a 1.txt", "b.txt", "c.csv")

    assert neuro.ok("storage", "glob", "storage:*.txt") == (
        f"{CLUSTER}/alice/a%201.txt\n{CLUSTER}/alice/b.txt\n"
    )


class TestMkdir:
    def test_it_makes_folders_and_with_p_those_above(self, neuro: Neuro, home: Path) -> None:
        assert neuro.ok("mkdir", "storage:a", "storage:b") == ""
        assert neuro.ok("mkdir", "-p", "storage:c/d", "storage:a") == ""
        assert sorted(path.name for path in home.rglob("*")) == ["a", "b", "c", "d"]

    def test_what_fails_is_said_and_the_rest_is_made(self, neuro: Neuro, home: Path) -> None:
        ran = neuro("mkdir", "storage:x/y", "storage:z")

        assert ran.code == 72
        assert ran.err.startswith("ERROR: cannot create directory 'storage:x/y': ")
        assert (home / "z").is_dir()


class TestRm:
    def test_it_removes_files_and_with_r_folders(self, neuro: Neuro, home: Path) -> None:
        fill(home, "a.txt", "b.txt", "data/c.txt", "keep")

        assert neuro.ok("rm", "storage:*.txt") == ""
        assert neuro.ok("-v", "rm", "-r", "storage:data").splitlines() == [
            f"removed {CLUSTER}/alice/data/c.txt",
            f"removed {CLUSTER}/alice/data",
        ]
        assert [path.name for path in home.iterdir()] == ["keep"]

    def test_what_fails_is_said_and_the_rest_is_removed(self, neuro: Neuro, home: Path) -> None:
        fill(home, "data/c.txt", "b.txt")

        ran = neuro("rm", "storage:none", "storage:data", "storage:*.none", "storage:b.txt")

        assert ran.code == 72
        assert [line.split(": ")[1] for line in ran.err.splitlines()] == [
            "cannot access 'storage:*.none'",
            f"cannot remove '{CLUSTER}/alice/none'",
            f"cannot remove '{CLUSTER}/alice/data'",
        ]
        assert [path.name for path in home.iterdir()] == ["data"]

    def test_a_folder_needs_r_in_the_words_of_the_original(self, neuro: Neuro, home: Path) -> None:
        fill(home, "data/c.txt")

        ran = neuro("rm", "storage:data")

        assert ran.code == 72
        assert f"cannot remove '{CLUSTER}/alice/data': Target is a directory" in ran.err

    def test_a_pattern_without_a_match_stands_for_itself(self, neuro: Neuro, home: Path) -> None:
        fill(home, "run[1].csv", "run1.csv", "keep[2].csv")

        neuro.ok("rm", "storage:run[1].csv")
        assert sorted(path.name for path in home.iterdir()) == ["keep[2].csv", "run[1].csv"]
        neuro.ok("rm", "storage:run[1].csv")
        neuro.ok("cp", "storage:keep[2].csv", "here")
        ran = neuro("rm", "storage:run[1].csv")

        assert Path("here").read_text() == "keep[2].csv"
        assert ran.code == 72
        assert "--no-glob" in ran.err

    @pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\tb", "b\r", "a b ", " a"])
    def test_blanks_and_line_ends_are_part_of_a_name(
        self, neuro: Neuro, home: Path, name: str
    ) -> None:
        fill(home, "ab", "b", "a", name)

        assert neuro.ok("ls", f"storage:{name}").startswith("storage:")
        neuro.ok("cp", f"storage:{name}", "here")
        neuro.ok("cp", "here", f"storage:folder{name}")
        neuro.ok("rm", f"storage:{name}")

        assert Path("here").read_bytes() == name.encode()
        left = {path.name for path in home.iterdir()} - {".neuro-uploads"}
        assert left == {"ab", "b", "a", f"folder{name}"}

    def test_a_percent_sign_that_makes_no_name_is_refused(self, neuro: Neuro, home: Path) -> None:
        fill(home, "50%ce.txt")

        ran = neuro("rm", "storage:50%ce.txt")

        assert ran.code == 127
        assert "Write a percent sign as %25" in ran.err
        neuro.ok("rm", "storage:50%25ce.txt")

    def test_a_name_that_is_not_there_as_it_was_decoded_gets_a_hint(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(home, "%41")

        for words in (["rm", "storage:%41"], ["ls", "storage:%41"], ["cp", "storage:%41", "x"]):
            ran = neuro(*words)
            assert ran.code == 72
            assert "%41 means 'A': write a percent sign as %25" in ran.err

    def test_without_glob_a_star_is_a_star(self, neuro: Neuro, home: Path) -> None:
        fill(home, "*", "a")

        neuro.ok("rm", "--no-glob", "storage:*")

        assert [path.name for path in home.iterdir()] == ["a"]


class TestMv:
    def test_a_folder_does_not_go_into_itself(self, neuro: Neuro, home: Path) -> None:
        fill(home, "a/b/c")

        ran = neuro("mv", "storage:a", "storage:a/b")

        assert ran.code == 72
        assert ran.err.endswith("a folder cannot go into itself.\n")
        assert (home / "a/b/c").exists()

    @pytest.mark.parametrize(
        ("arguments", "result"),
        [
            (["a", "new"], {"new", "b", "d/c"}),
            (["a", "d"], {"d/a", "b", "d/c"}),
            (["a", "b", "d"], {"d/a", "d/b", "d/c"}),
            (["-t", "d", "a", "b"], {"d/a", "d/b", "d/c"}),
            (["-T", "a", "b"], {"b", "d/c"}),
            (["d", "e"], {"a", "b", "e/c"}),
            (["[ab]", "d"], {"d/a", "d/b", "d/c"}),
        ],
    )
    def test_it_moves_and_renames_by_gnu_rules(
        self, neuro: Neuro, home: Path, arguments: list[str], result: set[str]
    ) -> None:
        fill(home, "a", "b", "d/c")

        neuro.ok("mv", *(it if it.startswith("-") else f"storage:{it}" for it in arguments))

        found = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
        assert found == result

    def test_what_fails_is_said_and_the_rest_is_moved(self, neuro: Neuro, home: Path) -> None:
        fill(home, "a", "d/c")

        ran = neuro("mv", "storage:none", "storage:a", "storage:d")

        assert ran.code == 72
        assert ran.err.startswith(f"ERROR: cannot move '{CLUSTER}/alice/none' to ")
        assert (home / "d/a").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'Missing argument "SOURCES..."'),
        (["storage:a"], 'Missing argument "DESTINATION"'),
        (["-t", "storage:d"], 'Missing argument "SOURCES..."'),
        (["-T", "storage:a", "storage:b", "storage:c"], "Extra operand after 'storage:b'"),
        (
            ["-T", "-t", "storage:d", "storage:a"],
            "Cannot combine --target-directory (-t) and --no-target-directory (-T)",
        ),
    ],
)
@pytest.mark.parametrize("command", ["cp", "mv"])
def test_operands_that_make_no_sense_are_usage_errors(
    neuro: Neuro, command: str, arguments: list[str], message: str
) -> None:
    ran = neuro(command, *arguments)

    assert ran.code == 2
    assert message in ran.err


class TestCp:
    def test_a_file_goes_up_and_comes_back_silently(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "a.txt")

        assert neuro.ok("cp", "a.txt", "storage:") == ""
        assert neuro.ok("cp", "a.txt", "storage:b.txt") == ""
        assert neuro.ok("cp", "storage:b.txt", "c.txt") == ""
        assert neuro.ok("-v", "cp", "storage:a.txt", "file:d.txt") == (
            f"{CLUSTER}/alice/a.txt -> d.txt\n"
        )
        assert (home / "a.txt").read_text() == (home / "b.txt").read_text() == "a.txt"
        assert Path("c.txt").read_text() == Path("d.txt").read_text() == "a.txt"

    @pytest.mark.parametrize(
        ("arguments", "there"),
        [
            (["-r", "tree", "storage:new"], {"new/x", "new/sub/y"}),
            (["-r", "tree", "storage:old"], {"old/tree/x", "old/tree/sub/y"}),
            (["-r", "tree/", "storage:old"], {"old/tree/x", "old/tree/sub/y"}),
            (["-r", "-T", "tree", "storage:old"], {"old/x", "old/sub/y"}),
            (["-r", "tree/.", "storage:old"], {"old/tree/x", "old/tree/sub/y"}),
            (["-r", "-t", "storage:old", "tree", "a"], {"old/tree/x", "old/tree/sub/y", "old/a"}),
            (["a", "b", "storage:old"], {"old/a", "old/b"}),
            (["-r", "a", "tree", "storage:old/"], {"old/tree/x", "old/tree/sub/y", "old/a"}),
        ],
    )
    def test_folders_go_up_by_gnu_rules(
        self, neuro: Neuro, home: Path, arguments: list[str], there: set[str]
    ) -> None:
        fill(Path(), "tree/x", "tree/sub/y", "a", "b")
        (home / "old").mkdir()

        assert neuro.ok("cp", *arguments) == ""

        found = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
        assert found == there

    @pytest.mark.parametrize(
        ("arguments", "here"),
        [
            (["-r", "storage:tree", "new"], {"new/x", "new/sub/y"}),
            (["-r", "storage:tree", "old"], {"old/tree/x", "old/tree/sub/y"}),
            (["-r", "-T", "storage:tree", "old"], {"old/x", "old/sub/y"}),
            (["-r", "storage:tree", "."], {"tree/x", "tree/sub/y"}),
            (["-r", "storage:", "old"], {"old/tree/x", "old/tree/sub/y", "old/a", "old/b"}),
            (["storage:[ab]", "old"], {"old/a", "old/b"}),
            (["storage:**/x", "old"], {"old/x"}),
            (["-r", "storage:a", "storage:tree", "old"], {"old/tree/x", "old/tree/sub/y", "old/a"}),
        ],
    )
    def test_folders_come_down_by_gnu_rules(
        self, neuro: Neuro, home: Path, arguments: list[str], here: set[str]
    ) -> None:
        fill(home, "tree/x", "tree/sub/y", "a", "b")
        Path("old").mkdir()

        assert neuro.ok("cp", *arguments) == ""

        assert {path.as_posix() for path in Path().rglob("*") if path.is_file()} == here

    def test_a_folder_needs_r(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "tree/x")
        fill(home, "tree/x")

        for arguments in (("tree", "storage:new"), ("storage:tree", "new")):
            ran = neuro("cp", *arguments)
            assert ran.code == 72
            assert ran.err.startswith("ERROR: cannot copy ")
            assert "-r" in ran.err

    def test_what_fails_is_said_and_the_rest_is_copied(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "a", "b")
        (home / "d").mkdir()

        ran = neuro("cp", "a", "none", "b", "storage:d")

        assert ran.code == 72
        assert ran.err.startswith(
            f"ERROR: cannot copy 'none' to '{CLUSTER}/alice/d/none': No such file"
        )
        assert sorted(path.name for path in (home / "d").iterdir()) == ["a", "b"]

    def test_several_sources_need_a_folder(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "a", "b")

        assert neuro("cp", "a", "b", "storage:none").code == 72
        assert list(home.iterdir()) == []

    def test_both_ends_on_one_side_are_a_usage_error(self, neuro: Neuro) -> None:
        assert neuro("cp", "a", "b").code == 2
        assert neuro("cp", "storage:a", "storage:b").code == 2

    def test_the_last_of_exclude_and_include_decides(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "tree/a.txt", "tree/b.txt", "tree/c.csv")

        neuro.ok("cp", "-r", "--exclude", "*.txt", "--include", "b.*", "tree", "storage:one")
        neuro.ok("cp", "-r", "--include", "b.*", "--exclude", "*.txt", "tree", "storage:two")
        neuro.ok("cp", "-r", "--exclude", "*.txt", "storage:one", "back")

        assert sorted(path.name for path in (home / "one").iterdir()) == ["b.txt", "c.csv"]
        assert [path.name for path in (home / "two").iterdir()] == ["c.csv"]
        assert [path.name for path in Path("back").iterdir()] == ["c.csv"]

    def test_ignore_files_and_the_configuration_leave_things_out_of_uploads(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(Path(), "tree/a.tmp", "tree/b.log", "tree/c.txt", "tree/keep.log")
        Path("tree/.neuroignore").write_text("*.tmp\n.*\n")
        Path("tree/.other").write_text("c.txt\n.*\n")
        Path(".neuro.toml").write_text('[storage]\ncp-exclude = ["*.log", "!keep.log"]\n')

        neuro.ok("cp", "-r", "tree", "storage:one")
        neuro.ok("cp", "-r", "--exclude-from-files", ".other", "tree", "storage:two")

        assert sorted(path.name for path in (home / "one").iterdir()) == ["c.txt", "keep.log"]
        assert sorted(path.name for path in (home / "two").iterdir()) == ["a.tmp", "keep.log"]

    def test_update_leaves_a_newer_file_of_the_same_size_alone(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(Path(), "a")
        (home / "a").write_text("b")
        os.utime("a", (0, 0))

        neuro.ok("cp", "-u", "a", "storage:")
        assert (home / "a").read_text() == "b"
        neuro.ok("cp", "a", "storage:")
        assert (home / "a").read_text() == "a"

    @pytest.mark.parametrize("recursive", [False, True])
    def test_update_copies_another_size_whatever_its_age(
        self, neuro: Neuro, home: Path, recursive: bool
    ) -> None:
        fill(Path(), "here/a")
        fill(home, "there/a")
        (home / "there/a").write_text("newer there")
        os.utime("here/a", (0, 0))

        if recursive:
            neuro.ok("cp", "-r", "-u", "-T", "here", "storage:there")
        else:
            neuro.ok("cp", "-u", "here/a", "storage:there")
        assert (home / "there/a").read_text() == "here/a"

        os.utime(home / "there/a", (0, 0))
        Path("here/a").write_text("newer here")
        if recursive:
            neuro.ok("cp", "-r", "-u", "-T", "storage:there", "here")
        else:
            neuro.ok("cp", "-u", "storage:there/a", "here")
        assert Path("here/a").read_text() == "here/a"

    def test_continue_does_not_append_to_another_file(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "file")
        os.utime("file", (0, 0))
        (home / "file").write_text("fa")

        neuro.ok("cp", "--continue", "file", "storage:")

        assert (home / "file").read_text() == "file"

    def test_continue_finishes_a_partial_file(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "file")
        os.utime("file", (0, 0))
        (home / "file").write_text("fi")

        neuro.ok("cp", "--continue", "file", "storage:")

        assert (home / "file").read_text() == "file"

    def test_what_is_left_out_makes_the_exit_code_and_is_counted(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(Path(), "tree/a")
        Path("tree", os.fsdecode(b"b\xff")).touch()
        Path("tree/dangling").symlink_to("nowhere")
        os.mkfifo("tree/pipe")

        ran = neuro("cp", "-r", "-T", "tree", "storage:tree")

        assert ran.code == 72
        assert "ERROR: cannot copy 'tree/b\\xff' to " in ran.err
        assert "the name is not in UTF-8" in ran.err
        assert "ERROR: cannot copy 'tree/dangling' to " in ran.err
        assert "WARNING: tree/pipe is left out" in ran.err
        assert "Copied 1 file (6B) to storage:tree, 1 left out" in ran.err
        assert "2 NOT copied" in ran.err

    def test_names_in_messages_play_no_tricks_with_the_terminal(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(Path(), "tree/a\x1b[31m")
        Path("tree/link\x1b[8m\nERROR: all is lost").symlink_to("nowhere")
        os.mkfifo("tree/pipe\x1b[31m\n")

        ran = neuro("--color", "yes", "-v", "cp", "-r", "-T", "tree", "storage:tree\x1b[32m")

        assert ran.code == 72
        assert "tree/a\\x1b[31m -> " in ran.out
        assert "tree/link\\x1b[8m\\nERROR: all is lost" in ran.err
        assert "tree/pipe\\x1b[31m\\n is left out" in ran.err
        for read in (ran.out, ran.err):
            assert not re.search(r"(tree|link|pipe|a)\S*\x1b", read)

    def test_a_pipe_alone_is_only_a_warning(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "tree/a")
        os.mkfifo("tree/pipe")

        assert neuro("cp", "-r", "tree", "storage:tree").code == 0

    def test_a_link_that_does_not_come_down_makes_the_exit_code(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(home, "tree/a", "data/b")
        (home / "tree/folder").symlink_to("../data")

        ran = neuro("cp", "-r", "storage:tree", "back")

        assert ran.code == 72
        assert "the link does not lead to a file in the storage" in ran.err
        assert Path("back/a").exists()

    def test_a_summary_is_printed_on_demand(self, neuro: Neuro, home: Path) -> None:
        fill(Path(), "tree/a", "tree/b")
        for name in ("tree/a", "tree/b"):
            os.utime(name, (0, 0))

        first = neuro.ok("cp", "-r", "--summary", "tree", "storage:new")
        second = neuro.ok("cp", "-r", "-u", "-T", "--summary", "tree", "storage:new")

        assert first == "Copied 2 files (12B) to storage:new\n"
        assert second == "Copied 0 files (0B) to storage:new, 2 up to date\n"

    def test_special_files_are_streams(self, neuro: Neuro, home: Path) -> None:
        fill(home, "a")

        neuro.ok("cp", "/dev/null", "storage:empty")
        neuro.ok("cp", "storage:a", "/dev/null")

        assert (home / "empty").read_bytes() == b""

    def test_a_link_to_a_stream_is_one(self, neuro: Neuro, home: Path) -> None:
        fill(home, "a", "tree/b")
        reader, writer = os.pipe()
        Path("there").mkdir()
        for link in (Path("out"), Path("there/b")):
            link.symlink_to(f"/dev/fd/{writer}")

        try:
            neuro.ok("cp", "storage:a", "out")
            neuro.ok("cp", "-r", "-T", "storage:tree", "there")
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b"atree/b"
        assert Path("out").is_symlink()

    def test_a_file_behind_standard_output_is_written_where_it_stands(
        self, neuro: Neuro, home: Path
    ) -> None:
        fill(home, "a")
        number = os.open("log", os.O_WRONLY | os.O_CREAT)
        os.write(number, b"before ")

        neuro.ok("cp", "storage:a", f"/dev/fd/{number}")
        os.close(number)

        assert Path("log").read_text() == "before a"

    @pytest.mark.parametrize("recursive", [False, True])
    def test_a_download_goes_to_the_file_behind_a_link_on_its_own_disk(
        self, neuro: Neuro, home: Path, recursive: bool
    ) -> None:
        fill(home, "tree/model")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
            other = Path(disk, "model.bin")
            other.write_text("old")
            assert other.stat().st_dev != Path().stat().st_dev
            Path("here").mkdir()
            Path("here/model").symlink_to(other)

            if recursive:
                neuro.ok("cp", "-r", "-T", "storage:tree", "here")
            else:
                neuro.ok("cp", "storage:tree/model", "here/model")

            assert other.read_text() == "tree/model"
            assert os.listdir(disk) == ["model.bin"]
        assert Path("here/model").is_symlink()
        assert os.listdir("here") == ["model"]

    @pytest.mark.parametrize("recursive", [False, True])
    @pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
    def test_a_file_that_is_replaced_keeps_its_mode(
        self, neuro: Neuro, home: Path, recursive: bool, mode: int
    ) -> None:
        fill(Path(), "here/key")
        fill(home, "there/key")
        Path("here/key").chmod(mode)

        options = ["-r", "-T"] if recursive else []
        file = "" if recursive else "/key"
        neuro.ok("cp", *options, f"storage:there{file}", f"here{file}")
        assert Path("here/key").read_text() == "there/key"
        assert Path("here/key").stat().st_mode & 0o7777 == mode

        (home / "there/key").chmod(mode & ~0o111)
        Path("here/key").chmod(0o644)
        neuro.ok("cp", *options, f"here{file}", f"storage:there{file}")
        assert (home / "there/key").stat().st_mode & 0o7777 == mode & ~0o111

    @pytest.mark.parametrize("recursive", [False, True])
    def test_an_upload_replaces_what_a_link_inside_leads_to(
        self, neuro: Neuro, home: Path, recursive: bool
    ) -> None:
        fill(Path(), "new/model")
        fill(home, "versions/1", "tree/other")
        (home / "tree/model").symlink_to("../versions/1")

        if recursive:
            neuro.ok("cp", "-r", "-T", "new", "storage:tree")
        else:
            neuro.ok("cp", "new/model", "storage:tree/model")

        assert (home / "tree/model").is_symlink()
        assert (home / "versions/1").read_text() == "new/model"

    def test_a_server_that_is_gone_ends_it_at_once(
        self, neuro: Neuro, server: StorageServer
    ) -> None:
        fill(Path(), "a", "b")
        server.stop()

        ran = neuro("cp", "a", "storage:")

        assert ran.code == 74
        assert "Cannot reach the server" in ran.err


def into(output: str, *words: str, config: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with its standard output in a shell's pipe or a file."""
    neuro = [sys.executable, "-m", "neuro.cli", "--neuromation-config", str(config), *words]
    command = f'"$@" {output}; echo "code $?" >&2'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *neuro],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_a_reader_that_is_gone_ends_a_list_silently(
    neuro: Neuro, home: Path, tmp_path: Path
) -> None:
    fill(home, *(f"d/{'x' * 80}{number}" for number in range(2000)))
    config = tmp_path / "config"

    for words in (["ls", "storage:d"], ["storage", "tree"], ["-v", "rm", "-r", "storage:d"]):
        assert into("| head -1 > /dev/null", *words, config=config).stderr == "code 0\n"


def test_a_disk_that_is_full_for_a_list_is_not_the_storages_fault(
    neuro: Neuro, home: Path, tmp_path: Path
) -> None:
    for count in (1, 2000):
        fill(home, *(f"d/{'x' * 80}{number}" for number in range(count)))
        ran = into("> /dev/full", "ls", "storage:d", config=tmp_path / "config")
        assert ran.stderr == "ERROR: No space left on device\ncode 74\n"


def test_commands_load_neither_asyncio_nor_aiohttp_nor_rich(
    neuro: Neuro, server: StorageServer, tmp_path: Path
) -> None:
    fill(Path(), "tree/a", "tree/b")
    script = (
        "import sys; from neuro.cli.main import execute;"
        f"code = execute(['--neuromation-config', {str(tmp_path / 'config')!r}, *sys.argv[1:]]);"
        "heavy = {'asyncio', 'aiohttp', 'rich'} & set(sys.modules);"
        "assert code == 0 and not heavy, (code, heavy)"
    )

    for arguments in (["ls", "-l"], ["cp", "-r", "tree", "storage:"], ["rm", "-r", "storage:tree"]):
        subprocess.run([sys.executable, "-c", script, *arguments], check=True)
