"""What a submission is refused for, in the words that were typed."""

from __future__ import annotations

import msgspec
import pytest

from neuro.cli.job.run_fields import in_words_of_run
from neuro.client.job_request import RunOptions, Where, job_request
from neuro.domain.errors import InvalidInput, NotFound
from tests.cli.platform import Home

EVERYTHING = RunOptions(
    image="ubuntu",
    command=("true",),
    preset="cpu-small",
    name="my-job",
    description="text",
    tags=("tag",),
    env=("NAME=value", "KEY=secret:key"),
    volumes=("storage:a:/a", "secret:key:/key", "disk:d:/d"),
    entrypoint="sh",
    workdir="/tmp",
)


def texts_of(value: object, where: str = "") -> list[str]:
    """The fields of a request that hold a text, as the server calls them."""
    match value:
        case str():
            return [where]
        case list():
            return [it for i, each in enumerate(value) for it in texts_of(each, f"{where}[{i}]")]
        case dict():
            return [
                text
                for key, each in value.items()
                for text in texts_of(each, f"{where}.{key}" if where else key)
            ]
    return []


def test_each_text_of_a_request_has_a_word_that_is_typed() -> None:
    request = job_request(EVERYTHING, Where("default", "anna"), environ={})
    fields = texts_of(msgspec.to_builtins(request))
    assert {"tags[0]", "env.NAME", "volumes[0].dst_path", "secret_env.KEY"} <= set(fields)
    chosen = {"restart_policy", "priority"}  # out of a few words

    for field in {*fields, "a key of env"} - chosen:
        error = InvalidInput(f"'{field}' has the character 'x' at position 0: remove it.")
        error.field = field
        error.from_server = True
        said = in_words_of_run(error)
        word, _, rest = said.message.partition(" has the character")
        assert word.startswith(("--", "IMAGE", "CMD")), field
        assert rest == " 'x' at position 0: remove it."
        assert (type(said), said.from_server) == (InvalidInput, True)


def test_what_names_no_field_is_said_as_it_is() -> None:
    for error in (InvalidInput("Preset 'x' is unknown."), NotFound("'tags[0]'")):
        assert in_words_of_run(error) is error


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--tag", "a\x01b", "ubuntu", "true"), 65, "ERROR: --tag has the character '\\x01'"),
        (("-e", "A=\x02", "ubuntu", "true"), 65, "ERROR: --env A has the character '\\x02'"),
        (("-v", "storage:a:/d\x01", "ubuntu"), 65, "ERROR: --volume has the character '\\x01'"),
        (("ubuntu", "a\x01b"), 65, "ERROR: CMD has the character '\\x01'"),
        (("--workdir", "/\udcff", "ubuntu", "true"), 127, "ERROR: --workdir is not in UTF-8"),
        (("ubuntu", "true", "\udcff"), 127, "ERROR: CMD is not in UTF-8"),
        (
            ("-v", "storage:a:/data", "-v", "storage:b:/data", "ubuntu"),
            127,
            "ERROR: Two volumes are mounted at '/data': storage:a and storage:b. Give each",
        ),
    ],
)
def test_a_refused_submission_says_what_was_typed(
    person: Home, words: tuple[str, ...], code: int, said: str
) -> None:
    done = person.run("run", "--detach", *words)

    assert (done.returncode, done.stderr.startswith(said)) == (code, True), done.stderr


def test_a_request_that_is_too_large_says_what_to_do(person: Home) -> None:
    lines = "\n".join(f"A{number}={'x' * 100_000}" for number in range(12))
    (person.work_dir / "large.env").write_text(lines)

    done = person.run("run", "--detach", "--env-file", "large.env", "ubuntu", "true")

    assert (done.returncode, "put what is large into a file on a volume" in done.stderr) == (
        65,
        True,
    ), done.stderr
