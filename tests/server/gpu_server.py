"""The server on a machine whose device files are in another folder than /dev.

``python gpu_server.py FOLDER run ...``
"""

from __future__ import annotations

import sys
from functools import partial

from neuro.engines.sandbox import kind
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.server.__main__ import main

if __name__ == "__main__":
    folder = sys.argv.pop(1)
    vars(kind)["SandboxSettings"] = partial(SandboxSettings, device_folder=folder)
    sys.exit(main())
