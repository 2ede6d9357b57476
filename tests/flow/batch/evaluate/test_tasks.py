"""Tasks of batches: what their expressions see, and what becomes of their keys."""

from __future__ import annotations

import pytest

from neuro.domain.bakes import TaskStatus
from neuro.flow.model import CacheRule, Outcome, RetryPolicy
from neuro.flow.problems import FlowError
from neuro.flow.syntax.types import ALWAYS
from tests.flow.batch.evaluate.batches import CANCELLED, DONE, FAILED, SKIPPED, gave, rebuilt

TOLERATED = Outcome(TaskStatus.FAILED, tolerated=True)


def test_every_key_of_a_task(place):
    place.write(
        ".neuro/project.yml",
        """
        id: my_project
        defaults: {env: {A: project, P: p}, tags: [tp]}
        mixins: {base: {preset: mixed, env: {M: m, C: mixin}, tags: [tm]}}
        """,
    )
    batch = place.batch("""
        defaults:
          env: {A: default, D: "${{ flow.flow_id }}"}
          tags: [td]
          volumes: [storage:d:/d]
          workdir: /w
          preset: cpu
          life_span: 1d
          schedule_timeout: 90
        volumes:
          data: {remote: storage:vol, mount: /vol, read_only: true}
          other: {remote: storage:other, mount: /other, read_only: true}
        images:
          im: {ref: "image:im:${{ params.tag }}"}
        params: {tag: v1}
        tasks:
        - id: Train_it
          mixins: [base]
          image: ${{ images.im.ref }}
          title: Title
          name: name-${{ params.tag }}
          entrypoint: ep
          bash: echo ${{ env.A }} "$X"
          env: {A: task, C: "${{ env.D }}"}
          volumes: ["${{ volumes.data.ref }}", "${{ volumes.other.ref_rw }}", ""]
          tags: [tt]
          http_port: 8080
          http_auth: false
          pass_config: true
          restart: on-failure
          retry: {attempts: 3, delay: 1m, backoff: 2}
          timeout: 1h
          cache: {life_span: 30d, key: "${{ params.tag }}"}
        """)
    task = batch.task("Train_it")
    assert task.image == "image:im:v1"
    assert (task.title, task.name, task.preset) == ("Title", "name-v1", "mixed")
    assert (task.schedule_timeout, task.life_span) == (90.0, 86400.0)
    assert (task.http_port, task.http_auth) == (8080, False)
    assert (task.entrypoint, task.workdir) == ("ep", "/w")
    assert task.cmd == """bash -euo pipefail -c 'echo default "$X"'"""
    assert task.env == {"A": "task", "P": "p", "D": "b", "M": "m", "C": "b"}
    assert task.volumes == ("storage:d:/d", "storage:vol:/vol:ro", "storage:other:/other:rw")
    assert task.tags == (
        "bake_id:bake-1",
        "flow:b",
        "project:my-project",
        "task:train-it",
        "td",
        "tm",
        "tp",
        "tt",
    )
    assert (task.pass_config, task.restart) == (True, "on-failure")
    assert (task.enable, task.fail_fast, task.max_parallel) == (True, True, 10)
    assert task.cache == CacheRule("default", 30 * 86400.0, "v1")
    assert (task.retry, task.timeout) == (RetryPolicy(3, 60.0, 2.0), 3600.0)


def test_a_task_with_next_to_nothing(place):
    task = place.batch("tasks: [{image: a}]").task("task-1")
    assert (task.id, task.image, task.title, task.name) == (("task-1",), "a", None, None)
    assert (task.preset, task.life_span, task.timeout, task.http_port) == (None,) * 4
    assert (task.env, task.volumes, task.restart) == ({}, (), None)
    assert task.tags == ("bake_id:bake-1", "flow:b", "project:my-ws", "task:task-1")
    assert (task.cache, task.retry) == (CacheRule("default", 14 * 86400.0, ""), RetryPolicy())


# Each place's contexts, at run time.

