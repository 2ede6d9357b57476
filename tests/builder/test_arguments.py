from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from neuro.builder import credentials
from neuro.builder.arguments import Options, Secret, read
from neuro.builder.faults import BuildFault

_TO = "--destination=here:5000/me/made:v1"


def test_kanikos_options_are_known() -> None:
    options = read(
        [
            *("--context=dir:///src", "--dockerfile", "docker/gpu.Dockerfile", _TO, _TO),
            *("--build-arg=A=1=2", "--build-arg", "B", "--build-arg=C", "--target=x"),
            *("--label=l=1", "--no-cache", "--digest-file=/d", "--verbosity=debug"),
            *("--cache=true", "--cache-repo=here/cache", "--snapshot-mode=redo", "--force"),
        ],
        {"B": "of the environment"},
    )

    assert options == Options(
        context="/src",
        dockerfile="docker/gpu.Dockerfile",
        destinations=("here:5000/me/made:v1",),
        arguments={"A": "1=2", "B": "of the environment"},
        target="x",
        labels={"l": "1"},
        cache=False,
        digest_file="/d",
    )


def test_what_is_its_own_only_the_platform_says() -> None:
    words = ["--own-registry=here:1/default/ada", "--own-registry=there:1/default/eve"]

    assert read([*words, "--no-push"], {}).own == ("here:1", "default", "ada")


def test_what_the_registry_knows_is_said_by_a_word_alone() -> None:
    assert read(["--whole-manifests", "--no-push"], {}).whole
    assert not read(["--no-push"], {}).whole


def test_secrets_are_files_or_variables() -> None:
    words = [
        "--secret=id=a",
        "--secret=id=b,src=/f",
        "--secret=id=c,env=C",
        "--secret=type=env,id=D",
    ]

    options = read([*words, "--no-push"], {})

    assert options.secrets == {
        "a": Secret(file="/kaniko/secrets/a"),
        "b": Secret(file="/f"),
        "c": Secret(variable="C"),
        "D": Secret(variable="D"),
    }


@pytest.mark.parametrize(
    ("words", "sentence", "hint"),
    [
        (["--contex=/x", _TO], "'--contex' is not an option of the builder.", "'context'"),
        (["/x"], "'/x' is not an option.", "--context"),
        (["--context=/x"], "There is no destination.", "--no-push"),
        (["--context=s3://b/c", _TO], "The context 's3://b/c' is not a folder.", "--context"),
        (["--context=git://b/c", _TO], "The context 'git://b/c' is not a folder.", ""),
        (["--target"], "'--target' has no value.", "--target=VALUE"),
        (["--build-arg==1", _TO], "'--build-arg==1' has no name.", ""),
        (["--secret=src=/x", _TO], "'--secret=src=/x' is not a secret.", "id=NAME"),
    ],
)
def test_what_is_none_is_refused(words: list[str], sentence: str, hint: str) -> None:
    with pytest.raises(BuildFault) as raised:
        read(words, {})

    assert raised.value.sentence == sentence
    assert hint in raised.value.hint


def test_passwords_are_found_by_registry(tmp_path: Path) -> None:
    pair = base64.b64encode(b"me:se:cret").decode()
    auths = {
        "here:5000": {"auth": pair},
        "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        "https://other.example.com": {"auth": pair},
        "empty.example.com": {},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths, "credsStore": "x"}))

    found = credentials.load({"DOCKER_CONFIG": str(tmp_path)})

    users = {
        name: one and (one.user, one.password)
        for name in ("here:5000", "docker.io", "other.example.com", "empty.example.com", "none")
        for one in (found.of(name),)
    }
    assert users == {
        "here:5000": ("me", "se:cret"),
        "docker.io": ("hub", "p"),
        "other.example.com": ("me", "se:cret"),
        "empty.example.com": None,
        "none": None,
    }


@pytest.mark.parametrize("text", ["[]", "{", '{"auths": {"x": {"auth": "***"}}}', "\xff"])
def test_a_file_of_passwords_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(BuildFault, match="is not a file of passwords"):
        credentials.load({"DOCKER_CONFIG": str(tmp_path)})
