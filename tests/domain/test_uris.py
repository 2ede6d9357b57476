"""URIs: what is written is what is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import ResourceURI, complete_uri, full_text, parse_uri

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1)
SEGMENTS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4)


@given(SEGMENTS)
def test_every_path_comes_back_from_its_text(segments: list[str]) -> None:
    uri = ResourceURI("storage", "default", tuple(segments))

    assert parse_uri(full_text(uri)) == uri


@given(NAMES.filter(lambda name: name not in (".", "..") and not set(name) & set("%?#~")))
def test_a_name_without_signs_means_itself(name: str) -> None:
    uri = complete_uri(f"storage:/anna/{name}", "storage", cluster="lab", user="anna")

    assert uri.segments == ("anna", name)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("storage:", "storage://lab/anna"),
        ("storage:a/b/", "storage://lab/anna/a/b"),
        ("storage:/bob/a", "storage://lab/bob/a"),
        ("storage://other/bob/a", "storage://other/bob/a"),
        ("storage:a%20b", "storage://lab/anna/a%20b"),
        ("storage:100%", "storage://lab/anna/100%25"),
        ("storage:a%2Fb", "storage://lab/anna/a/b"),
        ("storage:a\nb", "storage://lab/anna/a%0Ab"),
    ],
)
def test_a_short_uri_is_completed(text: str, full: str) -> None:
    assert full_text(complete_uri(text, "storage", cluster="lab", user="anna")) == full


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("storage:50%ce.txt", "%25"),
        ("storage:a\udcff", "UTF-8"),
        ("storage:a%2F..%2F..%2Fb", r"\.\."),
        ("storage:a%00", "NUL"),
        ("storage:a?b", "%3F"),
        ("storage:a#", "%23"),
        ("storage:~/a", "~"),
        ("storage://la\nb/a", "full URI"),
        ("storage://", "full URI"),
        ("data", "Did you mean 'storage:data'"),
    ],
)
def test_what_means_no_place_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        complete_uri(text, "storage", cluster="lab", user="anna")


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
    with pytest.raises(InvalidInput, match="does not name an owner"):
        ResourceURI("storage", "default").owner  # noqa: B018
