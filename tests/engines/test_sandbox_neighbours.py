"""Numbers and names of runs that reach each other."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from neuro.engines.sandbox import neighbours
from neuro.engines.sandbox.neighbours import NOBODY, announce, number_of, release, sweep, withdraw
from neuro.engines.sandbox.network import GROUPS

pytestmark = pytest.mark.pure

LOOPBACK = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path)


def lines(place: str, number: int) -> list[str]:
    """The lines of a hosts file that are in force."""
    text = Path(neighbours.hosts_file(place, number)).read_text()
    assert text.endswith("\n")
    return [line.rstrip() for line in text.splitlines() if not line.startswith("#")]


def test_a_label_keeps_its_number_and_shares_it_with_nobody(place: str) -> None:
    alice, bob = number_of(place, "alice"), number_of(place, "bob")

    assert len({alice, bob, NOBODY}) == 3
    assert [number_of(place, "alice"), number_of(place, "bob")] == [alice, bob]
    assert announce(place, "alice", "10.213.0.1", ["a"]) == alice


def test_labels_with_one_beginning_keep_their_numbers(place: str) -> None:
    labels = [f"{'long' * 50}/{number}" for number in range(3)]
    numbers = [announce(place, label, f"10.213.0.{at}", ["a"]) for at, label in enumerate(labels)]

    assert len(set(numbers)) == 3
    assert [number_of(place, label) for label in reversed(labels)] == numbers[::-1]


def test_a_number_is_found_where_the_labels_file_is_gone(place: str) -> None:
    number = announce(place, "alice", "10.213.0.1", ["a"])
    for file in Path(place, "neighbours", "labels").iterdir():
        file.unlink()

    assert announce(place, "alice", "10.213.0.2", ["b"]) == number


def test_no_label_is_nobodys_neighbour(place: str) -> None:
    assert number_of(place, "") == NOBODY
    assert announce(place, "", "10.213.0.1", ["a"]) == NOBODY
    withdraw(place, NOBODY, "10.213.0.1")


def test_runs_of_a_label_know_each_other_and_nobody_elses(place: str) -> None:
    number = announce(place, "alice", "10.213.0.1", ["job-1", "trainer", "trainer"])
    announce(place, "alice", "10.213.0.2", ["job-2"])
    other = announce(place, "bob", "10.213.0.3", ["job-3"])

    assert lines(place, number) == [*LOOPBACK, "10.213.0.1\tjob-1 trainer", "10.213.0.2\tjob-2"]
    assert lines(place, other) == [*LOOPBACK, "10.213.0.3\tjob-3"]


def test_a_run_that_leaves_takes_its_line_and_no_others(place: str) -> None:
    number = announce(place, "alice", "10.213.0.1", ["job-1"])
    announce(place, "alice", "10.213.0.11", ["job-11"])

    withdraw(place, number, "10.213.0.1")
    withdraw(place, number, "10.213.0.99")

    assert lines(place, number) == [*LOOPBACK, "10.213.0.11\tjob-11"]


def test_the_file_stays_the_same_and_small_as_runs_come_and_go(place: str) -> None:
    number = announce(place, "alice", "10.213.0.1", ["job-1"])
    path = Path(neighbours.hosts_file(place, number))
    inode, size = path.stat().st_ino, path.stat().st_size

    for turn in range(50):
        withdraw(place, number, f"10.213.0.{turn + 1}")
        announce(place, "alice", f"10.213.0.{turn + 2}", [f"j{turn}"])

    assert lines(place, number) == [*LOOPBACK, "10.213.0.51\tj49"]
    assert path.stat().st_ino == inode
    assert path.stat().st_size <= size + len("10.213.0.51\tj49\n")


@pytest.mark.parametrize("left", [b"10.213.0.9", b"10.213.0.9\tjob-9 tr", b"1", b"\0\0\0", b"\xff"])
def test_half_a_line_that_a_crash_left_spoils_no_other(place: str, left: bytes) -> None:
    number = announce(place, "alice", "10.213.0.1", ["job-1"])
    path = Path(neighbours.hosts_file(place, number))
    with path.open("ab") as file:
        file.write(left)

    announce(place, "alice", "10.213.0.2", ["job-2"])

    assert lines(place, number) == [*LOOPBACK, "10.213.0.1\tjob-1", "10.213.0.2\tjob-2"]
    withdraw(place, number, "10.213.0.2")
    assert lines(place, number) == [*LOOPBACK, "10.213.0.1\tjob-1"]
    withdraw(place, number, "10.213.0.1")
    assert release(place, "alice")


@pytest.mark.parametrize("written", [0, 7, len(LOOPBACK[0]) + 1, len("\n".join(LOOPBACK))])
def test_half_a_head_that_a_crash_left_is_made_whole(place: str, written: int) -> None:
    number = number_of(place, "alice")
    path = Path(neighbours.hosts_file(place, number))
    path.write_bytes(path.read_bytes()[:written])

    announce(place, "alice", "10.213.0.1", ["job-1"])

    assert lines(place, number) == [*LOOPBACK, "10.213.0.1\tjob-1"]


def test_drafts_that_a_crash_left_are_in_nobodys_way(place: str) -> None:
    number = number_of(place, "alice")
    folder = Path(neighbours.hosts_file(place, number)).parent
    drafts = [folder / "label.tmp", folder.parent / "labels" / "0123.tmp"]
    for draft in drafts:
        draft.write_text("half")
    assert release(place, "alice")

    number_of(place, "alice")
    for draft in drafts:
        draft.write_text("half")
    sweep(place)
    assert not any(draft.exists() for draft in drafts)


@pytest.mark.parametrize(
    "name",
    ["a b", "a\nb", "", "#", "a#b", "localhost", "-a", "a-", "a" * 64, "я", "a..b", "a\tb", "a."],
)
def test_what_is_not_a_host_name_is_left_out(place: str, name: str) -> None:
    number = announce(place, "alice", "10.213.0.1", [name, "good--name.platform-jobs"])

    assert lines(place, number)[2:] == ["10.213.0.1\tgood--name.platform-jobs"]


def test_names_are_found_as_programs_look_them_up(place: str) -> None:
    number = announce(place, "alice", "10.213.0.1", ["job-1-long-name", "trainer"])
    withdraw(place, number, "10.213.0.1")
    announce(place, "alice", "10.213.0.2", ["trainer"])  # shorter, in the same place
    hosts = neighbours.hosts_file(place, number)
    script = f"mount --bind {hosts} /etc/hosts && getent ahostsv4 trainer localhost"

    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)

    assert {line.split()[0] for line in done.stdout.splitlines()} == {"10.213.0.2", "127.0.0.1"}


def test_a_number_is_given_to_another_only_when_all_are_taken(place: str) -> None:
    announce(place, "alice", "10.213.0.1", ["a"])
    numbers = {number_of(place, f"u{count}") for count in range(GROUPS - 2)}
    assert len(numbers) == GROUPS - 2

    newcomer = number_of(place, "newcomer")

    assert newcomer in numbers
    assert newcomer != number_of(place, "alice")


def test_when_all_have_runs_a_newcomer_reaches_nobody(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "GROUPS", 3)
    announce(place, "alice", "10.213.0.1", ["a"])
    number = announce(place, "bob", "10.213.0.2", ["b"])

    assert announce(place, "carol", "10.213.0.3", ["c"]) == NOBODY

    withdraw(place, number, "10.213.0.2")
    assert announce(place, "carol", "10.213.0.3", ["c"]) == number
    assert lines(place, number)[2:] == ["10.213.0.3\tc"]
    assert announce(place, "bob", "10.213.0.2", ["b"]) == NOBODY


def test_a_number_is_released_when_its_runs_are_gone(place: str) -> None:
    number = announce(place, "alice", "10.213.0.1", ["a"])
    assert not release(place, "alice")
    withdraw(place, number, "10.213.0.1")

    assert release(place, "alice")
    assert release(place, "alice")
    assert number_of(place, "bob") == number


def test_runs_whose_networks_are_gone_are_swept(place: str) -> None:
    sweep(place)
    number = announce(place, "alice", "10.229.254.254", ["a"])  # nobody draws this address

    sweep(place)

    assert lines(place, number) == LOOPBACK


def test_jobs_may_read_the_file_whatever_the_servers_umask(place: str) -> None:
    before = os.umask(0o077)
    try:
        number = number_of(place, "alice")
    finally:
        os.umask(before)

    assert Path(neighbours.hosts_file(place, number)).stat().st_mode & 0o777 == 0o644


def come_and_go(place: str, mine: int) -> None:
    for turn in range(40):
        address = f"10.213.{mine}.{turn}"
        number = announce(place, f"owner-{turn % 3}", address, [f"job-{mine}-{turn}"])
        if turn % 2:
            withdraw(place, number, address)


def test_many_processes_announce_at_once(place: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=come_and_go, args=(place, mine)) for mine in range(8)]
    for process in processes:
        process.start()

    seen: set[str] = set()
    while any(process.is_alive() for process in processes):
        number = number_of(place, "owner-0")
        seen |= {line for line in lines(place, number) if len(line.split()) != 2}
    for process in processes:
        process.join()

    assert all(process.exitcode == 0 for process in processes)
    assert seen <= {LOOPBACK[1]}
    stay = {
        f"10.213.{mine}.{turn}\tjob-{mine}-{turn}" for mine in range(8) for turn in range(0, 40, 2)
    }
    numbers = {number_of(place, f"owner-{owner}") for owner in range(3)}
    assert len(numbers) == 3
    found = [line for number in numbers for line in lines(place, number)[2:]]
    assert sorted(found) == sorted(stay)
