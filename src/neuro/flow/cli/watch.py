"""Watching a bake: its tasks as they change, redrawn in a terminal, or a line for each change.

A thread reads the server's stream of events; the main one waits for them, draws, and hears Ctrl-C.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import aclosing
from enum import Enum, auto
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Protocol

from msgspec import structs

from neuro.cli.outage import PAUSE, Outage
from neuro.cli.output import Output
from neuro.cli.render.redrawing import Redrawing
from neuro.cli.render.times import local_now
from neuro.client.blocking import run
from neuro.domain.bakes import BakeEvent, Task, TaskStatus
from neuro.domain.errors import PlatformError
from neuro.flow.cli.bake_looks import called, word_of
from neuro.flow.cli.board import Board, change_line, waits_for
from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.waiting import Waiting

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake

# Clocks on the screen move; and changes that come together are drawn together.
_TICK, _TOGETHER = 1.0, 0.05
_GRACE = 5.0


class Sign(Enum):
    """A message between events."""

    BEGIN = auto()  # a connection, which tells all once more
    WAKE = auto()  # the driver has ended


class Left(Exception):
    """The person pressed Ctrl-C: the bake goes on without being watched."""


class Screen(Protocol):
    """Shows a board; ``everything`` asks for the tasks too that begin to wait for their start."""

    everything: bool

    def changed(self, board: Board, tasks: list[Task]) -> None:
        """Of these tasks something new is known, or of none, and time has passed."""
        ...

    def say(self, text: str) -> None:
        """Something besides."""
        ...


class Lines:
    """A line for each change: for logs and pipes."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.everything = out.verbose > 0
        self._ahead: tuple[str, ...] = ()
        self._waiting: set[str] = set()

    def changed(self, board: Board, tasks: list[Task]) -> None:
        now = local_now()
        if self._ahead != (ahead := tuple(board.ahead)) and not board.attempt.result.is_finished:
            self._ahead = ahead
            if ahead:
                self._out.print(f"{now:%H:%M:%S} {waits_for(ahead)}")
        for task in tasks:
            self._out.print(change_line(task, now))
        for task_id in board.reasons.keys() - self._waiting:
            self._out.print(f"{now:%H:%M:%S} {task_id}: pending: {board.reasons[task_id]}")
        self._waiting = {*board.reasons}
        if tasks or ahead or self._waiting:
            self._out.flush()

    def say(self, text: str) -> None:
        self._out.note(text)


