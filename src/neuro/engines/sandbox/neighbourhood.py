"""One run among its neighbours: the runs with the same label know it, and reach it."""

from __future__ import annotations

from neuro.engines.sandbox import launch, neighbours, network


class Neighbourhood:
    """The place of one run. ``place`` is its label's number and its address, to withdraw it by."""

    def __init__(self, plan: launch.Plan, request: launch.Request) -> None:
        self._plan = plan
        self._request = request
        self.place = (neighbours.NOBODY, "")

    def join(self, address: str) -> tuple[str, str, bool] | None:
        """Tell the others of the run; returns the mount of their hosts file, if they have one.

        Raises OSError.
        """
        request, folder = self._request, self._plan.folder
        if self._plan.network.kind != launch.OWN or not request.neighbours:
            return None
        names = (request.hostname, *request.names)
        number = neighbours.announce(folder, request.neighbours, address, names)
        self.place = (number, address)
        network.join_group(address, number)
        if number == neighbours.NOBODY:
            return None
        return neighbours.hosts_file(folder, number), "/etc/hosts", True

    def leave(self) -> None:
        """The run is over."""
        try:
            neighbours.withdraw(self._plan.folder, *self.place)
        except OSError:
            pass  # the next server's start finds that its network is gone
