"""One job, its engine and its clock, without I/O: what happens to them is for a test to choose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from neuro.domain.jobs import Container, Priority, Reason, Resources, RestartPolicy
from neuro.domain.resources import GIB, Amount
from neuro.engines.base import Event as EngineEvent
from neuro.engines.base import ExitCause, Exited, RunRef, RunState, Started, Waiting, WaitReason
from neuro.server.jobs import life
from neuro.server.jobs.phases import ENDING, Event, Phase
from neuro.server.jobs.record import JobRecord, Specification

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def new_job(
    policy: RestartPolicy = RestartPolicy.NEVER, schedule_timeout: float | None = None
) -> JobRecord:
    """A job as it is submitted."""
    resources = Resources(cpu=1, memory=GIB, memory_mb=1024, shm=False)
    return JobRecord(
        id="job-1",
        owner="alice",
        name=None,
        cluster="default",
        engine="sandbox",
        priority=Priority.NORMAL,
        created_at=BEGINNING,
        specification=Specification(
            container=Container(image="ubuntu", resources=resources),
            amount=Amount(cpu=1, memory=GIB),
            restart_policy=policy,
            schedule_timeout=schedule_timeout,
        ),
    ).stepped(Reason.CREATING, BEGINNING)


def exited(run: int, code: int | None, cause: ExitCause, at: datetime = BEGINNING) -> Exited:
    return Exited(ref=RunRef("job-1", run), at=at, exit_code=code, cause=cause)


def started(run: int, at: datetime = BEGINNING) -> Started:
    return Started(ref=RunRef("job-1", run), at=at)


def waiting(run: int, progress: float, at: datetime = BEGINNING) -> Waiting:
    """An image that is on its way."""
    return Waiting(
        ref=RunRef("job-1", run),
        at=at + timedelta(seconds=progress),
        reason=WaitReason.PULLING,
        description="The image is pulled",
        progress=progress,
    )


class World:
    """What the reconciler, an engine and the clock hold for one job."""

    def __init__(self, record: JobRecord, *, pulls: bool = False) -> None:
        """``pulls``: the engine says what a run waits for before it starts."""
        self.pulls = pulls
        self.record = record
        self.now = BEGINNING
        self.begun: set[int] = set()  # runs that go on at the engine
        self.over: dict[int, Exited] = {}
        self.unheard: list[EngineEvent] = []
        self.to_ask: list[int] = []  # runs that the engine is to be asked for
        self.asked: list[int] = []  # those whose start it has not answered
        self.stops: list[int] = []  # the numbers of stops that it has not answered
        self.timer: datetime | None = None
        self.barred: set[int] = set()  # runs that no earlier start brings about
        self.freed = 0
        # What the engine is asked, and will answer, before any event is heard again.
        self.compared: tuple[JobRecord, RunState | None] | None = None
        self.tell(life.Told(Event.SUBMITTED))

    def tell(self, happening: life.Happening) -> None:
        """Decide, check what holds of every decision, and keep what is to be done."""
        before = self.record
        self.record, effects = life.decide(before, happening, self.now)
        check_step(before, self.record)
        again = life.decide(self.record, happening, self.now)
        once = isinstance(happening, Exited) and happening.cause is ExitCause.NOT_READY
        if not (once or isinstance(happening, life.Told | life.StopAsked | life.Alarm)):
            assert again == life.Decision(self.record)
        for effect in effects:
            match effect:
                case life.Start(run):
                    self.to_ask.append(run)
                case life.Stop(number):
                    self.stops.append(number)
                case life.Timer(at):
                    self.timer = at
                case life.Free():
                    self.freed += 1
                    self.timer = None
        assert self.freed == (not self.record.is_active)
        assert not self.record.is_active or self.has_a_next()

    def has_a_next(self) -> bool:
        """Whether anything is on its way that will be told of this job."""
        run = self.record.run
        return bool(
            self.record.phase is Phase.WAITING  # the next look at the queue
            or self.compared is not None
            or self.timer is not None
            or run in self.to_ask
            or run in self.asked
            or self.record.stops in self.stops
            or run in self.begun
            or any(event.ref.run == run for event in self.unheard)
        )

    @property
    def moves(self) -> list[Callable[[], None]]:
        """All that may happen next by itself; the end of the job follows from enough of it."""
        found: list[Callable[[], None]] = []
        if self.record.phase is Phase.WAITING:
            found.append(lambda: self.tell(life.Given(Event.PLACED, ())))
        if self.to_ask and self.to_ask[0] not in self.asked:
            found.append(self.ask)
        if self.asked:
            found.append(self.start)
        if self.stops:
            found.append(self.stop)
        if self.compared is not None:
            found.append(self.be_told)
        elif self.unheard:
            found.append(self.hear)
        if self.timer is not None and self.record.phase is not Phase.RUNNING:
            found.append(self.ring)
        return found

    def ask(self) -> None:
        run = self.to_ask.pop(0)
        if run != self.record.run:
            return
        if self.record.phase is Phase.STARTING:
            self.asked.append(run)
        else:
            self.tell(life.Told(Event.NOT_ASKED, run))

    def begin(self, run: int) -> None:
        if run not in self.begun | self.barred and run not in self.over:
            self.begun.add(run)
            if self.pulls:
                self.unheard += [waiting(run, progress, self.now) for progress in (0.1, 0.4)]
            self.unheard.append(started(run, self.now))

    def start(self) -> None:
        run = self.asked.pop(0)
        self.begin(run)
        self.tell(life.Told(Event.START_DONE, run))

    def fail_to_start(self, *, does: bool) -> None:
        run = self.asked.pop(0)
        if does:
            self.begin(run)
        self.tell(life.StartTrouble(Event.START_FAILED, run, "the disk is full"))

    def refuse(self) -> None:
        self.tell(life.StartTrouble(Event.REFUSED, self.asked.pop(0), "never"))

    def take_back(self) -> None:
        """The engine accepts a run, and finds out that it cannot begin it now."""
        run = self.asked.pop(0)
        if run not in self.begun and run not in self.over:
            self.unheard.append(exited(run, None, ExitCause.NOT_READY, self.now))
        self.tell(life.Told(Event.START_DONE, run))

    def stop(self) -> None:
        number, run = self.stops.pop(0), self.record.run
        has_it = run in self.begun or run in self.over
        if not has_it:
            self.barred.add(run)
        self.end_all()
        answer = Event.STOP_DONE if has_it else Event.NOTHING_TO_STOP
        self.tell(life.StopAnswered(answer, number))

    def fail_to_stop(self, *, does: bool) -> None:
        number = self.stops.pop(0)
        if does:
            self.end_all()
        self.tell(life.StopAnswered(Event.STOP_FAILED, number))

    def end_all(self, code: int = 143) -> None:
        """All runs at the engine end."""
        for run in sorted(self.begun):
            cause = ExitCause.ERROR if code else ExitCause.COMPLETED
            self.over[run] = exited(run, code, cause, self.now)
            self.unheard.append(self.over[run])
        self.begun.clear()

    def hear(self, place: int = 0, *, again: bool = False) -> None:
        """One event, which comes ``again`` later; but for NOT_READY, of which nothing is left."""
        event = self.unheard.pop(place)
        if again and not (isinstance(event, Exited) and event.cause is ExitCause.NOT_READY):
            self.unheard.append(event)
        self.tell(event)

    def ring(self) -> None:
        if self.timer is not None:
            self.now = max(self.now, self.timer)
            self.timer = None
            self.tell(life.Alarm("its turn"))

    def ring_early(self) -> None:
        if self.timer is not None and self.now < self.timer - timedelta(milliseconds=1):
            self.tell(life.Alarm())

    def begin_again(self) -> None:
        """The server is killed, and another one takes over: what was on its way is lost."""
        self.unheard.clear()
        self.to_ask.clear()
        self.asked.clear()
        self.stops.clear()
        self.timer = self.compared = None
        if not self.record.is_active:
            return
        self.record = as_kept(self.record)
        for happening in life.on_return(self.record, self.state, self.now):
            self.tell(happening)

    @property
    def state(self) -> RunState | None:
        """What the engine says of the job's run."""
        run = self.record.run
        if run in self.begun:
            return RunState(started=started(run, self.now))
        return RunState(exited=self.over[run]) if run in self.over else None

    def break_off(self) -> None:
        """The events break off, with what was on its way, and the engine is asked what was missed.

        Of a job without a place it is asked nothing.
        """
        self.unheard.clear()
        self.compared = (self.record, self.state) if self.record.placed else None

    def be_told(self) -> None:
        """It answers, whatever has happened meanwhile."""
        assert self.compared is not None
        (asked, state), self.compared = self.compared, None
        for happening in life.on_resync(asked, state, self.now):
            self.tell(happening)


def as_kept(record: JobRecord) -> JobRecord:
    """A record as the next server reads it from the database."""
    phase = {Phase.PAUSING: Phase.STARTING, Phase.WITHDRAWING: Phase.RECALLING}.get(
        record.phase, record.phase
    )
    return replace(record, phase=phase, wake_at=None, tries=0, stops=0)


def check_step(before: JobRecord, after: JobRecord) -> None:
    """Raise AssertionError unless one event may make this of a job."""
    ends = [step for step in after.transitions if step.status.is_finished]
    assert len(ends) == (not after.is_active)
    assert ends in ([], [after.transitions[-1]])
    assert after.status is after.transitions[-1].status
    if not before.is_active:
        assert after is before
    if before.stop_reason is not None:
        assert after.stop_reason == before.stop_reason
    assert after.phase not in ENDING or after.stop_reason is not None
    assert after.phase is Phase.OVER or (after.phase in ENDING) == (after.stop_reason is not None)
    assert before.run <= after.run <= before.run + 1
    assert (after.started_at is None) == (after.run == 0 and after.status.value == "pending") or (
        after.started_at == before.started_at
    )
