"""Broken files: each problem at its place, with what helps."""

from __future__ import annotations

import pytest

from tests.flow.work import calls

LIVE = "kind: live\n"
BATCH = "kind: batch\n"

ACTION = """\
kind: live
inputs:
  size: {type: int}
  mode: {default: fast}
job:
  image: x
  cmd: run ${{ inputs.size }} ${{ inputs.mode }} ${{ flow.action_path }}
"""

# The text below live.yml's `kind:`, what is said, line and column, a word of the hint.
LIVE_CASES = {
    "unknown context": (
        "jobs: {a: {image: x, cmd: '${{ parms.p }}'}}",
        "The 'parms' context is not available",
        (2, 32),
        "params",
    ),
    "params in defaults": (
        "defaults:\n  env: {A: '${{ params.p }}'}\njobs: {}",
        "The 'params' context is not available",
        (3, 17),
        "Available here: flow, git, project",
    ),
    "volumes in volumes": (
        "volumes:\n  v: {remote: 'storage:${{ env.x }}', mount: /m}\njobs: {}",
        "The 'env' context is not available",
        (3, 28),
        None,
    ),
    "multi in a plain job": (
        "jobs:\n  a:\n    image: x\n    cmd: ${{ multi.args }}",
        "The 'multi' context is not available",
        (5, 14),
        None,
    ),
    "inputs in a job": (
        "jobs:\n  a:\n    image: x\n    cmd: ${{ inputs.x }}",
        "The 'inputs' context is not available",
        (5, 14),
        None,
    ),
    "params in a param's default": (
        "jobs:\n  a:\n    image: x\n    params:\n      p: ${{ params.q }}",
        "The 'params' context is not available",
        (6, 14),
        None,
    ),
    "name of a variable": (
        "jobs: {a: {image: x, env: {OK: x, 'A B': x}}}",
        "'A B' cannot be the name of a variable",
        (2, 42),
        "no blanks",
    ),
    "name of a variable that an expression gives": (
        "jobs: {a: {image: x, env: \"${{ {'A=B': 'x'} }}\"}}",
        "'A=B' cannot be the name of a variable",
        (2, 27),
        "no '='",
    ),
    "a secret without a name": (
        "jobs: {a: {image: x, env: {A: 'secret:ok', B: 'secret:'}}}",
        "'secret:' does not name a secret",
        (2, 47),
        "`neuro secret ls`",
    ),
    "a secret that an expression gives": (
        "jobs: {a: {image: x, env: {A: \"${{ 'secret:a b' }}\"}}}",
        "'a b' cannot be a secret's name",
        (2, 31),
        "`neuro secret ls`",
    ),
    "a secret file without a place": (
        "jobs: {a: {image: x, volumes: ['secret:/bob/key:/k', 'secret:key']}}",
        "'secret:key' does not say where the file is",
        (2, 54),
        "`neuro secret ls`",
    ),
    "a secret file with a mode": (
        "jobs: {a: {image: x, volumes: ['secret:key:/k:ro']}}",
        "a secret has no mode",
        (2, 32),
        "`neuro secret ls`",
    ),
    "two volumes at one path": (
        "volumes:\n  code: {remote: storage:c, mount: /d}\n"
        "jobs:\n  a:\n    image: x\n    volumes:\n"
        "    - ${{ volumes.code.ref_ro }}\n    - storage:e:/e\n    - storage:d:/d/:rw",
        "Two volumes are mounted at '/d/': storage:c and storage:d",
        (10, 7),
        "its own path",
    ),
    "a volume at the path of one of the defaults": (
        "defaults:\n  volumes: ['storage:a:/d']\njobs: {a: {image: x, volumes: ['storage:b:/d']}}",
        "Two volumes are mounted at '/d': storage:a and storage:b",
        (4, 32),
        "its own path",
    ),
    "two volumes at one path in the defaults": (
        "defaults:\n  volumes: ['storage:a:/d', 'storage:b:/d']\njobs: {a: {image: x}}",
        "Two volumes are mounted at '/d': storage:a and storage:b",
        (3, 29),
        "its own path",
    ),
    "unknown volume": (
        "volumes:\n  code: {remote: storage:c, mount: /c}\n"
        "jobs:\n  a:\n    image: x\n    cmd: ${{ volumes.cod.ref }}",
        "No attribute 'cod' in 'volumes'",
        (7, 22),
        "Did you mean 'code'?",
    ),
    "unknown volume's attribute": (
        "volumes:\n  code: {remote: storage:c, mount: /c}\n"
        "jobs:\n  a:\n    image: x\n    cmd: ${{ volumes.code.mout }}",
        "No attribute 'mout' in 'volumes.code'",
        (7, 27),
        "Did you mean 'mount'?",
    ),
    "unknown volume by key": (
        "jobs:\n  a:\n    image: x\n    cmd: ${{ volumes['v'].ref }}",
        "No attribute 'v' in 'volumes'",
        (5, 22),
        "There is nothing in 'volumes'.",
    ),
    "unknown image": (
        "images:\n  train: {ref: x}\njobs:\n  a: {image: '${{ images.trian.ref }}'}",
        "No attribute 'trian' in 'images'",
        (5, 26),
        "Did you mean 'train'?",
    ),
    "unknown param": (
        "jobs:\n  a:\n    image: x\n    params: {epochs: 1}\n    cmd: ${{ params.epoch }}",
        "No attribute 'epoch' in 'params'",
        (6, 21),
        "Did you mean 'epochs'?",
    ),
    "unknown env": (
        "defaults:\n  env: {KEY: v}\njobs:\n  a:\n    image: x\n    cmd: ${{ env.KEYS }}",
        "No attribute 'KEYS' in 'env'",
        (7, 18),
        "Did you mean 'KEY'?",
    ),
    "unknown git": (
        "jobs:\n  a:\n    image: x\n    cmd: ${{ git.comit }}",
        "No attribute 'comit' in 'git'",
        (5, 18),
        "branch, sha, tags",
    ),
    "unknown flow": (
        "jobs:\n  a:\n    image: x\n    cmd: ${{ flow.worksapce }}",
        "No attribute 'worksapce' in 'flow'",
        (5, 19),
        "Did you mean 'workspace'?",
    ),
    "success in a job": (
        "jobs:\n  a:\n    image: x\n    cmd: ${{ success() }}",
        "success() is only available inside a task definition",
        (5, 14),
        None,
    ),
    "always in defaults": (
        "defaults:\n  preset: ${{ always() }}\njobs: {}",
        "always() is only available inside a task definition",
        (3, 15),
        None,
    ),
    "no image": (
        "jobs:\n  a:\n    cmd: x",
        "Image for job a is not specified",
        (4, 5),
        "mixins",
    ),
    "no image through a mixin": (
        "mixins:\n  m: {image: i}\njobs:\n  a: {image: ~, mixins: [m]}",
        "Image for job a is not specified",
        (5, 6),
        None,
    ),
    "unknown mixin": (
        "mixins:\n  gpu: {preset: g}\njobs:\n  a: {image: x, mixins: [gpus]}",
        "Unknown mixin 'gpus'",
        (5, 26),
        "Did you mean 'gpu'?",
    ),
    "mixins in a circle": (
        "mixins:\n  a: {mixins: [b]}\n  b: {mixins: [a]}\njobs: {}",
        "Mixins form a cycle: a -> b -> a",
        (4, 16),
        None,
    ),
    "a mixin of itself": (
        "mixins:\n  a:\n    mixins: [a]\njobs: {}",
        "Mixins form a cycle: a -> a",
        (4, 14),
        None,
    ),
    "contexts in mixins' names": (
        "mixins: {m: {image: x}}\njobs:\n  a: {mixins: ['${{ env.x }}']}",
        "The 'env' context is not available",
        (4, 21),
        "No context",
    ),
    "missing input": (
        "jobs:\n  a: {action: 'ws:act'}",
        "Required input(s): size",
        (3, 6),
        "args",
    ),
    "unknown input": (
        "jobs:\n  a:\n    action: ws:act\n    args: {size: 1, moed: x}",
        "Unsupported input(s): moed",
        (5, 27),
        "Did you mean 'mode'?",
    ),
    "input of another type": (
        "jobs:\n  a:\n    action: ws:act\n    args: {size: big}",
        "Type of argument 'size' does not match",
        (5, 18),
        "Write a value of type int.",
    ),
    "no such action": (
        "jobs:\n  a: {action: 'ws:none'}",
        "Action ws:none does not exist",
        (3, 15),
        None,
    ),
    "no scheme": ("jobs:\n  a: {action: act}", "act has no schema", (3, 15), None),
    "unknown scheme": (
        "jobs:\n  a: {action: 'hg:act'}",
        "Unsupported scheme 'hg'",
        (3, 15),
        None,
    ),
    "a repository without version": (
        "jobs:\n  a: {action: 'gh:me/act'}",
        "'me/act' should have {OWNER}/{REPO}@{VERSION} format",
        (3, 15),
        None,
    ),
    "a bundled action that is not": (
        "jobs:\n  a: {action: 'neuro:jupiter@v1'}",
        "no bundled action 'jupiter'. Did you mean 'jupyter'?",
        (3, 15),
        None,
    ),
    "a module from a repository": (
        "jobs:\n  a: {module: 'gh:me/act@v1'}",
        "Module gh:me/act@v1 should be a file of the workspace",
        (3, 15),
        None,
    ),
    "an action of another kind": (
        "jobs:\n  a: {action: 'ws:batched'}",
        "Action ws:batched has kind batch, that is not supported in live mode",
        (3, 15),
        "live",
    ),
    "a number that is none": (
        "jobs:\n  a:\n    image: x\n    params: {port: web}\n    http_port: ${{ params.port }}",
        "'web' is not an integer",
        (6, 16),
        None,
    ),
    "a path that is no URI": (
        "volumes:\n  v: {remote: '${{ flow.title }}', mount: /m}\njobs: {}",
        "URI Scheme not specified",
        (3, 15),
        "storage:",
    ),
    "half an image": (
        "images:\n  i: {ref: x, context: .}\njobs: {}",
        "Partially defined image",
        (3, 15),
        None,
    ),
    "a dockerfile outside": (
        "images:\n  i: {ref: x, context: a, dockerfile: b/Dockerfile}\njobs: {}",
        "The dockerfile should be inside the context",
        (3, 39),
        None,
    ),
}


