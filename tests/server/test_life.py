"""The life of a job: properties of it over whatever may happen, in any order."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.domain.jobs import JobStatus, Reason, RestartPolicy
from neuro.engines.base import ExitCause, RunRef, RunState, Started
from neuro.server.jobs import life
from neuro.server.jobs.phases import Event, Phase
from tests.server.life import BEGINNING, World, check_step, exited, new_job, started, waiting

MOMENTS = st.integers(0, 5000).map(lambda seconds: BEGINNING + timedelta(seconds=seconds))
RUNS = st.integers(0, 2)
# Those that nothing more is told of.
BARE = [
    *(Event.SUBMITTED, Event.TAKEN_OVER, Event.FOUND),
    *(Event.START_DONE, Event.NOT_ASKED, Event.ABSENT),
]
ANY = st.one_of(
    st.builds(life.Told, st.sampled_from(BARE), st.none() | RUNS),
    st.builds(life.Unknown, st.just("too many open files")),
    st.builds(
        life.Given, st.sampled_from([Event.PLACED, Event.MOVED]), st.just(("1",)), st.just("node-1")
    ),
    st.builds(started, RUNS, MOMENTS),
    st.builds(waiting, RUNS, st.sampled_from([0.1, 0.5]), MOMENTS),
    st.builds(exited, RUNS, st.sampled_from([0, 3, None]), st.sampled_from(ExitCause), MOMENTS),
    st.builds(
        life.StartTrouble,
        st.sampled_from([Event.START_FAILED, Event.REFUSED, Event.NO_ROOM]),
        RUNS,
        st.just("x"),
    ),
    st.builds(life.StopAsked, st.sampled_from([Reason.USER_REQUESTED, Reason.ADDRESS_CHANGED])),
    st.builds(
        life.StopAnswered,
        st.sampled_from([Event.STOP_DONE, Event.NOTHING_TO_STOP, Event.STOP_FAILED]),
        st.integers(0, 3),
    ),
    st.builds(life.Alarm, st.none() | st.just("4 CPU")),
    st.builds(life.LifeSpanSet, st.none() | st.integers(1, 60)),
)
JOBS = st.builds(new_job, st.sampled_from(RestartPolicy), st.sampled_from([None, None, 60.0]))


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_job_in_a_queue_hears_of_the_return_only_what_it_needs(timeout: float | None) -> None:
    job = new_job(schedule_timeout=timeout)

    told = life.on_return(job, None, BEGINNING)

    due = BEGINNING + timedelta(seconds=60)
    effects = [effect for each in told for effect in life.decide(job, each, BEGINNING).effects]
    assert effects == ([] if timeout is None else [life.Timer(due)])
    assert (told == []) == (timeout is None)


@settings(deadline=None, max_examples=200)
@given(JOBS, st.lists(st.tuples(ANY, MOMENTS), max_size=40))
def test_nothing_that_is_told_makes_two_ends_or_undoes_one(
    job: life.JobRecord, told: list[tuple[life.Happening, life.datetime]]
) -> None:
    for happening, now in told:
        after, effects = life.decide(job, happening, now)
        check_step(job, after)
        assert job.is_active or not effects
        assert (life.Free() in effects) == (job.is_active and not after.is_active)
        job = after


@settings(deadline=None, max_examples=200)
@given(st.data(), JOBS)
def test_a_job_has_a_next_event_until_it_is_over_and_leaves_no_run_behind(
    data: st.DataObject, job: life.JobRecord
) -> None:
    world = World(job, pulls=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(0, 40))):
        happens(data, world)
    if world.record.is_active and world.record.stop_reason is None:
        world.tell(life.StopAsked(Reason.USER_REQUESTED))
    for _ in range(100):  # enough for whatever is on its way
        if not world.moves:
            break
        world.moves[0]()

    assert not world.moves
    assert not world.record.is_active
    assert not world.begun


def happens(data: st.DataObject, world: World) -> None:
    """One thing that may happen now."""
    can = [
        world.end_all,
        lambda: world.end_all(0),
        world.ring_early,
        world.begin_again,
        world.break_off,
        lambda: world.tell(life.StopAsked(Reason.USER_REQUESTED)),
        lambda: world.tell(life.LifeSpanSet(data.draw(st.none() | st.integers(1, 60)))),
        *world.moves,
        *world.moves,
    ]
    if world.asked:
        can += [
            lambda: world.fail_to_start(does=data.draw(st.booleans())),
            world.refuse,
            world.take_back,
        ]
    if world.stops:
        can.append(lambda: world.fail_to_stop(does=data.draw(st.booleans())))
    if world.unheard and world.compared is None:
        place = data.draw(st.integers(0, len(world.unheard) - 1))
        can.append(lambda: world.hear(place, again=data.draw(st.booleans())))
    if world.timer is not None:
        can.append(world.ring)
    data.draw(st.sampled_from(can))()


def test_a_run_that_begins_though_its_start_failed_is_that_of_the_job() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.ask()
    world.fail_to_start(does=True)
    assert world.record.phase is Phase.PAUSING

    world.hear()

    assert (world.record.phase, world.timer) == (Phase.RUNNING, None)


def test_an_end_that_is_told_before_the_beginning_is_the_end() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.tell(exited(0, 3, ExitCause.ERROR))

    world.tell(started(0))

    assert (world.record.status, world.record.exit_code) == (JobStatus.FAILED, 3)


@pytest.mark.parametrize("late", [True, False])
def test_a_late_word_of_an_earlier_try_ends_no_run(late: bool) -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.tell(started(0))
    if late:
        world.tell(life.StopAsked(Reason.USER_REQUESTED))

    world.tell(exited(0, None, ExitCause.NOT_READY))

    assert world.record.phase is (Phase.STOPPING if late else Phase.RUNNING)


def test_a_stop_that_the_engine_failed_at_is_tried_again() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.begin(0)
    world.hear()
    world.tell(life.StopAsked(Reason.USER_REQUESTED))
    world.fail_to_stop(does=False)

    world.ring()
    world.stop()
    world.hear()

    assert world.record.status is JobStatus.CANCELLED


def test_the_answer_to_an_earlier_stop_ends_nothing() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.ask()
    world.tell(life.StopAsked(Reason.USER_REQUESTED))
    world.fail_to_start(does=True)  # after the engine was asked to stop what was not there yet
    first, second = world.stops

    world.tell(life.StopAnswered(Event.NOTHING_TO_STOP, first))
    assert world.record.phase is Phase.WITHDRAWING
    world.tell(life.StopAnswered(Event.NOTHING_TO_STOP, second))

    assert world.record.status is JobStatus.CANCELLED


def test_what_a_run_waits_for_is_said_and_its_progress_is_no_history() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    steps = len(world.record.transitions)

    for progress, said in ((0.1, "10%"), (0.7, "70%"), (0.4, "70%")):  # the last one comes late
        world.tell(waiting(0, progress))

        assert len(world.record.transitions) == steps + 1
        last = world.record.transitions[-1]
        assert (last.status, last.reason) == (JobStatus.PENDING, "Pulling")
        assert last.description == f"The image is pulled ({said})"


def test_a_start_says_where_and_ends_what_it_waited_for() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.tell(waiting(0, 0.5))

    world.tell(Started(ref=RunRef("job-1"), at=BEGINNING + timedelta(seconds=9), where="node-7"))
    world.tell(waiting(0, 0.9, BEGINNING + timedelta(seconds=20)))

    last = world.record.transitions[-1]
    assert (last.status, last.reason, last.description) == (
        *(JobStatus.RUNNING, None),
        "It runs on node-7",
    )


def test_a_waiting_run_does_not_put_off_the_next_try_of_its_start() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.ask()
    world.fail_to_start(does=True)
    due = world.timer

    world.now += timedelta(seconds=1)
    world.tell(waiting(0, 0.5, world.now))

    assert (world.record.phase, world.timer) == (Phase.PAUSING, due)


def test_a_server_that_begins_says_what_a_run_waits_for() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    state = RunState(waiting=waiting(0, 0.3))

    for happening in life.on_return(world.record, state, BEGINNING):
        world.tell(happening)

    assert world.record.transitions[-1].description == "The image is pulled (30%)"


def test_a_stop_between_two_starts_of_one_run_waits_for_what_the_first_brought_about() -> None:
    world = World(new_job())
    world.tell(life.Given(Event.PLACED, ()))
    world.break_off()
    world.ask()
    world.start()
    world.be_told()  # what was so before it began: it is to be started again
    world.tell(life.StopAsked(Reason.USER_REQUESTED))

    world.ask()
    assert world.record.is_active
    world.stop()
    world.hear()
    world.hear()

    assert (world.record.status, world.record.exit_code) == (JobStatus.CANCELLED, 143)
