"""Control groups, on folders that look like the kernel's: machines have version 1, 2 or neither."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuro.engines.sandbox import cgroups, hierarchies
from tests.engines.harness import PATIENCE

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

    groups = hierarchies.find("abc", str(version_2))

    assert groups == cgroups.Groups(2, {"": f"{version_2}/neuro-abc"})
    for folder in (version_2, version_2 / "neuro-abc"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_version_1_is_used_where_version_2_lacks_memory(version_1: Path) -> None:
    (version_1 / "cgroup.controllers").write_text("hugetlb\n")
    (version_1 / "cgroup.subtree_control").write_text("\n")

    groups = hierarchies.find("abc", str(version_1))

    assert groups.version == 1
    assert set(groups.bases) == {"memory", "cpu", "cpuacct", "pids"}


def test_neither_is_said_plainly(tmp_path: Path) -> None:
    assert hierarchies.find("abc", str(tmp_path)) == cgroups.Groups(0, {})


def test_limits_of_version_2(version_2: Path) -> None:
    group = cgroups.Group(hierarchies.find("abc", str(version_2)), "job-1.0")

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


def test_groups_of_control_runs_are_below_one_that_has_a_limit(version_2: Path) -> None:
    groups = hierarchies.find("abc", str(version_2))
    control = version_2 / "neuro-abc" / "control"
    control.mkdir()
    for name, text in (("controllers", "memory pids"), ("subtree_control", ""), ("procs", "")):
        (control / f"cgroup.{name}").write_text(text)
    group = cgroups.Group(groups, "1-a")
    group.create()

    hierarchies.bound_control(groups, 256 * MIB)
    group.move(cgroups.of_control(groups), 4711)

    assert (control / "memory.max").read_text() == str(256 * MIB)
    assert (control / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (control / "1-a" / "cgroup.procs").read_text() == "4711"
    assert cgroups.names(groups) == set()
    assert cgroups.names(cgroups.of_control(groups)) == {"1-a"}


def test_of_version_1_control_runs_have_the_memory_alone_below_it(version_1: Path) -> None:
    groups = hierarchies.find("abc", str(version_1))
    group = cgroups.Group(groups, "1-a")
    group.create()

    hierarchies.bound_control(groups, 256 * MIB)
    group.move(cgroups.of_control(groups), 4711)

    control = version_1 / "memory" / "neuro-abc" / "control"
    assert (control / "memory.limit_in_bytes").read_text() == str(256 * MIB)
    assert (control / "1-a" / "cgroup.procs").read_text() == "4711"
    assert not (version_1 / "memory" / "neuro-abc" / "1-a").exists()
    assert (version_1 / "pids" / "neuro-abc" / "1-a").is_dir()


def test_limits_of_version_1(version_1: Path) -> None:
    group = cgroups.Group(hierarchies.find("abc", str(version_1)), "job-1.0")

    group.create()
    group.limit(LIMITS)

    def written(path: str) -> str:
        return (version_1 / path).read_text()

    assert written("memory/neuro-abc/job-1.0/memory.limit_in_bytes") == str(256 * MIB)
    assert written("pids/neuro-abc/job-1.0/pids.max") == "100"
    assert written("cpu/neuro-abc/job-1.0/cpu.cfs_quota_us") == "150000"


def test_joining_writes_to_every_hierarchy(version_1: Path) -> None:
    group = cgroups.Group(hierarchies.find("abc", str(version_1)), "job-1.0")
    group.create()
    group.limit(LIMITS)

    group.join()

    for controller in ("memory", "cpu", "cpuacct", "pids"):
        assert (version_1 / controller / "neuro-abc/job-1.0/cgroup.procs").read_text() == "0"


def test_use_and_the_memory_limit_are_read_in_version_2(version_2: Path) -> None:
    group = cgroups.Group(hierarchies.find("abc", str(version_2)), "job-1.0")
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
    groups = hierarchies.find("abc", str(version_2))
    group = cgroups.Group(groups, "job-1.0")
    os.mkdir(group.folders[""])
    assert cgroups.names(groups) == {"job-1.0"}

    assert group.remove()
    assert group.remove()
    assert cgroups.names(groups) == set()


def test_two_installations_have_different_groups(version_1: Path) -> None:
    first, second = (hierarchies.find(name, str(version_1)) for name in ("abc", "def"))

    assert not set(first.bases.values()) & set(second.bases.values())


def test_jobs_together_leave_process_ids_to_the_machine(version_1: Path) -> None:
    most = int(Path("/proc/sys/kernel/pid_max").read_text())

    hierarchies.find("abc", str(version_1))

    assert int((version_1 / "pids/neuro-abc/pids.max").read_text()) == most * 3 // 4


def test_in_version_2_too(version_2: Path) -> None:
    most = int(Path("/proc/sys/kernel/pid_max").read_text())

    hierarchies.find("abc", str(version_2))

    assert int((version_2 / "neuro-abc/pids.max").read_text()) == most * 3 // 4


def test_four_runs_do_not_take_all_process_ids() -> None:
    most = int(Path("/proc/sys/kernel/pid_max").read_text())

    assert hierarchies.process_limit(100) == 100
    assert hierarchies.process_limit(1 << 30) == max(512, most // 4)


@pytest.fixture
def real() -> Iterator[cgroups.Groups]:
    """Groups of the kernel's own."""
    groups = hierarchies.find(f"test-{os.getpid()}")
    if not groups.version:
        pytest.skip("this user may not make control groups")
    yield groups
    assert not cgroups.clear([cgroups.Group(groups, name) for name in cgroups.names(groups)], 5.0)
    cgroups.remove_bases(groups)


