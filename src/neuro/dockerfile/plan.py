"""The plan of a build: a pure function from a tree, a target and arguments to the steps."""

from __future__ import annotations

from collections.abc import Mapping

from neuro.dockerfile.image import Image
from neuro.dockerfile.parser import parse_trigger
from neuro.dockerfile.platforms import Platform, automatic_arguments
from neuro.dockerfile.scope import Expander, global_arguments, unused
from neuro.dockerfile.stage_plan import StagePlanner, Steps
from neuro.dockerfile.stages import Place, StageGraph, origins
from neuro.dockerfile.steps import BaseImage, ImagesNeeded, Plan
from neuro.dockerfile.tree import Arg, Dockerfile, DockerfileError, Onbuild
from neuro.domain.problems import Position, Problem

NO_IMAGES: Mapping[BaseImage, Image] = {}


def plan(
    tree: Dockerfile,
    target: str = "",
    arguments: Mapping[str, str] | None = None,
    platform: Platform = Platform(),  # noqa: B008
    *,
    build_platform: Platform | None = None,
    images: Mapping[BaseImage, Image] = NO_IMAGES,
) -> Plan | ImagesNeeded:
    """The steps that make ``target``, the last stage where it is empty.

    ``images`` has the configurations of the images that the stages start from: where one is
    missing, the answer is which ones to look up before asking again. Raises DockerfileError.
    """
    given = arguments or {}
    expander = Expander(tree.escape, [])
    last = tree.stages[-1].name
    automatic = automatic_arguments(build_platform or platform, platform, target or last)
    known = global_arguments(automatic, tree.arguments, given, expander)
    graph = StageGraph(tree, known, platform, expander)
    chosen = graph.target(target)
    if chosen is None:
        raise DockerfileError([_no_target(tree, graph, target)])
    graph.check_circles()
    _raise_if_any(expander)
    missing = _add_triggers(graph, chosen, images, expander)
    graph.check_circles()
    _raise_if_any(expander)
    if missing:
        return ImagesNeeded(tuple(missing), graph.hints)
    needed = graph.needed(chosen)
    steps = Steps(graph, known, given, platform, expander)
    planners: dict[int, StagePlanner] = {}
    for index in needed:
        place = graph.places[index]
        base = planners.get(place.base) if isinstance(place.base, int) else None
        image = images[place.base] if isinstance(place.base, BaseImage) else None
        planners[index] = StagePlanner(steps, place, base, image)
        planners[index].run()
    _raise_if_any(expander)
    result = planners[chosen]
    return Plan(
        tuple(steps.done),
        result.files,
        result.image().for_platform(platform),
        (*tree.notes, *_notes(tree, graph, given, known, needed)),
        {index: graph.places[index].base for index in needed},
        graph.hints,
    )


def _add_triggers(
    graph: StageGraph, chosen: int, images: Mapping[BaseImage, Image], expander: Expander
) -> list[BaseImage]:
    """Put the ONBUILD triggers of bases before the stages' own instructions, all that are needed.

    They may need further stages. What is returned is the images that are not known yet.
    """
    missing: dict[BaseImage, None] = {}
    while True:
        fresh = [
            graph.places[index]
            for index in graph.needed(chosen)
            if not graph.places[index].has_triggers
        ]
        if not fresh:
            return list(missing)
        for place in fresh:
            place.has_triggers = True
            if isinstance(place.base, BaseImage) and place.base not in images:
                missing[place.base] = None
                continue
            try:
                triggers = [
                    parse_trigger(text, place.stage.begin)
                    for text in _triggers(graph, place, images)
                ]
                graph.check_origins(triggers)
                place.instructions[:0] = triggers
            except DockerfileError as wrong:
                expander.problems += wrong.problems


def _triggers(graph: StageGraph, place: Place, images: Mapping[BaseImage, Image]) -> list[str]:
    if isinstance(place.base, BaseImage):
        return list(images[place.base].config.on_build or ())
    if place.base is None:
        return []
    own = graph.places[place.base].stage.instructions
    return [one.trigger for one in own if isinstance(one, Onbuild)]


def _no_target(tree: Dockerfile, graph: StageGraph, target: str) -> Problem:
    near = graph.near(target)
    hint = "No stage has a name: write FROM ... AS NAME."
    if graph.names:
        hint = f"Did you mean '{near}'?" if near else f"The stages are {', '.join(graph.names)}."
    return Problem(f"There is no stage '{target}'.", tree.stages[-1].begin.at, hint)


def _notes(
    tree: Dockerfile,
    graph: StageGraph,
    given: Mapping[str, str],
    known: Mapping[str, str],
    needed: list[int],
) -> list[Problem]:
    names = set(known)
    for place in graph.places:
        for instruction in place.instructions:
            if isinstance(instruction, Arg):
                names |= {pair.name.text for pair in instruction.pairs}
    names |= {pair.name.text for one in tree.arguments for pair in one.pairs}
    top = tree.source.position(0)
    notes = [Problem(text, top) for text in unused(given, names)]
    for index in needed:
        for instruction in graph.places[index].instructions:
            for name, at, _ in origins(instruction):
                notes += _looks_like_a_stage(graph, name, at)
    return notes


def _looks_like_a_stage(graph: StageGraph, name: str, at: Position) -> list[Problem]:
    near = graph.near(name) if graph.find(name) is None else None
    if near is None:
        return []
    return [Problem(f"'{name}' is not a stage: it is an image.", at, f"Did you mean '{near}'?")]


def _raise_if_any(expander: Expander) -> None:
    if expander.problems:
        raise DockerfileError(expander.problems)
