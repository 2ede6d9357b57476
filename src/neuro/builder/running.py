"""RUN: what a command is given, from the plan's words to ``stepping``'s."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from neuro.builder import secret_files, stepping
from neuro.builder.arguments import Secret, Volume
from neuro.builder.cache import Cache, Draft
from neuro.builder.copying import Copying, Download, missing
from neuro.builder.faults import BuildFault, StepFailed
from neuro.builder.placing import Placer
from neuro.builder.reporting import Task
from neuro.builder.sources import ANYWHERE, Sources
from neuro.builder.starting import Starter
from neuro.builder.trees import EMPTY, Tree
from neuro.builder.views import Context, LayerFolder, View
from neuro.dockerfile.mounts import Mount
from neuro.dockerfile.steps import CopyFiles, Execute, Files, RemoteFile

_PACKAGES = re.compile(r"\b(?:apt|apt-get|dpkg|apk|dnf|yum)\b")
_KILLED = 137
_SCRIPTS = "/run/script"
_SCRIPT_MODE = 0o755
_SECRET_MODE = 0o400


class Running:
    """The commands of a build. ``stop`` ends those that run, and lets no other begin."""

    def __init__(
        self,
        cache: Cache,
        context: Context,
        secrets: Mapping[str, Secret],
        volumes: Sequence[Volume] = (),
        sources: Sources = ANYWHERE,
    ) -> None:
        """``volumes`` are the job's own, which every command sees at the same places.

        ``sources`` are where files of ``secrets`` may be.
        """
        self._sources = sources
        self._cache = cache
        self._context = context
        self._secrets = secrets
        self._volumes = [
            stepping.Bind(source=Path(it.path), target=it.path, read_only=it.read_only)
            for it in volumes
        ]
        self._lock = threading.Lock()
        self._stops: set[stepping.Stop] = set()
        self._stopped = False
        self._starter = Starter()

    def close(self) -> None:
        """End what commands were begun by, when none is left."""
        self._starter.close()

    def expect(self) -> None:
        """There will be a command: let what begins it be ready."""
        with contextlib.suppress(OSError):  # who needs it is told
            self._starter.expect()

    def stop(self) -> None:
        """End all commands, from any thread."""
        with self._lock:
            self._stopped = True
            stops = list(self._stops)
        for one in stops:
            one.stop()

    def run(
        self, step: Execute, below: Tree, trees: Mapping[int, Tree], draft: Draft, task: Task
    ) -> None:
        """Let a command change a draft. Raises StepFailed, BuildFault, OSError."""
        for name, required in step.devices:
            if required:
                raise BuildFault(f"There is no device '{name}' for builds.", "Remove --device.")
        with contextlib.ExitStack() as stack:
            given = _Given(
                self._cache, self._context, self._secrets, self._sources, trees, task, stack
            )
            mounts: list[stepping.Mount] = [*self._volumes]
            mounts += [one for mount in step.mounts for one in given.mounts(mount)]
            argv = step.argv
            if step.script is not None:
                # The plan's place is below /dev, where a fence has its own files alone.
                place = f"{_SCRIPTS}/{step.script.name}"
                argv = (*argv[:-1], place)
                mounts.append(
                    stepping.Secret(
                        target=place,
                        content=step.script.content.encode(),
                        mode=_SCRIPT_MODE,
                    )
                )
            stop = stepping.Stop()
            with self._lock:
                self._stops.add(stop)
                if self._stopped:
                    stop.stop()
            asked = stepping.StepRun(
                layers=below.paths(),
                upper=Path(draft.files),
                work=Path(draft.work),
                argv=argv,
                env={**step.proxies, **step.env, **given.env},
                working_dir=step.folder,
                user=step.user,
                host=below.on_host,
                network=step.network != "none",
                mounts=tuple(mounts),
                output=task.output,
            )
            try:
                code = stepping.run_step(asked, self._starter, stop)
            except stepping.StepFault as fault:
                raise BuildFault(str(fault)) from None
            finally:
                with self._lock:
                    self._stops.discard(stop)
        if code != 0:
            raise _failed(step, code, task, on_host=below.on_host)


def _failed(step: Execute, code: int, task: Task, *, on_host: bool) -> StepFailed:
    hint = ""
    if on_host and _PACKAGES.search(step.text):
        hint = "`host` has no packages of its own: begin with an image such as debian for that."
    if code == _KILLED:
        hint = "It was killed: perhaps it needs more memory than the job has. Take a larger preset."
    sentence = f"The command ended with exit code {code}."
    return StepFailed(sentence, step.line, hint, task.ended())


class _Given:
    """What the mounts of one command are made of; all that is made goes with ``stack``."""

    def __init__(
        self,
        cache: Cache,
        context: Context,
        secrets: Mapping[str, Secret],
        sources: Sources,
        trees: Mapping[int, Tree],
        task: Task,
        stack: contextlib.ExitStack,
    ) -> None:
        self.env: dict[str, str] = {}
        self._cache = cache
        self._context = context
        self._secrets = secrets
        self._sources = sources
        self._trees = trees
        self._task = task
        self._stack = stack

    def mounts(self, mount: Mount) -> list[stepping.Mount]:
        """A mount of the plan. Raises BuildFault, OSError."""
        makers: dict[str, Callable[[Mount], list[stepping.Mount]]] = {
            "bind": self._bind,
            "cache": self._cache_mount,
            "tmpfs": lambda one: [stepping.Memory(target=one.target, size=one.size)],
            "secret": self._secret,
            "ssh": self._agent,
        }
        return makers[mount.kind](mount)

    def _bind(self, mount: Mount) -> list[stepping.Mount]:
        if mount.origin == "empty":
            return [stepping.Bind(source=Path(self._scratch()), target=mount.target)]
        wanted = mount.source.strip("/")
        with self._view(mount) as view:
            real = view.real(wanted)
            if view.find(real) is None:
                raise missing(wanted, view)
            is_whole = mount.read_only
            if is_whole and isinstance(view, Context):
                is_whole = not view.ignores_below(real)
        if not is_whole:
            return [self._copied(mount, real)]
        if mount.origin == "context":
            source = Path(self._context.folder, real)
            return [stepping.Bind(source=source, target=mount.target)]
        tree = self._trees[int(mount.origin)]
        bind = stepping.Bind(
            source=Path("/", real),
            target=mount.target,
            layers=tree.paths(),
            host=tree.on_host,
        )
        return [bind]

    def _view(self, mount: Mount) -> View:
        if mount.origin == "context":
            return Context.again(self._context)
        return self._trees[int(mount.origin)].view()

    def _copied(self, mount: Mount, real: str) -> stepping.Mount:
        """A copy, where it may be changed, or where not all of it is to be seen."""
        place = self._scratch()
        name = real.rpartition("/")[2] or "root"
        self._copy(mount, real, place, name)
        source = Path(place, "files", name)
        return stepping.Bind(source=source, target=mount.target, read_only=mount.read_only)

    def _copy(self, mount: Mount, real: str, place: str, name: str) -> None:
        os.makedirs(f"{place}/files", exist_ok=True)
        layer = LayerFolder(f"{place}/files", f"{place}/beside")
        with self._view(mount) as view, Placer((), layer) as placer:
            files = Files(mount.origin, f"/{real}")
            copy = CopyFiles(
                number=0,
                stage="",
                line=0,
                text="",
                sources=(files,),
                destination=f"/{name}",
            )
            Copying(copy, placer, lambda source: view, _no_download).run()

    def _scratch(self) -> str:
        return self._stack.enter_context(self._cache.scratch())

    def _cache_mount(self, mount: Mount) -> list[stepping.Mount]:
        name = mount.id
        tree = EMPTY
        if mount.origin != "empty":
            name = f"{mount.id}\0{mount.source}"
            if mount.origin != "context":
                tree = self._trees[int(mount.origin)]
                name += f"\0{tree.key}"
        place, is_new = self._stack.enter_context(self._cache.mount(name, mount.sharing))
        folder = f"{place}/files"
        if is_new or not os.path.isdir(folder):
            if mount.origin != "empty":
                self._copy(mount, mount.source.strip("/"), place, "content")
                folder = f"{place}/files/content"
            os.makedirs(folder, exist_ok=True)
            with contextlib.suppress(OSError):  # as a plain user there is one owner only
                os.chown(folder, mount.uid or 0, mount.gid or 0)
            os.chmod(folder, 0o755 if mount.mode is None else mount.mode)
        elif mount.origin != "empty":
            folder = f"{place}/files/content"
        bind = stepping.Bind(source=Path(folder), target=mount.target, read_only=mount.read_only)
        return [bind]

    def _secret(self, mount: Mount) -> list[stepping.Mount]:
        content = secret_files.content(self._secrets, self._sources, mount.id)
        if content is None:
            if mount.required:
                raise BuildFault(
                    f"There is no secret '{mount.id}'.",
                    f"Give it: --secret id={mount.id},src=FILE.",
                )
            return []
        if mount.env:
            self.env[mount.env] = content.decode("utf-8", "surrogateescape")
        if not mount.target:
            return []
        secret = stepping.Secret(
            target=mount.target,
            content=content,
            mode=_SECRET_MODE if mount.mode is None else mount.mode,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
        )
        return [secret]

    def _agent(self, mount: Mount) -> list[stepping.Mount]:
        if mount.required:
            raise BuildFault(
                "There is no SSH agent for builds.",
                "Give the key as a secret: RUN --mount=type=secret,id=NAME.",
            )
        self._task.say("There is no SSH agent here: the mount of type ssh is left out.")
        return []


def _no_download(source: RemoteFile) -> Download:
    raise AssertionError(source)
