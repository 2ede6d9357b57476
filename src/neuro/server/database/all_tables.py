"""Every table of the server: importing this registers them all with the metadata."""

from neuro.server.access import grant_tables as grants
from neuro.server.access import tables as access
from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts import drivers, turns
from neuro.server.bakes.attempts import tables as attempts
from neuro.server.bakes.cache import tables as cache
from neuro.server.bakes.files import tables as files
from neuro.server.bakes.images import tables as images
from neuro.server.bakes.tasks import tables as tasks
from neuro.server.database import identity
from neuro.server.fleet import tables as fleet
from neuro.server.jobs import intent_rows as intents
from neuro.server.jobs import preset_tables as presets
from neuro.server.jobs import tables as jobs
from neuro.server.projects import tables as flows
from neuro.server.registry import tables as registry
from neuro.server.schedules import tables as schedules
from neuro.server.secrets import tables as secrets

__all__ = [
    "access",
    "attempts",
    "bakes",
    "cache",
    "drivers",
    "files",
    "fleet",
    "flows",
    "grants",
    "identity",
    "images",
    "intents",
    "jobs",
    "presets",
    "registry",
    "schedules",
    "secrets",
    "tasks",
    "turns",
]
