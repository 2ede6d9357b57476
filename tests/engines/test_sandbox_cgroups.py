"""Control groups, on folders that look like the kernel's: machines have version 1, 2 or neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuro.engines.sandbox import cgroups

MIB = 1 << 20
LIMITS = cgroups.Limits(cpu=1.5, memory=256 * MIB, processes=100)


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    """A root of version 2, with the base group as the kernel would show it once it is made."""
    for folder in (tmp_path, tmp_path / "neuro-abc"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (folder / "cgroup.subtree_control").write_text("\n")
        (folder / "cgroup.procs").write_text("")
    return tmp_path


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    for controller in ("memory", "cpu", "cpuacct", "pids"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").write_text("")
    return tmp_path


def test_version_2_is_preferred_and_its_controllers_are_delegated(version_2: Path) -> None:
    (version_2 / "memory").mkdir()
    (version_2 / "memory" / "cgroup.procs").write_text("")

    groups = cgroups.find("abc", str(version_2))

    assert groups == cgroups.Groups(2, {"": f"{version_2}/neuro-abc"})
    for folder in (version_2, version_2 / "neuro-abc"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_version_1_is_used_where_version_2_lacks_memory(version_1: Path) -> None:
    (version_1 / "cgroup.controllers").write_text("hugetlb\n")
    (version_1 / "cgroup.subtree_control").write_text("\n")

    groups = cgroups.find("abc", str(version_1))

    assert groups.version == 1
    assert set(groups.bases) == {"memory", "cpu", "cpuacct", "pids"}


def test_neither_is_said_plainly(tmp_path: Path) -> None:
    assert cgroups.find("abc", str(tmp_path)) == cgroups.Groups(0, {})


def test_limits_of_version_2(version_2: Path) -> None:
    group = cgroups.Group(cgroups.find("abc", str(version_2)), "job-1.0")

    group.create()
    group.limit(LIMITS)

    written = {path.name: path.read_text() for path in (version_2 / "neuro-abc/job-1.0").iterdir()}
    assert written == {
        "memory.max": str(256 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "100",
        "cpu.max": "150000 100000",
    }


def test_limits_of_version_1(version_1: Path) -> None:
    group = cgroups.Group(cgroups.find("abc", str(version_1)), "job-1.0")

    group.create()
    group.limit(LIMITS)

    def written(path: str) -> str:
        return (version_1 / path).read_text()

    assert written("memory/neuro-abc/job-1.0/memory.limit_in_bytes") == str(256 * MIB)
    assert written("pids/neuro-abc/job-1.0/pids.max") == "100"
    assert written("cpu/neuro-abc/job-1.0/cpu.cfs_quota_us") == "150000"


def test_joining_writes_to_every_hierarchy(version_1: Path) -> None:
    group = cgroups.Group(cgroups.find("abc", str(version_1)), "job-1.0")
    group.create()
    group.limit(LIMITS)

    group.join()

    for controller in ("memory", "cpu", "cpuacct", "pids"):
        assert (version_1 / controller / "neuro-abc/job-1.0/cgroup.procs").read_text() == "0"


def test_use_and_the_memory_limit_are_read_in_version_2(version_2: Path) -> None:
    group = cgroups.Group(cgroups.find("abc", str(version_2)), "job-1.0")
    group.create()
    group.limit(LIMITS)
    folder = version_2 / "neuro-abc/job-1.0"
    (folder / "memory.current").write_text("5000\n")
    (folder / "memory.stat").write_text("anon 4000\ninactive_file 1000\n")
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")

    assert (group.memory(), group.cpu_seconds()) == (4000, 2.5)
    assert not group.out_of_memory()
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert group.out_of_memory()


def test_a_group_is_removed_and_removing_it_again_is_fine(version_2: Path) -> None:
    groups = cgroups.find("abc", str(version_2))
    group = cgroups.Group(groups, "job-1.0")
    os.mkdir(group.folders[""])
    assert cgroups.names(groups) == {"job-1.0"}

    assert group.remove()
    assert group.remove()
    assert cgroups.names(groups) == set()


def test_two_installations_have_different_groups(version_1: Path) -> None:
    first, second = (cgroups.find(name, str(version_1)) for name in ("abc", "def"))

    assert not set(first.bases.values()) & set(second.bases.values())