SEEN = [
    ("project.id", "my_ws"),
    ("flow.flow_id", "b"),
    ("flow.id", "b"),
    ("flow.title", "Title"),
    ("flow.username", "user"),
    ("flow.life_span", "3600.0"),
    ("params.p", "given"),
    ("env.E", "e"),
    ("join(',', tags)", "flow:b,project:my-ws,t"),
    ("volumes.v.mount", "/m"),
    ("images.i.ref", "image:i"),
    ("strategy.max_parallel", "4"),
    ("strategy.fail_fast", "False"),
    ("matrix.k", "1"),
    ("matrix.ORDINAL", "0"),
    ("needs.a.result", "succeeded"),
    ("needs.a.outputs.x", "out"),
    ("from_json(needs.a.outputs.j).n", "5"),
    ("len(needs)", "1"),
    ("keys(needs)", "['a']"),
    ("join(',', [n.result for n in values(needs)])", "succeeded"),
    ("join(',', [needs[n].result for n in needs])", "succeeded"),
    ("from_json(to_json(needs)).a.result", "succeeded"),
    ("to_json(strategy)", '{"fail_fast": false, "max_parallel": 4}'),
    ("to_json(volumes.v.mount)", '"/m"'),
    ("len(images)", "1"),
    ("len(params)", "1"),
    ("state", "{}"),
    ("hash_files('data.txt') == hash_files_relative('.', 'data.txt')", "True"),
]


@pytest.mark.parametrize(("expression", "expected"), SEEN)
def test_what_a_task_sees(place, expression, expected):
    place.write("data.txt", "x")
    batch = place.batch(
        f"""
        title: Title
        life_span: 1h
        params: {{p: default}}
        defaults: {{env: {{E: e}}, tags: [t]}}
        volumes: {{v: {{remote: storage:v, mount: /m}}}}
        images: {{i: {{ref: "image:i"}}}}
        tasks:
        - {{id: a, image: a}}
        - id: t
          image: a
          strategy: {{max_parallel: 4, fail_fast: false, matrix: {{k: [1]}}}}
          cmd: ${{{{ {expression} }}}}
        """,
        params={"p": "given"},
    )
    assert batch.task("t-k-1", a=gave(x="out", j='{"n": 5}')).cmd == expected


def test_hashes_are_of_the_submission(place):
    data = place.write("data.txt", "x")
    batch = place.batch("tasks: [{image: a, cmd: \"${{ hash_files('*.txt') }}\"}]")
    first = batch.task("task-1").cmd
    data.unlink()
    place.root.joinpath(".neuro").rename(place.root / "gone")
    assert batch.task("task-1").cmd == first
    assert len(first) == 64


def test_hashes_beside_outputs_are_collected(place):
    place.write("data.txt", "x")
    batch = place.batch("""
        tasks:
        - {id: a, image: a}
        - id: b
          image: a
          cmd: ${{ needs.a.outputs.x + hash_files('data.txt') }}
          enable: ${{ hash_files('data.txt') != '' if needs.a.result == 'failed' else True }}
        """)
    assert batch.task("b", a=gave(x="-")).cmd.startswith("-")
    assert len(batch.plan.hashes) == 1


def test_hashes_of_rows_and_actions(place):
    place.write("one.txt", "1")
    place.write("two.txt", "2")
    batch = place.batch(
        """
        tasks:
        - id: t
          image: a
          strategy: {matrix: {f: [one, two]}}
          cmd: ${{ hash_files(matrix.f + '.txt') }}
        - {id: c, action: ws:act}
        """,
        act="kind: batch\ntasks:\n- {id: i, image: a, "
        "cmd: \"${{ hash_files_relative(flow.action_path, 'act.yml') }}\"}\n",
    )
    assert batch.task("t-f-one").cmd != batch.task("t-f-two").cmd
    (inner,) = batch.open("c", **{"t-f-one": DONE, "t-f-two": DONE}).nodes.values()
    assert len(batch.workflow.task(inner, {}).cmd) == 64


def test_hashes_that_outputs_decide_are_told_at_submission(place):
    found = place.problems("""
        tasks:
        - {id: a, image: a}
        - {id: b, image: a, cmd: "${{ hash_files(needs.a.outputs.x) }}"}
        """)
    assert found == [
        "hash_files() is evaluated when the bake is submitted: "
        "its patterns may not depend on outputs of tasks"
    ]


def test_a_commit_is_an_error_only_where_it_is_read(place):
    assert place.plan("tasks: [{image: a}]").git is None
    found = place.problems('tasks: [{image: a, cmd: "${{ git.sha }}"}]')
    assert found == [
        "Git info is not available: the project was not in a Git repository when the bake"
        " was submitted"
    ]


