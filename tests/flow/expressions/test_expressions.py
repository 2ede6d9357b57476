"""The expression language: what it accepts, what it gives, and where it says what is wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.domain.problems import Position, Source
from neuro.flow.expressions.evaluator import EvaluationError, ExpressionScope, evaluate
from neuro.flow.expressions.functions import SIGNATURES, STANDARD
from neuro.flow.expressions.nodes import Template, calls, references
from neuro.flow.expressions.parser import parse_template
from neuro.flow.expressions.values import URI, Record
from neuro.flow.problems import Report


class Status(StrEnum):
    SUCCEEDED = "succeeded"


class Flow(Record):
    FIELDS = frozenset({"title", "workspace"})
    title = "Title"
    workspace = PurePosixPath("/ws")
    secret = "not for expressions"


NAMES: dict[str, object] = {
    "a": [10, 20],
    "b": [1],
    "x": 5,
    "d": {"k": "v"},
    "s": {"b", "a"},
    "p": PurePosixPath("/q"),
    "u": URI("storage:data"),
    "flow": Flow(),
    "status": Status.SUCCEEDED,
    "if_x": 1,
    "or_x": 2,
    "for": 3,
    "Nonesuch": 4,
    "Trueish": 5,
}


def read(text: str) -> tuple[Template | str | None, list[tuple[str, int, str | None]]]:
    """A template, and problems with their offsets."""
    source = Source("test", text)
    report = Report()
    template = parse_template(text, source.position, report)
    problems = [
        (problem.message, problem.at.column - 1 if problem.at else -1, problem.hint)
        for problem in report.problems
    ]
    return template, problems


def value(text: str) -> object:
    template, problems = read(text)
    assert not problems, problems
    if not isinstance(template, Template):
        return template
    return evaluate(template, ExpressionScope(NAMES))


def failure(text: str) -> tuple[str, int, str | None]:
    with pytest.raises(EvaluationError) as caught:
        value(text)
    at = caught.value.at
    assert isinstance(at, Position)
    return caught.value.message, at.column - 1, caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a[b[0] ]", 20),
        ("{'a': {'b': 1} }", {"a": {"b": 1}}),
        ("1 - 2", -1),
        ("1 -  -2", 3),
        ("'a' == 'b'", False),
        ("- x", -5),
        ("+ 3", 3),
        ("not(x)", False),
        ("not not True", True),
        ("not 1 == 2", True),
        ("1.0e5", 100000.0),
        ("1.", 1.0),
        ("1.5E-3", 0.0015),
        ("0xFF", 255),
        ("0xE+ 1", 15),
        ("0o17", 15),
        ("0b11", 3),
        ("12_34", 1234),
        ("1 < 2 < 3", True),
        ("3 > 2 > 1", False),
        ("2 if True else 1 / 0", 2),
        ("1 if 0 else 2 if 0 else 3", 3),
        ("1 + 2 * 3", 7),
        ("10 - 2 - 3", 5),
        ("7 % 4", 3),
        ("-7 % 4", 1),
        ("1 | 2 + 1", 3),
        ("1 == 1 | 0", True),
        ("{'a':1} | {'a':2}", {"a": 2}),
        (r"'a\nb'", "a\nb"),
        ('"}}"', "}}"),
        ("']]'", "]]"),
        ("d.k", "v"),
        ("d['k']", "v"),
        ("d . k", "v"),
        ("from_json('[1,2]')[0]", 1),
        ("from_json('{\"a\": 1}').a", 1),
        ("range(3)", [0, 1, 2]),
        ("range(1, 4)", [1, 2, 3]),
        ("range(5,1,-1)", [5, 4, 3, 2]),
        ("[x for x in [1,2,3] if x > 1]", [2, 3]),
        ("join(',', [1,2], True)", "1,2"),
        ("fmt('{:>5}|{}', 1, 2)", "    1|2"),
        ("to_json({'a': [1, None, True]})", '{"a": [1, null, true]}'),
        ("to_json(s)", '["a", "b"]'),
        ("int('12')", 12),
        ("int(3.7)", 3),
        ("int(True)", 1),
        ("'a%s' % 5", "a5"),
        ("'ab' * 2", "abab"),
        ("[1] + [2]", [1, 2]),
        ("p / 'x'", PurePosixPath("/q/x")),
        ("None or 'z'", "z"),
        ("nothing()", None),
        ("if_x", 1),
        ("or_x", 2),
        ("for", 3),
        # Differences: what the original refuses, or computes otherwise.
        ("a[b[0]]", 20),
        ("{'a': {'b': 1}}", {"a": {"b": 1}}),
        ("1 -2", -1),
        ("1-2", -1),
        ("'a'=='b'", False),
        ("-x", -5),
        ("1e5", 100000.0),
        (".5", 0.5),
        ("False and 1 / 0", False),
        ("True or 1 / 0", True),
        (r"'it\'s'", "it's"),
        ("[1,2][0]", 1),
        ("({'y': 1}).y", 1),
        ("'abc'[0]", "a"),
        ("range(5, 0)", []),
        ("[x for x in s]", ["a", "b"]),
        ("join(',', s)", "a,b"),
        ("Nonesuch", 4),
        ("Trueish", 5),
        ("1 +\n\n  2", 3),
        ("flow['title']", "Title"),
        # Names, lists, conditions and records.
        ("flow.workspace / 'x'", PurePosixPath("/ws/x")),
        ("u / 'x/y'", "storage:data/x/y"),
        ("[]", []),
        ("{}", {}),
        ("[1, 2,]", [1, 2]),
        ("[x for x in a if x > 10 if x else x]", [20]),
        ("[y for y in a if b else a if y > 10]", [20]),
        ("len(s)", 2),
        ("keys(d)", ["k"]),
        ("values(d)", ["v"]),
        ("lower('A') + upper('b')", "aB"),
        ("replace('aXa', 'X', '-')", "a-a"),
        ("'%(k)s' % d", "v"),
        ("status == 'succeeded'", True),
        ("to_json(status)", '"succeeded"'),
        ("to_json(p)", '"/q"'),
        ("to_json(flow)", '{"title": "Title", "workspace": "/ws"}'),
        ("str(status)", "succeeded"),
        ("str(s)", "{'a', 'b'}"),
        ("fmt('{0:{1}}|{{', 1, 3)", "  1|{"),
        ("fmt('{0:{1}}|{{}}', 1, 3)", "  1|{}"),
    ],
)
def test_values(text: str, expected: object) -> None:
    for opening, closing in (("${{ ", " }}"), ("$[[ ", " ]]"), ("${{", "}}"), ("$[[", "]]")):
        got = value(opening + text + closing)
        assert got == expected
        assert isinstance(got, type(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text }} ]] more", "text }} ]] more"),
        ("a $ b ${x} c", "a $ b ${x} c"),
        ("$${{ 1 }}", "$1"),
        ("${{ x }} and $[[ x ]]", "5 and 5"),
        ("is ${{ status }}", "is succeeded"),
        ("${{ None }}.${{ True }}", "None.True"),
        ("${{ p }}:${{ u }}", "/q:storage:data"),
        ("", ""),
    ],
)
def test_text_around_expressions(text: str, expected: str) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "offset", "part", "hint"),
    [
        ("$[[ 1 }}", 6, "not by '}}'", None),
        ("${{ 1 ]]", 6, "not by ']]'", None),
        ("${{ }}", 4, "is empty", None),
        ("${{ 1", 0, "'}}' is missing", None),
        ("${{ (1 }}", 4, "'(' here is not closed", None),
        ("${{ 1) }}", 5, "')' closes nothing", None),
        ("${{ x }", 6, "'}' closes nothing", "The expression ends with '}}'."),
        ("$[[ x ]", 6, "']' closes nothing", "The expression ends with ']]'."),
        ("${{ 007 }}", 4, "'007' is not a number", "Did you mean '7'?"),
        ("${{ 1__2 }}", 4, "is not a number", None),
        ("${{ 12ab }}", 4, "is not a number", None),
        ("${{ 'it' 's' }}", 9, "is not expected here", "Strings are joined by '+'."),
        ("${{ 'ab }}", 4, "no closing quote", None),
        (r"${{ '\xzz' }}", 5, "not a complete escape", None),
        ("${{ x = 1 }}", 6, "'=' does not belong", "Did you mean '=='?"),
        ("${{ x && 1 }}", 6, "'&&' is not an operator", "Did you mean 'and'?"),
        ("${{ !x }}", 4, "'!' does not belong", "Did you mean 'not'?"),
        ("${{ 2 ** 3 }}", 6, "'**' is not an operator", None),
        ("${{ _x }}", 4, "A name starts with a letter", None),
        ("${{ x._y }}", 6, "A name starts with a letter", None),
        ("${{ имя }}", 4, "names are Latin letters", None),
        ("${{ 1 + }}", 8, "a value should follow", None),
        ("${{ 1 if 2 }}", 6, "needs an 'else'", None),
        ("${{ 1 in a }}", 6, "'in' is not expected", "Expressions have no 'in'."),
        ("${{ rnge(1) }}", 4, "There is no function 'rnge'", "Did you mean 'range'?"),
        ("${{ range(1, 2, 3, 4) }}", 4, "range() takes 1 to 3 arguments, not 4", None),
        ("${{ len() }}", 4, "len() takes 1 argument, not 0", None),
        ("${{ nothing(1) }}", 4, "nothing() takes no arguments, not 1", None),
        ("${{ join(1) }}", 4, "join() takes 2 or 3 arguments, not 1", None),
        ("${{ fmt() }}", 4, "fmt() takes at least 1 argument, not 0", None),
        ("${{ x.y(1) }}", 7, "Only functions can be called", None),
        ("${{ " + "(" * 500 + "1" + ")" * 500 + " }}", 84, "nested too deeply", None),
        ("${{ " + "- " * 5000 + "1 }}", 164, "nested too deeply", None),
        ("${{ " + " " * 70_000 + "1 }}", 0, "longer than", None),
    ],
)
def test_syntax_errors(text: str, offset: int, part: str, hint: str | None) -> None:
    template, problems = read(text)
    assert template is None
    (problem,) = problems
    assert part in problem[0]
    assert problem[1] == offset
    if hint is not None:
        assert problem[2] == hint


def test_each_expression_of_a_text_is_checked() -> None:
    _, problems = read("${{ 1 + }} ${{ ok }} $[[ ( ]] ${{ 'a }} ${{ nope() }}")
    assert [offset for _, offset, _ in problems] == [8, 25, 34, 44]


@pytest.mark.parametrize(
    ("text", "offset", "part", "hint"),
    [
        ("${{ 1 + 1 / 0 }}", 10, "Division by zero", None),
        ("${{ d.zz }}", 6, "No attribute 'zz'", "It has: k."),
        ("${{ d['zz'] }}", 6, "No item 'zz'", "It has: k."),
        ("${{ x.foo }}", 6, "an integer has no attributes", None),
        ("${{ x[0] }}", 6, "No items can be read from an integer", None),
        ("${{ s[0] }}", 6, "No items can be read from a set", None),
        ("${{ a[7] }}", 6, "No item 7: there are 2", None),
        ("${{ a['x'] }}", 6, "counted by integers, not a string", None),
        ("${{ flw.title }}", 4, "The 'flw' context is not available", "Did you mean 'flow'?"),
        ("${{ flow.titel }}", 9, "No attribute 'titel'", "Did you mean 'title'?"),
        ("${{ flow.secret }}", 9, "No attribute 'secret'", None),
        ("${{ flow.__class__ }}", None, "", None),
        ("${{ [1] | [2] }}", 8, "'|' does not work between a list and a list", None),
        ("${{ 'a' + 1 }}", 8, "'+' does not work between a string and an integer", None),
        ("${{ 1 < 'a' }}", 6, "'<' does not work", None),
        ("${{ -'a' }}", 4, "'-' stands before numbers, not a string", None),
        ("${{ {[1]: 2} }}", 5, "A list cannot be a key", None),
        ("${{ join(',', [1,2]) }}", 4, "join() takes a list of strings", None),
        ("${{ fmt('{x}', 1) }}", 4, "positional fields only", None),
        ("${{ fmt('{0.__class__}', 1) }}", 4, "positional fields only", None),
        ("${{ fmt('{0[0]}', 1) }}", 4, "positional fields only", None),
        ("${{ fmt('{:99999999}', 1) }}", 4, "at most 10000", None),
        ("${{ fmt('{}') }}", 4, "has no argument", None),
        ("${{ '%99999999d' % 1 }}", 17, "at most 10000", None),
        ("${{ int('a') }}", 4, "'a' is not an integer", None),
        ("${{ from_json('[') }}", 4, "is not", None),
        ("${{ upload(d) }}", 4, "upload() is not available here", None),
        ("${{ p / ('a/' * 1000000) }}", 6, "path is too long", None),
        ("${{ p / 1 }}", 6, "'/' does not work between a path and an integer", None),
        ("${{ 'a' * 1000000000 }}", 8, "too large", None),
        ("${{ range(1000000000000) }}", 4, "at most 500000 items", None),
        ("${{ str([[[0] * 1000] * 1000] * 1000) }}", 4, "too large", None),
        ("${{ [1 for i in range(900) for j in a] }}", None, "", None),
        ("${{ [[[1 for i in range(999)] for j in range(999)] for k in a] }}", None, "steps", None),
        ("${{ flow }} x", 4, "A record is not a string", None),
        ("${{ from_json('[' * 90000 + ']' * 90000) }}", 4, "nested too deeply", None),
    ],
)
def test_evaluation_errors(text: str, offset: int | None, part: str, hint: str | None) -> None:
    template, problems = read(text)
    if not part:
        assert template is None
        assert problems
        return
    message, at, shown = failure(text)
    assert part in message
    if offset is not None:
        assert at == offset
    if hint is not None:
        assert shown == hint


def test_huge_integers_are_refused() -> None:
    assert "too large" in failure("${{ " + " * ".join(["999999999999999999999"] * 1000) + " }}")[0]


def test_long_chains_need_no_stack() -> None:
    assert value("${{ " + "+".join(["1"] * 10_000) + " }}") == 10_000
    template, _ = read("${{ x" + ".y" * 10_000 + " }}")
    assert isinstance(template, Template)
    ((path, _),) = references(template)
    assert len(path) == 10_001


class Failing(Record):
    FIELDS = frozenset({"sha"})

    @property
    def sha(self) -> str:
        raise EvaluationError("There is no repository")


def test_a_lazy_value_fails_where_it_was_asked_for() -> None:
    template, _ = read("at ${{ 'x' + git.sha }}")
    assert isinstance(template, Template)
    with pytest.raises(EvaluationError, match="no repository") as caught:
        evaluate(template, ExpressionScope({"git": Failing()}))
    assert caught.value.at is not None
    assert caught.value.at.column - 1 == 17


def test_references_and_calls() -> None:
    text = (
        "${{ upload(volumes['code']).ref + images[params.n].ref }}"
        "${{ [x.y for x in flow.list if x == matrix.k] }}"
    )
    template, _ = read(text)
    assert isinstance(template, Template)
    found = {path: at.column - 1 for path, at in references(template)}
    assert found == {
        ("flow", "list"): text.index("flow.list"),
        ("images",): text.index("images"),
        ("matrix", "k"): text.index("matrix.k"),
        ("params", "n"): text.index("params.n"),
        ("volumes", "code"): text.index("volumes"),
    }
    assert [call.function for call in calls(template)] == ["upload"]


def test_every_standard_function_has_a_signature() -> None:
    assert STANDARD.keys() <= SIGNATURES.keys()
    for function in STANDARD.values():
        assert SIGNATURES[function.name] == (function.minimum, function.maximum)
        assert function.doc.endswith(".")


numbers = st.one_of(
    st.integers(0, 999).map(str),
    st.sampled_from(["1.5", ".5", "2e1", "0x1F", "True", "False", "n"]),
)


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "%", " and ", " or ", "==", "<", ">="])
    return st.one_of(
        st.builds(lambda left, op, right: f"({left}){op}({right})", inner, operators, inner),
        st.builds(lambda left, op, right: f"{left}{op}{right}", numbers, operators, inner),
        st.builds(lambda x, c, y: f"({x} if {c} else {y})", inner, inner, inner),
        inner.map("(not {})".format),
        inner.map("(-{})".format),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}][0]"),
        inner.map("[i for i in [{}]][0]".format),
        inner.map("{{'k': {}}}['k']".format),
    )


def test_numbers_compute_as_in_python() -> None:
    compared = 0

    @given(st.recursive(numbers, combined, max_leaves=12))
    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    def check(text: str) -> None:
        nonlocal compared
        if sum(text.count(mark) for mark in ("==", "<", ">=")) > 1:
            return  # comparisons chain in Python, and do not here
        try:
            expected = eval(text, {"__builtins__": {}, "n": 7})
        except (ZeroDivisionError, TypeError, OverflowError):
            expected = EvaluationError
        template, problems = read("${{" + text + "}}")
        if problems and "too deeply" in problems[0][0]:
            return
        assert isinstance(template, Template), problems
        try:
            got = evaluate(template, ExpressionScope({"n": 7}))
        except EvaluationError:
            got = EvaluationError
        assert got == expected
        compared += 1

    check()
    assert compared > 100


def mutations(count: int) -> Iterator[str]:
    chance = random.Random(20)
    seeds = [
        "${{ [x for x in range(100) if x % 2 == 0] }} and $[[ fmt('{:>5}|{}', a[b[0]], d.k) ]]",
        "${{ {'a': {'b': 1}} | d }} ${{ 'a%5s' % 'x' * 9999 }}",
        "${{ to_json(s) + str(flow.workspace / u) if not x else join(',', s, True) }}",
        "${{ 9 * 99999999999 * 999999999999999999 - 0x1F / 1e300 }}",
        "${{ replace('a' * 99999, '', 'b' * 9999) }} ${{ from_json('[1, {\"a\": 2}]') }}",
    ]
    alphabet = "${}[]()'\"\\.,:+-*/%|<>=! \n\tabx059_eé\x00\ud800"
    words = ["${{", "}}", "$[[", "]]", " if ", " else ", " for i in ", "not ", "range(", "999999"]
    for _ in range(count):
        text = chance.choice(seeds)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(text) + 1)
            match chance.randrange(4):
                case 0:
                    text = text[:at] + text[at + chance.randint(1, 5) :]
                case 1:
                    text = text[:at] + chance.choice(alphabet) + text[at:]
                case 2:
                    text = text[:at] + chance.choice(words) + text[at:]
                case _:
                    other = chance.choice(seeds)
                    text = text[:at] + other[chance.randrange(len(other)) :]
        yield text


def test_mutated_text_gives_a_value_or_a_problem_with_a_place() -> None:
    outcomes = {"value": 0, "syntax": 0, "evaluation": 0, "placeless": 0}
    for text in mutations(3000):
        template, problems = read(text)
        if template is None:
            assert problems, text
            outcomes["syntax"] += 1
        elif isinstance(template, Template):
            try:
                evaluate(template, ExpressionScope(NAMES))
                outcomes["value"] += 1
            except EvaluationError as error:
                outcomes["evaluation" if error.at else "placeless"] += 1
    assert outcomes.pop("placeless") == 0
    assert all(count > 50 for count in outcomes.values()), outcomes
