"""One build by the daemon, from the plan to an image that is pushed."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace

import msgspec

from neuro.builder import secret_files
from neuro.builder.bases import Base
from neuro.builder.buildkit import fitting, offering
from neuro.builder.buildkit.daemon import BuildingDaemon
from neuro.builder.buildkit.rewriting import rewritten
from neuro.builder.buildkit.session import Session
from neuro.builder.buildkit.trace import Failure, Trace
from neuro.builder.faults import BuildFault, StepFailed
from neuro.builder.orders import Order
from neuro.docker import drafts
from neuro.docker.asking import Refused, numbers
from neuro.docker.images import SILENCE, Images, Step, name_and_tag
from neuro.dockerfile.steps import BaseImage
from neuro.domain.errors import InvalidInput
from neuro.engines.docker.images import Progress
from neuro.engines.images.faults import ImageFault
from neuro.engines.images.pushing import Push
from neuro.engines.images.references import DOCKER_HUB, Reference, parse
from neuro.engines.images.registry_client import Registry
from neuro.engines.runs import PullCredentials

_UNNAMED = "does not exist"  # what a daemon says of a name that it is to push, and has not
_TRIES = 3  # of a push whose name another one takes away
_SENT = ("Pushed", "Layer already exists")
_EXIT_CODE = re.compile(r"exit code: (\d+)\s*$")
_BEGINNING = re.compile(
    r"^(?:(?:failed to solve(?: with frontend [\w.]+)?|failed to build LLB): "
    r"|rpc error: code = \w+ desc = )"
)
_KILLED = 137
# What a daemon says of words that it does not know. We have read the file, so they are new ones.
_OLDER = re.compile(
    r"parse error|unknown (?:flag|instruction)|unsupported modifier"
    r"|failed to create LLB definition",
    re.IGNORECASE,
)
_HEREDOCS = (1, 42)  # the API of the first Docker whose BuildKit knows them


@dataclass(frozen=True)
class Place:
    """The daemon: its ``socket``, and the host by which it finds the platform's ``registry``.

    ``key`` is that of the caches: whoever builds has their own.
    """

    socket: str
    registry: str
    key: str


@dataclass(frozen=True)
class Pushed:
    """What was pushed: ``size`` is bytes of its layers and its configuration."""

    digest: str
    size: int


class Driving:
    """One build. ``fit`` says whether the daemon can have it, before anything is done."""

    def __init__(self, place: Place, order: Order) -> None:
        self._place = place
        self._order = order
        self._options = order.options
        self._credentials = order.credentials
        self._report = order.report
        self._daemon = BuildingDaemon(place.socket)
        self._text = ""

    def fit(self) -> None:
        """Raise Unfit for a build that BuildKit cannot have, BuildFault for one that nobody can."""
        order = self._order
        fitting.check_arguments(self._options.arguments)
        found = order.bases.found
        fitting.check(order.plan, found, [one.path for one in order.volumes])
        names = {image.reference: base.reference for image, base in found.items()}
        names |= {one: _reference(one) for one in self._options.destinations}
        fitting.check_registries(
            {name: self._credentials.located(one).registry for name, one in names.items() if one},
            self._own_registries,
        )

        def named(image: BaseImage) -> str:
            return self._name(found[image])

        self._text = rewritten(order.tree, order.plan.bases, named, order.bases.images)
        try:
            version = self._daemon.version()
        except OSError as error:
            raise fitting.Unfit(f"the daemon that builds is away ({error.strerror})") from None
        except Refused as refused:
            raise fitting.Unfit(f"the daemon that builds refuses ({refused.message})") from None
        if version.is_podman:
            raise fitting.Unfit("podman's service has no BuildKit")
        if numbers(version.api_version) < _HEREDOCS and fitting.has_heredocs(order.tree):
            # It would take their lines for instructions.
            raise fitting.Unfit("the daemon's BuildKit knows no here-documents")

    def _name(self, base: Base) -> str:
        assert base.reference is not None
        there = self._at_daemon(self._credentials.located(base.reference))
        return str(replace(there, tag="", digest=base.digest))

    @property
    def _own_registries(self) -> set[str]:
        """By which hosts the platform's registry is known here, and to the daemon."""
        own = self._options.own
        return {self._place.registry, *(own[:1] if own is not None else ())}

    def _at_daemon(self, reference: Reference) -> Reference:
        own = self._options.own
        if own is None or reference.registry != own[0]:
            return reference
        return replace(reference, registry=self._place.registry)

    # Building

    def run(self) -> Pushed | None:
        """Build and push; None where nothing is to be pushed.

        Raises BuildFault, StepFailed, and Unfit where the daemon does not understand the file.
        """
        targets = [_reference(one) for one in self._options.destinations]
        if self._options.push:
            for target in targets:
                self._check_push(target)
        draft = drafts.new_draft(time.time())
        try:
            image = self._built(draft)
            try:
                if not self._options.push:
                    return None
                pushed = [self._pushed(image, target) for target in targets]
                return pushed[0]
            finally:
                with suppress(Refused):
                    self._daemon.remove_image(draft)
                with suppress(Refused):
                    drafts.sweep(self._daemon, time.time())
        except OSError as error:
            raise BuildFault(
                f"The daemon that builds has gone: {error.strerror or error}.",
                "Build again; what was built stays in its cache.",
            ) from None
        except Refused as refused:
            raise BuildFault(f"The daemon that builds refuses: {refused.message}.") from None

    def _built(self, draft: str) -> str:
        """The id of the image, which the daemon calls ``draft``."""
        trace = Trace(self._report)
        image = ""
        with self._session() as identity:
            query = self._query(draft, identity)
            with closing(self._daemon.build(query)) as said:
                for record in said:
                    if record.error:
                        raise self._failed(record.error, trace.failure)
                    with suppress(ValueError):  # a line that only a newer platform understands
                        trace.take(record.trace)
                    image = record.image or image
        if not image:
            raise BuildFault("The daemon has built no image.", "Look into the log of the daemon.")
        return image

    @contextmanager
    def _session(self) -> Iterator[str]:
        identity = secrets.token_hex(16)
        methods = offering.methods(self._text, self._order.context, self._password, self._secret)
        session = Session(self._daemon.session(identity, list(methods)), methods)
        session.start()
        try:
            yield identity
        finally:
            session.close()

    def _query(self, draft: str, session: str) -> dict[str, str]:
        options = self._options
        # Where caches of folders are kept apart by BuildKit itself. Results of commands are by all
        # that a command is given, and that is the name of a host, too.
        arguments = {**options.arguments, "BUILDKIT_CACHE_MOUNT_NS": self._place.key}
        query = {
            "version": "2",
            "remote": "client-session",
            "session": session,
            "buildid": session,
            "dockerfile": offering.DOCKERFILE,
            "t": draft,
            # Else it takes whatever it has by a name, whoever may have it.
            "pull": "1",
            "buildargs": json.dumps(arguments),
            "labels": json.dumps(options.labels),
            "extrahosts": f"{self._place.key}:127.0.0.1",
            "target": options.target,
            "platform": options.platform,
            "nocache": "" if options.cache else "1",
        }
        return {name: value for name, value in query.items() if value}

    def _password(self, host: str) -> PullCredentials | None:
        """What the daemon is told of a registry, by the host that it asks."""
        own = self._options.own
        if own is not None and host == self._place.registry:
            # People know it by other names; so does the file of passwords that they may bring.
            names = [own[0], *(name for name, at in self._options.places.items() if at == own[0])]
            return next(filter(None, map(self._credentials.of, names)), None)
        return self._credentials.of(DOCKER_HUB if host.endswith(f".{DOCKER_HUB}") else host)

    def _secret(self, name: str) -> bytes | None:
        return secret_files.content(self._options.secrets, self._order.sources, name)

    def _failed(self, error: str, failure: Failure | None) -> Exception:
        error = _plain(error)
        if failure is None and _OLDER.search(error):
            said = error.strip().rstrip(".")
            return fitting.Unfit(f"the daemon's BuildKit does not know its syntax ({said})")
        if failure is None:
            return BuildFault(f"{error.strip().rstrip('.')}.")
        code = _EXIT_CODE.search(failure.error)
        sentence = f"{_plain(failure.error).strip().rstrip('.')}."
        hint = ""
        if code is not None:
            sentence = f"The command ended with exit code {code[1]}."
            if int(code[1]) == _KILLED:
                hint = "It was killed: perhaps it needs more memory than there is."
        lines = [step.line for step in self._order.plan.steps if step.text == failure.step]
        if not lines:
            return BuildFault(sentence, hint)
        return StepFailed(sentence, lines[0], hint, failure.output)

    # Pushing

    def _check_push(self, target: Reference) -> None:
        """Ask the registry whether we may push there. Raises BuildFault.

        The daemon has names for all who build: nobody may take the name of somebody else's image
        while that is on its way.
        """
        try:
            Push(self._registry(target), self._credentials.located(target)).check()
        except ImageFault as fault:
            raise BuildFault(fault.sentence) from None

    def _registry(self, target: Reference) -> Registry:
        located = self._credentials.located(target)
        password = self._credentials.of(target.registry)
        return Registry(located, password, self._order.reach)

    def _pushed(self, image: str, target: Reference) -> Pushed:
        """Push the image to its place, and look there what came. Raises BuildFault, Refused."""
        there = str(self._at_daemon(self._credentials.located(target)))
        password = self._credentials.of(target.registry)
        given = {} if password is None else _given(password.user, password.password)
        task = self._report.begin(f"pushing {target}")
        progress = Progress("Pushing", _SENT)

        def heed(step: Step) -> None:
            if progress.take(step):
                task.share(progress.value)

        try:
            push_under(self._daemon, image, there, given, heed)
        except Refused as refused:
            task.fail(refused.message)
            raise BuildFault(f"{target} cannot be pushed: {refused.message.rstrip('.')}.") from None
        found = self._look(image, target)
        task.end()
        return found

    def _look(self, image: str, target: Reference) -> Pushed:
        """What the registry has. Raises BuildFault where that is not what was built."""
        try:
            body, _, digest = self._registry(target).manifest(target.tag)
        except ImageFault as fault:
            raise BuildFault(fault.sentence) from None
        told = msgspec.json.decode(body, type=_Manifest)
        blobs = [*told.layers, *([told.config] if told.config else [])]
        if image not in (digest, told.config.digest if told.config else ""):
            raise BuildFault(
                f"Another image was pushed as {target} at the same time.", "Build again."
            )
        return Pushed(digest, sum(one.size for one in blobs))


