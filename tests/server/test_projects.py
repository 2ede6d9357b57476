"""Flow projects and live jobs, over HTTP and in the SDK, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.errors import Conflict, InvalidInput, NotFound, NotPermitted
from neuro.domain.flows import LiveJob, LiveJobRequest, Project, ProjectFilter, ProjectRequest
from neuro.domain.permissions import Action, Permission
from neuro.domain.uris import parse_uri
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.bakes.events import Hub
from neuro.server.bakes.leaving import leaving_with
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.projects.service import ProjectService
from tests.server.wire import NDJSON, Wire
from tests.server_process import ServerProcess

NO_PROJECT = "projects-00000000-0000-4000-8000-000000000000"
NO_LIVE_JOB = "live-job-00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def project(client: Client) -> AsyncIterator[Project]:
    """A project of the owner's, gone after the test."""
    project = await client.flows.create_project("a_project")
    yield project
    if await client.flows.project_by_name(project.name) is not None:
        await client.flows.delete_project(project.id)


async def test_a_project_is_its_makers_and_has_the_documented_keys(
    wire: Wire, server: ServerProcess
) -> None:
    status, made = await wire.call("POST", "projects", {"name": "wired", "cluster": "default"})

    assert status == 201
    project_id = made.pop("id")
    assert project_id.startswith("projects-")
    assert made == {
        "name": "wired",
        "owner": server.user,
        "cluster": "default",
        "project_name": server.user,
        "org_name": None,
    }
    assert (await wire.call("GET", f"projects/{project_id}"))[1]["name"] == "wired"
    assert await wire.call("DELETE", f"projects/{project_id}") == (204, None)
    assert (await wire.call("GET", f"projects/{project_id}"))[0] == 404
    assert (await wire.call("DELETE", f"projects/{project_id}"))[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        "cluster=default",
        "cluster=default&owner={user}",
        "cluster=default&project_name={user}",
        "cluster=default&owner={user}&project_name={user}&org_name=",
    ],
)
async def test_clients_of_every_era_find_a_project_by_name(
    wire: Wire, server: ServerProcess, project: Project, query: str
) -> None:
    query = query.format(user=server.user)

    status, found = await wire.call("GET", f"projects/by_name?name={project.name}&{query}")
    _, listed = await wire.call("GET", f"projects?name={project.name}&{query}")

    assert (status, found["id"]) == (200, project.id)
    assert [one["id"] for one in listed] == [project.id]


@pytest.mark.parametrize(
    "query",
    [
        "name=other&cluster=default",
        "name=a_project&cluster=default&owner=nobody",
        "name=a_project&cluster=default&org_name=an-org",
        "name=a%20b&cluster=default",
        "name=&cluster=default",
        "name=a_project&cluster=default&owner=a%20b",
    ],
)
async def test_what_is_not_there_is_404_and_in_no_list(
    wire: Wire, project: Project, query: str
) -> None:
    assert (await wire.call("GET", f"projects/by_name?{query}"))[0] == 404
    assert await wire.call("GET", f"projects?{query}") == (200, [])


async def test_a_list_of_another_cluster_is_refused_and_not_empty(
    wire: Wire, project: Project
) -> None:
    for path in ("projects", "projects/by_name"):
        status, answer = await wire.call("GET", f"{path}?name={project.name}&cluster=elsewhere")

        assert status == 400, path
        assert answer["error"].startswith("Cluster 'elsewhere' is unknown"), path
        assert "this server's cluster is 'default'" in answer["error"], path


async def test_a_taken_name_is_told_in_the_flow_clients_way(wire: Wire, project: Project) -> None:
    status, answer = await wire.call("POST", "projects", {"name": project.name})

    assert (status, answer["code"]) == (409, "unique")
    assert project.name in answer["description"]


async def test_of_many_who_make_a_project_at_once_one_wins(client: Client) -> None:
    makers = [client.flows.create_project("at_once") for _ in range(8)]

    results = await asyncio.gather(*makers, return_exceptions=True)

    made = [result for result in results if isinstance(result, Project)]
    assert len(made) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7
    got = await asyncio.gather(*(client.flows.get_or_create_project("at_once") for _ in range(4)))
    assert {project.id for project in got} == {made[0].id}
    await client.flows.delete_project(made[0].id)


