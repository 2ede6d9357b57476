"""Who may do what with a project and all that hangs at it, by the project's id or its name.

The look-ups run in the transaction of the work that they allow, so nothing can change between.
A thing that a caller may not see does not exist for them: NotFound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection

from neuro.domain.errors import NotFound
from neuro.domain.flows import Project, is_project_id
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.projects import tables

_ID = re.compile(r"([a-z-]+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_id(kind: str, text: str) -> bool:
    """Whether a string has the form of an id of this kind (``bake-<uuid4>``)."""
    found = _ID.fullmatch(text)
    return found is not None and found[1] == kind


def missing(noun: str, called: str) -> NotFound:
    """What to raise for a thing that is not there, or hidden."""
    return NotFound(f"{noun} '{called[:80]}' was not found.")


@dataclass(frozen=True)
class Guard:
    """The rules of one cluster."""

    cluster: str

    def uri(self, *segments: str) -> ResourceURI:
        return ResourceURI("flow", self.cluster, segments)

    def require(self, caller: Identity, project: Project, action: Action, hidden: NotFound) -> None:
        """Raise unless the caller may do ``action`` on the project, by its id or its name."""
        by_name = self.uri(project.owner, project.name)
        if not caller.allows(by_name, action):
            by_id = self.uri(project.owner, project.id)
            seen = caller.action_on(by_id) is not None
            caller.require(by_id if seen else by_name, action, hidden=hidden)

    def project(
        self,
        connection: Connection,
        caller: Identity,
        project_id: str,
        action: Action,
        hidden: NotFound | None = None,
    ) -> Project:
        """The project of an id, on which the caller may do ``action``.

        ``hidden`` is what to raise where it is not there, by default that the project is not.
        """
        hidden = hidden or missing("Project", project_id)
        project = tables.get_project(connection, project_id) if is_project_id(project_id) else None
        if project is None:
            raise hidden
        self.require(caller, project, action, hidden)
        return project
