"""Stages: which base each one has, what it takes from the others, and which ones a target needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from neuro.dockerfile.platforms import Platform, parse_platform
from neuro.dockerfile.scope import Abandoned, Expander
from neuro.dockerfile.steps import BaseImage
from neuro.dockerfile.tree import Copy, Dockerfile, Instruction, Run, Stage
from neuro.dockerfile.values import go_integer
from neuro.domain.errors import InvalidInput
from neuro.domain.images import check_written, with_tag
from neuro.domain.problems import Position, closest

SCRATCH = "scratch"
_MOST_NAMES = 50
_LONGEST_NAME = 100


class Place(msgspec.Struct):
    """A stage in the graph. ``base`` is an earlier stage, an image, or None for scratch."""

    stage: Stage
    base: int | BaseImage | None
    platform: Platform | None
    instructions: list[Instruction] = []
    """Those of the base's ONBUILD first, once they are known."""
    has_triggers: bool = False

    @property
    def shown(self) -> str:
        return self.stage.name or str(self.stage.index)


class StageGraph:
    """The stages of a file, for one set of arguments. What is wrong goes to the expander."""

    def __init__(
        self, tree: Dockerfile, known: Mapping[str, str], target: Platform, expander: Expander
    ) -> None:
        self._expander = expander
        self._platform = target
        self._names: dict[str, int] = {}
        self.places: list[Place] = []
        self.hints: dict[str, str] = {}
        for stage in tree.stages:
            base: int | BaseImage | None = None
            platform: Platform | None = None
            try:
                platform = self._platform_of(stage, known)
                base = self._base(stage, known, platform or target)
            except Abandoned:
                pass
            if isinstance(base, int) and platform is None:
                platform = self.places[base].platform
            self.places.append(Place(stage, base, platform, list(stage.instructions)))
            if stage.name:
                self._names[stage.name] = stage.index
        for place in self.places:
            self.check_origins(place.instructions)

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def find(self, name: str) -> int | None:
        """The stage of this name: the last one, if several have it."""
        return self._names.get(name.lower())

    def near(self, name: str) -> str | None:
        """The stage that is likely meant by a name that none has."""
        # To compare takes long, and a file with so many stages is a program's.
        if "/" in name or ":" in name or len(self._names) > _MOST_NAMES:
            return None
        return closest(name[:_LONGEST_NAME].lower(), self._names)

    def target(self, name: str) -> int | None:
        """The stage to be built: the last one where no name is given."""
        if not name:
            return len(self.places) - 1
        return self.find(name)

    def origin(self, name: str, at: Position, *, numbers: bool) -> int | BaseImage | None:
        """What a name behind ``from=`` is: a stage, an image, or None for scratch."""
        found = self.find(name)
        if found is not None:
            return found
        number = go_integer(name) if numbers else None
        if number is not None:
            return number
        if name == SCRATCH:
            return None
        image = self._image(name, at, self._platform)
        if "/" not in name and ":" not in name:
            sentence = f"No stage is called '{name}': it is taken for an image."
            self.hints.setdefault(image.reference, sentence)
        return image

    def needed(self, target: int) -> list[int]:
        """The target and all stages that it is made of, in the order of the file."""
        found: set[int] = set()
        waiting = [target]
        while waiting:
            index = waiting.pop()
            if index in found:
                continue
            found.add(index)
            place = self.places[index]
            if isinstance(place.base, int):
                waiting.append(place.base)
            waiting += [stage for stage, _ in self.taken(place)]
        return sorted(found)

    def taken(self, place: Place) -> list[tuple[int, Position]]:
        """The stages that a stage takes files of, and where it does."""
        found = []
        for instruction in place.instructions:
            for name, at, numbers in origins(instruction):
                stage = self.find(name)
                if stage is None and numbers:
                    stage = go_integer(name)
                if stage is not None and 0 <= stage < len(self.places):
                    found.append((stage, at))
        return found

    def check_origins(self, instructions: Iterable[Instruction]) -> None:
        """Note what cannot stand in ``COPY --from``: variables, and numbers without a stage."""
        last = len(self.places) - 1
        for instruction in instructions:
            word = instruction.origin if isinstance(instruction, Copy) else None
            if word is None:
                continue
            try:
                is_plain = self._expander.word(word, {}) == word.text
            except Abandoned:
                continue
            if not is_plain:
                self._expander.fail(
                    "A variable cannot stand in --from.",
                    word.at,
                    "Define a stage, FROM $NAME AS name, and write --from=name.",
                )
                continue
            number = go_integer(word.text)
            if number is not None and not 0 <= number <= last:
                self._expander.fail(
                    f"There is no stage number {word.text}.",
                    word.at,
                    f"The stages are numbered from 0 to {last}.",
                )

    def check_circles(self) -> None:
        """Note stages that take files of each other, in the whole file."""
        done: set[int] = set()
        for start in range(len(self.places)):
            path: list[int] = []
            ways = [iter([(start, self.places[start].stage.begin.at)])]
            while ways:
                step = next(ways[-1], None)
                if step is None:
                    ways.pop()
                    if path:
                        done.add(path.pop())
                    continue
                index, at = step
                if index in path:
                    circle = [self.places[one].shown for one in [*path[path.index(index) :], index]]
                    self._expander.fail(
                        f"Stages need each other: {' ← '.join(circle)}.",
                        at,
                        "A stage takes files of stages above it only.",
                    )
                elif index not in done:
                    path.append(index)
                    ways.append(iter(self.taken(self.places[index])))

    def _platform_of(self, stage: Stage, known: Mapping[str, str]) -> Platform | None:
        word = stage.begin.platform
        if word is None:
            return None
        text = self._expander.word(word, known)
        found = parse_platform(text, self._platform)
        if found is None:
            raise self._expander.fail(
                f"'{text}' is not a platform.", word.at, "Write linux/amd64 or linux/arm64."
            )
        return found

    def _base(
        self, stage: Stage, known: Mapping[str, str], platform: Platform
    ) -> int | BaseImage | None:
        word = stage.begin.base
        name = self._expander.word(word, known)
        if not name:
            raise self._expander.fail(
                f"The name of the base, {word.text}, is empty.",
                word.at,
                "Give its ARG a default before the first FROM, or a value.",
            )
        if name in self._names:
            return self._names[name]
        return None if name == SCRATCH else self._image(name, word.at, platform)

    def _image(self, name: str, at: Position, platform: Platform) -> BaseImage:
        near = self.near(name)
        try:
            check_written(name)
        except InvalidInput:
            near = self.near(name)
            hint = f"Did you mean '{near}'?" if near else "Write NAME:TAG in lower-case letters."
            raise self._expander.fail(f"'{name}' is not an image or a stage.", at, hint) from None
        reference = with_tag(name)
        if near:
            self.hints[reference] = f"Did you mean the stage '{near}'?"
        return BaseImage(reference, str(platform))


def origins(instruction: Instruction) -> list[tuple[str, Position, bool]]:
    """The names behind ``from=``, their places, and whether a stage's number will do."""
    if isinstance(instruction, Copy) and instruction.origin:
        return [(instruction.origin.text, instruction.origin.at, True)]
    if isinstance(instruction, Run):
        return [(mount.origin, mount.at, False) for mount in instruction.mounts if mount.origin]
    return []