async def test_of_many_who_get_or_create_all_get_the_same(client: Client) -> None:
    got = await asyncio.gather(*(client.flows.get_or_create_project("shared") for _ in range(8)))

    assert len({project.id for project in got}) == 1
    await client.flows.delete_project(got[0].id)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": ".."},
        {"name": "a/b"},
        {"name": "a b"},
        {"name": "a\0b"},
        {"name": "x" * 256},
        {"name": NO_PROJECT},
        {"name": "fine", "cluster": "elsewhere"},
        {"name": "fine", "org_name": "an-org"},
        {"name": "fine", "project_name": "a/b"},
    ],
)
async def test_a_project_that_cannot_be_is_refused(wire: Wire, body: Any) -> None:
    status, answer = await wire.call("POST", "projects", body)

    assert (status, bool(answer["error"])) == (400, True)


async def test_a_live_job_is_kept_and_replaced_under_one_id(wire: Wire, project: Project) -> None:
    body = {"yaml_id": "train", "project_id": project.id, "multi": False, "tags": ["a", "b"]}

    status, made = await wire.call("POST", "live_jobs", body)
    again, refused = await wire.call("POST", "live_jobs", body)
    changed = {**body, "multi": True, "tags": [], "raw_id": "job-1"}
    replaced, new = await wire.call("PUT", "live_jobs/replace", changed)
    added, other = await wire.call("PUT", "live_jobs/replace", {**body, "yaml_id": "eval"})

    assert (status, again, replaced, added) == (201, 409, 201, 201)
    assert made["id"].startswith("live-job-")
    assert made == {**body, "id": made["id"], "raw_id": ""}
    assert refused["code"] == "unique"
    assert new == {**changed, "id": made["id"]}
    query = f"project_id={project.id}"
    assert await wire.call("GET", f"live_jobs/{made['id']}") == (200, new)
    assert await wire.call("GET", f"live_jobs/by_yaml_id?{query}&yaml_id=train") == (200, new)
    assert await wire.call("GET", f"live_jobs?{query}") == (200, [other, new])


async def test_what_is_no_live_job_is_404(wire: Wire, project: Project) -> None:
    query = f"project_id={project.id}&yaml_id="
    for path in (
        f"live_jobs/{NO_LIVE_JOB}",
        "live_jobs/a%20b",
        f"live_jobs/by_yaml_id?{query}train",
        f"live_jobs/by_yaml_id?{query}a%20b",
        f"live_jobs/by_yaml_id?project_id={NO_PROJECT}&yaml_id=train",
        "projects/a%20b",
    ):
        assert (await wire.call("GET", path))[0] == 404, path
    assert await wire.call("GET", f"live_jobs?project_id={NO_PROJECT}") == (200, [])
    body = {"yaml_id": "train", "project_id": NO_PROJECT, "multi": False, "tags": []}
    assert (await wire.call("POST", "live_jobs", body))[0] == 404
    assert (await wire.call("PUT", "live_jobs/replace", body))[0] == 404


async def test_a_question_without_its_keys_is_refused(wire: Wire) -> None:
    for path in ("projects/by_name?cluster=default", "live_jobs", "live_jobs/by_yaml_id"):
        assert (await wire.call("GET", path))[0] == 400, path


@pytest.mark.parametrize(
    "change",
    [
        {"yaml_id": ""},
        {"yaml_id": "x" * 256},
        {"raw_id": "a\0b"},
        {"tags": ["a b"]},
        {"tags": [""]},
        {"tags": ["\0"]},
        {"tags": ["x" * 257]},
        {"tags": ["t"] * 65},
        {"multi": "perhaps"},
    ],
)
async def test_a_live_job_that_cannot_be_is_refused(
    wire: Wire, project: Project, change: Any
) -> None:
    body = {"yaml_id": "train", "project_id": project.id, "multi": False, "tags": [], **change}

    for method, path in (("POST", "live_jobs"), ("PUT", "live_jobs/replace")):
        status, answer = await wire.call(method, path, body)
        assert (status, bool(answer["error"])) == (400, True)