def push_under(
    daemon: Images,
    image: str,
    reference: str,
    credentials: Mapping[str, str],
    heed: Callable[[Step], None],
) -> None:
    """Push an image under a name that it has for this long only, unless the daemon had that name.

    Whoever else builds or runs the same image may take the name away meanwhile: then it is given
    again. Raises Refused, also for what the registry refuses, and OSError.
    """
    name, tag = name_and_tag(reference)
    had = daemon.image(reference) is not None
    try:
        for number in range(_TRIES):
            daemon.tag(image, name, tag)
            errors = []
            for step in daemon.push(name, tag, credentials, SILENCE, without_tls=False):
                if step.error is not None:
                    errors.append(step.error)
                else:
                    heed(step)
            if not errors:
                return
            if _UNNAMED not in errors[0] or number + 1 == _TRIES:
                raise Refused(500, errors[0])
            had = False
    finally:
        if not had:
            with suppress(Refused):  # somebody else has removed it
                daemon.remove_image(reference)


def _plain(error: str) -> str:
    """What an error says, without who has passed it on."""
    while (shorter := _BEGINNING.sub("", error)) != error:
        error = shorter
    return error


class _Blob(msgspec.Struct):
    digest: str
    size: int


class _Manifest(msgspec.Struct):
    config: _Blob | None = None
    layers: list[_Blob] = []


def _given(user: str, password: str) -> Mapping[str, str]:
    return {"username": user, "password": password}


def _reference(text: str) -> Reference:
    try:
        return parse(text)
    except InvalidInput as wrong:
        raise BuildFault(f"--destination: {wrong}") from None
