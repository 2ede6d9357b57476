"""What `plan` foretells before anything has run."""

from __future__ import annotations

from datetime import UTC, datetime

from neuro.flow.batch.forecast import Future, forecast

STATEFUL = "kind: stateful\nmain: {image: i}\npost: {image: i}\n"
INNER = "kind: batch\ntasks: [{id: x, image: i}, {id: y, image: i, enable: always()}]\n"

FUTURES = {
    "first": Future.RUNS,
    "open": Future.OPEN,
    # However `first` ends.
    "cleans": Future.RUNS,
    "tells": Future.RUNS,
    "decided": Future.OPEN,
    "never": Future.SKIPPED,
    # Of an action that runs for sure, and of one that may not.
    "act": Future.RUNS,
    "act.x": Future.RUNS,
    "act.y": Future.RUNS,
    "late": Future.OPEN,
    "late.x": Future.OPEN,
    "late.y": Future.OPEN,
    # What cleans up after a main that runs, and after one that may not.
    "main": Future.RUNS,
    "post-main": Future.RUNS,
    "maybe": Future.OPEN,
    "post-maybe": Future.OPEN,
}


async def test_what_always_runs_is_known_to_run(place):
    plan = place.plan(
        """
        tasks:
        - {id: first, image: i}
        - {id: open, image: i, needs: [first]}
        - {id: cleans, image: i, needs: [first], enable: always(), cache: {strategy: none}}
        - id: tells
          image: i
          needs: [first]
          enable: ${{ always() }}
          cmd: ${{ needs.first.result }}
        - id: decided
          image: i
          needs: [first]
          enable: ${{ needs.first.outputs.a == 'b' or always() }}
        - {id: never, image: i, needs: [first], enable: false}
        - {id: act, action: 'ws:act', needs: []}
        - {id: late, action: 'ws:act', needs: [first]}
        - {id: main, action: 'ws:stateful', needs: []}
        - {id: maybe, action: 'ws:stateful', needs: [first]}
        """,
        act=INNER,
        stateful=STATEFUL,
    )
    found = await forecast(None, plan, None, datetime.now(UTC))
    assert {name: one.future for name, one in found.items()} == FUTURES
    assert found["cleans"].task is not None
