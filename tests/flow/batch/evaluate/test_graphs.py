"""Graphs of batches: ids, needs, groups, posts, calls, limits."""

from __future__ import annotations

import pytest

from neuro.flow.model import ROOT, Level, Limit, NodeKind
from neuro.flow.problems import FlowError
from neuro.flow.syntax.types import ALWAYS
from tests.flow.batch.evaluate.batches import DONE, FAILED, SKIPPED, every_graph, gave

STATEFUL = "kind: stateful\nmain: {image: m}\npost: {image: p}\n"
CALL = "kind: batch\ntasks: [{id: i1, image: a}, {id: i2, image: a}]\n"
LOCAL = "kind: local\ncmd: echo hi\n"

GRAPHS = [
    pytest.param(
        """
        tasks:
        - {image: a, strategy: {matrix: {k: [1, 2]}}}
        - {image: a, strategy: {matrix: {k: [a, b]}}}
        - {image: a}
        """,
        {},
        {
            "": {
                "task-1-1": [],
                "task-1-2": [],
                "task-2-a": ["task-1-1", "task-1-2"],
                "task-2-b": ["task-1-1", "task-1-2"],
                "task-3": ["task-2-a", "task-2-b"],
            }
        },
        id="ids by position",
    ),
    pytest.param(
        """
        tasks:
        - {id: "a_${{ matrix.k }}", image: a, strategy: {matrix: {k: [x, y]}}}
        - id: b_${{ matrix.k }}
          needs: ["a_${{ matrix.k }}"]
          image: a
          strategy: {matrix: {k: [x, y]}}
        """,
        {},
        {"": {"a_x": [], "a_y": [], "b_x": ["a_x"], "b_y": ["a_y"]}},
        id="ids by expressions",
    ),
    pytest.param(
        "tasks: [{id: f, image: a}, {id: s, action: ws:act}, {id: l, image: a}]",
        {"act": STATEFUL},
        {"": {"f": [], "s": ["f"], "l": ["s"], "post-s": ["s", "l"]}},
        id="stateful",
    ),
    pytest.param(
        "tasks: [{id: s1, action: ws:act}, {id: s2, action: ws:act}, {id: l, image: a}]",
        {"act": STATEFUL},
        {
            "": {
                "s1": [],
                "s2": ["s1"],
                "l": ["s2"],
                "post-s2": ["s2", "l"],
                "post-s1": ["s1", "post-s2"],
            }
        },
        id="two stateful",
    ),
    pytest.param(
        """
        tasks:
        - {id: s, action: ws:act}
        - {id: a, image: a}
        - {id: b, image: a, needs: [s]}
        - {id: c, image: a, needs: {b: running}}
        """,
        {"act": STATEFUL},
        {"": {"s": [], "a": ["s"], "b": ["s"], "c": ["b"], "post-s": ["s", "a", "b", "c"]}},
        id="a post waits for the end of all",
    ),
    pytest.param(
        """
        tasks:
        - {id: "s_${{ matrix.k }}", action: ws:act, strategy: {matrix: {k: [x, y]}}}
        - {id: l, image: a}
        """,
        {"act": STATEFUL},
        {
            "": {
                "s_x": [],
                "s_y": [],
                "l": ["s_x", "s_y"],
                "post-s_x": ["s_x", "l"],
                "post-s_y": ["s_y", "l"],
            }
        },
        id="rows of a stateful",
    ),
    pytest.param(
        "tasks: [{id: s, action: ws:act}, {id: l, image: a}]",
        {"act": "kind: stateful\nmain: {image: m}\n"},
        {"": {"s": [], "l": ["s"]}},
        id="stateful without post",
    ),
    pytest.param(
        "tasks: [{id: call, action: ws:act}, {id: after, image: a}]",
        {"act": CALL},
        {
            "": {"call": [], "after": ["call"]},
            "call": {"call.i1": [], "call.i2": ["call.i1"]},
        },
        id="call",
    ),
    pytest.param(
        "tasks: [{id: one, action: ws:act}]",
        {"act": "kind: batch\ntasks: [{id: two, module: ws:inner}]\n", "inner": CALL},
        {
            "": {"one": []},
            "one": {"one.two": []},
            "one.two": {"one.two.i1": [], "one.two.i2": ["one.two.i1"]},
        },
        id="call in a call",
    ),
    pytest.param("tasks: []", {}, {"": {}}, id="nothing"),
    pytest.param(
        "tasks: [{id: call, action: ws:act}, {id: after, image: a}]",
        {"act": "kind: batch\ntasks: []\n"},
        {"": {"call": [], "after": ["call"]}, "call": {}},
        id="call of nothing",
    ),
    pytest.param(
        """
        tasks:
        - {id: train, image: a, strategy: {matrix: {model: [svm, "k nn"], lr: [0.1, 1]}}}
        - {id: best, image: a}
        - {id: all, image: a, needs: [train]}
        """,
        {},
        {
            "": {
                "train-lr-0.1-model-svm": [],
                "train-lr-1-model-svm": [],
                "train-lr-0.1-model-k_nn": [],
                "train-lr-1-model-k_nn": [],
                "best": [
                    "train-lr-0.1-model-svm",
                    "train-lr-1-model-svm",
                    "train-lr-0.1-model-k_nn",
                    "train-lr-1-model-k_nn",
                ],
                "all": [
                    "train-lr-0.1-model-svm",
                    "train-lr-1-model-svm",
                    "train-lr-0.1-model-k_nn",
                    "train-lr-1-model-k_nn",
                ],
            }
        },
        id="one id for all rows",
    ),
    pytest.param(
        """
        tasks:
        - {id: join, image: a, needs: [left, right]}
        - {id: left, image: a, needs: [root]}
        - {id: right, image: a, needs: [root]}
        - {id: root, image: a, needs: []}
        """,
        {},
        {"": {"join": ["left", "right"], "left": ["root"], "right": ["root"], "root": []}},
        id="a diamond told backwards",
    ),
    pytest.param(
        """
        tasks:
        - id: list
          image: a
        - id: each
          image: a
          strategy: {matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}}
        - id: after
          image: a
        """,
        {},
        {"": {"list": [], "each": ["list"], "after": ["each"]}},
        id="rows that outputs decide",
    ),
    pytest.param(
        """
        tasks:
        - id: list
          image: a
        - id: call
          action: ws:act
          args: {names: "${{ needs.list.outputs.names }}"}
        """,
        {
            "act": "kind: batch\ninputs: {names: ~}\ntasks:\n- id: each\n  image: a\n"
            "  strategy: {matrix: {k: '${{ from_json(inputs.names) }}'}}\n"
        },
        {"": {"list": [], "call": ["list"]}, "call": {"call.each": []}},
        id="rows that an input decides",
    ),
    pytest.param(
        """
        mixins:
          late: {needs: [first], strategy: {matrix: {k: [1, 2]}}}
        tasks:
        - {id: first, image: a}
        - {id: second, image: a, needs: []}
        - {id: third, image: a, mixins: [late]}
        """,
        {},
        {"": {"first": [], "second": [], "third-k-1": ["first"], "third-k-2": ["first"]}},
        id="needs and rows of a mixin",
    ),
    pytest.param(
        """
        tasks:
        - {id: a, image: a, strategy: {matrix: {k: [], l: [1]}}}
        - {id: b, image: a, needs: {a: running}}
        """,
        {},
        {"": {"a-l-1": [], "b": ["a-l-1"]}},
        id="an empty list",
    ),
]


