"""The published schemas are the reader's: they take what it takes, and refuse what it refuses."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from neuro.flow.syntax.json_schema import KINDS, schema, text
from tests.flow.syntax.broken import KEYS, VALUES
from tests.flow.syntax.valid import FILES

PUBLISHED = Path(__file__).parents[3] / "docs" / "schema"

# What no schema of JSON says: keys that are no text, and what depends on other values.
BEYOND = (
    "Partially defined",
    "is not a key of the matrix",
    "Keys of entry in include",
    "The default is",
    "ports are 1 to",
    "as a key, got",
    "not a schedule: bad",
    "is not a time zone",
    "is too short",
    "is too long",
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schema_is_up_to_date(kind: str) -> None:
    published = (PUBLISHED / f"{kind}.json").read_text()
    assert published == text(kind), f"run: neuro-flow schema {kind} > docs/schema/{kind}.json"


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_one(kind: str) -> None:
    Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize(("kind", "content"), FILES)
def test_the_schema_takes_what_is_right(kind: str, content: str) -> None:
    Draft202012Validator(schema(kind)).validate(yaml.safe_load(content))


@pytest.mark.parametrize(
    ("kind", "marked"),
    [
        (kind, marked)
        for kind, marked, message in [*KEYS, *VALUES]
        if message is not None and not any(words in message for words in BEYOND)
    ],
)
def test_the_schema_refuses_what_is_wrong(kind: str, marked: str) -> None:
    instance = yaml.safe_load(marked.replace("▶", ""))
    assert not Draft202012Validator(schema(kind)).is_valid(instance)
