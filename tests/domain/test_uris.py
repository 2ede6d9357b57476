from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import ResourceURI, parse_uri

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_the_names_of_a_path_stay_apart(names: list[str]) -> None:
    uri = ResourceURI("storage", "default").child(*names)

    assert uri.segments == tuple(names)
    assert uri.owner == names[0]


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("storage://default/anna/a/b", ("anna", "a", "b")),
        ("storage://default/anna//a/./b/", ("anna", "a", "b")),
        ("storage://default", ()),
    ],
)
def test_a_uri_is_read(text: str, segments: tuple[str, ...]) -> None:
    assert parse_uri(text) == ResourceURI("storage", "default", segments)


@pytest.mark.parametrize(
    "text",
    ["", "data", "ftp://default/anna", "storage://default/anna/../boris", "storage://d/a\0b"],
)
def test_what_is_not_a_uri_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_uri(text)


def test_a_uri_without_an_owner_says_so() -> None:
    with pytest.raises(InvalidInput, match="names no owner"):
        ResourceURI("storage", "default").owner  # noqa: B018