@pytest.mark.parametrize(("text", "files", "expected"), GRAPHS)
def test_graphs_are_as_the_language_says(place, text, files, expected):
    assert place.plan(text, **files).graphs == expected


@pytest.mark.parametrize(("text", "files", "expected"), GRAPHS[:-4] + GRAPHS[-2:])
def test_an_executor_builds_the_same_graphs(place, text, files, expected):
    assert every_graph(place.batch(text, **files).workflow) == expected


MATRICES = [
    ("{a: [1, 2], b: [x, y]}", [(1, "x"), (1, "y"), (2, "x"), (2, "y")]),
    ("{a: [1, 2], b: [x, y], exclude: [{a: 1}]}", [(2, "x"), (2, "y")]),
    ("{a: [1, 2], b: [x], exclude: [{a: 1, b: x}]}", [(2, "x")]),
    ("{a: [1], b: [x], include: [{a: 5, b: z}]}", [(1, "x"), (5, "z")]),
    ("{include: [{a: 1, b: x}, {a: 2, b: y}]}", [(1, "x"), (2, "y")]),
    ("{a: [1, true], b: [x], exclude: [{a: true}]}", [(1, "x")]),
    ("{a: ['1', 1], b: [x], exclude: [{a: 1}]}", [("1", "x")]),
    ("{a: '${{ range(2) }}', b: ['${{ params.p }}']}", [(0, "P"), (1, "P")]),
    ("{a: '${{ from_json(params.j) }}', b: [1.5]}", [({"n": 1}, 1.5), ({"n": 2}, 1.5)]),
]


