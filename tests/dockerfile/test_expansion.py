from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuro.dockerfile.expansion import ExpansionError, Style, expand
from tests.dockerfile.reference import Reference, Refused

VARIABLES = {"x": "abab", "y": "aabbaab", "empty": "", "w": "a*b\\c", "lines": "ab\nab\nb"}


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("$x", "abab"),
        ("${x}", "abab"),
        ("$unset", ""),
        ("${unset:-z}", "z"),
        ("${empty-z}", ""),
        ("${empty:-z}", "z"),
        ("${x:+yes}${empty:+no}${empty+set}", "yesset"),
        ("${x:?never}", "abab"),
        ("${x#a*b}", "ab"),
        ("${x##a*b}", ""),
        ("${x%b*}", "aba"),
        ("${x%%b*}", "a"),
        ("${y/a?/-}", "-bbaab"),
        ("${y//a?/-}", "-bb-b"),
        ("${w#a\\*}", "b\\c"),
        ("\\$x '$x' \"$x\"", "$x $x abab"),
        ("${unset:-${x#a}}", "bab"),
        ("a$", "a$"),
    ],
)
def test_a_word_becomes(word: str, becomes: str) -> None:
    assert expand(word, VARIABLES).text == becomes


@pytest.mark.parametrize(
    ("word", "offset", "message"),
    [
        ("ab${x", 2, "A '}' is missing."),
        ("${unset:?give it}", 0, "unset: give it"),
        ("${empty:?}", 0, "empty: is not allowed to be empty"),
        ("x${}", 1, "This is not a substitution."),
        ("${x!}", 3, "'!' is not known in a substitution."),
        ("${x#\\a}", 0, "The pattern '\\a' has an escape that means nothing."),
        ("'ab", 0, "This single quote is not closed."),
        ("${a:-" * 60 + "}" * 60, 250, "Substitutions are nested too deeply."),
    ],
)
def test_what_is_wrong_has_a_place(word: str, offset: int, message: str) -> None:
    with pytest.raises(ExpansionError) as wrong:
        expand(word, VARIABLES)

    assert (wrong.value.offset, wrong.value.message) == (offset, message)


def test_a_variable_that_grows_without_end_is_stopped() -> None:
    with pytest.raises(ExpansionError, match="1 MiB"):
        expand("$x" * 3, {"x": "a" * 500_000})


def test_words_split_outside_of_quotes() -> None:
    assert expand("a 'b c' $v", {"v": "d e"}).words == ["a", "b c", "d", "e"]


def test_the_escape_may_be_another_character() -> None:
    assert expand("`$x \\$x", {"x": "1"}, Style(escape="`")).text == "$x \\1"


PIECES = st.sampled_from(
    [
        *"$ {}\"'\\`<ab/#%*?:-+~1@é",
        *("$x", "${", "${x", "${y:-", "${x#", "${y%%", "${w/", "${y//a?/", "${lines#*b}"),
        *("${x#'*'}", '${w%%"\\*"*}', "${empty:?m}", "<< "),
    ]
)


# What is too deep for us, and what the reference loses words of, is never so short.
@given(st.lists(PIECES, max_size=7).map("".join), st.sampled_from("\\`"))
@example("${x/\\//-}", "\\")
@example("${w///z}", "\\")
@example("${x#'a\\'}", "\\")
def test_a_word_becomes_what_it_becomes_in_the_reference(
    reference: Reference, word: str, escape: str
) -> None:
    environment = [f"{name}={value}" for name, value in VARIABLES.items()]
    try:
        theirs = reference.ask("expand", word, env=environment, escape=escape)
    except Refused:
        with pytest.raises(ExpansionError):
            expand(word, VARIABLES, Style(escape=escape))
        return

    ours = expand(word, VARIABLES, Style(escape=escape))

    assert ours.text == theirs["word"]
    # In the reference, a word loses what stands before a substitution with an operator.
    if "${" not in word:
        assert ours.words == theirs["words"]