# enable

CONDITIONS = [
    # needs, enable, outcome of a, whether it runs
    ("[a]", None, DONE, True),
    ("[a]", None, FAILED, False),
    ("[a]", None, TOLERATED, True),
    ("[a]", None, SKIPPED, False),
    ("[a]", None, CANCELLED, False),
    ("{a: running}", None, FAILED, True),
    ("[a]", "success()", TOLERATED, True),
    ("[a]", "success('a')", FAILED, False),
    ("[a]", "failure()", FAILED, True),
    ("[a]", "failure()", TOLERATED, False),
    ("[a]", "failure()", SKIPPED, False),
    ("[a]", "failure('a')", FAILED, True),
    ("[a]", "not failure()", SKIPPED, True),
    ("[a]", "always()", FAILED, ALWAYS),
    ("[a]", "needs.a.result == 'failed'", FAILED, True),
    ("[a]", "needs.a.result == 'failed'", TOLERATED, True),
    ("[a]", "needs.a.outputs.go", gave(go="false"), False),
    ("[a]", "True", FAILED, True),
]


@pytest.mark.parametrize(("needs", "enable", "outcome", "expected"), CONDITIONS)
def test_when_a_task_runs(place, needs, enable, outcome, expected):
    line = f'enable: "${{{{ {enable} }}}}", ' if enable else ""
    batch = place.batch(f"""
        tasks:
        - {{id: a, image: a}}
        - {{id: b, image: a, {line}needs: {needs}}}
        """)
    assert batch.enable("b", a=outcome) is expected


GROUPS = [
    ([DONE, DONE], "succeeded", True, False),
    ([DONE, FAILED], "failed", False, True),
    ([CANCELLED, FAILED], "failed", False, True),
    ([DONE, CANCELLED], "cancelled", False, False),
    ([DONE, SKIPPED], "succeeded", False, False),
    ([SKIPPED, SKIPPED], "skipped", False, False),
    ([DONE, TOLERATED], "failed", True, False),
]


@pytest.mark.parametrize(("outcomes", "result", "fine", "failed"), GROUPS)
def test_a_group_as_a_need(place, outcomes, result, fine, failed):
    batch = place.batch("""
        tasks:
        - {id: a, image: a, strategy: {matrix: {k: [1, 2]}}}
        - id: b
          image: a
          needs: [a]
          cmd: ${{ needs.a.result }} ${{ success('a') }} ${{ failure() }}
        - {id: c, image: a, needs: [a]}
        """)
    known = {"a-k-1": outcomes[0], "a-k-2": outcomes[1]}
    assert batch.task("b", **known).cmd == f"{result} {fine} {failed}"
    assert batch.enable("c", **known) is fine


def test_rows_of_a_group_as_a_need(place):
    batch = place.batch("""
        tasks:
        - {id: a, image: a, strategy: {matrix: {k: [1, x]}}}
        - id: b
          image: a
          cmd: ${{ to_json(needs.a.rows) }}
          env: {O: "${{ to_json(needs.a.outputs) }}"}
        """)
    task = batch.task("b", **{"a-k-1": gave(o="1", p="2"), "a-k-x": gave(o="3")})
    assert task.env["O"] == '{"o": ["1", "3"], "p": ["2", null]}'
    assert task.cmd == (
        '[{"id": "a-k-1", "matrix": {"k": 1, "ORDINAL": 0}, "result": "succeeded", '
        '"outputs": {"o": "1", "p": "2"}}, '
        '{"id": "a-k-x", "matrix": {"k": "x", "ORDINAL": 1}, "result": "succeeded", '
        '"outputs": {"o": "3"}}]'
    )


def test_outputs_of_rows_that_did_not_succeed(place):
    text = """
        tasks:
        - {id: list, image: a}
        - id: each
          image: a
          strategy: {matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}}
        - {id: b, needs: [each], image: a, cmd: "${{ to_json(needs.each.outputs.o) }}"}
        """
    workflow = place.batch(text).workflow
    root = workflow.root()
    assert workflow.expand(root.nodes["each",], {("list",): gave(names="[]")}) == ()
    # There is nothing, whatever it is called.
    assert workflow.task(root.nodes["b",], {}).cmd == "[]"

    batch = place.batch(text.replace("from_json(needs.list.outputs.names)", "[1, 2]"))
    assert batch.task("b", **{"each-k-1": FAILED, "each-k-2": SKIPPED}).cmd == "[null, null]"
    with pytest.raises(FlowError, match="No attribute 'o'"):
        batch.task("b", **{"each-k-1": gave(p="1"), "each-k-2": SKIPPED})


