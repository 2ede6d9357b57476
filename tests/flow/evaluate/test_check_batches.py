"""Broken batches: what is wrong with their graphs and with all that they reach, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.flow.batch.plan import make_plan
from neuro.flow.problems import FlowError
from tests.flow.work import calls

BATCH = "kind: batch\n"

FILES = {
    "local.yml": "kind: local\ncmd: 'true'\n",
    "stateful.yml": "kind: stateful\nmain: {image: x}\npost: {image: x, cmd: '${{ state.a }}'}\n",
    "inner.yml": """\
kind: batch
inputs: {n: {type: int, default: 1}}
outputs: {o: {value: "${{ needs.a.outputs.o }}"}}
tasks:
- {id: a, image: x, cmd: "${{ inputs.n }}"}
""",
    "both.yml": """\
kind: batch
tasks:
- {id: first, action: "ws:local"}
- {id: second, action: "ws:inner"}
""",
    "module.yml": """\
kind: batch
tasks:
- {id: a, image: x, cmd: "${{ env.A }} ${{ params.p }}"}
""",
    "mixed.yml": "kind: batch\ntasks:\n- {id: a, mixins: [m]}\n",
    "self.yml": "kind: batch\ntasks:\n- {action: 'ws:self'}\n",
    "ping.yml": "kind: batch\ntasks:\n- {action: 'ws:pong'}\n",
    "pong.yml": "kind: batch\ntasks:\n- {action: 'ws:ping'}\n",
    "picture.yml": """\
kind: batch
images: {i: {ref: "image:i", context: other, dockerfile: other/Dockerfile}}
tasks:
- {image: "${{ images.i.ref }}"}
""",
    "sees_matrix.yml": """\
kind: stateful
main: {image: x}
post: {image: x}
post_if: ${{ matrix.k == 1 }}
""",
    "sees_inputs.yml": """\
kind: stateful
main: {image: x}
post: {image: x, cmd: '${{ inputs.a }}'}
""",
    ".neuro/project.yml": """\
id: my_ws
volumes:
  code: {remote: "storage:code", mount: /code, local: code}
  data: {remote: "storage:data", mount: /data}
""",
}


def marked(text: str) -> tuple[str, int, int]:
    """The text without the mark, and the mark's line and column below `kind:`."""
    before, mark, after = text.partition("▶")
    assert mark
    return before + after, before.count("\n") + 2, len(before) - (before.rfind("\n") + 1) + 1


