"""The table of a node's phases: every pair of phase and event is in it, or is refused."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import pytest

from neuro.flow.batch import phases
from neuro.flow.batch.phases import TABLE, Event, ImpossibleEvent, Phase, after
from tests.documented import ways

DOCUMENTED = ways("A bake's way", Phase, Event)


@pytest.mark.parametrize(("phase", "event"), [*product(Phase, Event)])
def test_a_pair_leads_where_the_documentation_says_or_is_refused(
    phase: Phase, event: Event
) -> None:
    expected = DOCUMENTED.get((phase, event))
    if expected is not None:
        assert after(phase, event) is expected
        return
    with pytest.raises(ImpossibleEvent, match=f"{event.name} cannot happen .* {phase.name}"):
        after(phase, event)


def reached(start: Phase) -> set[Phase]:
    found, todo = {start}, [start]
    while todo:
        phase = todo.pop()
        new = {then for (one, _), then in TABLE.items() if one is phase} - found
        found |= new
        todo += new
    return found


def test_every_phase_is_reached_and_leads_to_the_end() -> None:
    assert reached(Phase.WAITING) == set(Phase)
    assert all(Phase.DONE in reached(phase) for phase in Phase)
    assert reached(Phase.DONE) == {Phase.DONE}


def test_every_event_that_is_told_is_in_the_table_and_no_other() -> None:
    told = set()
    for path in Path(phases.__file__).parent.glob("*.py"):
        if path.name == "phases.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="Event"), attr=name):
                    told.add(name)
    assert told == set(Event.__members__) == {event.name for _, event in TABLE}