async def test_lists_are_lines_for_those_who_accept_them(wire: Wire, project: Project) -> None:
    path = f"live_jobs?project_id={project.id}"
    assert await wire.call("GET", path, accept=NDJSON) == (200, "")
    for name in ("one", "two"):
        body = {"yaml_id": name, "project_id": project.id, "multi": False, "tags": []}
        await wire.call("POST", "live_jobs", body)

    _, lines = await wire.call("GET", path, accept=NDJSON)
    _, projects = await wire.call("GET", "projects?name=a_project", accept=NDJSON)

    assert [line.partition('"yaml_id":')[2][:5] for line in lines.splitlines()] == [
        '"one"',
        '"two"',
    ]
    assert project.id in projects.splitlines()[0]


async def test_a_removed_project_takes_its_live_jobs_along(client: Client, wire: Wire) -> None:
    project = await client.flows.create_project("short_lived")
    job = await client.flows.replace_live_job(project.id, "train", multi=False, tags=[])

    await client.flows.delete_project(project.id)

    assert (await wire.call("GET", f"live_jobs/{job.id}"))[0] == 404
    again = await client.flows.create_project("short_lived")
    assert again.id != project.id
    assert await client.flows.live_jobs(again.id) == []
    await client.flows.delete_project(again.id)


async def test_many_replace_a_live_job_at_once_and_there_is_one(
    client: Client, project: Project
) -> None:
    def replace(number: int) -> Any:
        return client.flows.replace_live_job(project.id, "train", multi=False, tags=[f"n:{number}"])

    answers = await asyncio.gather(*(replace(number) for number in range(8)))

    assert len({answer.id for answer in answers}) == 1
    assert len(await client.flows.live_jobs(project.id)) == 1


async def test_a_project_that_goes_meanwhile_leaves_no_live_job_behind(
    client: Client, project: Project
) -> None:
    calls: list[Any] = [
        client.flows.replace_live_job(project.id, f"job{number}", multi=False, tags=[])
        for number in range(8)
    ]
    calls.insert(4, client.flows.delete_project(project.id))

    results = await asyncio.gather(*calls, return_exceptions=True)

    failures = [result for result in results if isinstance(result, Exception)]
    assert all(isinstance(failure, NotFound) for failure in failures), failures
    for job in results:
        if isinstance(job, LiveJob):
            assert await client.flows.live_job(project.id, job.yaml_id) is None


def test_the_sdk_does_the_same_without_an_event_loop(server: ServerProcess) -> None:
    async def work() -> None:
        async with Client.blocking(server.url, server.token) as client:
            flows = client.flows
            assert await flows.project_by_name("blocking") is None
            project = await flows.get_or_create_project("blocking")
            assert await flows.get_or_create_project("blocking") == project
            assert await flows.project_by_name("blocking", owner=server.user) == project
            assert project in await flows.projects()
            assert await flows.projects(ProjectFilter(name="blocking")) == [project]
            with pytest.raises(Conflict, match="exists already"):
                await flows.create_project("blocking")
            assert await flows.live_job(project.id, "train") is None
            job = await flows.replace_live_job(project.id, "train", multi=True, tags=["x:1"])
            assert (job.multi, job.tags) == (True, ["x:1"])
            assert await flows.live_job(project.id, "train") == job
            assert await flows.live_jobs(project.id) == [job]
            await flows.delete_project(project.id)
            with pytest.raises(NotFound):
                await flows.delete_project(project.id)

    run(work())


async def test_a_stranger_finds_and_changes_nothing(
    client: Client, wire: Wire, alices_wire: Wire, server: ServerProcess, project: Project
) -> None:
    job = await client.flows.replace_live_job(project.id, "train", multi=False, tags=[])
    by_name = f"name={project.name}&cluster=default&owner={server.user}"
    live_job = {"yaml_id": "train", "project_id": project.id, "multi": True, "tags": []}
    calls: list[tuple[str, str, Any]] = [
        ("GET", f"projects/by_name?{by_name}", None),
        ("GET", f"projects/{project.id}", None),
        ("DELETE", f"projects/{project.id}", None),
        ("POST", "projects", {"name": "intruder", "project_name": server.user}),
        ("GET", f"live_jobs/by_yaml_id?project_id={project.id}&yaml_id=train", None),
        ("GET", f"live_jobs/{job.id}", None),
        ("POST", "live_jobs", live_job),
        ("PUT", "live_jobs/replace", live_job),
    ]

    for method, path, body in calls:
        assert (await alices_wire.call(method, path, body))[0] == 404, (method, path)
    for path in (f"projects?{by_name}", f"live_jobs?project_id={project.id}"):
        assert await alices_wire.call("GET", path) == (200, []), path

    assert await client.flows.live_jobs(project.id) == [job]
    assert {one.owner for one in await client.flows.projects(ProjectFilter())} >= {server.user}