# The text below `kind: batch`, with ▶ where the problem is; its message; a part of the hint.
CASES = {
    "two volumes at one path": (
        "volumes:\n  data: {remote: storage:d, mount: /d}\n"
        "tasks:\n- image: x\n  volumes:\n"
        "  - ${{ volumes.data.ref }}\n  - ▶storage:${{ matrix.k }}:/d\n"
        "  strategy: {matrix: {k: [e]}}",
        "Two volumes are mounted at '/d': storage:d and storage:e", "its own path",
    ),
    # Ids and needs
    "an unknown need": (
        "tasks:\n- {id: train, image: x}\n- {image: x, needs: [▶trian]}",
        "The task needs unknown task trian", "Did you mean 'train'?",
    ),
    "an unknown need of an id that an expression makes": (
        "tasks:\n- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: [x, y]}}}\n"
        "- {id: b, image: x, needs: [▶a_z]}",
        "Task b needs unknown task a_z", "Did you mean 'a_y'?",
    ),
    "an expression that makes an unknown need for one row": (
        "tasks:\n- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: [x, y]}}}\n"
        "- {id: b, image: x, needs: [▶'a_${{ matrix.k }}'], strategy: {matrix: {k: [x, z]}}}",
        "Task b needs unknown task a_z", None,
    ),
    "the same id twice": (
        "tasks:\n- {id: one, image: x}\n- {id: ▶one, image: x}",
        "The id 'one' is there twice", "The first one is the task at line 3.",
    ),
    "an id that a row has already": (
        "tasks:\n- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: [x, y]}}}\n"
        "- {id: ▶a_y, image: x}",
        "The id 'a_y' is there twice", "line 3",
    ),
    "two rows with one id": (
        "tasks:\n- {id: ▶'a_${{ matrix.k }}', image: x,\n"
        "   strategy: {matrix: {k: [x, y], n: [1, 2]}}}",
        "Two rows of the matrix have the id 'a_x'", "matrix.ORDINAL",
    ),
    "two rows that are equal": (
        "tasks:\n- ▶{image: x, strategy: {matrix: {k: [1, 1]}}}",
        "Two rows of the matrix have the id 'task-1-1'", None,
    ),
    "an expression that makes no id": (
        "tasks:\n- {id: ▶'a-${{ matrix.k }}', image: x, strategy: {matrix: {k: [x]}}}",
        "'a-x' is not an identifier", "a_x",
    ),
    "a circle": (
        "tasks:\n- {id: a, image: x, needs: [c]}\n- {id: b, image: x, needs: [▶a]}\n"
        "- {id: c, image: x, needs: [b]}",
        "Tasks need each other in a circle: a -> c -> b -> a", None,
    ),
    "a task that needs itself": (
        "tasks:\n- {id: a, image: x, needs: [▶a]}",
        "Tasks need each other in a circle: a -> a", None,
    ),
    "a circle through the default need": (
        "tasks:\n- {id: a, image: x, needs: [▶b]}\n- {id: b, image: x}",
        "Tasks need each other in a circle: a -> b -> a", "`needs: []`",
    ),
    "a circle through a matrix": (
        "tasks:\n- {id: a, image: x, needs: [b], strategy: {matrix: {k: [1, 2]}}}\n"
        "- {id: b, image: x, needs: [▶a]}",
        "Tasks need each other in a circle: a -> b -> a", None,
    ),
    "a circle between rows": (
        "tasks:\n"
        "- {id: 'a_${{ matrix.k }}', image: x, needs: ['b_${{ matrix.k }}'],\n"
        "   strategy: {matrix: {k: [x, y]}}}\n"
        "- {id: 'b_${{ matrix.k }}', image: x, strategy: {matrix: {k: [x, y]}},\n"
        "   needs: [▶\"${{ 'a_x' if matrix.k == 'x' else 'c' }}\"]}\n"
        "- {id: c, image: x, needs: []}",
        "Tasks need each other in a circle: a_x -> b_x -> a_x", None,
    ),
    "the id of a row that outputs decide": (
        "tasks:\n- {id: plan, image: x}\n"
        "- id: part_${{ matrix.n }}\n  image: x\n"
        "  strategy: {matrix: {n: '${{ from_json(needs.plan.outputs.list) }}'}}\n"
        "- {image: x, needs: [▶part_5]}",
        "The task needs unknown task part_5", "plan",
    ),
    # What is read of needs
    "a task that is not needed": (
        "tasks:\n- {id: a, image: x}\n- {id: b, image: x, needs: []}\n"
        "- {image: x, needs: [b], cmd: '${{ needs.▶a.result }}'}",
        "No attribute 'a' in 'needs'", "Add a to the `needs:` of this task.",
    ),
    "a need that only runs": (
        "tasks:\n- {id: a, image: x}\n"
        "- {image: x, needs: {a: running}, cmd: '${{ needs.▶a.result }}'}",
        "No attribute 'a' in 'needs'", "write `completed`",
    ),
    "rows of a task without a matrix": (
        "tasks:\n- {id: a, image: x}\n- {image: x, cmd: '${{ needs.a.▶rows }}'}",
        "No attribute 'rows' in 'needs.a'", "outputs, result",
    ),
    "an output that an action does not have": (
        "tasks:\n- {id: a, action: 'ws:inner'}\n- {image: x, cmd: '${{ needs.a.outputs.▶p }}'}",
        "No attribute 'p' in 'needs.a.outputs'", "It has: o.",
    ),
    "needs of the first task": (
        "tasks:\n- {image: x, cmd: '${{ needs.▶a.result }}'}",
        "No attribute 'a' in 'needs'", None,
    ),
    "success of what is no need": (
        "tasks:\n- {id: a, image: x}\n- {id: b, image: x}\n"
        "- {image: x, needs: [b], enable: \"${{ success(▶'a') }}\"}",
        "success() got an argument that is not a dependency: 'a'", "Add a to the `needs:`",
    ),
    "failure of what is not there": (
        "tasks:\n- {id: train, image: x}\n- {image: x, enable: \"${{ failure(▶'trian') }}\"}",
        "failure() got an argument that is not a dependency: 'trian'", "Did you mean 'train'?",
    ),
    "the outcome of needs in an id": (
        "tasks:\n- {id: a, image: x}\n- {id: 'b_${{ ▶needs.a.result }}', image: x}",
        "The 'needs' context is not available", None,
    ),
    "state outside of post": (
        "tasks:\n- {image: x, cmd: '${{ state.▶a }}'}", "No attribute 'a' in 'state'", None,
    ),
    "success() in cache": (
        "tasks:\n- {image: x, cache: {life_span: '${{ 1 if ▶success() else 2 }}'}}",
        "success() is only available inside a task definition", None,
    ),
    "needs in continue_on_error": (
        "tasks:\n- {image: x, continue_on_error: '${{ ▶needs.a.result }}'}",
        "The 'needs' context is not available", None,
    ),
    "an unknown name in retry": (
        "tasks:\n- {image: x, retry: {attempts: '${{ params.▶tries }}'}}",
        "No attribute 'tries' in 'params'", None,
    ),
    "a name that the group of concurrency cannot read": (
        "concurrency: train-${{ ▶env.A }}\ntasks: []",
        "The 'env' context is not available", "Available here: flow, git, params, project",
    ),
    "a name beside an expression that is broken": (
        "tasks:\n- {image: x, cmd: '${{ 1 + }} ${{ ▶parms.a }}'}",
        "The 'parms' context is not available", "params",
    ),
    "an image that is null": (
        "mixins: {m: {image: x}}\ntasks:\n- ▶{id: a, image: ~, mixins: [m]}",
        "Image for task a is not specified", "mixins",
    ),
    # Matrices
    "too many rows": (
        "tasks:\n- image: x\n  strategy:\n"
        "    matrix: ▶{a: '${{ range(17) }}', b: '${{ range(16) }}'}",
        "The matrix size for task #1 exceeds the limit of 256", None,
    ),
    "a key whose list is empty": (
        "tasks:\n- {image: x, strategy: {matrix: {k: [], n: [1]}}, cmd: '${{ matrix.▶k }}'}",
        "No attribute 'k' in 'matrix'", "An empty list has no effect",
    ),
    "a key that rows to include do not have": (
        "tasks:\n- {image: x, strategy: {matrix: {include: [{a: 1}]}}, cmd: '${{ matrix.▶b }}'}",
        "No attribute 'b' in 'matrix'", "ORDINAL, a",
    ),
    "no task at once": (
        "tasks:\n- {image: x, strategy: {matrix: {k: [1]}, max_parallel: ▶0}}",
        "max_parallel should be at least 1", None,
    ),
    "no task at once in defaults": (
        "defaults: {max_parallel: ▶0}\ntasks: []", "max_parallel should be at least 1", None,
    ),
    "needs of rows that outputs decide": (
        "tasks:\n- {id: a, image: x}\n- image: x\n  needs: [a, ▶'${{ matrix.k }}']\n"
        "  strategy: {matrix: {k: '${{ from_json(needs.a.outputs.l) }}'}}",
        "What a task needs cannot depend on a matrix that outputs decide", None,
    ),
    "a local action whose rows outputs decide": (
        "tasks:\n- {id: a, action: ws:local}\n- ▶action: ws:local\n"
        "  strategy: {matrix: {k: '${{ from_json(needs.a.outputs.l) }}'}}",
        "The matrix of a local action cannot be decided by outputs", None,
    ),
    # Calls
    "an input of another type": (
        "tasks:\n- {action: 'ws:inner', args: {n: ▶many}}",
        "Type of argument 'n' does not match the input's declared type: "
        "the argument is 'str', the input is 'int'", "Write a value of type int.",
    ),
    "an input in quotes": (
        "tasks:\n- {action: 'ws:inner', args: {n: ▶'3'}}",
        "Type of argument 'n' does not match the input's declared type: "
        "the argument is 'str', the input is 'int'", "Write 3, without quotes.",
    ),
    # Rows and calls
    "a row that looks like a task in a call": (
        "tasks:\n- {id: ▶c, action: 'ws:inner', strategy: {matrix: {k: [a, a.b]}}}",
        "The row 'c-k-a.b' could not be told from a task in 'c-k-a', which is a call",
        "`id: c_${{ matrix.ORDINAL }}`",
    ),
    "an input that there is not": (
        "tasks:\n- {action: 'ws:inner', args: {m: ▶1}}", "Unsupported input(s): m", None,
    ),
    "cache of a local action": (
        "tasks:\n- {action: 'ws:local', ▶cache: {strategy: none}}",
        "Specifying cache in action call to the action ws:local of kind local is not supported",
        "leave it out",
    ),
    "cache of a stateful action": (
        "tasks:\n- {action: 'ws:stateful', ▶cache: {strategy: none}}",
        "Specifying cache in action call to the action ws:stateful of kind stateful "
        "is not supported", None,
    ),
    # Local actions
    "a local action behind a task": (
        "tasks:\n- {id: a, image: x}\n- {id: b, action: 'ws:local', needs: [▶a]}",
        "Local action 'b' depends on remote task 'a'", "needs: []",
    ),
    "a local action behind a task by default": (
        "tasks:\n- {id: a, image: x}\n- ▶{id: b, action: 'ws:local'}",
        "Local action 'b' depends on remote task 'a'", None,
    ),
    "a local action behind tasks of an action": (
        "tasks:\n- {id: a, action: 'ws:inner'}\n- {id: c, action: 'ws:local', needs: [▶a]}",
        "Local action 'c' depends on remote task 'a.a'", None,
    ),
    "a local action behind another that is": (
        "tasks:\n- {id: a, image: x}\n- {id: b, action: 'ws:stateful', needs: []}\n"
        "- {id: c, action: 'ws:local', needs: [▶b]}",
        "Local action 'c' depends on remote task 'b'", None,
    ),
    "a local action in a call that waits for a task": (
        "tasks:\n- {id: a, image: x}\n- {id: b, action: 'ws:both', needs: [▶a]}",
        "Local action 'b.first' depends on remote task 'a'", None,
    ),
    # Images and volumes
    "one image of two contexts": (
        "images:\n  i: {ref: 'image:i', context: one, dockerfile: one/Dockerfile}\n"
        "  j: {ref: ▶'image:i', context: two, dockerfile: two/Dockerfile}\ntasks: []",
        "Image image:i is defined twice, with different contexts or dockerfiles", "line 3",
    ),
    "a volume with a local folder": (
        "volumes:\n  v: {remote: 'storage:v', mount: /v, ▶local: v}\ntasks: []",
        "A batch uploads nothing, and volume 'v' has a `local` folder", "Leave `local` out",
    ),
    "a volume of the project with a local folder": (
        "tasks:\n- {image: x, volumes: ['${{ volumes.▶code.ref }}']}",
        "A batch uploads nothing, and volume 'code' has a `local` folder",
        "neuro-flow upload code",
    ),
    # Functions
    "an upload": (
        "tasks:\n- {image: x, volumes: ['${{ ▶upload(volumes.data).ref }}']}",
        "upload() is only available in a live workflow", "before the bake",
    ),
    "a hash of what is known later": (
        "tasks:\n- {id: a, image: x}\n"
        "- {image: x, env: {H: '${{ hash_files(▶needs.a.outputs.f) }}'}}",
        "hash_files() is evaluated when the bake is submitted: its patterns may not depend on "
        "outputs of tasks", None,
    ),
    # Mixins
    "what a mixin reads of a task's matrix": (
        "mixins:\n  m: {image: x, cmd: '${{ matrix.▶k }}'}\n"
        "tasks:\n- {mixins: [m], strategy: {matrix: {n: [1]}}}",
        "No attribute 'k' in 'matrix'", None,
    ),
    "an unknown need in a mixin": (
        "mixins: {m: {image: x, needs: [▶zz]}}\ntasks:\n- {id: a, mixins: [m]}",
        "Task a needs unknown task zz", None,
    ),
}  # fmt: skip


