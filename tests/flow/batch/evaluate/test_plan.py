"""The plan of a bake: everything that is known before it starts, and every problem."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from msgspec import structs

from neuro.domain.bakes import CatchUp, Concurrency, Overlap
from neuro.flow.batch.plan import PlannedImage, PlannedSchedule, make_plan
from neuro.flow.evaluate.environment import Environment
from neuro.flow.model import NodeKind
from neuro.flow.problems import FlowError
from neuro.flow.workspace import find_workspace
from tests.flow.batch.evaluate.batches import DONE, every_graph, rebuilt

EVERYTHING = """
title: All
life_span: 2h
params: {p: P, names: '["x", "y"]'}
defaults: {env: {E: "${{ params.p }}"}, tags: [t], cache: {key: "${{ params.p }}"}}
images: {im: {ref: "image:im", context: ctx, dockerfile: ctx/Dockerfile}}
mixins: {m: {preset: cpu}}
tasks:
- id: prepare
  image: ${{ images.im.ref }}
  cmd: ${{ hash_files('ctx/*') }} ${{ git.branch }}${{ git.tags[0] }} ${{ flow.workspace }}
- id: train
  mixins: [m]
  image: a
  strategy: {max_parallel: 2, matrix: {name: "${{ from_json(params.names) }}", n: [1, 2.5]}}
  env: {N: "${{ matrix.n }}"}