@pytest.mark.parametrize(("matrix", "expected"), MATRICES)
def test_rows_keep_the_types_of_their_values(place, matrix, expected):
    plan = place.plan(f"""
        params: {{p: P, j: '[{{"n": 1}}, {{"n": 2}}]'}}
        tasks:
        - {{image: a, strategy: {{matrix: {matrix}}}}}
        """)
    rows = [node.source.matrix for node in plan.nodes.values()]
    assert [(row["a"], row["b"]) for row in rows] == expected
    assert [type(row["a"]) for row in rows] == [type(a) for a, _ in expected]
    assert [row["ORDINAL"] for row in rows] == list(range(len(expected)))


def test_levels_of_needs(place):
    plan = place.plan("""
        tasks:
        - {id: a, image: a}
        - {id: b, image: a, strategy: {matrix: {k: [1]}}, needs: []}
        - {id: c, image: a, needs: {a: running, b: completed}}
        """)
    assert plan.nodes["c"].needs == {("a",): Level.RUNNING, ("b-k-1",): Level.COMPLETED}


def test_rows_that_need_the_same_share_it(place):
    plan = place.plan("""
        tasks:
        - {image: a, strategy: {matrix: {k: [1, 2]}}}
        - {image: a, strategy: {matrix: {k: [1, 2]}}}
        """)
    assert plan.nodes["task-2-1"].needs is plan.nodes["task-2-2"].needs


LIMITS = {
    "w": None,
    "a_1": Limit(("#2",), 2),
    "b-k-1": Limit(("b",), 3),
    "c": Limit(ROOT, 7),
    "d-k-1": None,
    "e-k-1": Limit(("e",), 1),
    "e-k-1.i1": Limit(ROOT, 7),
    "s": Limit(ROOT, 7),
    "post-s": Limit(ROOT, 7),
}


def test_limits_count_in_groups_of_their_own(place):
    plan = place.plan(
        """
        defaults: {max_parallel: 7}
        tasks:
        - {id: w, action: ws:local}
        - {id: "a_${{ matrix.k }}", image: a, strategy: {max_parallel: 2, matrix: {k: [1]}}}
        - {id: b, image: a, strategy: {max_parallel: 3, matrix: {k: [1]}}}
        - {id: c, image: a}
        - {id: d, action: ws:call, strategy: {matrix: {k: [1]}}}
        - {id: e, action: ws:call, strategy: {max_parallel: 1, matrix: {k: [1]}}}
        - {id: s, action: ws:act}
        """,
        act=STATEFUL,
        call=CALL,
        local=LOCAL,
    )
    assert {name: plan.nodes[name].limit for name in LIMITS} == LIMITS


