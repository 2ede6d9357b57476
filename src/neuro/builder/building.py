"""A plan carried out: each step when those that it needs are done, several at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple

from neuro.builder.bases import Bases
from neuro.builder.cache import Cache, Draft, HeldLayer
from neuro.builder.copying import Copying, Digests, Download
from neuro.builder.faults import BuildFault, StepFailed
from neuro.builder.modes import owner
from neuro.builder.owning import tell_owners
from neuro.builder.placing import Placer
from neuro.builder.reporting import Report, Task
from neuro.builder.running import Running
from neuro.builder.trees import EMPTY, Tree
from neuro.builder.views import Context, LayerFolder, View
from neuro.dockerfile.steps import (
    AnyStep,
    ContextFiles,
    CopyFiles,
    Execute,
    Files,
    GitTree,
    MakeFolder,
    Metadata,
    Plan,
    Pull,
    RemoteFile,
    StepFiles,
    definition,
    inputs,
    needs,
)
from neuro.engines.images.faults import ImageFault
from neuro.engines.images.reach import OUTSIDE, Reach

_AT_ONCE = 4  # steps
_VERSION = "1"  # of what a key stands for: others make layers anew
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Unmade(NamedTuple):
    """A step that has begun, and that the cache does not have by its ``exact`` key."""

    task: Task
    exact: str


class Building:
    """One plan on its way; its files of URLs are asked for as far as ``reach`` allows.

    ``anew`` runs each step, whatever is in the cache. ``added`` is how many bytes the layers have
    that were made, and not found; None where all were found.
    """

    def __init__(
        self,
        plan: Plan,
        cache: Cache,
        bases: Bases,
        context: Context,
        running: Running,
        report: Report,
        *,
        reach: Reach = OUTSIDE,
        anew: bool = False,
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._bases = bases
        self._context = context
        self._running = running
        self._report = report
        self._reach = reach
        self._anew = anew
        self._digests = Digests()
        self._names = dict(_names(plan))
        self._has_commands = any(isinstance(step, Execute) for step in plan.steps)
        self._trees: dict[int, Tree] = {}
        self._held: list[HeldLayer] = []
        self._lock = threading.Lock()
        self._downloads: dict[RemoteFile, Download] = {}
        self.added: int | None = None

    def close(self) -> None:
        """Give back all layers, and files of URLs."""
        self._running.close()
        for layer in self._held:
            layer.close()
        for there in self._downloads.values():
            there.lock.close()

    def run(self) -> Tree:
        """The image's files. Raises BuildFault, and OSError for the machine's trouble."""
        waiting: dict[int, AnyStep] = {
            step.number: step for step in self._plan.steps if not isinstance(step, Metadata)
        }
        going: dict[int, threading.Thread] = {}
        ended: SimpleQueue[tuple[int, Tree | BaseException]] = SimpleQueue()
        failure: BaseException | None = None
        try:
            while going or (waiting and failure is None):
                if failure is None:
                    self._begin(waiting, going, ended)
                if not going:
                    continue  # A step that was alone is done.
                self._report.flush()
                number, result = ended.get()
                going.pop(number).join()
                if not isinstance(result, BaseException):
                    self._trees[number] = result
                elif failure is None:
                    failure = result
                    self._running.stop()
        except BaseException:
            self._running.stop()
            for thread in going.values():
                thread.join()
            raise
        if failure is not None:
            raise failure
        return EMPTY if self._plan.result is None else self._trees[self._plan.result]

    def _begin(
        self,
        waiting: dict[int, AnyStep],
        going: dict[int, threading.Thread],
        ended: SimpleQueue[tuple[int, Tree | BaseException]],
    ) -> None:
        """Begin as many steps as may go at once, of those that have all they need.

        One that is alone is looked up here, without a thread: most builds are found step by step.
        """

        def one(step: AnyStep, unmade: _Unmade | None) -> None:
            try:
                found = unmade or self._look_up(step)
                tree = self._made(step, found) if isinstance(found, _Unmade) else found
                ended.put((step.number, tree))
            except BaseException as error:
                ended.put((step.number, error))

        ready = [step for step in waiting.values() if needs(step) <= self._trees.keys()]
        is_alone = len(ready) == 1 and not going
        for step in ready[: _AT_ONCE - len(going)]:
            del waiting[step.number]
            found = self._look_up(step) if is_alone else None
            if isinstance(found, Tree):
                self._trees[step.number] = found
                continue
            thread = threading.Thread(target=one, args=(step, found), name="build")
            thread.start()  # one that cannot be started must not be waited for
            going[step.number] = thread

    def _look_up(self, step: AnyStep) -> Tree | _Unmade:
        """What the cache has of a step, or what is known of one to be made. Raises StepFailed."""
        if isinstance(step, Pull):
            return self._pulled(step)
        task = self._report.begin(self._names[step.number], held=True)
        try:
            if not all(isinstance(one, StepFiles) for one in inputs(step)):
                self._report.flush()  # Files of the context may be many, and of a URL far away.
            exact = self._key(step, self._below(step), by_content=False)
            found = None if self._anew else self._cache.find(exact)
            if found is None:
                return _Unmade(task, exact)
            self._held.append(found)
            task.end(cached=True, held=True)
            return self._above(step, found)
        except BaseException as error:
            raise _told(error, step, task) from None

    def _made(self, step: AnyStep, unmade: _Unmade) -> Tree:
        """A step that was not found, carried out. Raises StepFailed."""
        self._report.flush()
        task = unmade.task
        try:
            layer, is_new = self._layer(step, self._below(step), unmade)
            self._held.append(layer)
            if is_new:
                with self._lock:
                    self.added = (self.added or 0) + layer.size
            task.end(cached=not is_new)
            return self._above(step, layer)
        except BaseException as error:
            raise _told(error, step, task) from None

    def _below(self, step: AnyStep) -> Tree:
        """What the layer of a step depends on."""
        return EMPTY if _is_linked(step) else self._before(step)

    def _above(self, step: AnyStep, layer: HeldLayer) -> Tree:
        return self._before(step).plus(layer, is_linked=_is_linked(step))

    def _before(self, step: AnyStep) -> Tree:
        return EMPTY if step.below is None else self._trees[step.below]

    def _pulled(self, step: Pull) -> Tree:
        base = self._bases.get(step.image)
        task: list[Task] = []

        def tell(share: float) -> None:
            if not task:
                task.append(self._report.begin(f"pulling {step.image.reference}"))
            task[0].share(share)
            if share >= 1:
                task[0].end()

        return Tree(base.identity, base, tell=tell)

    # Keys

    def _layer(self, step: AnyStep, below: Tree, unmade: _Unmade) -> tuple[HeldLayer, bool]:
        """The layer of a step, by its content of the cache or made, and whether it was made."""
        if self._has_commands:
            self._running.expect()  # a command that this layer is below, if it is not this one
        key = self._key(step, below, by_content=True)
        layer, is_new = self._cache.make(
            key,
            lambda draft: self._fill_as(key, step, below, draft, unmade.task),
            anew=self._anew,
        )
        if key != unmade.exact:
            self._cache.alias(unmade.exact, layer)
        return layer, is_new

    def _key(self, step: AnyStep, below: Tree, *, by_content: bool) -> str:
        """What a step's layer depends on.

        Of files of other steps that is their content; as long as those steps are the very same,
        so is it, and nothing needs to be read.
        """
        parts = [_VERSION, definition(step), below.key]
        for one in inputs(step):
            if isinstance(one, StepFiles) and not one.sources:
                continue  # below
            if isinstance(one, StepFiles):
                tree = self._trees[one.step]
                if by_content:
                    with tree.view() as view:
                        parts.append(self._digests.of(view, one.sources, one.excludes))
                else:
                    parts.append(tree.key)
            elif isinstance(one, ContextFiles):
                with Context.again(self._context) as context:
                    parts.append(self._digests.of(context, one.sources, one.excludes))
            elif isinstance(one, RemoteFile):
                there = self._download(one)
                parts.append(f"{there.digest} {there.time}")
            elif isinstance(one, GitTree):
                raise BuildFault(
                    f"ADD of a repository is not supported: {one.remote}.",
                    "Clone it with RUN git clone, or into the context.",
                )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    # Layers

    def _fill_as(self, key: str, step: AnyStep, below: Tree, draft: Draft, task: Task) -> None:
        """Fill a draft with what the key stands for. Raises BuildFault where it is more by now.

        Jobs may write to a context in the storage meanwhile: the layer would be found later for
        files that it has not.
        """
        self._fill(step, below, draft, task)
        is_of_context = any(isinstance(one, ContextFiles) for one in inputs(step))
        if is_of_context and self._key(step, below, by_content=True) != key:
            raise BuildFault(
                "Files of the context changed while they were copied.",
                "Build again when nobody writes to it.",
            )

    def _fill(self, step: AnyStep, below: Tree, draft: Draft, task: Task) -> None:
        if isinstance(step, Execute):
            _like_below(below, draft)
            self._running.run(step, below, self._trees, draft, task)
            with below.view() as view:
                tell_owners(view, LayerFolder(draft.files, draft.beside), step.user)
            return
        with Placer(below.folders(), LayerFolder(draft.files, draft.beside)) as placer:
            if isinstance(step, MakeFolder):
                who = owner(step.user, placer.view)
                placer.make_folders(placer.view.real(step.path), who or (0, 0))
            elif isinstance(step, CopyFiles):
                with contextlib.ExitStack() as stack:
                    Copying(step, placer, self._views(stack), self._download).run()

    def _views(self, stack: contextlib.ExitStack) -> Callable[[Files], View]:
        def view(files: Files) -> View:
            if files.origin == "context":
                return stack.enter_context(Context.again(self._context))
            tree = EMPTY if files.origin == "empty" else self._trees[files.origin]
            return stack.enter_context(tree.view())

        return view

    def _download(self, source: RemoteFile) -> Download:
        """What a URL holds, which is asked once in a build."""
        # Few builds need it, and what it imports takes a while.
        from neuro.builder.downloading import download

        with self._lock:
            known = self._downloads.get(source)
        if known is None:
            there = download(self._cache, source, self._reach)
            with self._lock:
                known = self._downloads.setdefault(source, there)
            if known is not there:  # two steps wanted it at once
                there.lock.close()
        return known


def _is_linked(step: AnyStep) -> bool:
    return isinstance(step, CopyFiles) and step.is_linked


def _like_below(below: Tree, draft: Draft) -> None:
    """Give the layer's own root what the one below has: a mount shows the highest."""
    with Placer(below.folders(), LayerFolder(draft.files, draft.beside)):
        pass


