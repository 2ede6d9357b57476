"""Bakes written as an executor would write them, without one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import urlsplit

from neuro.client import Client
from neuro.client.accounts import load
from neuro.client.blocking import run
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeRequest,
    ConfigFileRequest,
    ConfigsMeta,
    Graphs,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from tests.flow.cli.project import Person

GRAPHS: Graphs = {
    "": {"fetch": [], "fit": ["fetch"], "report": ["fit"]},
    "fit": {"fit.lr-0.1": [], "fit.lr-0.2": []},
}
BATCH = "kind: batch\ntasks: [{id: fetch, image: ubuntu, cmd: 'true'}]\n"
_numbers = count(1)


class Keeper:
    """Writes bakes as an executor would."""

    def __init__(self, person: Person) -> None:
        accounts = load(person.config_dir)
        account = accounts.find(accounts.current or "")
        assert account is not None
        self.client = Client.blocking(account.url, account.token)
        self.port = urlsplit(account.url).port
        self.client.user, self.client.cluster = account.user, account.cluster
        self.bakes = self.client.bakes

    @property
    def project_id(self) -> str:
        return run(self.client.flows.get_or_create_project("example")).id

    def bake(self, name: str | None = None, tags: tuple[str, ...] = ()) -> Bake:
        request = BakeRequest(
            project_id=self.project_id, batch="sweep", graphs=GRAPHS, name=name, tags=[*tags]
        )
        return run(self.bakes.create(request))

    def attempt(
        self, bake: Bake, result: TaskStatus = TaskStatus.RUNNING, number: int = 1
    ) -> Attempt:
        file = ConfigFileRequest(bake_id=bake.id, filename="sweep.yml", content=BATCH)
        configs = ConfigsMeta(workspace="/w", flow_config_id=run(self.bakes.add_file(file)).id)
        request = AttemptRequest(
            bake_id=bake.id, number=number, result=TaskStatus.PENDING, configs_meta=configs
        )
        made = run(self.bakes.create_attempt(request))
        if result is TaskStatus.PENDING:
            return made
        return self.end(made, result)

    def end(self, attempt: Attempt, result: TaskStatus, message: str | None = None) -> Attempt:
        request = AttemptRequest(
            bake_id=attempt.bake_id,
            number=attempt.number,
            result=result,
            configs_meta=attempt.configs_meta,
            message=message,
        )
        return run(self.bakes.replace_attempt(request))

    def task(
        self,
        attempt: Attempt,
        yaml_id: str,
        *statuses: TaskStatus,
        raw_id: str | None = None,
        message: str | None = None,
        outputs: dict[str, str] | None = None,
    ) -> None:
        now = datetime.now(UTC)
        number = next(_numbers)
        steps = [
            TaskTransition(created_at=now + timedelta(milliseconds=number), status=status)
            for status in statuses
        ]
        over = statuses[-1] in (TaskStatus.SUCCEEDED, TaskStatus.CACHED)
        request = TaskRequest(
            attempt_id=attempt.id,
            yaml_id=yaml_id,
            raw_id=raw_id,
            statuses=steps,
            outputs=(outputs or {}) if over else None,
            state={} if over else None,
            message=message,
        )
        run(self.bakes.put_tasks([request]))
