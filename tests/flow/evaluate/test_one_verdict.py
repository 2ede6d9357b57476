"""`check`, `plan` and `bake` give one verdict: what the one accepts, the others do not refuse."""

from __future__ import annotations

import ast
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from neuro.domain.problems import Source
from neuro.flow import evaluate
from neuro.flow.batch.plan import Plan, make_plan
from neuro.flow.problems import FlowError, Report
from neuro.flow.syntax.reader import read_any, read_batch
from neuro.flow.syntax.tree import ActionFile
from tests.flow.batch.evaluate.batches import rebuilt
from tests.flow.evaluate import test_check_batches, test_check_posts
from tests.flow.evaluate.test_check_batches import BATCH, FILES

# `make fuzz` takes a longer look.
MUTATED = int(os.environ.get("NEURO_FUZZ_VERDICTS", "3000"))
PER_TEST = 250
SEED = 20

POST = "kind: stateful\nmain: {image: x}\npost: {image: x, cmd: \"${{ needs['s'].result }}\"}\n"
OTHERS = {
    "act.yml": POST,
    "other.yml": test_check_posts.OTHER,
    "main.yml": "kind: stateful\nmain: {image: x}\n",
}

# A check does not know the commit, nor the files to hash, so a plan may refuse more.
NOT_GIVEN = re.compile(r"git\.|hash_files")


def fixtures() -> dict[str, str]:
    """The batches of the other tests, right and wrong ones."""
    found = {}
    for name, (text, *_) in test_check_batches.CASES.items():
        found[name] = BATCH + text.replace("▶", "")
    for name, (tasks, *_) in test_check_batches.REACHED.items():
        found[name] = f"{BATCH}tasks:\n{tasks}\n"
    for name, tasks in test_check_batches.RIGHT.items():
        found[f"right: {name}"] = f"{BATCH}tasks:\n{tasks}\n"
    for name, tasks in {**test_check_posts.GRAPHS, **test_check_posts.RIGHT}.items():
        found[f"posts: {name}"] = test_check_posts.BATCH + tasks
    return {name: text for name, text in found.items() if not is_action(text)}


def is_action(text: str) -> bool:
    """Whether the file is an action that lies where a batch should."""
    return isinstance(read_any(Source("b.yml", text), Report()), ActionFile)


FIXTURES = fixtures()


@pytest.fixture
def files(place):
    for name, text in {**FILES, **OTHERS}.items():
        place.write(name, text)
    return place


def required(text: str) -> dict[str, str]:
    """A value for each parameter that must be given."""
    file = read_batch(Source("b.yml", text), Report())
    params = file.params if file is not None else {}
    return {name: "1" for name, one in params.items() if one.default is None}


def planned(files, text: str) -> Plan | str:
    """The plan, or what is wrong."""
    try:
        return make_plan(files.workspace, "b", required(text), files.environment)
    except FlowError as error:
        return str(error)


def verdicts(files, text: str) -> tuple[str, str]:
    """What `check` and `plan` have to say of a batch; nothing where it is right."""
    files.write(".neuro/b.yml", text)
    checked = "\n".join(problem.render() for problem in files.check())
    plan = planned(files, text)
    if isinstance(plan, str):
        return checked, plan
    # What a bake makes of the stored files is what was planned.
    root = rebuilt(plan).root()
    assert [".".join(node) for node in root.nodes] == list(plan.graphs[""])
    return checked, ""


@pytest.mark.parametrize("case", FIXTURES)
def test_the_batches_of_other_tests(files, case: str) -> None:
    checked, refused = verdicts(files, FIXTURES[case])
    assert refused or not checked, checked
    assert checked or not refused or NOT_GIVEN.search(FIXTURES[case]), refused


