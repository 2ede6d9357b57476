"""Project quotas, on a file system of the test's own where the kernel has them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.engines.sandbox import quota

MIB = 1 << 20


@pytest.fixture(params=[True, False], ids=["switched on", "switched off"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An ext4 with or without project quotas."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    features = ["-O", "quota,project", "-E", "quotatype=prjquota"] if request.param else []
    subprocess.run(["mkfs.ext4", "-q", *features, str(image)], check=True)
    option = "loop,prjquota" if request.param else "loop"
    command = ["mount", "-o", option, str(image), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel has no project quotas: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def is_on(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["disk"])


@pytest.mark.root
def test_the_kernel_holds_a_run_and_nobody_else(disk: Path, is_on: bool) -> None:
    upper = disk / "run" / "0"
    upper.mkdir(parents=True)

    project = quota.hold(str(disk / "run"), [str(upper)], limit=4 * MIB, inodes=50)

    assert (project is not None) is is_on
    if project is None:
        (upper / "file").write_bytes(b"x" * 5 * MIB)
        return
    (upper / "inner").mkdir()
    with pytest.raises(OSError, match="quota"):
        (upper / "inner" / "file").write_bytes(b"x" * 5 * MIB)
    (upper / "inner" / "file").unlink()
    with pytest.raises(OSError, match="quota"):
        touch_many(upper / "inner", 60)
    (disk / "other").write_bytes(b"x" * 5 * MIB)
    assert project.used()[1] >= 49

    project.release()

    (upper / "file").write_bytes(b"x" * 5 * MIB)


def touch_many(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / str(number)).touch()


@pytest.mark.root
def test_what_cannot_be_held_is_left_as_it_is(tmp_path: Path) -> None:
    """A memory file system has no projects."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        (place / "0").mkdir()
        assert quota.hold(str(place), [str(place / "0")], limit=MIB, inodes=5) is None
        (place / "0" / "file").write_bytes(b"x" * 2 * MIB)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
