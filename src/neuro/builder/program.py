"""From the arguments to an image that is pushed, and to the exit code."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn, TextIO

import msgspec

from neuro.builder import arguments, credentials, files
from neuro.builder.arguments import Options
from neuro.builder.bases import Bases, OwnRegistry
from neuro.builder.building import Building
from neuro.builder.cache import Cache, Settling
from neuro.builder.exporting import Exporter, summary
from neuro.builder.faults import BuildFault, StepFailed
from neuro.builder.orders import Order
from neuro.builder.reporting import Report
from neuro.builder.running import Running
from neuro.builder.sources import Sources
from neuro.docker import build_place
from neuro.dockerfile.image import Image
from neuro.dockerfile.plan import plan
from neuro.dockerfile.platforms import Platform, normalized, parse_platform
from neuro.dockerfile.stages import origins
from neuro.dockerfile.steps import BaseImage, ImagesNeeded, Plan
from neuro.dockerfile.tree import Dockerfile, DockerfileError
from neuro.domain.images import BUILD_CACHE, with_tag
from neuro.domain.problems import Position, Problem
from neuro.engines.images.connections import Connections
from neuro.engines.images.manifests import this_machine
from neuro.engines.images.reach import Reach, of_environment
from neuro.engines.sandbox import nesting

_JOB = "NEURO_JOB_ID"  # whose context is a volume
_NOT_PUSHED = "Built, and not pushed.\n"
_MOST = 20 << 30  # bytes of layers that stay for later builds
_PATIENCE = 30.0  # seconds
_LOOK_UPS = 4  # at once


def main() -> NoReturn:
    """Build what the arguments say."""
    signal.signal(signal.SIGTERM, _end)
    try:
        code = run(sys.argv[1:], dict(os.environ), sys.stdout)
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    # Threads that wait for the disk must not keep a build that is over.
    os._exit(code)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    out: TextIO,
    cache: str = BUILD_CACHE,
    daemon: str = nesting.DAEMON,
) -> int:
    """Build an image; 0, or 1 with the reason in ``out``. Raises SystemExit when it is stopped.

    ``daemon`` is where the daemon of the machine answers, if it is to build.
    """
    report = Report(out)
    try:
        options = arguments.read(argv, dict(environment))
        if options.help:
            report.write(arguments.HELP)
            return 0
        _build(options, environment, report, Cache(cache), daemon)
    except DockerfileError as wrong:
        report.write(f"{wrong}\n")
        return 1
    except BuildFault as fault:
        report.write(f"ERROR: {fault.sentence}\n")
        if fault.hint:
            report.write(f"  {fault.hint}\n")
        return 1
    except SystemExit as ended:
        report.write("The build was stopped.\n")
        return int(ended.code or 0)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        report.write(f"ERROR: {error.strerror or error}{place}.\n")
        return 1
    finally:
        report.flush()
    return 0


def _build(
    options: Options, environment: Mapping[str, str], report: Report, cache: Cache, daemon: str
) -> None:
    volumes = arguments.volumes(environment)
    is_job = _JOB in environment or nesting.read() is not None
    sources = Sources(tuple(one.path for one in volumes), is_job)
    folder = files.context_folder(options.context, sources)
    tree, path = files.dockerfile(folder, options.dockerfile, sources)
    platform = _platform(options.platform)
    reach = _reach(options, environment)
    passwords = credentials.load(environment).at(options.places)
    cache.open()
    Settling(cache).start()

    def warn(sentence: str) -> None:
        report.write(f"WARNING: {sentence}\n")

    with ExitStack() as stack:
        is_stored = _JOB in environment
        context = stack.enter_context(files.context(folder, path, sources, is_stored=is_stored))
        own = None if options.own is None else OwnRegistry(*options.own)
        lines = stack.enter_context(Connections())
        bases = stack.enter_context(
            Bases(cache, passwords, reach, own, warn, options.mirrors, lines)
        )
        made = _planned(tree, options, platform, bases, report)
        for note in made.notes:
            report.write(f"WARNING: {note.render()}\n")
        order = Order(
            tree, made, options, context, bases, passwords, sources, volumes, reach, report, lines
        )
        added = None
        try:
            if not _built_by_daemon(order, environment, daemon):
                added = _build_here(order, cache)
        except StepFailed as failed:
            raise DockerfileError([_problem(failed, tree, report)]) from None
    if added is None or not cache.is_to_be_swept(added):
        return  # nothing has grown much, and somebody waits
    try:
        cache.sweep(_MOST)
        bases.sweep(_MOST)
    except OSError as error:
        warn(f"The cache of builds cannot be tidied: {error.strerror or error}.")


def _reach(options: Options, environment: Mapping[str, str]) -> Reach:
    """Where the build may go. What is asked by http, its arguments say: but not what is near."""
    given = of_environment(environment)
    own = () if options.own is None else options.own[:1]
    insecure = (*given.insecure, *options.insecure)
    return msgspec.structs.replace(given, insecure=insecure, local=(*given.local, *own))


def _build_here(order: Order, cache: Cache) -> int | None:
    """Carry the plan out; bytes of the layers that it made, if any. Raises BuildFault, OSError."""
    options, report = order.options, order.report
    with ExitStack() as stack:
        running = Running(cache, order.context, options.secrets, order.volumes, order.sources)
        anew = not options.cache
        building = Building(
            order.plan,
            cache,
            order.bases,
            order.context,
            running,
            report,
            reach=order.reach,
            anew=anew,
        )
        stack.callback(building.close)
        result = building.run()
        if not options.push:
            report.write(_NOT_PUSHED)
            return building.added
        image = _labelled(order.plan.image, options.labels)
        scratch = stack.enter_context(cache.scratch())
        exporter = Exporter(
            order.credentials,
            order.reach,
            report,
            scratch,
            own="" if options.own is None else options.own[0],
            whole=options.whole,
            connections=order.connections,
        )
        pushed = exporter.push(image, result, options.destinations)
        size = sum(one.size for one in (*pushed.layers, pushed.config_blob))
        _tell(order, pushed.digest, size)
        return building.added


def _built_by_daemon(order: Order, environment: Mapping[str, str], daemon: str) -> bool:
    """Let the daemon of the machine build, where this build has one, and it can.

    Raises BuildFault.
    """
    if not os.path.exists(daemon):
        return False
    # Few builds have one, and what it imports takes a while.
    from neuro.builder.buildkit import driving, fitting

    place = driving.Place(daemon, *build_place.of_environment(environment))
    build = driving.Driving(place, order)
    try:
        build.fit()
        pushed = build.run()
    except fitting.Unfit as unfit:
        order.report.write(f"NOTE: The platform's own builder builds this: {unfit}.\n")
        _close(daemon)
        return False
    if pushed is None:
        order.report.write(_NOT_PUSHED)
    else:
        _tell(order, pushed.digest, pushed.size)
    return True


def _close(place: str) -> None:
    """Have the way to the daemon closed for good. Raises BuildFault.

    The commands of our own builder run beside it, and it is as good as root on the machine.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(place)
            connection.sendall(nesting.LAST_WORD)
            while connection.recv(1 << 10):
                pass
    except ConnectionRefusedError:
        return
    except OSError:
        pass  # whatever is wrong: nobody must get there now
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(place)
    except (ConnectionRefusedError, FileNotFoundError):
        return
    raise BuildFault("The way to the daemon that builds cannot be closed.", "Build again.")