def _told(error: BaseException, step: AnyStep, task: Task) -> BaseException:
    """The error as one of this step."""
    if isinstance(error, StepFailed):
        failed = error
    elif isinstance(error, BuildFault):
        failed = StepFailed(error.sentence, step.line, error.hint, task.ended())
    elif isinstance(error, ImageFault):
        failed = StepFailed(error.sentence, step.line)
    elif isinstance(error, OSError):
        hint = ""
        if error.errno in _NO_ROOM:
            hint = "The disk is full: free some of it, or ask for a job with more."
        why = error.strerror or str(error)
        about = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str) else ""
        failed = StepFailed(f"{about}{why}.", step.line, hint)
    else:
        return error
    task.fail(failed.sentence)
    return failed


def _names(plan: Plan) -> Iterator[tuple[int, str]]:
    """How each step is shown: ``[build 2/4] RUN make``."""
    shown = [step for step in plan.steps if not isinstance(step, Metadata | Pull)]
    totals = Counter(step.stage for step in shown)
    several = len({step.stage for step in plan.steps}) > 1
    reached: Counter[str] = Counter()
    for step in shown:
        reached[step.stage] += 1
        stage = f"stage-{step.stage}" if step.stage.isdecimal() else step.stage
        place = f"{reached[step.stage] + 1}/{totals[step.stage] + 1}"
        yield step.number, f"[{f'{stage} ' if several else ''}{place}] {step.text}"
