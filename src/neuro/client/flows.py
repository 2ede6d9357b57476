"""Flows: the projects of workflows, and the live jobs that are known in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.client.messages import below, find, listed, query_of, send, tell
from neuro.domain.errors import Conflict
from neuro.domain.flows import LiveJob, LiveJobRequest, Project, ProjectFilter, ProjectRequest

if TYPE_CHECKING:
    from neuro.client.client import Client

_PROJECTS = "/flow/projects"
_LIVE_JOBS = "/flow/live_jobs"


class Flows:
    """The flows of a client's server."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport

    async def projects(self, query: ProjectFilter | None = None) -> list[Project]:
        """The projects that the caller may see and that match, by owner and name."""
        return await listed(self._transport, _PROJECTS, query_of(query or ProjectFilter()), Project)

    async def create_project(self, name: str, *, project_name: str | None = None) -> Project:
        """Make a project, the caller's own unless ``project_name`` says whose.

        Raises Conflict for a name that is taken.
        """
        request = ProjectRequest(name=name, project_name=project_name)
        return await send(self._transport, "POST", _PROJECTS, request, Project)

    async def project_by_name(
        self, name: str, *, cluster: str | None = None, owner: str | None = None
    ) -> Project | None:
        """The caller's project of that name, or ``owner``'s; None where there is none."""
        query = ProjectFilter(name=name, cluster=cluster, owner=owner)
        return await find(self._transport, f"{_PROJECTS}/by_name", query_of(query), Project)

    async def get_or_create_project(self, name: str) -> Project:
        """The caller's project of that name, which is made if need be."""
        found = await self.project_by_name(name)
        if found is not None:
            return found
        try:
            return await self.create_project(name)
        except Conflict:
            # Somebody else made it in between.
            found = await self.project_by_name(name)
            if found is None:
                raise
            return found

    async def delete_project(self, project_id: str) -> None:
        """Remove a project with all that is in it. Raises NotFound."""
        await tell(self._transport, "DELETE", below(_PROJECTS, project_id))

    async def live_jobs(self, project_id: str) -> list[LiveJob]:
        """A project's live jobs by ``yaml_id``; none for an unknown project."""
        return await listed(self._transport, _LIVE_JOBS, [("project_id", project_id)], LiveJob)

    async def live_job(self, project_id: str, yaml_id: str) -> LiveJob | None:
        """What is kept of one live job, or None."""
        params = [("project_id", project_id), ("yaml_id", yaml_id)]
        return await find(self._transport, f"{_LIVE_JOBS}/by_yaml_id", params, LiveJob)

    async def replace_live_job(
        self, project_id: str, yaml_id: str, *, multi: bool, tags: list[str]
    ) -> LiveJob:
        """Keep a live job, whether it is new or known. Raises NotFound for an unknown project."""
        request = LiveJobRequest(yaml_id=yaml_id, project_id=project_id, multi=multi, tags=tags)
        return await send(self._transport, "PUT", f"{_LIVE_JOBS}/replace", request, LiveJob)