@pytest.mark.parametrize("case", LIVE_CASES)
def test_live(place, case: str) -> None:
    text, message, (line, column), hint = LIVE_CASES[case]
    place.write("act.yml", ACTION)
    place.write("batched.yml", "kind: batch\ntasks: [{image: x}]\n")
    place.write(".neuro/live.yml", LIVE + text)
    problems = place.check()
    assert len(problems) == 1, [problem.render() for problem in problems]
    (problem,) = problems
    assert message in problem.message
    assert problem.at is not None
    assert (problem.at.source.name, problem.at.line, problem.at.column) == (
        ".neuro/live.yml", line, column,
    )  # fmt: skip
    if hint is not None:
        assert hint in (problem.hint or "")


BATCH_CASES = {
    "unknown need": (
        "tasks:\n  - {id: one, image: x}\n  - {id: two, image: x, needs: [oen]}",
        "Task two needs unknown task oen", (4, 33),
    ),
    "the same id twice": (
        "tasks:\n  - {id: one, image: x}\n  - {id: one, image: x}",
        "The id 'one' is there twice", (4, 10),
    ),
    "needs in a circle": (
        "tasks:\n  - {id: one, image: x, needs: [two]}\n  - {id: two, image: x, needs: [one]}",
        "Tasks need each other in a circle: one -> two -> one", (4, 33),
    ),
    "no image": ("tasks:\n  - {id: one}", "Image for task one is not specified", (3, 5)),
    "needs of a task that is not needed": (
        "tasks:\n  - {id: one, image: x}\n"
        "  - image: x\n    needs: []\n    cmd: ${{ needs.one.result }}",
        "No attribute 'one' in 'needs'", (6, 20),
    ),
    "an attribute of a need": (
        "tasks:\n  - {id: one, image: x}\n"
        "  - image: x\n    needs: [one]\n    cmd: ${{ needs.one.resutl }}",
        "No attribute 'resutl' in 'needs.one'", (6, 24),
    ),
    "an unknown matrix key": (
        "tasks:\n  - image: x\n    strategy: {matrix: {k: [1]}}\n    cmd: ${{ matrix.n }}",
        "No attribute 'n' in 'matrix'", (5, 21),
    ),
    "a param that is not declared": (
        "params: {p: 1}\ntasks: [{image: x, cmd: '${{ params.q }}'}]",
        "No attribute 'q' in 'params'", (3, 37),
    ),
    "success in defaults": (
        "defaults:\n  preset: ${{ success() }}\ntasks: []",
        "success() is only available inside a task definition", (3, 15),
    ),
    "needs in the first matrix": (
        "tasks:\n  - image: x\n    strategy: {matrix: {k: '${{ needs.x }}'}}",
        "No attribute 'x' in 'needs'", (4, 39),
    ),
    "a live action": (
        "tasks: [{action: 'ws:act', args: {size: 1}}]",
        "Action ws:act has kind live, that is not supported in batch mode", (2, 18),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BATCH_CASES)
def test_batch(place, case: str) -> None:
    text, message, (line, column) = BATCH_CASES[case]
    place.write("act.yml", ACTION)
    place.write(".neuro/sub/train.yaml", BATCH + text)
    problems = place.check()
    assert len(problems) == 1, [problem.render() for problem in problems]
    assert message in problems[0].message
    assert problems[0].at is not None
    assert problems[0].at[1:] == (line, column)


def test_an_action_sees_its_inputs_only(place) -> None:
    place.write("act.yml", ACTION.replace("flow.action_path", "volumes.code.ref"))
    place.write(".neuro/live.yml", LIVE + "jobs: {a: {action: 'ws:act', args: {size: 1}}}")
    (problem,) = place.check()
    assert problem.message == "The 'volumes' context is not available"
    assert problem.at is not None
    assert problem.at.source.name == "act.yml"


def test_all_files_are_checked_in_their_order(place) -> None:
    place.write(".neuro/live.yml", LIVE + "jobs: {a: {image: x, cmd: '${{ a }} ${{ b }}'}}")
    place.write(".neuro/b.yml", BATCH + "tasks: [{}]")
    place.write(".neuro/a.yml", "kind: nonsense")
    found = [problem.at.source.name for problem in place.check() if problem.at]
    assert found == [".neuro/a.yml", ".neuro/b.yml", ".neuro/live.yml", ".neuro/live.yml"]


def test_a_default_that_no_run_may_keep_is_no_problem(place) -> None:
    job = (
        "image: x, name: 't-${{ params.p }}', tags: ['${{ params.p }}'], workdir: '${{ params.p }}'"
    )
    place.write(".neuro/live.yml", f"{LIVE}jobs: {{a: {{{job}, params: {{p: ''}}}}}}")

    assert place.check() == []


def test_what_only_a_run_can_know_is_no_problem(place) -> None:
    place.write(
        ".neuro/live.yml",
        """\
        kind: live
        volumes:
          code: {remote: storage:c, mount: /c, local: c}
        jobs:
          a:
            image: x
            params: {port: ~}
            http_port: ${{ params.port }}
            env:
              URL: ${{ inspect_job('b').http_url }}
              HASH: ${{ hash_files('**/*') }}
              SHA: ${{ git.sha }}
            volumes: ["${{ upload(volumes.code).ref }}"]
          b: {image: x, multi: true, cmd: "run ${{ multi.args }} ${{ multi.suffix }}"}
          c: {action: gh:nobody/nothing@v1, args: {x: 1}}
          d: {action: neuro:jupyter@v1}
        """,
    )
    assert place.check() == []


def test_a_batch_with_all_its_contexts(place) -> None:
    place.write(
        ".neuro/train.yml",
        """\
        kind: batch
        params: {p: 1}
        defaults: {env: {A: x}, max_parallel: "${{ len(volumes) + 1 }}"}
        images: {im: {ref: "image:${{ git.sha }}"}}
        volumes: {v: {remote: "storage:${{ params.p }}", mount: /v}}
        mixins: {m: {image: "${{ images.im.ref }}", enable: "${{ always() }}"}}
        tasks:
          - id: a_${{ matrix.k }}
            strategy: {matrix: {k: [x, y], n: "${{ [env.A] }}"}}
            mixins: [m]
            cmd: ${{ matrix.k }} ${{ matrix.ORDINAL }} ${{ strategy.max_parallel }}
          - image: x
            needs: [a_x]
            enable: ${{ needs.a_x.result == 'failed' or failure('a_x') }}
            cmd: ${{ needs.a_x.outputs.o }} ${{ volumes.v.ref }} ${{ flow.life_span }}
        """,
    )
    assert place.check() == []


def test_two_hundred_jobs_are_checked_at_once(place) -> None:
    job = "  j{0}:\n    image: x\n    env:\n      A: ${{{{ flow.flow_id }}}}\n      B: text\n"
    job += "    volumes: ['${{{{ volumes.v.ref }}}}']\n    tags: [a, b]\n    bash: |\n"
    job += "      echo ${{{{ volumes.v.mount }}}}\n      true\n"
    text = "volumes: {v: {remote: storage:v, mount: /v}}\njobs:\n"
    took = []
    for count in (100, 200):
        place.write(".neuro/live.yml", LIVE + text + "".join(job.format(n) for n in range(count)))
        assert place.check() == []
        took.append(calls(place.check))

    # Twice as many take twice as long, and not four times.
    assert took[1] < 3 * took[0]
