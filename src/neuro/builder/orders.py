"""One build that is asked for, planned, and all that it may take."""

from __future__ import annotations

from dataclasses import dataclass

from neuro.builder.arguments import Options, Volume
from neuro.builder.bases import Bases
from neuro.builder.credentials import Credentials
from neuro.builder.reporting import Report
from neuro.builder.sources import Sources
from neuro.builder.views import Context
from neuro.dockerfile.steps import Plan
from neuro.dockerfile.tree import Dockerfile
from neuro.engines.images.connections import Connections
from neuro.engines.images.reach import Reach


@dataclass(frozen=True)
class Order:
    """What is built, of what, and whom it is told to.

    ``bases`` were looked up, for whoever builds; ``volumes`` are those that commands see, ``reach``
    is where the build may go, over ``connections``.
    """

    tree: Dockerfile
    plan: Plan
    options: Options
    context: Context
    bases: Bases
    credentials: Credentials
    sources: Sources
    volumes: tuple[Volume, ...]
    reach: Reach
    report: Report
    connections: Connections
