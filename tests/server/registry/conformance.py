"""The OCI distribution specification's own conformance program: built once, and run.

``python -m tests.server.registry.conformance`` builds it; it takes Go, and its module proxy.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

MODULE = "github.com/opencontainers/distribution-spec/conformance"
VERSION = "v0.0.0-20260831232431-97274622c111"
# All that it does not ask for by itself.
EVERYTHING = {
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
    "OCI_DATA_SPARSE": "true",
}


class CannotBuild(Exception):
    """There is no Go here, or its modules cannot be had."""


def program() -> Path:
    """Where the program is; it is built if it is not there yet. Raises CannotBuild."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuro-tests"
    cache.mkdir(parents=True, exist_ok=True)
    built = cache / f"oci-conformance-{VERSION}"
    with (cache / "oci-conformance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests run side by side.
        if not built.exists():
            _build(built)
    return built


def _build(built: Path) -> None:
    if shutil.which("go") is None:
        raise CannotBuild("needs Go")
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        for command in (
            ["go", "mod", "init", "conformance"],
            ["go", "get", "-tool", f"{MODULE}@{VERSION}"],
            ["go", "build", "-o", "program", MODULE],
        ):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise CannotBuild(f"{' '.join(command)}: {done.stderr}")
        (Path(folder) / "program").rename(built)


def run(
    version: str, *, address: str, repositories: tuple[str, str], token: str, results: Path
) -> tuple[int, list[str], str]:
    """Run it against a registry as one ``version`` of the specification.

    Returns how many checks it made, the names of those that did not pass, and what it said.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "OCI_REGISTRY": address.removeprefix("http://"),
        "OCI_TLS": "disabled",
        "OCI_REPO1": repositories[0],
        "OCI_REPO2": repositories[1],
        "OCI_USERNAME": "token",
        "OCI_PASSWORD": token,
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(results),
        **EVERYTHING,
    }
    done = subprocess.run([program()], env=environment, capture_output=True, text=True, check=False)
    cases = list(ElementTree.parse(results / "junit.xml").iter("testcase"))
    failed = [str(case.get("name")) for case in cases if case.get("status") != "passed"]
    return len(cases), failed, done.stdout + done.stderr


if __name__ == "__main__":
    print(program())
