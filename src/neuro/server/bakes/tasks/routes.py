"""Tasks over HTTP."""

from __future__ import annotations

import msgspec
from aiohttp import web

from neuro.domain.bakes import Task, TaskRequest
from neuro.server.bakes.checks import MAX_BODY
from neuro.server.bakes.tasks.service import TaskService
from neuro.server.http.answers import list_answer
from neuro.server.http.routes import Call, Routes
from neuro.server.http.streams import NDJSON

TASKS = "/api/v1/flow/tasks"


class OfAttempt(msgspec.Struct, frozen=True):
    attempt_id: str


class TaskByYamlId(msgspec.Struct, frozen=True):
    attempt_id: str
    yaml_id: str


def add_tasks(api: Routes, tasks: TaskService) -> None:
    """Declare the routes of tasks."""

    @api.add("GET", TASKS, section="flows", streams=NDJSON)
    async def list_tasks(call: Call, query: OfAttempt) -> web.StreamResponse:
        """List an attempt's tasks; NDJSON where the client accepts it."""
        return await list_answer(call, tasks.tasks(call.identity, query.attempt_id))

    @api.add("POST", TASKS, status=201, section="flows", max_body=MAX_BODY)
    async def create_task(call: Call, body: TaskRequest) -> Task:
        """Add a task; 409 where its attempt has one of that yaml_id."""
        return await tasks.create(call.identity, body)

    @api.add("PUT", f"{TASKS}/replace", section="flows", max_body=MAX_BODY)
    async def replace_task(call: Call, body: TaskRequest) -> Task:
        """Write a task anew, or add it; 409 for one that has ended otherwise."""
        return await tasks.replace(call.identity, body)

    @api.add("PUT", f"{TASKS}/batch", status=204, max_body=MAX_BODY)
    async def put_tasks(call: Call, body: list[TaskRequest]) -> None:
        """Write up to 1000 tasks of one attempt, all of them or none."""
        await tasks.put(call.identity, body)

    @api.add("GET", f"{TASKS}/by_yaml_id", section="flows")
    async def task_by_yaml_id(call: Call, query: TaskByYamlId) -> Task:
        """The task of an attempt and a yaml_id."""
        return await tasks.by_yaml_id(call.identity, query.attempt_id, query.yaml_id)

    @api.add("GET", TASKS + "/{task}", section="flows")
    async def get_task(call: Call) -> Task:
        """A task by its id."""
        return await tasks.task(call.identity, call.segment("task"))
