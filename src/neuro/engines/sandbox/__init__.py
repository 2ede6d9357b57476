"""The embedded engine: jobs as sandboxes over the machine's own userland.

Who does what, from the outside in:

- ``engine`` implements the Engine protocol inside the server and holds one ``link`` to each run;
- ``zygote`` is a small process that forks one ``supervisor`` per run and dies with the server;
- a supervisor waits for its run in a ``berth``: all that runs need whichever they are, made ahead;
- a supervisor keeps the output, enforces limits and grace, and writes the exit record. It depends
  on nobody: the server may be killed and come back as often as it likes;
- the first process of a run (``init``) is a program of one page (``init_program``) and only waits;
  the second one (``becoming``) makes the run's root (``stage``, ``inside``) and becomes its
  command, by way of the ``launcher``, as what ``exec`` starts does.

The zygote and the supervisors import only modules of the standard library that are small: every
sleeping job pays for them in memory. So ``SandboxEngine`` is imported when it is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs every job memory
if TYPE_CHECKING:
    from typing import Any

    from neuro.engines.sandbox.engine import SandboxEngine
    from neuro.engines.sandbox.settings import SandboxSettings

__all__ = ["SandboxEngine", "SandboxSettings"]


def __getattr__(name: str) -> Any:
    if name == "SandboxEngine":
        from neuro.engines.sandbox.engine import SandboxEngine

        return SandboxEngine
    if name == "SandboxSettings":
        from neuro.engines.sandbox.settings import SandboxSettings

        return SandboxSettings
    raise AttributeError(name)
