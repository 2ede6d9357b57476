"""The table of a job's phases is the documentation's, and leads from the beginning to the end."""

from __future__ import annotations

import ast
from pathlib import Path

from neuro.server.jobs import phases
from neuro.server.jobs.phases import TABLE, Event, Phase
from tests.documented import ways


def test_the_table_is_that_of_the_documentation() -> None:
    assert ways("A job's way", Phase, Event) == TABLE


def test_every_phase_is_reached_and_leads_to_the_end() -> None:
    def reached(start: Phase) -> set[Phase]:
        found, todo = {start}, [start]
        while todo:
            phase = todo.pop()
            new = {then for (one, _), then in TABLE.items() if one is phase} - found
            found |= new
            todo += new
        return found

    assert reached(Phase.WAITING) == set(Phase)
    assert all(Phase.OVER in reached(phase) for phase in Phase)
    assert reached(Phase.OVER) == {Phase.OVER}


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