@pytest.fixture
def files(place):
    for name, text in FILES.items():
        place.write(name, text)
    return place


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_of_a_batch(files, case: str) -> None:
    text, message, hint = CASES[case]
    text, line, column = marked(text)
    files.write(".neuro/train.yml", BATCH + text)
    found = files.check()
    told = [(p.message, p.at.line, p.at.column) for p in found if p.at is not None]
    if case == "a name beside an expression that is broken":
        # The broken one is told first.
        assert len(told) == 2
        told = told[1:]
        found = found[1:]
    assert told == [(message, line, column)]
    assert hint is None or hint in (found[0].hint or "")
    with pytest.raises(FlowError) as planned:
        make_plan(files.workspace, "train", {}, files.environment)
    assert found[0] in planned.value.problems
    places = [problem.at for problem in planned.value.problems]
    assert len(set(places)) == len(places)


# What is given as an input of type int; the message and its hint.
WRONG = {
    "'3'": ("Type of argument 'n' does not match", "Write 3, without quotes."),
    "\"${{ '3' }}\"": (
        "Type of argument 'n' does not match", "Convert a string with int(): ${{ int(params.x) }}.",
    ),
    "'${{ nope.x }}'": ("The 'nope' context is not available", "Available here"),
    "'${{ 1 / 0 }}'": ("Division by zero", ""),
}  # fmt: skip


