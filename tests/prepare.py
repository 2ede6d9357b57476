"""Make what takes minutes and is made once: ``python -m tests.prepare``, before or beside them.

Else the first tests that need it make it, and others wait.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests import debian
from tests.clients import environments
from tests.templates import tools


def main() -> int:
    """Returns 1 where something could not be made; the tests that need it say why."""
    makers: list[Callable[[], object]] = [
        *(partial(environments.install, version) for version in environments.VERSIONS),
        tools.install,
    ]
    if os.geteuid() == 0 and shutil.which("mmdebstrap") is not None:
        makers.append(debian.archive)
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for made in [pool.submit(maker) for maker in makers]:
            if (error := made.exception()) is not None:
                print(f"not made: {error}", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
