"""Package managers in steps of builds, on a real Debian."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.sandbox import SandboxEngine
from tests import debian
from tests.engines.building import Builder, shell
from tests.engines.harness import EVERYWHERE, Runs
from tests.engines.plain_user import as_plain_user, prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

BASE = ["/cache/debian"]


@pytest_asyncio.fixture
async def builder(tmp_path: Path) -> AsyncIterator[Builder]:
    archive = debian.archive()
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    made = Builder(runs, tmp_path / "engine")
    assert archive.exists()
    debian.unpack(made.layer("debian"))
    yield made
    await runs.close()


def make_wheel(folder: Path) -> None:
    """A wheel of one module."""
    info = "small-1.0.dist-info"
    with zipfile.ZipFile(folder / "small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small.py", "print('installed by pip')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", f"small.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")


async def test_packages_are_installed(builder: Builder) -> None:
    make_wheel(builder.layer("wheels"))
    wheels = [["Bind", {"source": "/cache/wheels", "target": "/wheels"}]]
    # A daemon's package makes users, gives files away and asks for a setgid program.
    apt = "apt-get install -y --no-install-recommends hello openssh-client"
    pip = "pip install --break-system-packages --no-index /wheels/*.whl"
    env = {"DEBIAN_FRONTEND": "noninteractive"}

    by_apt, by_pip, used = await builder.steps(
        shell(apt, layers=BASE, env=env, upper="/cache/apt"),
        shell(pip, layers=[*BASE, "/cache/apt"], mounts=wheels, upper="/cache/pip"),
        shell("hello; python3 -c 'import small'", layers=[*BASE, "/cache/apt", "/cache/pip"]),
        memory=2 << 30,
    )

    assert by_apt.code == 0, by_apt.out + by_apt.errors
    assert by_pip.code == 0, by_pip.out + by_pip.errors
    assert used.lines == ["Hello, world!", "installed by pip"]
    assert not any("resolv.conf" in name for name in by_apt.changed)


@pytest.mark.root
def test_packages_are_installed_by_a_plain_users_server() -> None:
    archive = debian.archive()
    place = Path(tempfile.mkdtemp(prefix="neuro-user-"))
    try:
        python = prepare(place)
        readable = shutil.copy(archive, place / "debian.tar")
        os.chmod(readable, 0o644)
        chosen = ["tests/engines/test_build_packages.py", "-m", "not root"]
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]

        done = as_plain_user(command, place, **{debian.PLACE: str(readable)})

        assert done.returncode == 0, done.stdout[-20_000:]
        assert "1 passed" in done.stdout
    finally:
        shutil.rmtree(place, ignore_errors=True)