def test_a_skipped_group_as_a_need(place):
    batch = place.batch("""
        tasks:
        - {id: list, image: a}
        - id: each
          image: a
          strategy: {matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}}
        - {id: after, image: a}
        """)
    assert batch.enable("each", list=FAILED) is False
    assert batch.enable("after", each=SKIPPED) is False


def test_an_expression_that_fails_says_where(place):
    batch = place.batch("""
        tasks:
        - {id: a, image: a}
        - id: b
          image: a
          cmd: ${{ needs.a.outputs.nope }}
        """)
    with pytest.raises(FlowError) as caught:
        batch.task("b", a=gave(x="1"))
    (problem,) = caught.value.problems
    assert problem.message == "No attribute 'nope'"
    assert (problem.at.line, problem.at.column) == (7, 28)


def test_outputs_of_what_failed_are_known_to_be_none(place):
    batch = place.batch("""
        tasks:
        - {id: a, image: a}
        - {id: b, image: a, enable: "${{ needs.a.outputs.x == '1' }}"}
        """)
    with pytest.raises(FlowError, match="There is nothing in it"):
        batch.enable("b", a=FAILED)


def test_what_is_not_known_yet_is_no_value(place):
    batch = place.batch("""
        tasks:
        - {id: a, image: a}
        - {id: b, image: a, cmd: "${{ needs.a.outputs.x }}"}
        """)
    with pytest.raises(FlowError, match="not known yet"):
        batch.task("b")


# Actions

INNER = """
kind: batch
inputs:
  text: {default: d}
  number: {type: int, default: 3}
  real: {type: float, default: 1.5}
images: {own: {ref: "image:own-${{ inputs.text }}"}}
cache: {life_span: 1h}
tasks:
- id: i
  image: ${{ images.own.ref }}
  cmd: ${{ inputs.text }} ${{ inputs.number + 1 }} ${{ inputs.real }} ${{ flow.action_path }}
outputs:
  result: {value: "${{ needs.i.outputs.x }}-${{ inputs.text }}"}
"""


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", "d 4 1.5"),
        ("args: {}", "d 4 1.5"),
        ("args: {text: 5, number: 7, real: 2}", "5 8 2.0"),
        ('args: {number: "${{ int(params.p) }}"}', "d 3 1.5"),
        ("args: \"${{ {'text': params.p} }}\"", "2 4 1.5"),
    ],
)
def test_inputs_keep_their_types(place, args, expected):
    batch = place.batch(
        f"params: {{p: '2'}}\ntasks:\n- id: c\n  action: ws:act\n  {args}\n", act=INNER
    )
    (inner,) = batch.open("c").nodes.values()
    task = batch.workflow.task(inner, {})
    assert task.cmd == f"{expected} {place.root}"
    assert task.image == f"image:own-{expected.split()[0]}"


def test_outputs_of_a_call(place):
    batch = place.batch("tasks: [{id: c, action: ws:act}]", act=INNER)
    batch.open("c")
    outputs = batch.workflow.outputs(batch.stored("c"), {("c", "i"): gave(x="1")})
    assert outputs == {"result": "1-d"}


def test_only_tags_reach_an_action_but_all_reach_a_module(place):
    batch = place.batch(
        """
        params: {p: P}
        defaults:
          env: {E: e}
          tags: [td]
          workdir: /w
          preset: cpu
          volumes: [storage:d:/d]
          cache: {strategy: none}
        mixins: {m: {env: {M: m}}}
        images: {outer: {ref: "image:outer"}}
        tasks:
        - {id: action, action: ws:plain, needs: []}
        - {id: module, module: ws:mod, needs: [], strategy: {matrix: {k: [1]}}}
        """,
        plain="kind: batch\ntasks: [{id: i, image: a}]\n",
        mod="kind: batch\ntasks: [{id: i, image: '${{ images.outer.ref }}', mixins: [m], "
        "cmd: '${{ params.p }} ${{ env.E }} ${{ inputs }} ${{ len(matrix) }}'}]\n",
    )
    (inner,) = batch.open("action").nodes.values()
    task = batch.workflow.task(inner, {})
    assert (task.env, task.workdir, task.preset, task.volumes) == ({}, None, None, ())
    assert "td" in task.tags
    assert task.tags.count("task:action.i") == 1
    assert task.cache.strategy == "none"
    (inner,) = batch.open("module-k-1").nodes.values()
    task = batch.workflow.task(inner, {})
    assert (task.env, task.workdir) == ({"E": "e", "M": "m"}, "/w")
    assert (task.preset, task.volumes) == ("cpu", ("storage:d:/d",))
    assert task.image == "image:outer"
    assert task.cmd == "P e {} 0"


