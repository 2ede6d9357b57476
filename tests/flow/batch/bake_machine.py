"""Bakes without a platform: a workflow of text, and a machine that stands for the jobs' engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from neuro.domain.bakes import (
    CacheEntry,
    ConfigFile,
    ConfigsMeta,
    Task,
    TaskRequest,
    TaskStatus,
)
from neuro.domain.jobs import JobState, JobStatus, Reason
from neuro.flow.batch.instructions import (
    Finish,
    Kill,
    LookUp,
    ReadLog,
    Redraw,
    RunLocal,
    SaveRecord,
    Submit,
)
from neuro.flow.batch.requests import attempt_tag, submission_key
from neuro.flow.batch.state import BakeState
from neuro.flow.evaluate.batch.facts import Facts
from neuro.flow.evaluate.batch.sources import StoredFiles
from neuro.flow.evaluate.batch.workflow import stored_batch
from neuro.flow.model import Workflow, join_id

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = "attempt-1"


def workflow_of(text: str, actions: Mapping[str, str] | None = None) -> Workflow:
    """A batch of the text of its file; ``actions`` are texts of local files by their names."""

    def file(file_id: str, name: str, content: str) -> ConfigFile:
        return ConfigFile(id=file_id, bake_id="bake-1", filename=name, content=content)

    texts = {"flow": file("flow", "/ws/.neuro/b.yml", text)}
    for name, content in (actions or {}).items():
        texts[name] = file(name, f"/ws/{name}", content)
    configs = ConfigsMeta(
        workspace="/ws",
        flow_config_id="flow",
        action_config_ids={f"ws:{name}": name for name in actions or {}},
    )
    facts = Facts(bake_id="bake-1", batch="b", workspace=Path("/ws"), user="anna")
    return stored_batch(StoredFiles(configs, texts), facts, {})


@dataclass
class Job:
    """What the machine knows of a job."""

    id: str
    task: str
    number: int
    key: str
    created_at: datetime
    status: JobStatus = JobStatus.PENDING
    reason: str | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def state(self) -> JobState:
        return JobState(
            id=self.id,
            status=self.status,
            created_at=self.created_at,
            reason=self.reason,
            exit_code=self.exit_code,
            started_at=self.started_at,
            finished_at=self.finished_at,
            tags=[attempt_tag(1)],
        )


@dataclass
class Behaviour:
    """What becomes of a task's tries: exit codes by try (the last one stays), its outputs."""

    codes: tuple[int, ...] = (0,)
    outputs: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    cancelled: bool = False