@pytest.mark.parametrize("given", WRONG)
@pytest.mark.parametrize("action", ["ws:adds", "ws:main"])
def test_a_wrong_argument_is_told_once(files, action: str, given: str) -> None:
    """Not again by what reads it inside of the action."""
    adds = 'cmd: "${{ inputs.n + 1 }}"'
    inputs = "inputs: {n: {type: int}}\n"
    files.write("adds.yml", f"{BATCH}{inputs}tasks: [{{image: x, {adds}}}]\n")
    files.write("main.yml", f"kind: stateful\n{inputs}main: {{image: x, {adds}}}\n")
    files.write(".neuro/train.yml", f"{BATCH}tasks: [{{action: '{action}', args: {{n: {given}}}}}]")
    with pytest.raises(FlowError) as planned:
        make_plan(files.workspace, "train", {}, files.environment)
    (problem,) = planned.value.problems
    message, hint = WRONG[given]
    assert problem.message.startswith(message)
    assert hint in (problem.hint or "")


# The batch's tasks; the file with the problem, its message, line and column.
REACHED = {
    "an action that calls itself": (
        "- {action: 'ws:self'}", "self.yml",
        "Actions call each other in a circle: ws:self -> ws:self", (3, 12),
    ),
    "actions that call each other": (
        "- {action: 'ws:ping'}", "pong.yml",
        "Actions call each other in a circle: ws:ping -> ws:pong -> ws:ping", (3, 12),
    ),
    "an image that an action defines otherwise": (
        "- {action: 'ws:picture'}\n"
        "images: {i: {ref: 'image:i', context: ., dockerfile: Dockerfile}}",
        "picture.yml",
        "Image image:i is defined twice, with different contexts or dockerfiles", (2, 19),
    ),
    "a module that reads what its caller does not have": (
        "- {module: 'ws:module'}", "module.yml", "No attribute 'A' in 'env'", (3, 35),
    ),
    "an action that reads what only modules do": (
        "- {action: 'ws:module'}", "module.yml", "The 'env' context is not available", (3, 31),
    ),
    "mixins in an action": (
        "- {action: 'ws:mixed'}\nmixins: {m: {image: x}}", "mixed.yml",
        "Mixins are not available in an action", (3, 19),
    ),
    "a matrix in post that the call does not have": (
        "- {action: 'ws:sees_matrix', strategy: {matrix: {k: [1]}}}\n- {action: 'ws:sees_matrix'}",
        "sees_matrix.yml", "No attribute 'k' in 'matrix'", (4, 21),
    ),
    "inputs in post": (
        "- {action: 'ws:sees_inputs'}", "sees_inputs.yml",
        "The 'inputs' context is not available", (3, 28),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REACHED)
def test_a_mistake_in_what_a_batch_reaches(files, case: str) -> None:
    tasks, name, message, place = REACHED[case]
    files.write(".neuro/train.yml", f"{BATCH}tasks:\n{tasks}\n")
    first = files.check()[0]
    assert first.at is not None
    assert (first.at.source.name, first.message, first.at[1:]) == (name, message, place)


RIGHT = {
    "a matrix of empty lists": "- {id: a, image: x, strategy: {matrix: {k: []}}}",
    "a diamond whose join comes first": (
        "- {id: join, image: x, needs: [left, right]}\n- {id: left, image: x, needs: [root]}\n"
        "- {id: right, image: x, needs: [root]}\n- {id: root, image: x, needs: []}"
    ),
    "a matrix that is needed by its id": (
        "- {id: train, image: x, strategy: {matrix: {lr: [0.1, 1], model: [svm]}}}\n"
        "- image: x\n  needs: [train]\n  enable: ${{ success('train') or failure('train') }}\n"
        "  cmd: ${{ needs.train.result }} ${{ len(needs.train.rows) }} ${{ needs.train.outputs.a }}"
    ),
    "the rows before a task": (
        "- {image: x, strategy: {matrix: {k: [a, b]}}}\n"
        "- {image: x, cmd: \"${{ needs['task-1-a'].result }}\"}"
    ),
    "rows that outputs decide": (
        "- {id: plan, image: x}\n"
        "- id: part\n  image: x\n  needs: [plan]\n  cmd: ${{ matrix.n }}\n"
        "  strategy:\n    matrix: {n: '${{ from_json(needs.plan.outputs.list) }}'}\n"
        "    max_parallel: ${{ len(needs.plan.outputs.list) }}\n"
        "- {image: x, needs: [part], cmd: '${{ needs.part.rows }}'}"
    ),
    "ids that parameters decide": (
        "- id: part_${{ matrix.n }}\n  image: x\n"
        "  strategy: {matrix: {n: '${{ from_json(params.list) }}'}}\n"
        "- {image: x, needs: [part_5], cmd: '${{ needs.part_5.result }}'}\n"
        "params: {list: '[5]'}"
    ),
    "rows to include only": (
        "- image: x\n  strategy: {matrix: {include: [{a: 1, b: x}, {b: y, a: 2}]}}\n"
        "  cmd: ${{ matrix.a }} ${{ matrix.b }}"
    ),
    "many rows of which most are excluded": (
        "- image: x\n  strategy:\n    matrix:\n      a: ${{ range(20) }}\n      b: [1, 2, 3, 4, 5, "
        "6, 7, 8, 9, 10, 11, 12, 13]\n      exclude: [{b: 1}]"
    ),
    "literals with their types": "- {action: 'ws:inner', args: {n: 5}}",
    "no arguments": "- {action: 'ws:inner'}",
    "inputs of an action's matrix": "- {action: 'ws:rows', args: {names: a b}}",
    "the outputs of an action": (
        "- {id: a, action: 'ws:inner'}\n- {image: x, cmd: '${{ needs.a.outputs.o }}'}"
    ),
    "the outputs of an action's rows": (
        "- {id: a, action: 'ws:inner', strategy: {matrix: {k: [1, 2]}}}\n"
        "- {image: x, cmd: '${{ needs.a.outputs.o }}'}"
    ),
    "local actions before the rest": (
        "- {id: a, action: 'ws:local'}\n- {id: b, action: 'ws:both'}\n"
        "- {id: c, action: 'ws:stateful'}\n- {id: d, action: 'ws:local', needs: [a]}"
    ),
    "the state of a stateful action": "- {action: 'ws:stateful'}",
    "the row of a stateful action": ("- {action: 'ws:sees_matrix', strategy: {matrix: {k: [1]}}}"),
    "a module that reads its caller's names": (
        "- {module: 'ws:module'}\ndefaults: {env: {A: x}}\nparams: {p: ~}"
    ),
    "a module with its caller's mixins": "- {module: 'ws:mixed'}\nmixins: {m: {image: x}}",
    "an action that is called twice": "- {action: 'ws:inner'}\n- {action: 'ws:inner'}",
    "an image that is defined twice as the same": (
        "- {image: x}\nimages:\n"
        "  i: {ref: 'image:i', context: ./a, dockerfile: a/Dockerfile}\n"
        "  j: {ref: 'image:i', context: a/, dockerfile: a/Dockerfile}\n"
        "  k: {ref: 'image:i'}"
    ),
    "a volume of the project without a local folder": (
        "- {image: x, volumes: ['${{ volumes.data.ref }}']}"
    ),
    "a volume that is the batch's own": (
        "- {image: x, volumes: ['${{ volumes.code.ref }}']}\n"
        "volumes: {code: {remote: 'storage:code', mount: /code}}"
    ),
    "git in defaults and images": (
        "- {image: '${{ images.i.ref }}'}\ndefaults: {env: {SHA: '${{ git.sha }}'}}\n"
        "images: {i: {ref: 'image:i:${{ git.sha }}'}}"
    ),
    "mixins with all the keys of tasks": (
        "- {id: a, image: x}\n"
        "- {id: 'b_${{ matrix.k }}', mixins: [m], cmd: '${{ matrix.k }} ${{ needs.a.result }}'}\n"
        "- {image: x, needs: [b_one], cmd: '${{ needs.b_one.result }}'}\n"
        "mixins:\n"
        "  m: {image: x, needs: [a], strategy: {matrix: {k: [one, two]}}, enable: true,\n"
        "      cache: {strategy: none}, retry: 2}"
    ),
    "every new key": (
        "- image: x\n"
        "  retry: {attempts: '${{ int(params.p) }}', delay: 1s, backoff: '${{ matrix.k }}'}\n"
        "  timeout: ${{ 60 * matrix.k }}\n"
        "  continue_on_error: ${{ matrix.k == 1 }}\n"
        "  cache: {key: '${{ needs }} ${{ params.p }}'}\n"
        "  strategy: {matrix: {k: [1, 2]}}\n"
        "params: {p: 1}\n"
        "schedule: {cron: '0 3 * * *', timezone: Europe/Berlin}\n"
        "concurrency: train-${{ params.p }}\n"
        "defaults: {cache: {key: '${{ env }}'}}"
    ),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right(files, case: str) -> None:
    files.write(
        "rows.yml",
        "kind: batch\ninputs: {names: ~}\ntasks:\n"
        "- {image: x, strategy: {matrix: {k: ['${{ inputs.names }}']}}, cmd: '${{ matrix.k }}'}\n",
    )
    files.write(".neuro/train.yml", f"{BATCH}tasks:\n{RIGHT[case]}\n")
    assert [problem.render() for problem in files.check()] == []
    if "git" not in case:
        params = {"p": "1"} if "params: {p: ~}" in RIGHT[case] else {}
        make_plan(files.workspace, "train", params, files.environment)


def test_two_thousand_tasks_are_checked_at_once(place) -> None:
    task = "- id: t{0}\n  image: x\n  needs: [{1}]\n  cmd: run ${{{{ matrix.k }}}}\n"
    task += "  strategy: {{matrix: {{k: '${{{{ range(25) }}}}'}}}}\n"
    tasks = [task.format(n, f"t{n - 1}" if n else "") for n in range(80)]
    took = []
    for some in (tasks[:40], tasks):
        place.write(".neuro/train.yml", f"{BATCH}tasks:\n{''.join(some)}")
        assert place.check() == []
        took.append(calls(place.check))

    # Twice as many take twice as long, and not four times.
    assert took[1] < 3 * took[0]


@pytest.mark.parametrize("page", ["docs/flow/files.md", "docs/ru/flow/files.md"])
def test_the_documented_batch_is_right(place, page: str) -> None:
    text = (Path(__file__).parents[3] / page).read_text()
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    first = next(number for number, block in enumerate(blocks) if "concurrency:" in block)
    batch, *actions = blocks[first:]
    place.write(".neuro/train.yml", batch)
    calls = ""
    for number, action in enumerate(actions):
        place.write(f"a{number}.yml", action)
        calls += f"- {{action: 'ws:a{number}', needs: []}}\n"
    place.write(".neuro/calls.yml", f"kind: batch\ntasks:\n{calls}")
    assert len(actions) == 3
    assert place.check() == []
    plan = make_plan(place.workspace, "train", {}, place.environment)
    assert list(plan.nodes) == ["train-model-svm-rate-0.1", "train-model-tree-rate-1", "tell"]
