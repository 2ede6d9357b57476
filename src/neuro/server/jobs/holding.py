"""An engine that is this server's, for as long as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuro.engines.base import Engine, Node, NotReady
from neuro.server.background import Errands
from neuro.server.jobs.leases import EngineLease

# From the nodes that an engine has to those that jobs may use.
Sharing = Callable[[Sequence[Node]], Sequence[Node]]


class Holding:
    """An engine while it is this server's, and what is done with it meanwhile."""

    def __init__(self, engine: Engine, lease: EngineLease, share: Sharing) -> None:
        self.engine = engine
        self.lease = lease
        self.share = share
        self.errands = Errands("reconciler of jobs")
        self.is_met = False  # once it has said what became of the runs of its jobs
        self.is_watched = False  # once its events are followed

    def check(self) -> None:
        """Raise NotReady where nothing may be asked of the engine now.

        It may be another server's by now, such as after a freeze, or it was never there yet.
        """
        if not self.is_met:
            raise NotReady("The engine of the job is away.")
        if not self.lease.is_held:
            raise NotReady("It cannot reach its database, and another server may have the engine.")
