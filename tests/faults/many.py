"""A bake of sixty tasks in which everything happens, and how each of them must end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BATCH = """\
kind: batch
params:
  run:
    descr: A folder of its own for what the tasks leave.
defaults:
  preset: cpu-small
  fail_fast: false
  cache:
    strategy: none
mixins:
  # Not in the defaults: what the cache answers must not know of this bake's own folder.
  left:
    volumes:
      - storage:many/${{ params.run }}:/left:rw
tasks:
- id: guard
  action: ws:guard
  args:
    place: storage:many/${{ params.run }}:/left:rw
- id: seed
  needs: [guard]
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/seed
    echo '::set-output name=numbers::[1, 2, 3, 4, 5, 6]'
- id: row
  needs: [seed]
  strategy:
    matrix:
      x: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/row-${{ matrix.x }}
    echo '::set-output name=x::${{ matrix.x }}'
    test $(( ${{ matrix.x }} % 6 )) -ne 5
- id: flaky
  needs: [seed]
  strategy:
    matrix:
      x: [0, 1, 2, 3, 4, 5, 6, 7]
  retry:
    attempts: 3
    delay: 0.01
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/flaky-${{ matrix.x }}
    echo '::set-output name=tries::'$(wc -l < /left/flaky-${{ matrix.x }})
    test $(wc -l < /left/flaky-${{ matrix.x }}) -ge 2
- id: dynamic
  needs: [seed]
  strategy:
    max_parallel: 2
    matrix:
      n: ${{ from_json(needs.seed.outputs.numbers) }}
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/dynamic-${{ matrix.n }}
    echo '::set-output name=square::'$(( ${{ matrix.n }} * ${{ matrix.n }} ))
- id: kept
  needs: [seed]
  strategy:
    matrix:
      x: [0, 1, 2, 3, 4, 5, 6, 7]
  cache:
    strategy: default
  volumes:
    - storage:many/kept:/kept:rw
  image: ubuntu
  bash: |
    echo x >> /kept/${{ matrix.x }}
    echo '::set-output name=x::${{ matrix.x }}'
- id: link_0
  needs: [seed]
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/link_0
    echo '::set-output name=n::0'
@LINKS@
- id: allowed
  needs: [seed]
  continue_on_error: true
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/allowed
    exit 3
- id: after_allowed
  needs: [allowed]
  mixins: [left]
  image: ubuntu
  bash: echo x >> /left/after_allowed
- id: after_rows
  needs: [row]
  mixins: [left]
  image: ubuntu
  bash: echo x >> /left/after_rows
- id: handler
  needs: [row]
  enable: ${{ failure() }}
  mixins: [left]
  image: ubuntu
  bash: echo x >> /left/handler
- id: sum
  needs: [dynamic, link_9, kept, flaky]
  mixins: [left]
  image: ubuntu
  env:
    SQUARES: ${{ to_json(needs.dynamic.outputs.square) }}
    LAST: ${{ needs.link_9.outputs.n }}
  bash: |
    echo x >> /left/sum
    echo "::set-output name=all::$SQUARES $LAST"
- id: always
  needs: [after_rows]
  enable: ${{ always() }}
  mixins: [left]
  image: ubuntu
  bash: echo x >> /left/always
"""

GUARD = """\
kind: stateful
inputs:
  place: {}
main:
  image: ubuntu
  preset: cpu-small
  volumes: ["${{ inputs.place }}"]
  bash: |
    echo x >> /left/guard
    echo '::save-state name=key::secret'
post:
  image: ubuntu
  preset: cpu-small
  volumes: ["storage:many/${{ params.run }}:/left:rw"]
  bash: echo ${{ state.key }} >> /left/post
"""

LINK = """\
- id: link_@N@
  needs: [link_@BEFORE@]
  mixins: [left]
  image: ubuntu
  bash: |
    echo x >> /left/link_@N@
    echo '::set-output name=n::'$(( ${{ needs.link_@BEFORE@.outputs.n }} + 1 ))
"""

FAILING_ROWS = (5, 11, 17)


@dataclass(frozen=True)
class Expected:
    """How a task ends, and how often its command runs."""

    status: str
    runs: int = 1
    outputs: dict[str, str] | None = None


def expected() -> dict[str, Expected]:
    """Every task of the bake; those that may be answered by the cache are not counted."""
    tasks = {
        "guard": Expected("succeeded", 1, {}),
        "seed": Expected("succeeded", 1, {"numbers": "[1, 2, 3, 4, 5, 6]"}),
        "allowed": Expected("failed"),
        "after_allowed": Expected("succeeded", 1, {}),
        "after_rows": Expected("skipped", 0),
        "handler": Expected("succeeded", 1, {}),
        "sum": Expected("succeeded", 1, {"all": '["1", "4", "9", "16", "25", "36"] 9'}),
        "always": Expected("succeeded", 1, {}),
        "post-guard": Expected("succeeded", 1, {}),
    }
    for x in range(19):
        ended = "failed" if x in FAILING_ROWS else "succeeded"
        tasks[f"row-x-{x}"] = Expected(ended, 1, None if ended == "failed" else {"x": str(x)})
    for x in range(8):
        tasks[f"flaky-x-{x}"] = Expected("succeeded", 2, {"tries": "2"})
    for n in range(1, 7):
        tasks[f"dynamic-n-{n}"] = Expected("succeeded", 1, {"square": str(n * n)})
    for n in range(10):
        tasks[f"link_{n}"] = Expected("succeeded", 1, {"n": str(n)})
    return tasks


CACHED = {f"kept-x-{x}": {"x": str(x)} for x in range(8)}


def left_by(task: str) -> str:
    """The file in which a task leaves a line each time that it runs."""
    return {"post-guard": "post"}.get(task, task.replace("-x-", "-").replace("-n-", "-"))


def write(workspace: Path) -> None:
    """Write the flow files of a workspace."""
    links = "".join(
        LINK.replace("@N@", str(n)).replace("@BEFORE@", str(n - 1)) for n in range(1, 10)
    )
    (workspace / ".neuro" / "many.yml").write_text(BATCH.replace("@LINKS@\n", links))
    (workspace / "guard.yml").write_text(GUARD)