@pytest.mark.parametrize(
    ("defaults", "strategy", "expected"),
    [
        ("{}", "", True),
        ("{fail_fast: false}", "", False),
        ("{fail_fast: false}", "fail_fast: true, ", True),
        ("{}", "fail_fast: '${{ params.p }}', ", False),
    ],
)
def test_fail_fast_is_inherited(place, defaults, strategy, expected):
    plan = place.plan(
        f"""
        params: {{p: 'false'}}
        defaults: {defaults}
        tasks:
        - {{id: a, action: ws:act, strategy: {{{strategy}matrix: {{k: [1]}}}}}}
        """,
        act=CALL,
    )
    assert {node.fail_fast for node in plan.nodes.values()} == {expected}
    assert len(plan.nodes) == 3


def test_kinds_of_nodes(place):
    plan = place.plan(
        """
        tasks:
        - {id: w, action: ws:local}
        - {id: t, image: a}
        - {id: c, module: ws:call}
        - {id: s, action: ws:act}
        - {id: g, image: a, strategy: {matrix: {k: "${{ from_json(needs.s.outputs.x) }}"}}}
        """,
        act=STATEFUL,
        call=CALL,
        local=LOCAL,
    )
    kinds = {name: node.kind for name, node in plan.nodes.items() if "." not in name}
    assert kinds == {
        "w": NodeKind.LOCAL,
        "t": NodeKind.TASK,
        "c": NodeKind.CALL,
        "s": NodeKind.STATEFUL,
        "g": NodeKind.GROUP,
        "post-s": NodeKind.POST,
    }
    assert plan.nodes["post-s"].main == ("s",)


# Groups

DYNAMIC = """
tasks:
- id: list
  image: a
- id: each
  image: a
  enable: ${{ success() and matrix.k != 2 }}
  continue_on_error: ${{ matrix.k == 3 }}
  strategy:
    max_parallel: 2
    fail_fast: false
    matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}
  cmd: echo ${{ matrix.k }} of ${{ needs.list.outputs.names }}
- id: after
  image: a
  cmd: ${{ to_json(needs.each.outputs) }} ${{ needs.each.rows[1].matrix.k }}
"""


def test_a_group_gives_rows_when_outputs_are_there(place):
    batch = place.batch(DYNAMIC)
    group = batch.stored("each")
    assert group.kind is NodeKind.GROUP
    outcomes = {("list",): gave(names="[1, 2, 3]")}
    assert batch.workflow.enable(group, outcomes) is True
    rows = batch.workflow.expand(group, outcomes)
    assert [row.id for row in rows] == [("each-k-1",), ("each-k-2",), ("each-k-3",)]
    assert {row.group for row in rows} == {("each",)}
    assert all(row.needs is group.needs for row in rows)
    assert {row.limit for row in rows} == {Limit(("each",), 2)}
    assert [row.fail_fast for row in rows] == [False] * 3
    assert [row.continue_on_error for row in rows] == [False, False, True]
    assert [batch.workflow.enable(row, outcomes) for row in rows] == [True, False, True]
    assert batch.workflow.task(rows[2], outcomes).cmd == "echo 3 of [1, 2, 3]"
    ended = {**outcomes, **{row.id: gave(x=row.id[-1][-1]) for row in rows}}
    after = batch.workflow.task(batch.stored("after"), ended)
    assert after.cmd == '{"x": ["1", "2", "3"]} 2'


def test_a_group_may_have_no_rows(place):
    batch = place.batch(DYNAMIC)
    assert batch.workflow.expand(batch.stored("each"), {("list",): gave(names="[]")}) == ()
    after = batch.stored("after")
    assert batch.workflow.enable(after, {("each",): DONE}) is True


def test_an_output_that_is_no_list_fails_the_group(place):
    batch = place.batch(DYNAMIC)
    with pytest.raises(FlowError, match="from_json"):
        batch.workflow.expand(batch.stored("each"), {("list",): gave(names="[1,")})


def test_a_group_has_at_most_256_rows(place):
    batch = place.batch(DYNAMIC)
    many = gave(names=str(list(range(257))))
    with pytest.raises(FlowError, match="The matrix size for task #2 exceeds the limit of 256"):
        batch.workflow.expand(batch.stored("each"), {("list",): many})


