"""Whether a Dockerfile names no image but those that it was given, by their digests.

It reads the text anew, as the daemon will: what was meant to be changed is not asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from neuro.builder.buildkit.fitting import Unfit
from neuro.dockerfile.parser import parse, parse_trigger
from neuro.dockerfile.remote import is_repository, scheme
from neuro.dockerfile.stages import SCRATCH
from neuro.dockerfile.tree import Add, Copy, Dockerfile, DockerfileError, Instruction, Onbuild, Run
from neuro.dockerfile.values import go_integer


def check(
    text: str,
    begins: Mapping[int, str],
    needed: Collection[int],
    pinned: Collection[str],
    triggers: Sequence[str],
) -> None:
    """Raise Unfit unless all images in the text are ``pinned``, and it fetches nothing else.

    ``begins`` is what each stage starts from, ``needed`` those that are not empty; ``triggers`` are
    the ONBUILD instructions of the bases, which nobody has rewritten.
    """
    try:
        tree = parse(text)
    except DockerfileError:
        raise Unfit("its images cannot be named by their digests") from None
    if {stage.index: stage.begin.base.text for stage in tree.stages} != dict(begins):
        raise Unfit("a FROM of it cannot be named by its digest")
    names = {stage.name for stage in tree.stages if stage.name} | {SCRATCH}
    last = len(tree.stages) - 1
    for stage in tree.stages:
        if stage.index not in needed and stage.instructions:
            raise Unfit("a stage that nothing needs cannot be left out")
    for one in _every(tree, triggers):
        for name, numbers in _origins(one):
            number = go_integer(name) if numbers else None
            is_stage = name.lower() in names or (number is not None and 0 <= number <= last)
            if not is_stage and name not in pinned:
                raise Unfit(f"{name}, of which {_shown(one)} takes files, has no digest there")
        if isinstance(one, Add):
            for source in one.sources:
                if scheme(source.text) or is_repository(source.text):
                    raise Unfit(f"{_shown(one)} takes files of the network")


def _every(tree: Dockerfile, triggers: Sequence[str]) -> Iterator[Instruction]:
    """All instructions, those that wait for another build among them."""
    begin = tree.stages[0].begin
    waiting = list(triggers)
    for stage in tree.stages:
        for one in stage.instructions:
            yield one
            if isinstance(one, Onbuild):
                waiting.append(one.trigger)
    for trigger in waiting:
        try:
            yield parse_trigger(trigger, begin)
        except DockerfileError:
            raise Unfit(f"ONBUILD {trigger} cannot be read") from None


def _origins(one: Instruction) -> Iterator[tuple[str, bool]]:
    """Every name behind ``from=``, and whether a stage's number will do."""
    if isinstance(one, Copy) and one.origin is not None:
        yield one.origin.text, True
    elif isinstance(one, Run):
        for mount in one.mounts:
            for field in mount.fields:
                key, _, value = field.partition("=")
                if key.lower() == "from" and value:
                    yield value, False


def _shown(one: Instruction) -> str:
    return f"{one.text.split(maxsplit=1)[0].upper()} in line {one.at.line}"
