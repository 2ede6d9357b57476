"""What all runs of an installation stand on, looked after while the server runs.

A clean-up of the machine, a reload of its firewall or a person's ``rm`` takes away control groups,
rules of the network and folders under a server that runs. They are made again as at a start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from neuro.engines.sandbox import layout, machine, nat
from neuro.engines.sandbox.cgroups import of_control
from neuro.engines.sandbox.launch import OWN, Plan
from neuro.engines.sandbox.settings import SandboxSettings

FOLDERS = ("jobs", "berths", "land", "stage")


@dataclass(frozen=True)
class Keeping:
    """Knows what must be there for a plan. All of it blocks."""

    plan: Plan
    identity: dict[str, str]
    settings: SandboxSettings
    storage: str | None = None

    def missing(self) -> str | None:
        """What was taken away and every start needs, in words; None where all is there.

        Costs some 20 microseconds: for each start.
        """
        for name in FOLDERS:
            if not os.path.isdir(f"{self.plan.folder}/{name}"):
                return f"the folder {self.plan.folder}/{name} is gone"
        groups = self.plan.groups
        for base in (*groups.bases.values(), *of_control(groups).bases.values()):
            if not os.path.isdir(base):
                return f"the control group {base} is gone"
        return None

    def unfenced(self) -> str | None:
        """What is missing of the network's rules, in words. Takes some milliseconds."""
        if self.plan.network.kind != OWN:
            return None
        if not os.path.exists(f"{self.plan.folder}/installation"):
            return f"the file {self.plan.folder}/installation is gone"
        subnet = self.plan.network.subnet
        return nat.missing(machine.rules_for(self.identity["id"], subnet, self.settings))

    def renewed(self) -> tuple[Plan, list[str]]:
        """Make all of it again; the plan and the notices. Raises EngineFault, OSError."""
        path = f"{self.plan.folder}/installation"
        if not os.path.exists(path):  # with another id the runs would be strangers to the network
            layout.write_record(path, self.identity)
        return machine.examine(self.plan.folder, self.settings, self.storage)
