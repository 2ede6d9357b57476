"""The rules of flows: what is unique, who may see and change what. Knows no HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import Attempt
from neuro.domain.errors import InvalidInput, NotFound, NotUnique
from neuro.domain.flows import (
    LiveJob,
    LiveJobRequest,
    Project,
    ProjectFilter,
    ProjectRequest,
    check_live_job,
    check_project_name,
    is_live_job_id,
    is_project_id,
    is_word,
    new_live_job_id,
    new_project_id,
)
from neuro.domain.names import check_known_cluster
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes.attempts.tables import unfinished_of_project
from neuro.server.bakes.events import Hub
from neuro.server.bakes.feed import record_removal
from neuro.server.bakes.tables import ids_of_project
from neuro.server.database.engine import Database
from neuro.server.database.transactions import commit, paged
from neuro.server.projects import tables
from neuro.server.projects.guard import Guard

PAGE = 500


class ProjectService:
    """The flows of one installation.

    A thing that a caller may not see does not exist for them: NotFound, and left out of lists.
    """

    def __init__(self, database: Database, cluster: str, hub: Hub) -> None:
        """``hub`` gets an event for each removed project."""
        self._database = database
        self._cluster = cluster
        self._guard = Guard(cluster)
        self._hub = hub

    async def create_project(self, caller: Identity, request: ProjectRequest) -> Project:
        """Make a project, the caller's own unless ``project_name`` says whose.

        Raises InvalidInput for a bad name, cluster or org, NotFound and NotPermitted where the
        caller may not, NotUnique for a name that is taken.
        """
        check_known_cluster(request.cluster, self._cluster)
        if request.org_name:
            raise InvalidInput("This server has no organizations: leave out org_name.")
        owner = request.project_name or caller.user
        if not is_word(owner):
            raise InvalidInput(f"'{owner[:80]}' cannot be the name of a project's owner.")
        caller.require(self._guard.uri(owner), Action.WRITE)
        project = Project(
            id=new_project_id(),
            name=check_project_name(request.name),
            owner=owner,
            cluster=self._cluster,
            project_name=owner,
        )
        try:
            await self._database.write(partial(tables.add_project, project=project))
        except IntegrityError:
            raise NotUnique(
                f"Project '{project.name}' of '{owner}' exists already in cluster"
                f" '{self._cluster}'."
            ) from None
        return project

    async def projects(self, caller: Identity, query: ProjectFilter) -> AsyncGenerator[Project]:
        """Projects that the caller may see and that meet the query, by owner and name.

        Raises InvalidInput (at the first item) for a cluster that is not this server's.
        """
        check_known_cluster(query.cluster, self._cluster)
        owners = [owner for owner in (query.owner, query.project_name) if owner is not None]
        words = [*owners, *([] if query.name is None else [query.name])]
        if query.org_name or not all(is_word(word) for word in words):
            return
        visible = caller.scope("flow", self._cluster)

        def page(after: Project | None, connection: Connection) -> list[Project]:
            return tables.list_projects(
                connection,
                self._cluster,
                visible,
                name=query.name,
                owners=owners,
                page=PAGE,
                after=after,
            )

        async for project in paged(self._database, PAGE, page):
            yield project

    async def project_by_name(self, caller: Identity, name: str, query: ProjectFilter) -> Project:
        """The project of a name: ``project_name``'s, or else ``owner``'s, or the caller's own.

        Raises InvalidInput for a cluster that is not this server's, NotFound, NotPermitted.
        """
        check_known_cluster(query.cluster, self._cluster)
        missing = NotFound(f"Project '{name[:80]}' was not found.")
        owner = query.project_name or query.owner or caller.user
        if query.org_name or not is_word(name) or not is_word(owner):
            raise missing
        project = await self._database.read(
            lambda connection: tables.project_by_name(connection, self._cluster, owner, name)
        )
        if project is None or query.owner not in (None, project.owner):
            raise missing
        self._guard.require(caller, project, Action.READ, missing)
        return project

    async def project(self, caller: Identity, project_id: str, action: Action) -> Project:
        """The project of an id, on which the caller may do ``action``."""

        def find(connection: Connection) -> Project:
            return self._guard.project(connection, caller, project_id, action)

        return await self._database.read(find)

    async def remove_project(self, caller: Identity, project_id: str) -> None:
        """Remove a project with all that is in it."""

        def remove(connection: Connection) -> tuple[list[str], list[Attempt]]:
            project = self._guard.project(connection, caller, project_id, Action.WRITE)
            left = ids_of_project(connection, project.id)
            unfinished = unfinished_of_project(connection, project.id)
            tables.remove_project(connection, project.id)
            record_removal(connection, left)
            return left, unfinished

        def tell(gone: tuple[list[str], list[Attempt]]) -> None:
            self._hub.project_removed(project_id, *gone)

        await commit(self._database, remove, tell)

    async def create_live_job(self, caller: Identity, request: LiveJobRequest) -> LiveJob:
        """Add a live job. Raises NotUnique where its project has one of that ``yaml_id``."""
        job = await self._new_live_job(caller, request)
        try:
            await self._database.write(partial(tables.add_live_job, job=job))
        except IntegrityError:
            # Taken, unless its project has just been removed, which this look-up says.
            await self.project(caller, job.project_id, Action.READ)
            raise NotUnique(
                f"Live job '{job.yaml_id}' exists already in project '{job.project_id}'."
            ) from None
        return job

    async def replace_live_job(self, caller: Identity, request: LiveJobRequest) -> LiveJob:
        """Add a live job, or change the one of that project and ``yaml_id``."""
        job = await self._new_live_job(caller, request)
        try:
            return await self._database.write(partial(tables.replace_live_job, job=job))
        except IntegrityError:
            raise NotFound(f"Project '{job.project_id}' was not found.") from None

    async def _new_live_job(self, caller: Identity, request: LiveJobRequest) -> LiveJob:
        check_live_job(request)
        project = await self.project(caller, request.project_id, Action.WRITE)
        return LiveJob(
            id=new_live_job_id(),
            yaml_id=request.yaml_id,
            project_id=project.id,
            multi=request.multi,
            tags=request.tags,
            raw_id=request.raw_id,
        )

    async def live_jobs(self, caller: Identity, project_id: str) -> AsyncGenerator[LiveJob]:
        """A project's live jobs by ``yaml_id``; none where the caller can see no such project."""
        try:
            project = await self.project(caller, project_id, Action.READ)
        except NotFound:
            return

        def page(after: LiveJob | None, connection: Connection) -> list[LiveJob]:
            return tables.list_live_jobs(connection, project.id, page=PAGE, after=after)

        async for job in paged(self._database, PAGE, page):
            yield job

    async def live_job(self, caller: Identity, live_job_id: str) -> LiveJob:
        """The live job of an id."""
        found = None
        if is_live_job_id(live_job_id):
            found = await self._database.read(
                lambda connection: tables.get_live_job(connection, live_job_id)
            )
        return await self._seen(caller, found, live_job_id)

    async def live_job_by_yaml_id(self, caller: Identity, project_id: str, yaml_id: str) -> LiveJob:
        """The live job that a project's workflow calls ``yaml_id``."""
        found = None
        if is_project_id(project_id) and is_word(yaml_id):
            found = await self._database.read(
                lambda connection: tables.live_job_by_yaml_id(connection, project_id, yaml_id)
            )
        return await self._seen(caller, found, yaml_id)

    async def _seen(self, caller: Identity, job: LiveJob | None, called: str) -> LiveJob:
        missing = NotFound(f"Live job '{called[:80]}' was not found.")
        if job is None:
            raise missing
        try:
            await self.project(caller, job.project_id, Action.READ)
        except NotFound:
            raise missing from None
        return job
