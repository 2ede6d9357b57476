"""Mixins of mixins: each is taken in once, and a stranger's file ends in a sentence."""

from __future__ import annotations

import pytest

LEVELS = 60

# 2^60 of anything takes all memory first.
pytestmark = pytest.mark.timeout(60)


def mixins(lines: list[str]) -> str:
    return "mixins:\n" + "".join(f"  {line}\n" for line in lines)


def test_mixins_that_name_two_of_the_next_are_taken_in_once(place) -> None:
    lines = [f"m{n}: {{mixins: [m{n + 1}, n{n + 1}]}}" for n in range(LEVELS)]
    lines += [f"n{n}: {{mixins: [m{n + 1}, n{n + 1}]}}" for n in range(1, LEVELS)]
    last = "{env: {A: '1'}, tags: [t], volumes: ['storage:x:/x']}"
    lines += [f"m{LEVELS}: {last}", f"n{LEVELS}: {{tags: [u]}}"]
    text = mixins(lines) + "jobs:\n  a: {image: x, mixins: [m0], tags: [own]}\n"

    job = place.resolve(text)

    assert dict(job.env) == {"A": "1"}
    assert sorted(tag for tag in job.tags if len(tag) <= 3) == ["own", "t", "u"]
    assert len(job.volumes) == 1


def test_one_that_is_named_twice_is_taken_in_once(place) -> None:
    lines = [f"m{n}: {{mixins: [m{n + 1}, m{n + 1}]}}" for n in range(LEVELS)]
    text = mixins([*lines, f"m{LEVELS}: {{tags: [t]}}"])

    job = place.resolve(text + "jobs:\n  a: {image: x, mixins: [m0, m0]}\n")

    assert [tag for tag in job.tags if tag == "t"] == ["t"]


def test_the_rightmost_is_the_nearest_as_ever(place) -> None:
    text = mixins(["near: {env: {A: near}}", "far: {env: {A: far, B: far}}"])

    job = place.resolve(text + "jobs:\n  a: {image: x, mixins: [near, far, near]}\n")

    assert dict(job.env) == {"A": "near", "B": "far"}


def test_too_many_in_one_list_are_told_with_their_place(place) -> None:
    names = ", ".join(f"m{n}" for n in range(101))
    lines = [f"m{n}: {{tags: [t{n}]}}" for n in range(101)]
    lines.append(f"all: {{mixins: [{names}]}}")
    place.write(".neuro/live.yml", "kind: live\njobs: {}\n" + mixins(lines))

    (problem,) = place.check()

    assert problem.message == "More than 100 mixins in one list"
    assert (problem.at.line, problem.at.column) == (105, 3 + lines[-1].index("m100"))


def test_too_deep_a_chain_is_told(place) -> None:
    lines = [f"m{n}: {{mixins: [m{n + 1}]}}" for n in range(2000)]
    text = mixins([*lines, "m2000: {image: x}"]) + "jobs:\n  a: {image: x, mixins: [m0]}\n"
    place.write(".neuro/live.yml", "kind: live\n" + text)

    problems = place.check()

    assert problems[0].message.startswith("Mixins include each other more than 100 levels deep")


def test_what_becomes_too_much_is_told(place) -> None:
    lines = ["m90: {image: x}"]
    for n in range(90):
        tags = ", ".join(f"t{n}-{k}" for k in range(200))
        lines.append(f"m{n}: {{mixins: [m{n + 1}], tags: [{tags}]}}")
    place.write(".neuro/live.yml", "kind: live\njobs: {}\n" + mixins(lines))

    problems = place.check()

    assert problems[0].message == "The mixins produce more than 10000 items here"
