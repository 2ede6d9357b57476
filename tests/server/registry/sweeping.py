"""The server, whose sweeps follow each other without a pause: ``python sweeping.py run ...``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from neuro.server import sweeps
from neuro.server.__main__ import main

if __name__ == "__main__":
    vars(sweeps)["SWEEP_SECONDS"] = 0.01
    sys.exit(main())
