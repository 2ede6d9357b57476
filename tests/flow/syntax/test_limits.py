"""Files that are meant to hurt cost no more than their size, and are told with a place."""

from pathlib import Path

import pytest

from neuro.domain.problems import Source
from neuro.flow.problems import FlowError, Report
from neuro.flow.syntax.reader import load_source, read_any, read_live


def read(text: str) -> Report:
    report = Report()
    read_live(Source("live.yml", text), report)
    return report


def only(report: Report) -> tuple[str, int, int]:
    (problem,) = report.problems
    assert problem.at is not None
    return problem.message, problem.at.line, problem.at.column


def test_aliases_cannot_grow_without_bounds() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    message, line, _ = only(read(bomb))
    assert message == "The aliases of this file stand for more than 100000 nodes"
    assert line in (5, 6, 7)  # of nine: it read no further


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_ends_at_a_limit(opening: str) -> None:
    report = read(opening * 50_000)
    assert "nests deeper than 100 levels" in report.problems[0].message


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "live.yml"
    with path.open("wb") as file:
        file.write(b"kind: live\njobs: {}\n")
        file.truncate(50 * 1024 * 1024)
    report = Report()
    assert load_source(path, report) is None
    assert report.problems[0].message == f"{path} is larger than 10 MB, the most for a flow file"


def test_a_file_of_countless_mistakes_tells_some() -> None:
    report = read("kind: live\n" + "".join(f"k{number}: 1\n" for number in range(100_000)))
    assert len(report.problems) == 1000


def test_a_file_of_countless_values_is_refused() -> None:
    message, line, _ = only(read("kind: live\njobs: {}\nx:\n" + "- 1\n" * 400_000))
    assert message == "The file has more than 300000 values"
    assert line > 200_000


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b"kind: live\ntitle: \xc3\xa9\xff\n", 2, 9),
        (b"\xef\xbb\xbf\xff", 1, 1),
        (b"\xff\xfek\x00", 1, 1),
        (b"a: 1\r\nb: \xe2\x98\n", 2, 4),
    ],
)
def test_bytes_that_are_not_utf8(tmp_path: Path, data: bytes, line: int, column: int) -> None:
    path = tmp_path / "live.yml"
    path.write_bytes(data)
    report = Report()
    assert load_source(path, report) is None
    message, *place = only(report)
    assert message.endswith("is not UTF-8")
    assert place == [line, column]


def test_a_byte_order_mark_moves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "live.yml"
    path.write_bytes(b"\xef\xbb\xbfkinds: live\njobs: {}\n")
    report = Report()
    source = load_source(path, report)
    assert source is not None
    read_live(source, report)
    places = {p.message: p.at for p in report.problems}
    at = places["unexpected key 'kinds'"]
    assert at is not None
    assert (at.line, at.column) == (1, 1)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yml"):
        report = Report()
        assert load_source(path, report) is None
        assert len(report.problems) == 1


def test_names_are_relative_below_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sub" / "live.yml"
    path.parent.mkdir()
    path.write_text("kind: live\njobs: {}\n")
    monkeypatch.chdir(tmp_path)
    source = load_source(path, Report())
    assert source is not None
    assert source.name == "sub/live.yml"


def test_every_problem_of_a_file_is_told_at_once() -> None:
    text = "kind: live\njobs:\n  a:\n    imagge: x\n    tags: y\n  b:\n    detach: 'no'\n"
    with pytest.raises(FlowError) as error:
        read(text).raise_if_any()
    assert str(error.value) == (
        "unexpected key 'imagge'\n"
        '  in "live.yml", line 4, column 5\n'
        "        imagge: x\n"
        "        ^\n"
        "  Did you mean 'image'?\n"
        "expected 'tags' to be a list, got a string\n"
        '  in "live.yml", line 5, column 11\n'
        "        tags: y\n"
        "              ^\n"
        "  Write it as a list: [y]\n"
        "'no' is a string, not a bool, allowed: true, false\n"
        '  in "live.yml", line 7, column 13\n'
        "        detach: 'no'\n"
        "                ^\n"
        "  Write no without quotes."
    )


@pytest.mark.parametrize("text", ["kind: [a]\n", "kind: {}\n", "kind:\n", "1: 2\n", "kind: 1\n"])
def test_any_reads_odd_kinds(text: str) -> None:
    report = Report()
    read_any(Source("x.yml", text), report)
    assert report.problems
