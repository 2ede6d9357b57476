"""What is allowed and likely not meant is told, and nothing fails because of it."""

from __future__ import annotations

from neuro.flow.problems import Report
from neuro.flow.project import check, load
from tests.flow.evaluate.conftest import Place, Recorder


def notes(place: Place) -> list[tuple[str, int]]:
    report = Report()
    assert check(place.workspace, environment=place.environment, report=report) == []
    return [(note.message, note.at.line if note.at else 0) for note in report.notes]


def test_texts_that_yaml_reads_as_something_else(place: Place) -> None:
    place.write(
        ".neuro/live.yml",
        """\
        kind: live
        defaults: {env: {A: 12:30:45, B: 01234, C: 3.10, D: yes}}
        jobs:
          a:
            image: x
            env: {A: "12:30:45", B: 7, C: 1.5, D: text, E: "${{ 1 }}"}
            params: {v: {default: 2.0, descr: d}, w: {default: 1.20}}
        """,
    )
    assert [message for message, _ in notes(place)] == [
        "12:30:45 is sent as the string 45045: YAML reads it as a number",
        "01234 is sent as the string 668: YAML reads it as a number",
        "3.10 is sent as the string 3.1: YAML reads it as a number",
        "yes is sent as the string True: YAML reads it as a bool",
        "1.20 is sent as the string 1.2: YAML reads it as a number",
    ]


def test_hashes_of_nothing(place: Place) -> None:
    place.write("source/a.py", "")
    place.write("a [x].py", "")
    place.write(
        ".neuro/b.yml",
        """\
        kind: batch
        tasks:
          - id: a
            image: x
            env:
              A: ${{ hash_files('sorce/**/*.py') }}
              B: ${{ hash_files('source/**/*.py', 'a [[]x].py', '../..' if False else 'x') }}
              C: ${{ hash_files('a [x].py') }}
              D: ${{ hash_files('source') }}
        """,
    )
    assert notes(place) == [
        (f"hash_files('{pattern}') matches no file: the hash stays the same, whatever changes", at)
        for pattern, at in (("sorce/**/*.py", 6), ("a [x].py", 8), ("source", 9))
    ]


def test_a_login_that_a_text_switches_off(place: Place) -> None:
    place.write(
        ".neuro/live.yml",
        """\
        kind: live
        jobs:
          a: {image: x, http_port: 80, http_auth: "${{ params.auth }}", params: {auth: "False"}}
          b: {image: x, http_port: 80, http_auth: false}
          c: {image: x, http_port: 80, http_auth: "${{ 1 == 2 }}"}
        """,
    )
    said = (
        "http_auth is the string 'False', which switches the login off: everybody who reaches the"
        " port gets in"
    )
    assert notes(place) == [(said, 3)]
    report = Report()
    workflow = load(place.workspace, environment=place.environment, report=report)
    job = workflow.resolve("a", params={"auth": "no"}, effects=Recorder(), report=report)
    assert job.http_auth is False
    assert [note.message for note in report.notes] == [said.replace("False", "no")]


def test_a_project_of_somebody_else(place: Place) -> None:
    place.write(".neuro/project.yml", "id: p\nowner: somebody\n")
    ((message, line),) = notes(place)
    assert message.startswith("The project belongs to somebody, and you are logged in as user:")
    assert line == 2