class Clock:
    """Stands for ``time`` in the module that is tested: only whoever sleeps makes time pass.

    ``nap`` is called each time that somebody sleeps.
    """

    def __init__(self, nap: Callable[[], None]) -> None:
        self.now = 0.0
        self._nap = nap

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._nap()
        self.now += seconds


def inhabit(folder: str) -> subprocess.Popen[bytes]:
    """A process in a group."""
    sleeper = subprocess.Popen(["sleep", "600"])
    Path(f"{folder}/cgroup.procs").write_text(str(sleeper.pid))
    return sleeper


@pytest.mark.root
def test_groups_below_a_group_and_their_processes_go_with_it(
    real: cgroups.Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [cgroups.Group(real, f"job-{number}") for number in range(12)]
    sleepers = []
    for group in groups:
        group.create()
        for folder in group.folders.values():
            os.makedirs(f"{folder}/leftover/deeper")
            os.mkdir(f"{folder}/beside")
            sleepers += [inhabit(f"{folder}/leftover"), inhabit(f"{folder}/beside")]

    def until_all_are_dead() -> None:
        assert cgroups.names(real), "it waits for groups that are gone"
        assert [sleeper.wait(PATIENCE) for sleeper in sleepers] == [-9] * len(sleepers)

    monkeypatch.setattr(cgroups, "time", Clock(until_all_are_dead))

    assert not cgroups.clear(groups, 2.0)
    assert [sleeper.wait(PATIENCE) for sleeper in sleepers] == [-9] * len(sleepers)


@pytest.mark.root
def test_what_does_not_go_is_told_in_time(
    real: cgroups.Groups, version_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is no group of the kernel's stands for one that it does not let go."""
    stuck = cgroups.Group(hierarchies.find("abc", str(version_1)), "job-stuck")
    stuck.create()
    stuck.limit(LIMITS)
    empty = cgroups.Group(real, "job-empty")
    empty.create()
    clock = Clock(lambda: None)
    monkeypatch.setattr(cgroups, "time", clock)

    left = cgroups.clear([stuck, empty], 0.1)

    assert left == [stuck]
    assert 0.1 <= clock.now < 0.12


@pytest.mark.root
def test_groups_deeper_than_any_path_go(real: cgroups.Groups) -> None:
    group = cgroups.Group(real, "job-deep")
    group.create()
    for folder in group.folders.values():
        fd = os.open(folder, os.O_RDONLY)
        for _ in range(50):
            os.mkdir("d" * 100, dir_fd=fd)
            below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)

    group.kill()
    assert group.remove(2.0)
