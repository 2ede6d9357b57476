"""The place of every character of a scalar, in every style that YAML has."""

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.domain.problems import Source
from neuro.flow.problems import Report
from neuro.flow.syntax.yaml import parse
from neuro.flow.syntax.yaml_nodes import Entries, YamlScalar


def scalar(text: str) -> YamlScalar:
    report = Report()
    root = parse(Source("x.yml", text), report)
    assert not report.problems
    assert isinstance(root, Entries)
    value = root.entries[-1][1]
    assert isinstance(value, YamlScalar)
    return value


@pytest.mark.parametrize(
    "text",
    [
        "k: plain X here",
        "k: plain\n  folded X here",
        "k: plain\n\n\n  folded   X here # comment",
        "k: 'single X'",
        "k: 'it''s ''X'''",
        "k: 'one\n\n  two X'",
        'k: "double X"',
        'k: "\\t\\x41\\u00e9\\U0001F600\\\\ X"',
        'k: "one \\\n   two X"',
        'k: "one \\\n\n   two X"',
        'k: "one\n   two\n\n  X"',
        "k: |\n  one\n  X\n",
        "k: |+\n\n\n  one\n\n  X\n\n",
        "k: |2-\n    one\n  X",
        "k: |1\n  one\n X\n",
        "k: >\n  one\n  X\n",
        "k: >\n  one\n\n  two\n    more\n\n  X\n",
        "k: >-\n\n  one\n\n\n    more\n  X",
        "a:\n  - b\nk:   &x   !!str   'X'",
        "k: &x\n  # comment\n  X",
        "é𝄞: '☃' \nk: é𝄞 X",
        "{a: [1, 2], k: 'b X'}",
        "a: 1\r\nk: |\r\n  one\r\n  X\r\n",
        "a: 1\r\nk: 'one\r\n\r\n  X'\r\n",
        "a: 1\rk: one\r  X\r",
    ],
)
def test_a_character_is_found_in_every_style(text: str) -> None:
    found = scalar(text)
    at = found.locate(found.text.index("X"))
    assert at.source.line(at.line)[at.column - 1] == "X"
    assert text.count("X") == 1


WORDS = st.text(st.sampled_from("ab é☃𝄞'\"\\:#-\n\t{}$[]%@&*!|>0"), max_size=60)


@settings(max_examples=300, deadline=None)
@given(value=WORDS, style=st.sampled_from([None, "'", '"', "|", ">"]), crlf=st.booleans())
def test_every_character_is_found(value: str, style: str | None, crlf: bool) -> None:
    text: str = pyyaml.dump(
        {"k": {"x": value, "y": "end"}},
        default_style=style,
        width=20,
        allow_unicode=True,
        sort_keys=False,
    )
    if crlf:
        text = text.replace("\n", "\r\n")
    report = Report()
    source = Source("x.yml", text)
    root = parse(source, report)
    assert isinstance(root, Entries)
    inner = root.entries[0][1]
    assert isinstance(inner, Entries)
    found = inner.entries[0][1]
    assert isinstance(found, YamlScalar)
    if found.data is None or not isinstance(found.data, str):
        return
    assert found.text == value
    where = {source.position(index): index for index in range(len(text) + 1)}
    places = [where[found.locate(offset)] for offset in range(len(value) + 1)]
    assert list(places) == sorted(places)
    if len(value) > 1:
        assert len(set(places[:-1])) > 1
    for character, index in zip(value, places, strict=False):
        there = text[index]
        if character in " \n":
            assert there in " \r\n\\"
        elif there != "\\":
            assert there == character