async def test_everybodys_projects_are_their_own_and_an_admin_sees_all(
    client: Client, alice: Client, project: Project
) -> None:
    hers = await alice.flows.create_project(project.name)

    assert (hers.owner, hers.id != project.id) == ("alice", True)
    assert await alice.flows.projects() == [hers]
    assert [one.owner for one in await client.flows.projects()] == sorted(["alice", project.owner])
    assert await client.flows.project_by_name(project.name, owner="alice") == hers
    for_her = await client.flows.create_project("for_her", project_name="alice")
    assert await alice.flows.project_by_name("for_her") == for_her
    for one in (hers, for_her):
        await alice.flows.delete_project(one.id)


@pytest.fixture
def service(database_url: str) -> Any:
    database = Database(database_url)
    migrate(database)
    yield ProjectService(database, "default", partial(leaving_with, Hub()))
    database.close()


def _caller(user: str, *grants: tuple[str, Action]) -> Identity:
    return Identity(user, Grants.of(Permission(parse_uri(uri), act) for uri, act in grants), "t")


OWNER = _caller("anna", ("flow://default/anna", Action.MANAGE))


@pytest.mark.parametrize("uri", ["flow://default/anna/{id}", "flow://default/anna/shared"])
async def test_one_project_is_shared_by_its_id_or_its_name(
    service: ProjectService, uri: str
) -> None:
    project = await service.create_project(OWNER, ProjectRequest(name="shared"))
    await service.create_project(OWNER, ProjectRequest(name="private"))
    request = LiveJobRequest(yaml_id="train", project_id=project.id, multi=False)
    job = await service.create_live_job(OWNER, request)
    reader = _caller("ben", (uri.format(id=project.id), Action.READ))
    writer = _caller("eve", (uri.format(id=project.id), Action.WRITE))

    assert [one async for one in service.projects(reader, ProjectFilter())] == [project]
    hers = ProjectFilter(owner="anna")
    assert await service.project_by_name(reader, "shared", hers) == project
    assert [one async for one in service.live_jobs(reader, project.id)] == [job]
    assert await service.live_job(reader, job.id) == job
    for refused in (
        service.create_live_job(reader, request),
        service.replace_live_job(reader, request),
        service.remove_project(reader, project.id),
        service.create_project(reader, ProjectRequest(name="x", project_name="anna")),
        service.create_project(writer, ProjectRequest(name="x", project_name="anna")),
    ):
        with pytest.raises((NotPermitted, NotFound)):
            await refused
    assert (await service.replace_live_job(writer, request)).id == job.id
    await service.remove_project(writer, project.id)
    assert [one async for one in service.projects(writer, ProjectFilter())] == []


async def test_a_list_of_several_pages_is_whole_and_in_order(service: ProjectService) -> None:
    names = [f"p{number:04}" for number in range(1001)]
    for name in reversed(names):
        await service.create_project(OWNER, ProjectRequest(name=name))
    other = _caller("ben", ("flow://default/ben", Action.MANAGE))
    await service.create_project(other, ProjectRequest(name="p0000"))
    admin = _caller("root", ("flow://default", Action.MANAGE))

    shown = [(one.owner, one.name) async for one in service.projects(admin, ProjectFilter())]

    assert shown == [*(("anna", name) for name in names), ("ben", "p0000")]


async def test_no_permission_means_no_project(service: ProjectService) -> None:
    nobody = _caller("anna")

    with pytest.raises(NotFound):
        await service.create_project(nobody, ProjectRequest(name="mine"))
    with pytest.raises(InvalidInput):
        await service.create_project(OWNER, ProjectRequest(name="not a name"))
