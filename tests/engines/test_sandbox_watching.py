"""What is counted as a run's own memory where no control group does it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from neuro.engines.sandbox import watching

# A process with another root, as a run's first one.
_ELSEWHERE = "import os, sys; os.chroot(sys.argv[1]); print('there', flush=True); sys.stdin.read()"


@pytest.mark.root
def test_a_link_of_an_image_is_not_followed_to_a_place_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("/dev/shm")
    command = [sys.executable, "-c", _ELSEWHERE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"there\n"
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            before = watching.files_in_memory(run.pid)
            file.write(os.urandom(4 << 20))
            file.flush()
            after = watching.files_in_memory(run.pid)
        run.communicate()

    assert before == after == 0