def test_a_module_sees_what_its_caller_has_waited_for(place):
    batch = place.batch(
        """
        tasks:
        - {id: list, image: a}
        - {id: c, module: ws:mod, args: {x: "${{ needs.list.outputs.names }}"}}
        """,
        mod="kind: batch\ninputs: {x: ~}\ntasks:\n- id: i\n  image: a\n"
        "  strategy: {matrix: {k: '${{ from_json(needs.list.outputs.names) }}'}}\n"
        "  cmd: ${{ inputs.x }}\n",
    )
    assert batch.plan.graphs["c"] == {"c.i": []}
    graph = batch.open("c", list=gave(names="[1, 2]"))
    assert [node.id[-1] for node in graph.nodes.values()] == ["i-k-1", "i-k-2"]
    first = next(iter(graph.nodes.values()))
    assert batch.workflow.task(first, {}).cmd == "[1, 2]"


STATEFUL = """
kind: stateful
inputs: {x: ~}
main: {image: m, cmd: "main ${{ inputs.x }}"}
post: {image: p, cmd: "post ${{ state.s }} ${{ params.p }} ${{ needs.s.outputs.o }}"}
"""


def test_the_parts_of_a_stateful_action(place):
    batch = place.batch(
        """
        params: {p: P}
        defaults: {env: {E: e}, tags: [td]}
        tasks: [{id: s, action: ws:act, args: {x: 1}}, {id: l, image: a}]
        """,
        act=STATEFUL,
    )
    main = batch.task("s")
    assert (main.image, main.cmd, main.env) == ("m", "main 1", {})
    assert "td" in main.tags
    assert main.cache.strategy == "none"
    post = batch.stored("post-s")
    outcomes = {("s",): gave(o="out"), ("l",): DONE}
    task = batch.workflow.task(post, outcomes, {"s": "saved"})
    assert (task.cmd, task.cache.strategy) == ("post saved P out", "none")
    assert task.enable is ALWAYS


@pytest.mark.parametrize(
    ("line", "main", "expected"),
    [
        ("", DONE, ALWAYS),
        ("", FAILED, ALWAYS),
        ("", SKIPPED, False),
        ("post_if: ${{ always() }}\n", SKIPPED, ALWAYS),
        ("post_if: ${{ state.s == '1' }}\n", Outcome(TaskStatus.SUCCEEDED, {}, {"s": "1"}), True),
        ("post_if: ${{ success() }}\n", FAILED, False),
    ],
)
def test_when_a_post_runs(place, line, main, expected):
    batch = place.batch(
        "tasks: [{id: s, action: ws:act}]",
        act=f"kind: stateful\nmain: {{image: m}}\npost: {{image: p}}\n{line}",
    )
    assert batch.workflow.enable(batch.stored("post-s"), {("s",): main}) is expected


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cmd: echo 'a b' ${{ inputs.x }} && ls", ("echo", "a b", "1", "&&", "ls")),
        ("bash: echo $X", ("bash", "-euo", "pipefail", "-c", "echo $X")),
    ],
)
def test_the_words_of_a_local_action(place, command, words):
    batch = place.batch(
        "tasks: [{id: w, action: ws:act, args: {x: 1}}]",
        act=f"kind: local\ninputs: {{x: {{type: int}}}}\n{command}\n",
    )
    assert batch.workflow.local(batch.stored("w"), {}).words == words


def test_a_command_that_cannot_be_split(place):
    found = place.problems("tasks: [{action: ws:act}]", act="kind: local\ncmd: echo 'a\n")
    assert found == ["The command cannot be split into words: no closing quotation"]