- {id: state, action: ws:state}
- {id: call, action: ws:act, args: {n: 1, x: "${{ needs.state.outputs.o }}"}}
- {id: mod, module: ws:mod, continue_on_error: true}
"""
FILES = {
    "state": "kind: stateful\nmain: {image: m}\npost: {image: p, cmd: '${{ state.s }}'}\n",
    "act": "kind: batch\ninputs: {n: {type: int}, x: ~}\ntasks:\n- {id: i, image: a, "
    "cmd: '${{ inputs.n }} ${{ inputs.x }}'}\n- {id: inner, action: ws:mod}\n",
    "mod": "kind: batch\ntasks: [{image: a, cmd: '${{ flow.action_path }}'}]\n",
}


@pytest.fixture
def repository(place):
    """The workspace as a repository with one commit."""
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["-c", "user.name=u", "-c", "user.email=u@x", "commit", "--quiet", "--allow-empty", "-mx"],
        ["tag", "v1"],
    ):
        subprocess.run(["git", *command], cwd=place.root, check=True)
    return place


def test_a_plan_can_be_rebuilt_anywhere(repository, monkeypatch):
    place = repository
    place.write("ctx/Dockerfile", "FROM a")
    place.write(".neuro/project.yml", "id: my_project\nowner: me\n")
    plan = place.plan(EVERYTHING, **FILES)
    outcomes = {node.id: DONE for node in plan.nodes.values()}
    outcomes["state",] = structs.replace(DONE, outputs={"o": "out"}, state={"s": "1"})
    before = {
        name: plan.workflow.task(node, outcomes, {"s": "1"})
        for name, node in plan.nodes.items()
        if node.kind in (NodeKind.TASK, NodeKind.STATEFUL, NodeKind.POST)
        and not name.startswith("call.")
    }
    # Neither the workspace nor git nor the current directory are needed from here on.
    monkeypatch.chdir(place.root.parent)
    monkeypatch.setenv("PATH", "")
    shutil.rmtree(place.root)
    workflow = rebuilt(plan)
    assert every_graph(workflow, outcomes) == plan.graphs
    assert (workflow.project_id, workflow.flow_id, workflow.batch) == ("my_project", "b", "b")
    nodes = dict(workflow.root().nodes)
    nodes.update(workflow.open(nodes["mod",], outcomes).nodes)
    nodes.update(workflow.open(nodes["call",], outcomes).nodes)
    for name, task in before.items():
        again = workflow.task(nodes[plan.nodes[name].id], outcomes, {"s": "1"})
        for field in task.__struct_fields__:
            if field != "tags":
                assert getattr(again, field) == getattr(task, field), (name, field)
        assert len(again.tags) == len(task.tags)
    inner = workflow.task(nodes["call", "i"], outcomes)
    assert inner.cmd == "1 out"
    assert workflow.task(nodes["prepare",], outcomes).cmd.split()[1:] == ["mainv1", str(place.root)]


def test_what_a_plan_tells(repository):
    place = repository
    place.write("ctx/Dockerfile", "FROM a")
    project = place.write(".neuro/project.yml", "id: my_project\n")
    plan = place.plan(EVERYTHING, {"p": "given"}, **FILES)
    assert plan.params == {"p": "given", "names": '["x", "y"]'}
    assert (plan.git.branch, plan.git.tags, len(plan.git.sha)) == ("main", ["v1"], 40)
    assert plan.life_span == 7200.0
    assert (plan.concurrency, plan.schedule) == (None, None)
    assert plan.images == (
        PlannedImage("image:im", place.root / "ctx", "Dockerfile", ("im",), False),
    )
    assert [(file.role, file.filename) for file in plan.files] == [
        ("flow", str(place.root / ".neuro/b.yml")),
        ("project", str(project)),
        ("ws:act", str(place.root / "act.yml")),
        ("ws:mod", str(place.root / "mod.yml")),
        ("ws:state", str(place.root / "state.yml")),
    ]
    assert plan.files[2].text == FILES["act"]
    assert len(plan.hashes) == 1
    assert set(plan.graphs) == {"", "call", "call.inner", "mod"}
    assert plan.workflow.image("image:im").dockerfile == place.root / "ctx/Dockerfile"


def test_schedules_and_turns(place):
    plan = place.plan("""
        params: {p: dev}
        schedule: {cron: "0 3 * * *", timezone: Europe/Berlin, catch_up: all, overlap: cancel}
        concurrency: {group: "train-${{ params.p }}", cancel_running: true}
        tasks: []
        """)
    assert plan.schedule == PlannedSchedule(
        "0 3 * * *", "Europe/Berlin", CatchUp.ALL, Overlap.CANCEL
    )
    assert plan.concurrency == Concurrency(group="train-dev", cancel_running=True)
    plan = place.plan("schedule: {cron: '0 3 * * *'}\nconcurrency: all\ntasks: []\n")
    assert plan.schedule == PlannedSchedule("0 3 * * *", "UTC", CatchUp.LAST, Overlap.SKIP)
    assert plan.concurrency == Concurrency(group="all")


def test_every_problem_is_told_in_order(place):
    found = place.problems(
        """
        params: {p: ~}
        defaults: {life_span: "${{ 'soon' }}"}
        tasks:
        - {id: a, image: a, http_port: "${{ 'x' }}"}
        - {id: b, image: a, cmd: "${{ needs.a.outputs.x }} ${{ nope }}"}
        - {id: c, image: a, needs: [zz]}
        - {id: d, action: ws:act, args: {n: "${{ 'text' }}"}}
        """,
        act="kind: batch\ninputs: {n: {type: int}}\ntasks: [{image: '${{ 1 / 0 }}'}]\n",
    )
    assert found == [
        "Param p is not initialized and has no default value",
        "'soon' is not a time delta unit",
        "'x' is not an integer",
        "The 'nope' context is not available",
        "Task c needs unknown task zz",
        "Type of argument 'n' does not match the input's declared type: "
        "the argument is 'str', the input is 'int'",
    ]


def test_problems_of_every_row_are_told_once(place):
    found = place.problems("""
        tasks:
        - image: a
          strategy: {matrix: {k: [1, 0, 2, 0]}}
          cmd: ${{ 1 / matrix.k }}
        """)
    assert "Division by zero" in found
    assert found.count("Division by zero") == 1


PARAMS = [
    ({"q": "1"}, "Unsupported arg(s): q"),
    ({}, "Param p is not initialized and has no default value"),
]


@pytest.mark.parametrize(("params", "message"), PARAMS)
def test_params_are_those_of_the_file(place, params, message):
    text = "params: {p: ~}\ntasks: [{image: a, cmd: '${{ params.p }}'}]\n"
    assert message in place.problems(text, params)


def test_values_that_nobody_knows_yet_are_no_problems(place):
    plan = place.plan(
        """
        tasks:
        - {id: a, image: a}
        - id: b
          image: ${{ needs.a.outputs.image }}
          http_port: ${{ int(needs.a.outputs.port) }}
          life_span: ${{ needs.a.outputs.life_span }}
          env: "${{ from_json(needs.a.outputs.env) }}"
          volumes: ["${{ needs.a.outputs.volume }}"]
          retry: ${{ int(needs.a.outputs.tries) }}
          enable: ${{ needs.a.outputs.go == 'yes' }}
        - id: c
          action: ws:act
          args: {x: "${{ needs.b.outputs.x }}"}
        """,
        act="kind: batch\ninputs: {x: {type: int}}\nimages: {i: {ref: 'i:${{ inputs.x }}'}}\n"
        "tasks: [{id: i, image: '${{ images.i.ref }}', cmd: '${{ inputs.x + 1 }}'}]\n"
        "outputs: {o: {value: '${{ needs.i.outputs.o }}'}}\n",
    )
    assert plan.graphs["c"] == {"c.i": []}


@pytest.mark.parametrize(
    ("project", "volumes", "cmd", "told"),
    [
        ("", "{v: {remote: 'storage:v', mount: /v, local: d}}", "x", True),
        ("{v: {remote: 'storage:v', mount: /v, local: d}}", "{}", "x", False),
        ("{v: {remote: 'storage:v', mount: /v, local: d}}", "{}", "${{ volumes.v.ref }}", True),
        (
            "{v: {remote: 'storage:v', mount: /v, local: d}}",
            "{}",
            "${{ [volumes[x].ref for x in ['v'] ] }}",
            True,
        ),
        (
            "{v: {remote: 'storage:v', mount: /v, local: d}}",
            "{v: {remote: 'storage:v', mount: /v}}",
            "${{ volumes.v.ref }}",
            False,
        ),
    ],
)
def test_a_batch_uploads_no_volumes(place, project, volumes, cmd, told):
    place.write(".neuro/project.yml", "id: p\n" + (f"volumes: {project}\n" if project else ""))
    text = f'volumes: {volumes}\ntasks: [{{image: a, cmd: "{cmd}"}}]\n'
    if not told:
        assert place.plan(text).nodes
        return
    assert any("local" in problem for problem in place.problems(text))


IMAGE = "{ref: 'image:x', context: one, dockerfile: one/Dockerfile}"


def test_one_image_is_built_in_one_way(place):
    act = "kind: batch\nimages: {j: %s}\ntasks: [{image: a}]\n"
    text = f"images: {{i: {IMAGE}}}\ntasks: [{{id: c, action: ws:act}}]\n"
    plan = place.plan(text, act=act % IMAGE)
    (image,) = plan.images
    assert image.yaml_defs == ("i", "c.j")
    other = "{ref: 'image:x', context: \"${{ 'two' }}\", dockerfile: \"${{ 'two/D' }}\"}"
    found = place.problems(text, act=act % other)
    assert found == ["Image image:x is defined twice, with different contexts or dockerfiles"]


def test_a_local_context_must_be_known_before(place):
    found = place.problems(
        """
        tasks:
        - {id: a, image: a}
        - {id: c, action: ws:act, args: {x: "${{ needs.a.outputs.x }}"}}
        """,
        act="kind: batch\ninputs: {x: ~}\n"
        "images: {j: {ref: 'image:${{ inputs.x }}', context: c, dockerfile: c/D}}\n"
        "tasks: [{image: a}]\n",
    )
    assert found == [
        "An image that is built of a local folder must be known when the bake is submitted: "
        "it may not depend on outputs of tasks"
    ]


@pytest.mark.parametrize("name", ["b", "b.yml", "b.yaml"])
def test_a_batch_is_found_by_its_name(place, name):
    place.write(".neuro/b.yml", "kind: batch\ntasks: []\n")
    environment = Environment(user="", cwd=place.root, cache_dir=place.cache)
    plan = make_plan(find_workspace(place.root), name, {}, environment)
    assert plan.workflow.batch == plan.workflow.flow_id == "b"


def test_a_batch_that_is_not_there(place):
    place.write(".neuro/train.yml", "kind: batch\ntasks: []\n")
    environment = Environment(user="", cwd=place.root, cache_dir=place.cache)
    with pytest.raises(FlowError) as caught:
        make_plan(find_workspace(place.root), "trian", {}, environment)
    (problem,) = caught.value.problems
    assert problem.message.startswith("Config file for flow 'trian' not found in ")
    assert problem.hint == "Did you mean 'train'?"


def test_the_calls_of_a_group_are_read_too(place):
    plan = place.plan(
        """
        tasks:
        - {id: a, image: a}
        - id: each
          action: ws:act
          args: {x: "${{ matrix.k }}"}
          strategy: {matrix: {k: "${{ from_json(needs.a.outputs.x) }}"}}
        """,
        act="kind: batch\ninputs: {x: ~}\ntasks: [{action: ws:inner}]\n",
        inner="kind: batch\ntasks: [{image: a}]\n",
    )
    assert [file.role for file in plan.files] == ["flow", "ws:act", "ws:inner"]
    assert set(plan.graphs) == {""}
    assert set(plan.nodes) == {"a", "each"}


def test_a_large_plan_takes_little(place):
    """5,000 tasks in 20 layers: far below what would be noticed."""
    layers = "".join(
        f"- id: t{number}\n  image: a\n  cmd: echo ${{{{ matrix.k }}}}\n"
        "  strategy: {matrix: {k: '${{ range(250) }}'}}\n"
        for number in range(20)
    )
    place.write(".neuro/b.yml", f"kind: batch\ntasks:\n{layers}")
    script = (
        "import sys, pathlib\n"
        "from neuro.flow.batch.plan import make_plan\n"
        "from neuro.flow.evaluate.environment import Environment\n"
        "from neuro.flow.workspace import find_workspace\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "plan = make_plan(find_workspace(root), 'b', {}, Environment('', root, root))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "most = status.partition('VmHWM:')[2].split()[0]\n"
        "print(len(plan.nodes), int(most) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place.root)], capture_output=True, text=True, check=True
    )
    nodes, mebibytes = map(int, done.stdout.split())
    assert nodes == 5000
    assert mebibytes < 100


def test_files_that_were_not_stored(place):
    plan = place.plan("tasks: [{action: ws:act}]", act="kind: batch\ntasks: []\n")
    with pytest.raises(FlowError, match="The bake has no file of the action ws:act"):
        rebuilt(replace(plan, files=plan.files[:1])).root()
    with pytest.raises(FlowError, match="The bake has no config file config-file-flow"):
        rebuilt(replace(plan, files=plan.files[1:]))


def test_a_folder_whose_name_is_no_id(place):
    folder = place.root.rename(place.root.parent / "1x")
    place.root = folder
    found = place.problems("tasks: [{image: a}]")
    assert found == [
        "The folder's name '1x' cannot be the project's id "
        "('1x' is not an identifier: use letters, digits and underscores). "
        "Write `id: NAME` into project.yml."
    ]


def test_what_an_action_is_told_to_be_is_told_together_with_its_own_problems(place):
    told = place.problems(
        """
        tasks:
        - {id: a, action: 'ws:act', args: {nn: 1, k: x}}
        - {id: b, action: 'ws:atc.yml'}
        """,
        act="kind: batch\ninputs: {n: {type: int}}\noutputs: {o: '${{ 1 }}'}\ntasks: []\n",
    )
    assert told == [
        "Required input(s): n",
        "Unsupported input(s): nn",
        "Unsupported input(s): k",
        f"Action ws:atc.yml does not exist: no file {place.root}/atc.yml. Did you mean 'act'?",
        "expected 'o' to be a mapping, got a string",
    ]


def test_a_key_that_is_misspelt_is_told_once(place):
    told = place.problems("""
        params: {p: {defualt: 1}, q: ~}
        tasks:
        - {id: a, imge: a, strategy: {matrx: {k: [1]}}, cmd: "${{ matrix.k }} ${{ params.p }}"}
        """)
    assert told == [
        "unexpected key 'defualt'",
        "Param q is not initialized and has no default value",
        "unexpected key 'imge'",
        "unexpected key 'matrx'",
    ]


@pytest.mark.parametrize(
    ("task", "hint"),
    [
        ("strategy: {fail_fast: no}", "write them into `defaults:` of the file"),
        ("cmd: [python, -c, 'f(1)']", r"as a shell would read it: python -c 'f\(1\)'"),
        ("needs: [b-k-1]", "All rows of a matrix are needed by its plain id"),
    ],
)
def test_hints_lead_to_what_was_meant(place, task, hint):
    place.write(".neuro/b.yml", f"kind: batch\ntasks: [{{image: a, {task}}}]\n")
    with pytest.raises(FlowError, match=hint):
        place.plan()


def test_the_platforms_project_is_called_as_who_bakes(place) -> None:
    made = place.batch("""\
        params: {n: {default: "1", descr: "of ${{ flow.title }}"}}
        tasks:
          - {id: a, image: "image:/${{ project.project_name }}/i", cmd: x}
        """)
    assert made.task("a").image == "image:/user/i"
