"""One stage, instruction by instruction: its steps, its variables, and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from neuro.dockerfile import metadata, tree
from neuro.dockerfile.file_steps import CopyReader
from neuro.dockerfile.image import DEFAULT_PATH, Image, entry, scratch
from neuro.dockerfile.mounts import InvalidMount, Mount, Origin, read_mount, with_agents
from neuro.dockerfile.paths import clean, within
from neuro.dockerfile.platforms import Platform
from neuro.dockerfile.reading import heredoc_of
from neuro.dockerfile.scope import Abandoned, Expander, Variables, declare, proxies
from neuro.dockerfile.stages import Place, StageGraph
from neuro.dockerfile.steps import (
    AnyStep,
    BaseImage,
    Execute,
    InlineFile,
    MakeFolder,
    Metadata,
    Pull,
)

_PIPES = "/dev/pipes"


class Steps:
    """The steps so far, and what all stages have in common."""

    def __init__(
        self,
        graph: StageGraph,
        known: Mapping[str, str],
        given: Mapping[str, str],
        platform: Platform,
        expander: Expander,
    ) -> None:
        self.graph = graph
        self.known = known
        self.given = given
        self.platform = platform
        self.expander = expander
        self.proxies = proxies(given)
        self.done: list[AnyStep] = []
        self.results: dict[int, int | None] = {}
        """The last step of each stage that is planned."""
        self._pulled: dict[BaseImage, int] = {}

    def add(self, kind: type[Any], **values: object) -> int:
        """A step of a kind, under the next number."""
        number = len(self.done)
        self.done.append(kind(number=number, **values))
        return number

    def pull(self, image: BaseImage, stage: str, line: int) -> int:
        """The step that has the files of an image."""
        if image not in self._pulled:
            self._pulled[image] = self.add(
                Pull, stage=stage, line=line, text=f"FROM {image.reference}", image=image
            )
        return self._pulled[image]


class StagePlanner:
    """Follows the instructions of a stage; ``files`` is the step whose files it has then."""

    def __init__(
        self, steps: Steps, place: Place, base: StagePlanner | None, image: Image | None
    ) -> None:
        self._steps = steps
        self._place = place
        self._expander = steps.expander
        self._cmd_is_set = False
        self.variables: Variables = base.variables.copy() if base else Variables()
        self._image = (base.image() if base else image) or scratch(steps.platform)
        self.config = self._image.config
        self._env: dict[str, str] = {}
        self._history = list(self._image.history or ())
        self._author = self._image.author
        self.files: int | None = None
        if base:
            self.files = base.files
        elif isinstance(place.base, BaseImage):
            line = place.stage.begin.at.line
            self.files = steps.pull(place.base, place.shown, line)
        self._begin()

    def _begin(self) -> None:
        for one in self.config.env or ():
            name, _, value = one.partition("=")
            self._env[name] = value
        self._env.setdefault("PATH", DEFAULT_PATH)
        self.configure(on_build=None)
        for name, value in self._env.items():
            self.variables.set(name, value)
        if self.config.working_dir:
            self.configure(working_dir=within("/", self.config.working_dir))

    def configure(self, **changes: object) -> None:
        """Change the configuration."""
        self.config = msgspec.structs.replace(self.config, **changes)

    def image(self) -> Image:
        """The stage's image so far."""
        return Image(
            architecture=self._image.architecture,
            os=self._image.os,
            config=msgspec.structs.replace(
                self.config, env=tuple(f"{name}={value}" for name, value in self._env.items())
            ),
            rootfs=self._image.rootfs,
            history=tuple(self._history),
            author=self._author,
            variant=self._image.variant,
            os_version=self._image.os_version,
            os_features=self._image.os_features,
        )

    def run(self) -> None:
        """Plan all instructions. What is wrong is noted, and the others are planned as well."""
        for instruction in self._place.instructions:
            try:
                self._plan(instruction)
            except Abandoned:
                continue
        self._steps.results[self._place.stage.index] = self.files

    def _plan(self, one: tree.Instruction) -> None:
        match one:
            case tree.Run():
                self._run(one)
            case tree.Copy():
                self._copy(one)
            case tree.Workdir():
                self._workdir(one)
            case tree.Arg():
                shown = declare(
                    one, self.variables, self._steps.known, self._steps.given, self._expander
                )
                self._metadata(one, shown)
            case tree.Env():
                pairs = metadata.pairs(one.pairs, self._expander, self.variables.env)
                for name, value in pairs:
                    self.variables.set(name, value)
                    self._env[name] = value
                self._metadata(one, metadata.written("ENV", pairs))
            case tree.Onbuild():
                self.configure(on_build=(*(self.config.on_build or ()), one.trigger))
            case tree.Cmd():
                argv = self._argv(one.command)
                self._cmd_is_set = True
                self.configure(cmd=argv, args_escaped=True)
                self._metadata(one, metadata.command("CMD", argv))
            case tree.Entrypoint():
                argv = self._argv(one.command)
                self.configure(entrypoint=argv)
                if not self._cmd_is_set:
                    self.configure(cmd=None)
                self._metadata(one, metadata.command("ENTRYPOINT", argv))
            case tree.Maintainer():
                self._author = one.name.text
                self._metadata(one, f"MAINTAINER {one.name.text}")
            case _:
                changes, shown = metadata.setting(
                    one, self.config, self._expander, self.variables.env
                )
                self.configure(**changes)
                self._metadata(one, shown)

    def _metadata(self, one: tree.Instruction, shown: str) -> None:
        self._history.append(entry(shown))
        self._add(Metadata, one, shown)

    def _add(self, kind: type[Any], one: tree.Instruction, shown: str, **values: object) -> int:
        self._expander.spend(len(shown), one.at)
        return self._steps.add(
            kind,
            stage=self._place.shown,
            line=one.at.line,
            text=one.text,
            below=self.files,
            history=shown,
            **values,
        )

    def _change(self, kind: type[Any], one: tree.Instruction, shown: str, **values: object) -> None:
        """A step that changes files."""
        is_built = kind is not MakeFolder
        self._history.append(entry(shown, changes_files=True, is_built=is_built))
        self.files = self._add(kind, one, self._history[-1].created_by, **values)

    def _workdir(self, one: tree.Workdir) -> None:
        path = self._expander.word(one.path, self.variables.env)
        before = self.config.working_dir or "/"
        folder = within(before, path) if path else before
        self.configure(working_dir=folder)
        shown = f"WORKDIR {folder}"
        if folder == "/":
            self._metadata(one, shown)
        else:
            self._change(MakeFolder, one, shown, path=clean(folder), user=self.config.user)

    def _copy(self, one: tree.Copy) -> None:
        origin: Origin = "context"
        if one.origin is not None:
            origin = self._origin(one.origin.text, one, numbers=True)
        reader = CopyReader(one, origin, self._expander, self.variables.env)
        kind, values, shown = reader.read(self.config.working_dir or "/")
        self._change(kind, one, shown, **values)

    def _origin(self, name: str, one: tree.Instruction, *, numbers: bool) -> Origin:
        at = one.origin.at if isinstance(one, tree.Copy) and one.origin else one.at
        found = self._steps.graph.origin(name, at, numbers=numbers)
        if found is None:
            return "empty"
        if isinstance(found, BaseImage):
            return self._steps.pull(found, self._place.shown, one.at.line)
        if found not in self._steps.results:
            raise self._expander.fail(
                f"The stage '{name}' is defined below.", at, "Move it above this stage."
            )
        files = self._steps.results[found]
        return "empty" if files is None else files

    def _argv(self, command: tree.CommandLine, text: str | None = None) -> tuple[str, ...]:
        if command.is_json:
            return tuple(word.text for word in command.words)
        shell = self.config.shell or ("/bin/sh", "-c")
        return (*shell, command.words[0].text if text is None else text)

    def _run(self, one: tree.Run) -> None:
        text, script = _script(one.command)
        argv = self._argv(one.command, text)
        if not argv:
            raise self._expander.fail("RUN has no command.", one.at, 'Write RUN ["program"].')
        arguments = self.variables.arguments()
        values = [f"{name}={value}" for name, value in arguments.items()]
        counted = [f"|{len(values)}", *values] if values else []
        mounts, added = with_agents(tuple(self._mount(flag, one) for flag in one.mounts))
        env = self.variables.snapshot(self._expander, one.at)
        if any(name not in env for name in added):
            env = {**env, **added}
        self._change(
            Execute,
            one,
            " ".join(["RUN", *counted, *argv]),
            argv=argv,
            env=env,
            folder=self.config.working_dir or "/",
            user=self.config.user,
            mounts=mounts,
            network=one.network,
            devices=tuple((device.name, device.required) for device in one.devices),
            script=script,
            proxies=self._steps.proxies,
        )

    def _mount(self, flag: tree.MountFlag, one: tree.Run) -> Mount:
        def expand(text: str) -> str:
            return self._expander.word(tree.Word(text, flag.at), self.variables.env)

        def origin(name: str) -> Origin:
            return self._origin(name, one, numbers=False)

        try:
            return read_mount(flag.fields, expand, self.config.working_dir or "/", origin)
        except InvalidMount as wrong:
            raise self._expander.fail(wrong.message, flag.at, wrong.hint) from None


def _script(command: tree.CommandLine) -> tuple[str | None, InlineFile | None]:
    """The text for the shell where here-documents belong to the command, and a file for it."""
    if not command.heredocs:
        return None, None
    text = command.words[0].text
    first = command.heredocs[0]
    if heredoc_of(text, first.at) is None:
        parts = [text, *(f"{one.text}{one.name}" for one in command.heredocs)]
        return "\n".join(parts), None
    if not first.content.startswith("#!"):
        return first.content, None
    return f"{_PIPES}/{first.name}", InlineFile(first.name, first.content)