CACHES = [
    ("{}", "", "default", 14 * 86400.0, ""),
    ("{cache: {strategy: none}}", "", "none", 14 * 86400.0, ""),
    ("{cache: {life_span: 30d}}", "", "default", 30 * 86400.0, ""),
    ("{cache: {life_span: 1h, key: a}}", "cache: {life_span: 2h}", "default", 7200.0, "a"),
    ("{cache: {strategy: none}}", "cache: {strategy: inherit}", "none", 14 * 86400.0, ""),
    ("{cache: {strategy: none}}", "cache: {strategy: default, key: b}", "default", 1209600.0, "b"),
    ("{}", "cache: {key: '${{ matrix.k }}', life_span: '${{ matrix.k }}'}", "default", 5.0, "5"),
]


@pytest.mark.parametrize(("defaults", "line", "strategy", "life_span", "key"), CACHES)
def test_the_nearest_cache_setting_wins(place, defaults, line, strategy, life_span, key):
    batch = place.batch(f"""
        defaults: {defaults}
        tasks:
        - id: t
          image: a
          strategy: {{matrix: {{k: [5]}}}}
          {line}
        """)
    assert batch.task("t-k-5").cache == CacheRule(strategy, life_span, key)


def test_the_cache_settings_of_calls(place):
    place.write(".neuro/project.yml", "id: p\ndefaults: {cache: {life_span: 1d, key: project}}\n")
    batch = place.batch(
        "tasks: [{id: c, action: ws:act, cache: {key: call, life_span: 3h}}]", act=INNER
    )
    (inner,) = batch.open("c").nodes.values()
    assert batch.workflow.task(inner, {}).cache == CacheRule("default", 3600.0, "call")


def test_failures_that_are_tolerated(place):
    batch = place.batch(
        """
        params: {p: 'true'}
        tasks:
        - {id: a, image: a, continue_on_error: "${{ params.p }}"}
        - id: b
          image: a
          continue_on_error: ${{ matrix.k == 2 }}
          strategy: {matrix: {k: [1, 2]}}
        - {id: c, action: ws:act, continue_on_error: true}
        """,
        act=INNER,
    )
    tolerated = {name for name, node in batch.plan.nodes.items() if node.continue_on_error}
    assert tolerated == {"a", "b-k-2", "c"}


def test_the_matrix_of_an_action_sees_its_inputs(place):
    batch = place.batch(
        "params: {n: '[1, 2]'}\ntasks: [{id: c, action: ws:act, args: {names: '${{ params.n }}'}}]",
        act="kind: batch\ninputs: {names: ~}\ntasks:\n- id: t\n  image: a\n"
        "  strategy: {matrix: {k: '${{ from_json(inputs.names) }}'}}\n",
    )
    assert batch.plan.graphs["c"] == {"c.t-k-1": [], "c.t-k-2": []}


WRONG = [
    ("upload(volumes.v)", "upload() is only available in a live workflow"),
    ("success(params.p)", "success() got an argument that is not a dependency: 'zz'"),
    ("inspect_job('x')", "inspect_job() is only available"),
    ("fmt('{0.__class__}', 1)", "fmt"),
]


@pytest.mark.parametrize(("expression", "message"), WRONG)
def test_functions_out_of_place(place, expression, message):
    found = place.problems(f"""
        params: {{p: zz}}
        volumes: {{v: {{remote: "storage:v", mount: /v}}}}
        tasks: [{{image: a, cmd: "${{{{ {expression} }}}}"}}]
        """)
    assert any(problem.startswith(message) or message in problem for problem in found), found


def test_a_hash_that_nobody_has_collected(place):
    plan = place.plan("tasks: [{image: a, cmd: \"${{ hash_files('*') }}\"}]")
    plan.hashes.clear()
    workflow = rebuilt(plan)
    with pytest.raises(FlowError, match="is evaluated when the bake is submitted"):
        workflow.task(workflow.root().nodes["task-1",], {})


def test_a_hash_beside_outputs_may_fail(place):
    found = place.problems("""
        tasks:
        - {id: a, image: a}
        - {id: b, image: a, cmd: "${{ needs.a.outputs.x + hash_files('/etc/*') }}"}
        """)
    assert len(found) == 1
    assert "leads out of the workspace" in found[0]