def _tell(order: Order, digest: str, size: int) -> None:
    options = order.options
    if options.digest_file:
        files.write(options.digest_file, digest)
    order.report.write(summary(digest, size, options.destinations))


def _planned(
    tree: Dockerfile, options: Options, platform: Platform, bases: Bases, report: Report
) -> Plan:
    """The plan, with all base images looked up. Raises DockerfileError, BuildFault."""

    def look_up(image: BaseImage, hint: str) -> None:
        task = report.begin(f"[internal] load metadata for {image.reference}")
        try:
            bases.look_up(image, hint)
        except BuildFault as fault:
            task.fail(fault.sentence)
            raise _at_its_line(fault, image, tree) from None
        task.end(held=True)

    build = _platform("")
    while True:
        made = plan(
            tree,
            options.target,
            options.arguments,
            platform,
            build_platform=build,
            images=bases.images,
        )
        needed = made.images if isinstance(made, ImagesNeeded) else _others(made, bases)
        if not needed:
            assert isinstance(made, Plan)
            return made
        if len(needed) == 1:
            look_up(needed[0], made.hints.get(needed[0].reference, ""))
            continue
        from concurrent.futures import ThreadPoolExecutor  # slow to import, and seldom needed

        with ThreadPoolExecutor(_LOOK_UPS, "look-up") as threads:
            told = [made.hints.get(one.reference, "") for one in needed]
            for _ in threads.map(look_up, needed, told):
                pass


def _at_its_line(fault: BuildFault, image: BaseImage, tree: Dockerfile) -> Exception:
    """The fault with the FROM or ``from=`` that names the image, where one does so plainly."""
    for stage in tree.stages:
        named = [(stage.begin.base.text, stage.begin.base.at)]
        named += [(name, at) for one in stage.instructions for name, at, _ in origins(one)]
        for name, at in named:
            if with_tag(name) == image.reference:
                return DockerfileError([Problem(fault.sentence, at, fault.hint or None)])
    return fault


def _others(made: Plan, bases: Bases) -> tuple[BaseImage, ...]:
    """Images that files are taken of, which no stage starts from."""
    images = bases.images
    pulled = (getattr(step, "image", None) for step in made.steps)
    return tuple(one for one in pulled if isinstance(one, BaseImage) and one not in images)


def _labelled(image: Image, labels: Mapping[str, str]) -> Image:
    if not labels:
        return image
    config = msgspec.structs.replace(image.config, labels={**(image.config.labels or {}), **labels})
    return msgspec.structs.replace(image, config=config)


def _platform(text: str) -> Platform:
    here = this_machine()
    default = normalized(Platform(here.os, here.architecture, here.variant))
    found = parse_platform(text, default) if text else default
    if found is None:
        raise BuildFault(f"'{text}' is not a platform.", "Write --platform=linux/amd64.")
    return found


def _problem(failed: StepFailed, tree: Dockerfile, report: Report) -> Problem:
    """What is wrong, with the place in the Dockerfile; the last lines of output come first."""
    if failed.output:
        lines = "\n".join(failed.output)
        report.write(f"------\n{lines}\n------\n")
    hint = failed.hint or None
    return Problem(failed.sentence, Position(tree.source, failed.line, 1), hint)
