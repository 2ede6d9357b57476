"""The server with the kinds of engines that tests have: ``python main.py run ...``.

``[engines.NAME] kind = "plain", folder = "/a/folder"`` is one that several servers can name;
``kind = "memory"`` knows a few words of a shell, and keeps ``log_bytes`` of a job's output.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from neuro.engines import registry
from neuro.server.__main__ import main

if __name__ == "__main__":
    vars(registry)["KINDS"] |= {
        "plain": "tests.engines.plain.kind",
        "memory": "tests.engines.memory_kind",
    }
    sys.exit(main())
