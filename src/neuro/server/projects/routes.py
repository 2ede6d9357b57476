"""Flows over HTTP (docs/reference/wire-protocol.md#flows)."""

from __future__ import annotations

import msgspec
from aiohttp import web

from neuro.domain.flows import LiveJob, LiveJobRequest, Project, ProjectFilter, ProjectRequest
from neuro.domain.permissions import Action
from neuro.server.http.answers import INSIDE, list_answer
from neuro.server.http.routes import Call, Routes
from neuro.server.http.streams import NDJSON
from neuro.server.projects.service import ProjectService

PROJECTS = "/api/v1/flow/projects"
LIVE_JOBS = "/api/v1/flow/live_jobs"


class ProjectByName(ProjectFilter, frozen=True, kw_only=True):
    name: str


class LiveJobsOfProject(msgspec.Struct, frozen=True):
    project_id: str


class LiveJobByYamlId(msgspec.Struct, frozen=True):
    project_id: str
    yaml_id: str


def project_routes(flows: ProjectService) -> Routes:
    """The routes of flows."""
    api = Routes("flows", inside=INSIDE)
    _add_projects(api, flows)
    _add_live_jobs(api, flows)
    return api


def _add_projects(api: Routes, flows: ProjectService) -> None:
    @api.add("GET", PROJECTS, section="flows", streams=NDJSON)
    async def list_projects(call: Call, query: ProjectFilter) -> web.StreamResponse:
        """List projects by owner and name; NDJSON where the client accepts it."""
        return await list_answer(call, flows.projects(call.identity, query))

    @api.add("POST", PROJECTS, status=201, section="flows")
    async def create_project(call: Call, body: ProjectRequest) -> Project:
        """Make a project; 409 where its owner has one of that name."""
        return await flows.create_project(call.identity, body)

    @api.add("GET", f"{PROJECTS}/by_name", section="flows")
    async def project_by_name(call: Call, query: ProjectByName) -> Project:
        """The project of a name: of project_name's, else of owner's, else the caller's own."""
        return await flows.project_by_name(call.identity, query.name, query)

    @api.add("GET", PROJECTS + "/{project}", section="flows")
    async def get_project(call: Call) -> Project:
        """A project by its id."""
        return await flows.project(call.identity, call.segment("project"), Action.READ)

    @api.add("DELETE", PROJECTS + "/{project}", status=204, section="flows")
    async def remove_project(call: Call) -> None:
        """Remove a project with all that is in it."""
        await flows.remove_project(call.identity, call.segment("project"))


def _add_live_jobs(api: Routes, flows: ProjectService) -> None:
    @api.add("GET", LIVE_JOBS, section="flows", streams=NDJSON)
    async def list_live_jobs(call: Call, query: LiveJobsOfProject) -> web.StreamResponse:
        """List a project's live jobs; NDJSON where the client accepts it."""
        return await list_answer(call, flows.live_jobs(call.identity, query.project_id))

    @api.add("POST", LIVE_JOBS, status=201, section="flows")
    async def create_live_job(call: Call, body: LiveJobRequest) -> LiveJob:
        """Add a live job; 409 where its project has one of that yaml_id."""
        return await flows.create_live_job(call.identity, body)

    @api.add("PUT", f"{LIVE_JOBS}/replace", status=201, section="flows")
    async def replace_live_job(call: Call, body: LiveJobRequest) -> LiveJob:
        """Add a live job, or change the one of that project and yaml_id."""
        return await flows.replace_live_job(call.identity, body)

    @api.add("GET", f"{LIVE_JOBS}/by_yaml_id", section="flows")
    async def live_job_by_yaml_id(call: Call, query: LiveJobByYamlId) -> LiveJob:
        """The live job of a project and a yaml_id."""
        return await flows.live_job_by_yaml_id(call.identity, query.project_id, query.yaml_id)

    @api.add("GET", LIVE_JOBS + "/{live_job}", section="flows")
    async def get_live_job(call: Call) -> LiveJob:
        """A live job by its id."""
        return await flows.live_job(call.identity, call.segment("live_job"))