WRONG = {
    "two definitions of one image": (
        "images:\n  a: {ref: 'image:i', context: ., dockerfile: Dockerfile}\n"
        "  b: {ref: \"image:${{ 'i' }}\", context: ., dockerfile: Other}\n"
        "tasks:\n- {image: x}\n",
        "Image image:i is defined twice, with different contexts or dockerfiles",
    ),
    "a dockerfile outside of its context": (
        "images: {a: {ref: 'image:i', context: inner, dockerfile: Dockerfile}}\n"
        "tasks:\n- {image: x}\n",
        "The dockerfile should be inside the context: Dockerfile is not in inner",
    ),
    "a matrix that is no list": (
        "tasks:\n- {image: x, strategy: {matrix: {k: '${{ 5 }}'}}}\n",
        "The expression gives an integer, not a list",
    ),
    "arguments of a local action": (
        "tasks:\n- {action: 'ws:local', args: \"${{ from_json('x') }}\"}\n",
        None,
    ),
    "an argument of a wrong type": (
        "tasks:\n- {action: 'ws:inner', args: {n: \"${{ 'x' }}\"}}\n",
        "Type of argument 'n' does not match the input's declared type: "
        "the argument is 'str', the input is 'int'",
    ),
    "a pattern of files that leads out": (
        "tasks:\n- {image: x, cmd: \"${{ hash_files('..' + '/x') }}\"}\n",
        "'../x' leads out of the workspace: only files in it are hashed",
    ),
    "a pattern of files that is a number": (
        "tasks:\n- {image: x, cmd: '${{ hash_files(5) }}'}\n",
        "Patterns of files are strings, such as '**/*.py'",
    ),
    "a name that no id may be": (
        "tasks:\n- {id: \"${{ 'a' + '-b' }}\", image: x}\n",
        None,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_check_refuses_what_a_plan_refuses(files, case: str) -> None:
    text, message = WRONG[case]
    files.write(".neuro/b.yml", BATCH + text)
    found = files.check()
    assert found
    if message is not None:
        assert [problem.message for problem in found] == [message]
    with pytest.raises(FlowError) as caught:
        make_plan(files.workspace, "b", {}, files.environment)
    assert [problem.render() for problem in caught.value.problems] == [
        problem.render() for problem in found
    ]


# What must be given is not known, and nothing is said of what depends on it.
OPEN = {
    "rows": (
        "tasks:\n"
        "- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: ['${{ params.p }}']}}}\n"
        "- {image: x, needs: [a_1], cmd: '${{ needs.a_1.result }}'}\n"
    ),
    "rows of a call": (
        "tasks:\n- {id: c, action: 'ws:local', needs: [],\n"
        "   strategy: {matrix: {k: ['${{ params.p }}']}}}\n"
    ),
    "an environment": (
        "defaults: {env: {A: '${{ params.p }}'}}\n"
        "tasks:\n- {image: x, strategy: {matrix: {k: '${{ range(int(env.A)) }}'}}}\n"
    ),
    "an image": (
        "images: {a: {ref: 'image:${{ params.p }}', context: ., dockerfile: Dockerfile}}\n"
        "tasks:\n- {image: '${{ images.a.ref }}'}\n"
    ),
    "a volume": (
        "volumes: {v: {remote: 'storage:${{ params.p }}', mount: /v}}\n"
        "tasks:\n- {image: x, volumes: ['${{ volumes.v.ref }}']}\n"
    ),
    "what may fail": "tasks:\n- {image: x, continue_on_error: '${{ params.p == 1 }}'}\n",
    "an input": "tasks:\n- {action: 'ws:inner', args: {n: '${{ int(params.p) }}'}}\n",
    "a limit": (
        "tasks:\n- {id: a, image: x,\n"
        "   strategy: {max_parallel: '${{ int(params.p) }}', matrix: {k: [1]}}}\n"
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_what_only_the_submission_gives_is_no_mistake(files, case: str) -> None:
    checked, refused = verdicts(files, f"{BATCH}params: {{p: ~}}\n{OPEN[case]}")
    assert (checked, refused) == ("", "")


def test_an_action_that_was_not_fetched_hides_nothing_else(files) -> None:
    text = (
        "tasks:\n- {id: far, action: 'gh:someone/action@v1'}\n"
        "- {id: a, image: x, needs: [far], cmd: '${{ needs.far.outputs.o }}'}\n"
    )
    files.write(".neuro/b.yml", BATCH + text)
    assert files.check() == []
    files.write(".neuro/b.yml", BATCH + text + "- {image: x, strategy: {matrix: {k: '${{ 5 }}'}}}")
    assert [problem.message for problem in files.check()] == [
        "The expression gives an integer, not a list"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, MUTATED, PER_TEST))
def test_batches_with_mistakes_in_them(files, first: int) -> None:
    """Words, lines and characters that somebody has mixed up, the same ones in every run."""
    texts = sorted(FIXTURES.values())
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})
    differ = []
    for number in range(first, min(first + PER_TEST, MUTATED)):
        text = mutated(random.Random(f"{SEED}-{number}"), texts, words)
        if is_action(text):
            continue
        checked, refused = verdicts(files, text)
        if checked and not refused:
            differ.append(f"only check refuses {text}\n{checked}")
        # With a value in the place of one that was not known, more may be wrong.
        known = not required(text) and not NOT_GIVEN.search(text)
        if refused and not checked and known:
            differ.append(f"only plan refuses {text}\n{refused}")
    assert not differ, "\n\n".join(differ)


def mutated(choose: random.Random, texts: list[str], words: list[str]) -> str:
    """One of the texts with one to three changes."""
    text = choose.choice(texts)
    for _ in range(choose.randint(1, 3)):
        lines = text.splitlines(keepends=True)
        match choose.randrange(5):
            case 0:
                del lines[choose.randrange(len(lines))]
                text = "".join(lines) or BATCH
            case 1:
                text = "".join([*lines, choose.choice(choose.choice(texts).splitlines())])
            case 2:
                choose.shuffle(lines)
                text = "".join(lines)
            case _:
                found = list(re.finditer(r"\w+|[^\w\s]", text))
                if found:
                    place = choose.choice(found)
                    text = text[: place.start()] + choose.choice(words) + text[place.end() :]
    return text


def sentences() -> list[str]:
    """What the evaluation of flow files reports or raises, with {} for what changes."""
    found = []
    for path in Path(evaluate.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case (
                    ast.Call(func=ast.Attribute(attr="add" | "note"), args=[first, _, *_])
                    | ast.Call(func=ast.Name(id="EvaluationError"), args=[first, *_])
                ) if isinstance(first, ast.Constant | ast.JoinedStr):
                    parts = first.values if isinstance(first, ast.JoinedStr) else [first]
                    found.append(
                        "".join(
                            str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts
                        )
                    )
    return found


def test_each_sentence_stands_in_one_place() -> None:
    said = Counter(sentences())
    assert len(said) > 40
    assert [sentence for sentence, times in said.items() if times > 1] == []
