"""What a request's headers show of who is calling."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from neuro.domain.errors import NotAuthenticated
from neuro.server.access.proofs import BASIC, TOKEN, Proof, challenge, token_shown

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpZGVudGl0eSI6ImEifQ.s1g-_n"
BOTH = (BASIC, TOKEN)


def _basic(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return f"Basic {base64.b64encode(raw).decode()}"


def _shown(taken: tuple[Proof, ...], *values: str) -> str | None:
    return token_shown(CIMultiDict([("Authorization", value) for value in values]), taken)


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {JWT}",
        f"bearer {JWT}",
        f"BEARER   {JWT} ",
        _basic(f"token:{JWT}"),
        _basic(f"anna:{JWT}"),
        _basic(f":{JWT}"),
        _basic(f"анна:{JWT}"),
        _basic(f"anna:{JWT}").replace("Basic", "bAsIc"),
    ],
)
def test_a_token_is_shown_by_what_the_route_takes(value: str) -> None:
    assert _shown(BOTH, value) == JWT


@pytest.mark.parametrize(
    ("taken", "values"),
    [
        (BOTH, []),
        (BOTH, [""]),
        (BOTH, ["Digest username=x"]),
        (BOTH, [JWT]),
        (BOTH, [f"Bearer\t{JWT}"]),
        (BOTH, [f"Bearer,{JWT}"]),
        (BOTH, [f"Negotiate {JWT}"]),
        ((TOKEN,), [_basic(f"anna:{JWT}")]),
        ((TOKEN,), ["Basic %%%"]),
        ((BASIC,), [f"Bearer {JWT}"]),
        ((BASIC,), ["Bearer \0"]),
    ],
)
def test_any_other_proof_is_as_if_nobody_had_called(
    taken: tuple[Proof, ...], values: list[str]
) -> None:
    assert _shown(taken, *values) is None


def test_a_token_in_another_header_is_none() -> None:
    headers = CIMultiDict({"Cookie": f"token={JWT}", "Proxy-Authorization": f"Bearer {JWT}"})

    assert token_shown(headers, BOTH) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Bearer", "must be 'Bearer"),
        ("Bearer ", "must be 'Bearer"),
        (f"Bearer {JWT} {JWT}", "must be 'Bearer"),
        (f"Bearer {JWT}, Bearer {JWT}", "must be 'Bearer"),
        (f"Bearer {JWT}\0", "must be 'Bearer"),
        (f"Bearer {JWT}\n", "must be 'Bearer"),
        (f"Bearer {JWT}=x", "must be 'Bearer"),
        ("Bearer токен", "must be 'Bearer"),
        ("Bearer \udcff", "must be 'Bearer"),
        ("Basic", "must be 'Basic"),
        ("Basic %%%", "must be 'Basic"),
        ("Basic é", "must be 'Basic"),
        ("Basic \udcff", "must be 'Basic"),
        ("Basic dG9rZW46eA", "must be 'Basic"),  # without its padding
        (_basic("anna:x") + "\0", "must be 'Basic"),
        (_basic(JWT), "must be 'Basic"),
        (_basic("anna:"), "must be 'Basic"),
        (_basic(f"anna:{JWT}\0"), "must be 'Basic"),
        (_basic(f"anna:{JWT}:x"), "must be 'Basic"),
        (_basic(b"\xff\xfe:x"), "must be 'Basic"),
    ],
)
def test_a_malformed_proof_is_refused_with_its_form(value: str, words: str) -> None:
    with pytest.raises(NotAuthenticated, match=words):
        _shown(BOTH, value)


@pytest.mark.parametrize("second", [f"Bearer {JWT}", _basic("a:b"), "Digest x", ""])
def test_two_proofs_are_refused_whichever_they_are(second: str) -> None:
    for values in ((f"Bearer {JWT}", second), (second, f"Bearer {JWT}")):
        with pytest.raises(NotAuthenticated, match="more than one Authorization header"):
            _shown(BOTH, *values)


def test_what_is_as_long_as_a_head_may_be_is_read() -> None:
    long = "x" * 8000

    assert _shown(BOTH, f"Bearer {long}") == long
    assert _shown(BOTH, _basic(f"{long}:{JWT}")) == JWT


@given(st.text(), st.sampled_from(["", "Bearer ", "Basic ", "basic "]))
def test_whatever_is_sent_is_a_token_or_nobody_or_refused(text: str, scheme: str) -> None:
    try:
        token = _shown(BOTH, scheme + text)
    except NotAuthenticated:
        return
    assert token is None or (token.isascii() and token.isprintable() and " " not in token)


def test_a_stranger_is_told_of_the_first_proof_alone() -> None:
    assert challenge((TOKEN,)).startswith("Bearer ")
    assert challenge(BOTH).startswith("Basic ")