class Silence:
    """Nothing at all: ``--quiet``."""

    everything = False

    def changed(self, board: Board, tasks: list[Task]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Redrawn:
    """A table that is drawn over the one before."""

    everything = False

    def __init__(self, context: FlowContext) -> None:
        self._paint = context.paint
        self._screen = Redrawing()
        self.say = self._screen.say  # The table moves down: what was said stays above it.

    def changed(self, board: Board, tasks: list[Task]) -> None:
        import shutil

        for task in tasks:
            # What calls give would be seen nowhere: the table has the tasks in them.
            if board.is_call(task.yaml_id) and task.status.is_finished and task.outputs:
                self.say(change_line(task, local_now()))
        width, height = shutil.get_terminal_size()
        self._screen.draw(board.lines(local_now(), self._paint, width=width, height=height))


def screen_of(context: FlowContext, *, as_json: bool = False) -> Screen:
    """The one that fits where the output goes."""
    if as_json:
        from neuro.flow.cli.bake_json import JsonLines

        return JsonLines(context.out)
    if context.out.quiet:
        return Silence()
    # Other remarks of -v would stand in the table.
    can_move = os.environ.get("TERM") != "dumb"
    is_drawn = context.out.is_terminal and can_move and not context.out.verbose
    return Redrawn(context) if is_drawn else Lines(context.out)


class Events:
    """The events of an attempt, read in a thread; after a lost connection they come again."""

    def __init__(self, context: FlowContext, bake_id: str, number: int) -> None:
        self._context = context
        self._bake_id = bake_id
        self._number = number
        self._queue: SimpleQueue[BakeEvent | BaseException | Sign | str] = SimpleQueue()
        self._outage = Outage(self._queue.put)

    def start(self) -> None:
        Thread(target=self._read, name="events", daemon=True).start()

    def wake(self) -> None:
        """End a wait for what comes next, from another thread."""
        self._queue.put(Sign.WAKE)

    def next(self, timeout: float) -> BakeEvent | Sign | str | None:
        """The next event, sign or remark; None for nothing in time.

        Raises what ended the reading.
        """
        try:
            found = self._queue.get(timeout=max(timeout, 0.001))
        except Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found

    def _read(self) -> None:
        try:
            self._read_on()
        except BaseException as error:
            self._queue.put(error)

    def _read_on(self) -> None:
        while True:
            try:
                run(self._read_once())
                pause = PAUSE
            except PlatformError as error:
                if address := self._context.follow_server(self._bake_id):
                    self._queue.put(f"The server is at {address} now.")
                    continue
                pause = self._outage.lost(error)
            time.sleep(pause)

    async def _read_once(self) -> None:
        bakes = self._context.client.bakes
        self._queue.put(Sign.BEGIN)
        async with aclosing(bakes.events(self._bake_id, self._number)) as events:
            async for event in events:
                self._outage.over()
                self._queue.put(event)


class Driver(Protocol):
    """Who drives the bake from this process, if anybody does."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing to come. Raises what it failed of."""
        ...

    def call_at_end(self, wake: Callable[[], None]) -> None:
        """Have something called when ``ended`` has changed, from any thread."""
        ...

    def interrupt(self) -> str:
        """Ctrl-C: cancel the bake; what to say of it. Raises KeyboardInterrupt the second time."""
        ...


def watch(
    context: FlowContext,
    bake: Bake,
    attempt: Attempt,
    driver: Driver | None = None,
    *,
    as_json: bool = False,
) -> Board:
    """Show the attempt until it is over. Raises Left after Ctrl-C, unless a driver takes it."""
    board, screen = Board(bake, attempt), screen_of(context, as_json=as_json)
    events = Events(context, bake.id, attempt.number)
    events.start()
    if driver is not None:
        driver.call_at_end(events.wake)
    waiting = Waiting(context, board)
    settled_by = 0.0 if attempt.result.is_finished else None
    while True:
        try:
            _step(context, board, screen, events)
            waiting.look()
            if driver is not None and driver.ended:
                driver = None  # Its last events may still be on their way.
            if driver is not None or not board.is_over:
                continue
            # Of a bake that was cancelled, the ends of its tasks are still to come.
            settled_by = time.monotonic() + _GRACE if settled_by is None else settled_by
            if board.is_settled or time.monotonic() > settled_by:
                return board
        except KeyboardInterrupt:
            if driver is None:
                raise Left from None
            screen.say(driver.interrupt())


def _step(context: FlowContext, board: Board, screen: Screen, events: Events) -> None:
    """Wait for something to happen, take what comes with it, and show it."""
    changed: list[Task] = []
    wait, until = _TICK, time.monotonic() + _TICK
    while wait > 0:
        found = events.next(wait)
        if found is None:
            break
        if isinstance(found, str):
            screen.say(found)
            continue
        if found is Sign.BEGIN:
            board.begin()
            continue
        if found is Sign.WAKE:
            break
        if found.ahead:
            ahead = [_name_of(context, found.ahead[0]), *found.ahead[1:]]
            found = structs.replace(found, ahead=ahead)
        task = board.take(found)
        if task is not None:
            if not board.knows(task.yaml_id):
                board.see(context.run(context.client.bakes.get(board.bake.id)))
            if task.status is not TaskStatus.PENDING or screen.everything:
                changed.append(task)
        until = min(until, time.monotonic() + _TOGETHER)
        wait = until - time.monotonic()
        if board.is_over:
            break  # Nothing is waited for after the end.
    screen.changed(board, changed)


def _name_of(context: FlowContext, bake_id: str) -> str:
    """The name of a bake, of which an event has only the id."""
    try:
        return called(context.run(context.client.bakes.get(bake_id)))
    except PlatformError:
        return bake_id


def watch_to_end(
    context: FlowContext,
    bake: Bake,
    attempt: Attempt,
    driver: Driver | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Watch, tell how it ended, and return the exit code; Ctrl-C leaves the bake alone.

    ``as_json`` prints a line for each change instead, and a last one of the bake.
    """

    try:
        board = watch(context, bake, attempt, driver, as_json=as_json)
    except Left:
        name = word_of(bake)
        context.out.note(
            f"\nBake {called(bake)} goes on.\n"
            f"  neuro-flow inspect --watch {name}   # come back to it\n"
            f"  neuro-flow cancel {name}            # stop it"
        )
        return 0
    if as_json:
        from neuro.flow.cli.bake_json import bake_line

        ended = context.run(context.client.bakes.get(bake.id))
        context.out.print(bake_line(ended, board.attempt))
        return 0 if board.attempt.result is TaskStatus.SUCCEEDED else 1
    from neuro.flow.cli.ending import tell_end

    return tell_end(context, board)