def test_equal_rows_of_a_group_are_an_error(place):
    batch = place.batch(DYNAMIC)
    with pytest.raises(FlowError, match="Two rows of the matrix have the id 'each-k-1'"):
        batch.workflow.expand(batch.stored("each"), {("list",): gave(names="[1, 1]")})


def test_a_group_of_calls_in_an_action(place):
    batch = place.batch(
        """
        tasks:
        - {id: outer, action: ws:act}
        """,
        act="kind: batch\ntasks:\n- {id: list, image: a}\n- id: each\n  action: ws:inner\n"
        "  args: {n: '${{ matrix.n }}'}\n"
        "  strategy: {matrix: {n: '${{ from_json(needs.list.outputs.ns) }}'}}\n"
        "outputs: {all: {value: '${{ to_json(needs.each.outputs.o) }}'}}\n",
        inner="kind: batch\ninputs: {n: {type: int}}\ntasks: [{id: t, image: a, "
        "cmd: 'echo ${{ inputs.n + 1 }}'}]\noutputs: {o: {value: '${{ inputs.n }}'}}\n",
    )
    assert batch.plan.graphs == {
        "": {"outer": []},
        "outer": {"outer.list": [], "outer.each": ["outer.list"]},
    }
    workflow, outer = batch.workflow, batch.stored("outer")
    graph = workflow.open(outer, {})
    group = graph.nodes["outer", "each"]
    outcomes = {("outer", "list"): gave(ns="[4, 6]")}
    rows = workflow.expand(group, outcomes)
    assert [(row.kind, row.id) for row in rows] == [
        (NodeKind.CALL, ("outer", "each-n-4")),
        (NodeKind.CALL, ("outer", "each-n-6")),
    ]
    inner = workflow.open(rows[1], outcomes)
    (task,) = inner.nodes.values()
    assert task.id == ("outer", "each-n-6", "t")
    assert workflow.task(task, {}).cmd == "echo 7"
    ended = {task.id: DONE}
    assert workflow.outputs(rows[1], ended) == {"o": "6"}
    everything = {**outcomes, rows[0].id: gave(o="4"), rows[1].id: gave(o="6")}
    assert workflow.outputs(outer, everything) == {"all": '["4", "6"]'}


def test_a_group_of_stateful_actions(place):
    batch = place.batch(
        """
        tasks:
        - {id: first, action: ws:act, needs: []}
        - {id: list, image: a, needs: []}
        - id: s
          action: ws:act
          strategy: {matrix: {k: "${{ from_json(needs.list.outputs.ks) }}"}}
        - {id: l, image: a}
        """,
        act="kind: stateful\nmain: {image: m}\n"
        "post: {image: p, cmd: '${{ state.x }} ${{ matrix }}'}\n",
    )
    assert batch.plan.graphs[""] == {
        "first": [],
        "list": [],
        "s": ["list"],
        "l": ["s"],
        "post-s": ["s", "first", "l"],
        "post-first": ["first", "post-s"],
    }
    workflow, posts = batch.workflow, batch.stored("post-s")
    outcomes = {("list",): gave(ks="[1, 2]"), ("first",): DONE, ("l",): DONE}
    mains = workflow.expand(batch.stored("s"), outcomes)
    assert [main.kind for main in mains] == [NodeKind.STATEFUL] * 2
    outcomes |= {main.id: DONE for main in mains}
    assert workflow.enable(posts, outcomes) is ALWAYS
    rows = workflow.expand(posts, outcomes)
    assert [(row.id, row.kind, row.main, row.group) for row in rows] == [
        (("post-s-k-1",), NodeKind.POST, ("s-k-1",), ("post-s",)),
        (("post-s-k-2",), NodeKind.POST, ("s-k-2",), ("post-s",)),
    ]
    task = workflow.task(rows[1], outcomes, {"x": "saved"})
    assert task.cmd == "saved {'k': 2, 'ORDINAL': 1}"
    assert workflow.enable(rows[0], {**outcomes, ("s-k-1",): SKIPPED}) is False


