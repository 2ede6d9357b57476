"""Every table of the server: importing this registers them all with the metadata."""

from neuro.server.access import grant_tables as grants
from neuro.server.access import tables as access
from neuro.server.database import identity
from neuro.server.flows import tables as flows
from neuro.server.flows.attempts import tables as attempts
from neuro.server.flows.bakes import tables as bakes
from neuro.server.flows.cache import tables as cache
from neuro.server.flows.files import tables as files
from neuro.server.flows.images import tables as images
from neuro.server.flows.schedules import tables as schedules
from neuro.server.flows.tasks import tables as tasks
from neuro.server.jobs import tables as jobs

__all__ = [
    "access",
    "attempts",
    "bakes",
    "cache",
    "files",
    "flows",
    "grants",
    "identity",
    "images",
    "jobs",
    "schedules",
    "tasks",
]