class Machine:
    """Runs a bake: what a platform does in hours happens here at once, in a chosen order."""

    def __init__(
        self,
        make: Callable[[], Workflow],
        behaviours: Mapping[str, Behaviour] | None = None,
        *,
        seed: int = 0,
        records: Mapping[str, Task] | None = None,
        life_span: timedelta | None = None,
        eager: bool = False,
    ) -> None:
        self.make = make
        self.behaviours = dict(behaviours or {})
        self.random = random.Random(seed)
        self.now = BEGIN
        self.records: dict[str, Task] = dict(records or {})
        self.unwritten: list[TaskRequest] = []
        self.jobs: dict[str, Job] = {}
        self.by_key: dict[str, Job] = {}
        self.active: dict[str, Job] = {}
        self.cache: dict[tuple[str, str], CacheEntry] = {}
        self.kills: list[str] = []
        self.order: list[str] = []
        self.finish: Finish | None = None
        self.redraws: list[Redraw] = []
        self.life_span = life_span
        # Whether all that the state asks for is done before any job gets on.
        self.eager = eager
        self.most_at_once = 0
        self.todo: list[object] = []
        self.state = self.fresh_state()

    def fresh_state(self) -> BakeState:
        return BakeState(
            self.make(), ATTEMPT, list(self.records.values()), life_span=self.life_span, began=BEGIN
        )

    def start(self) -> None:
        self.state.start(self.now)
        for job in self.jobs.values():
            self.state.job_changed(job.state(), self.now)
        self.gather()

    def crash(self, keep: int) -> None:
        """Another executor takes over; of what waits to be written, the first ``keep`` are."""
        self.write(keep)
        self.unwritten.clear()
        self.todo.clear()
        self.state = self.fresh_state()
        self.start()

    def write(self, count: int) -> None:
        for request in self.unwritten[:count]:
            known = self.records.get(request.yaml_id)
            if known is not None and known.status.is_finished:
                assert known.status is request.statuses[-1].status, request
                continue
            self.records[request.yaml_id] = Task(
                id=f"task-{request.yaml_id}",
                attempt_id=ATTEMPT,
                yaml_id=request.yaml_id,
                raw_id=request.raw_id,
                outputs=request.outputs,
                state=request.state,
                statuses=request.statuses,
                message=request.message,
            )
            if request.cache_key is not None:
                self.cache[request.yaml_id, request.cache_key] = CacheEntry(
                    id="cache-entry-1",
                    project_id="p",
                    batch="b",
                    task_id=request.yaml_id,
                    key=request.cache_key,
                    created_at=self.now,
                    raw_id=request.raw_id or "",
                    outputs=request.outputs or {},
                    state=request.state or {},
                )
        del self.unwritten[:count]

    def gather(self) -> None:
        for action in self.state.take():
            if isinstance(action, SaveRecord):
                self.unwritten.append(action.request)
            elif isinstance(action, Finish):
                assert self.finish is None or self.finish == action
                self.finish = action
            elif isinstance(action, Redraw):
                self.redraws.append(action)
            else:
                self.todo.append(action)

    def act(self, action: object) -> None:
        """Do what the state asked for."""
        match action:
            case Submit():
                if not self.state.wants(action):
                    self.state.unsent(action.id, action.number, self.now)
                else:
                    job = self.submit(action)
                    self.state.submitted(action.id, action.number, job.state(), self.now)
            case LookUp():
                entry = self.cache.get((join_id(action.id), action.key))
                found = self.state.cached(action.id, entry, self.now) if entry else None
                if found is not None:
                    self.unwritten.append(found)
                    self.write(len(self.unwritten))
                self.state.looked_up(action.id, found, self.now)
            case ReadLog():
                way = self.way(self.jobs[action.job_id].task)
                self.state.log_read(
                    action.id, action.number, way.outputs, way.state, None, self.now
                )
            case Kill(job_id):
                self.kills.append(job_id)
                job = self.jobs[job_id]
                if not job.status.is_finished:
                    self.end(job, JobStatus.CANCELLED, Reason.USER_REQUESTED)
                    self.state.job_changed(job.state(), self.now)
            case RunLocal():
                raise AssertionError("a local action in the main phase")
        self.gather()

    def submit(self, action: Submit) -> Job:
        key = submission_key(ATTEMPT, action.id, action.number)
        if key not in self.by_key:
            job = Job(f"job-{len(self.jobs)}", join_id(action.id), action.number, key, self.now)
            self.jobs[job.id] = self.by_key[key] = job
            self.order.append(job.task)
            self.active[job.id] = job
            self.most_at_once = max(self.most_at_once, len(self.active))
        return self.by_key[key]

    def way(self, task: str) -> Behaviour:
        return self.behaviours.get(task, Behaviour())

    def end(self, job: Job, status: JobStatus, reason: str | None = None, code: int = 0) -> None:
        job.status, job.reason, job.finished_at = status, reason, self.now
        del self.active[job.id]
        job.exit_code = code if status is not JobStatus.CANCELLED else None

    def moves(self) -> list[Job]:
        """Some of the jobs that can get on by themselves."""
        found = (
            job
            for job in self.active.values()
            if job.status is JobStatus.PENDING or not self.way(job.task).hangs
        )
        return [*islice(found, 5)]

    def move(self, job: Job) -> None:
        """Start a job that is pending, end one that runs."""
        self.now += timedelta(milliseconds=10)
        if job.status is JobStatus.PENDING:
            job.status, job.started_at = JobStatus.RUNNING, self.now
        else:
            way = self.way(job.task)
            code = way.codes[min(job.number, len(way.codes)) - 1]
            if way.cancelled:
                self.end(job, JobStatus.CANCELLED, Reason.USER_REQUESTED)
            elif code == 0:
                self.end(job, JobStatus.SUCCEEDED)
            else:
                self.end(job, JobStatus.FAILED, Reason.ERROR, code)
        self.state.job_changed(job.state(), self.now)
        self.gather()

    def step(self) -> bool:
        """Let one thing happen, chosen by chance; False where nothing can."""
        choices: list[Callable[[], None]] = []
        if self.todo:
            index = self.random.randrange(len(self.todo))
            choices.append(lambda: self.act(self.todo.pop(index)))
        for job in [] if self.eager and self.todo else self.moves():
            choices.append(lambda job=job: self.move(job))  # type: ignore[misc]
        if choices:
            self.random.choice(choices)()
            return True
        wake = self.state.next_wake
        if wake is None or self.finish is not None:
            return False
        self.now = max(self.now, wake)
        self.state.wake(self.now)
        self.gather()
        return True

    def run(self, limit: int = 100_000) -> TaskStatus:
        """Run to the end."""
        for _ in range(limit):
            if not self.step():
                break
        assert self.finish is not None, self.statuses()
        self.write(len(self.unwritten))
        return self.finish.result

    def statuses(self) -> dict[str, str]:
        """The last status of each task that has a record."""
        self.write(len(self.unwritten))
        return {id: task.status.value for id, task in sorted(self.records.items())}

    def history(self, task: str) -> list[str]:
        """All statuses of a task's record."""
        self.write(len(self.unwritten))
        return [step.status.value for step in self.records[task].statuses]


def run_batch(
    text: str,
    behaviours: Mapping[str, Behaviour] | None = None,
    *,
    actions: Mapping[str, str] | None = None,
    seed: int = 0,
    eager: bool = False,
) -> Machine:
    """A bake from its beginning to its end."""
    machine = Machine(lambda: workflow_of(text, actions), behaviours, seed=seed, eager=eager)
    machine.start()
    machine.run()
    return machine