def test_a_skipped_group_of_stateful_actions_leaves_nothing_to_do(place):
    batch = place.batch(
        """
        tasks:
        - {id: list, image: a, needs: []}
        - id: s
          action: ws:act
          strategy: {matrix: {k: "${{ from_json(needs.list.outputs.ks) }}"}}
        """,
        act=STATEFUL,
    )
    assert batch.enable("post-s", s=SKIPPED) is False
    assert batch.workflow.expand(batch.stored("post-s"), {("s",): FAILED}) == ()


# What is wrong

BROKEN = [
    ("tasks: [{id: a, image: x}, {id: a, image: x}]", ["The id 'a' is there twice"]),
    ("tasks: [{id: ab, image: x}, {id: b, image: x, needs: [aa]}]", ["unknown task aa"]),
    (
        "tasks: [{id: a, image: x, needs: [c]}, {id: b, image: x}, {id: c, image: x}]",
        ["Tasks need each other in a circle"],
    ),
    (
        "tasks: [{image: x, strategy: {matrix: {a: '${{ range(17) }}', b: '${{ range(17) }}'}}}]",
        ["The matrix size for task #1 exceeds the limit of 256"],
    ),
    (
        "tasks: [{image: x, strategy: {matrix: {a: ['a b', 'a_b']}}}]",
        ["Two rows of the matrix have the id 'task-1-a_b'"],
    ),
    (
        "tasks: [{id: 'a-${{ matrix.k }}', image: x, strategy: {matrix: {k: [1]}}}]",
        ["'a-1' is not an identifier"],
    ),
    (
        "tasks: [{image: x, strategy: {max_parallel: 0, matrix: {k: [1]}}}]",
        ["max_parallel should be at least 1"],
    ),
    ("tasks: [{action: ws:live}]", ["has kind live, that is not supported in batch mode"]),
    ("tasks: [{id: r, action: ws:loop}]", ["Actions call each other in a circle"]),
    (
        "tasks: [{image: a}, {id: w, action: ws:local}]",
        ["Local action 'w' depends on remote task 'task-1'"],
    ),
    (
        "tasks: [{image: a}, {id: c, action: ws:inner}]",
        ["Local action 'c.w' depends on remote task 'task-1'"],
    ),
    (
        "tasks: [{id: w, action: ws:local}, {id: c, action: ws:inner, "
        "strategy: {matrix: {k: '${{ from_json(needs.w.outputs.b) }}'}}}]",
        ["The matrix that calls a local action cannot be decided by outputs"],
    ),
    (
        "tasks: [{id: c, action: ws:local, cache: {strategy: none}}]",
        ["Specifying cache in action call to the action ws:local of kind local"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_broken_graphs_are_told(place, text, expected):
    found = place.problems(
        text,
        live="kind: live\njob: {image: a}\n",
        loop="kind: batch\ntasks: [{action: ws:loop}]\n",
        local=LOCAL,
        inner="kind: batch\ntasks: [{id: w, action: ws:local}]\n",
        act=STATEFUL,
    )
    for message in expected:
        assert any(message in problem for problem in found), found


def test_local_actions_may_wait_for_each_other(place):
    plan = place.plan(
        """
        tasks:
        - {id: a, action: ws:local}
        - {id: b, action: ws:inner}
        - {id: c, action: ws:local}
        - {id: d, image: a}
        """,
        local=LOCAL,
        inner="kind: batch\ntasks: [{id: w, action: ws:local}]\n",
    )
    assert plan.graphs["b"] == {"b.w": []}


LATE = [
    # What needs values of parameters to be seen.
    (
        """
        params: {ks: '[1, 2]'}
        tasks:
        - id: c_${{ matrix.k }}
          image: a
          needs: ["c_${{ 3 - matrix.k }}"]
          strategy: {matrix: {k: "${{ from_json(params.ks) }}"}}
        """,
        "Tasks need each other in a circle: c_1 -> c_2 -> c_1",
    ),
    (
        """
        params: {ks: '[1, 1]'}
        tasks:
        - {id: c, image: a, strategy: {matrix: {k: "${{ from_json(params.ks) }}"}}}
        """,
        "Two rows of the matrix have the id 'c-k-1'",
    ),
    (
        """
        params: {ks: '[0, 0]'}
        tasks:
        - {id: c, image: a}
        - id: c_${{ matrix.k }}
          image: a
          strategy: {matrix: {k: "${{ from_json(params.ks) }}", l: [1]}}
        - {id: c_0, image: a}
        """,
        "The id 'c_0' is there twice",
    ),
    (
        """
        params: {n: '0'}
        defaults: {max_parallel: "${{ int(params.n) }}"}
        tasks: []
        """,
        "max_parallel should be at least 1",
    ),
    (
        """
        params: {n: '400'}
        tasks: [{image: a, strategy: {matrix: {
          k: "${{ range(int(params.n)) }}", l: "${{ range(int(params.n)) }}"}}}]
        """,
        "The matrix size for task #1 exceeds the limit of 256",
    ),
    (
        """
        tasks:
        - {id: a, image: a}
        - {id: b, image: a, continue_on_error: "${{ needs.a.outputs.x }}"}
        """,
        "The 'needs' context is not available",
    ),
]


@pytest.mark.parametrize(("text", "message"), LATE)
def test_problems_that_show_when_values_are_there(place, text, message):
    found = place.problems(text)
    assert message in found


def test_a_long_value_is_cut_in_an_id(place):
    plan = place.plan(f"tasks: [{{image: a, strategy: {{matrix: {{k: [{'v' * 90}]}}}}}}]")
    (name,) = plan.nodes
    assert len(name) == len("task-1-") + 60


def test_letters_of_any_language_stay_in_an_id(place):
    long = "ж" * 40
    plan = place.plan(
        f"tasks: [{{id: a, image: a, strategy: {{matrix: {{k: [да, я и ты, {long}]}}}}}}]"
    )
    assert [*plan.nodes][:2] == ["a-k-да", "a-k-я_и_ты"]
    # Ids are counted in bytes.
    assert len([*plan.nodes][2].encode()) <= len("a-k-") + 60


def test_a_need_of_a_group_that_runs(place):
    plan = place.plan("""
        tasks:
        - {id: a, image: a}
        - {id: g, image: a, strategy: {matrix: {k: "${{ from_json(needs.a.outputs.x) }}"}}}
        - {id: b, image: a, needs: {g: running}}
        """)
    assert plan.nodes["b"].needs == {("g",): Level.RUNNING}


def test_a_matrix_that_waits_for_more_is_not_expanded(place):
    batch = place.batch(DYNAMIC)
    with pytest.raises(FlowError, match="The matrix depends on a value that is not known yet"):
        batch.workflow.expand(batch.stored("each"), {})


@pytest.mark.parametrize(
    ("outcome", "cmd"), [(FAILED, "failed False True"), (SKIPPED, "skipped False False")]
)
def test_a_group_without_rows_has_an_outcome_of_its_own(place, outcome, cmd):
    batch = place.batch("""
        tasks:
        - {id: a, image: a}
        - {id: g, image: a, strategy: {matrix: {k: "${{ from_json(needs.a.outputs.x) }}"}}}
        - {id: b, image: a, cmd: "${{ needs.g.result }} ${{ success('g') }} ${{ failure() }}"}
        """)
    assert batch.task("b", g=outcome).cmd == cmd
    assert batch.task("b", g=outcome).enable is False


def test_a_bake_has_a_largest_size(place):
    row = "strategy: {matrix: {k: '${{ range(256) }}'}}"
    found = place.problems(
        f"tasks: [{{id: m, action: ws:one, {row}}}]",
        one=f"kind: batch\ntasks: [{{id: m, action: ws:two, {row}}}]\n",
        two=f"kind: batch\ntasks: [{{id: m, image: a, {row}}}]\n",
    )
    assert found == ["The bake has more than 100000 tasks"]
