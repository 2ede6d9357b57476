"""Bakes as the server keeps them: listed, inspected, shown, cancelled; nobody drives them."""

from __future__ import annotations

import re
from socket import SO_REUSEADDR, SOL_SOCKET, socket

import pytest

from neuro.client.blocking import run
from neuro.domain.bakes import Bake, BakeImageRequest, CacheEntryRequest, TaskStatus
from tests.flow.cli.keeper import BATCH, Keeper
from tests.flow.cli.project import NEURO_FLOW, Person

P, R, S, F, C = (
    TaskStatus.PENDING,
    TaskStatus.RUNNING,
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
    TaskStatus.CANCELLED,
)


@pytest.fixture
def keeper(person: Person) -> Keeper:
    person.write(".neuro/sweep.yml", BATCH)
    made = Keeper(person)
    project = run(made.client.flows.project_by_name("example"))
    if project is not None:
        run(made.client.flows.delete_project(project.id))
    return made


def failed_bake(person: Person, keeper: Keeper, name: str = "nightly") -> Bake:
    """A bake with a job that printed something."""
    script = "for n in {1..20}; do echo line $n; done; echo ::set-output name=a::b"
    job = person.ok("-q", "run", "--detach", "ubuntu", "--", "bash", "-c", script).strip()
    person.run("logs", job)
    bake = keeper.bake(name, tags=("t1",))
    attempt = keeper.attempt(bake)
    keeper.task(attempt, "fetch", P, R, S, raw_id="job-1")
    keeper.task(attempt, "fit", P, R)
    keeper.task(attempt, "fit.lr-0.1", P, R, F, raw_id=job, message="its exit code is 3")
    keeper.task(attempt, "fit.lr-0.2", P, R, C)
    keeper.end(attempt, F)
    return bake


def test_no_bakes_yet(person: Person, keeper: Keeper) -> None:
    done = person.flow("bakes")

    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split() == [
        "ID", "│", "NAME", "│", "BATCH", "│", "EXECUTOR", "│", "STATUS", "│", "WHEN",
        "│", "TOOK",
    ]  # fmt: skip
    assert "`neuro-flow bake BATCH`" in done.stderr
    assert person.flow_ok("-q", "bakes") == ""


def test_bakes_are_listed_oldest_first(person: Person, keeper: Keeper) -> None:
    first = keeper.bake("nightly", tags=("a", "b"))
    keeper.attempt(first, S)
    second = keeper.bake(tags=("b",))
    keeper.attempt(second, R)
    broken = keeper.bake()

    done = person.flow("bakes")
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()[3:-1]]

    assert [row[:3] + row[4:5] for row in rows] == [
        [first.id, "nightly", "sweep", "succeeded"],
        [second.id, "", "sweep", "running"],
    ]
    assert f"Bake {broken.id} is malformed, skipping" in done.stderr
    assert person.flow_ok("-q", "bakes", "--recent-first").split()[-1] == first.id
    assert person.flow_ok("-q", "bakes", "-t", "a").split() == [first.id]
    assert person.flow_ok("-q", "bakes", "-t", "b", "-t", "a").split() == [first.id]
    assert person.flow_ok("-q", "bakes", "--until", "1h") == ""
    assert len(person.flow_ok("-q", "bakes", "--since", "1h").split()) == 3


def test_a_narrow_terminal_shows_bakes_and_tasks_in_its_lines(
    person: Person, keeper: Keeper
) -> None:
    bake = failed_bake(person, keeper, name="a name of many words, " * 4)

    for words in (["bakes"], ["inspect", bake.id]):
        with person.flow_terminal(*words, columns=80) as shown:
            assert shown.end() == 0
            lines = re.sub(r"\x1b\[[\d;]*m", "", shown.shown).split("\r\n")
        assert max(len(line) for line in lines if re.search("[│┼╵]", line)) <= 80
        titles = next(line.replace(" │", "").split() for line in lines if "STATUS" in line)
        assert titles in (["ID/NAME", "BATCH", "STATUS", "WHEN"],
                          ["ID/BATCH", "(NAME)", "STATUS", "WHEN"],
                          ["ID", "STATUS", "STARTED", "FINISHED", "TOOK"])  # fmt: skip


def test_a_bake_is_found_by_name_and_id(person: Person, keeper: Keeper) -> None:
    bake = failed_bake(person, keeper)

    shown = person.flow_ok("inspect", "nightly")
    assert shown == person.flow_ok("inspect", bake.id)
    # An id needs no project.
    assert shown == person.flow_ok("inspect", bake.id, cwd=person.folder)
    head = f"Bake id: {bake.id}\nName: nightly\nBatch: sweep\nTags: t1\nAttempt #1 failed in "
    assert shown.startswith(head)
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines()[9:13]]
    assert [row[:2] for row in rows] == [
        ["fetch", "succeeded"],
        ["fit", "running"],
        ["fit.lr-0.1", "failed"],
        ["fit.lr-0.2", "cancelled"],
    ]
    assert rows[1][4] == "N/A"
    assert "Messages:\n  fit.lr-0.1: its exit code is 3\n" in shown
    assert "Images:" not in shown

    image = BakeImageRequest(bake_id=bake.id, ref="image:own:v1", yaml_defs=["own"])
    run(keeper.bakes.add_image(image))
    assert "Images:\n\n  REF " in person.flow_ok("inspect", "nightly")
    assert person.flow_ok("-q", "inspect", "nightly").split()[0] == "fetch"


def test_the_graph_of_a_bake(person: Person, keeper: Keeper) -> None:
    bake = failed_bake(person, keeper)

    assert person.flow_ok("inspect", "nightly", "--graph") == (
        "✓ fetch → ● fit\n┊ ┌─ ✗ lr-0.1\n┊ └─ ⊘ lr-0.2\n○ report\n"
    )
    assert person.flow_ok("inspect", "nightly", "--dot") == f"Saved the graph as {bake.id}_1.gv\n"
    text = (person.project / f"{bake.id}_1.gv").read_text()
    assert r'"fit.lr-0.1" [label="lr-0.1\nfailed ' in text
    person.flow_ok("inspect", "nightly", "--pdf", "-o", "graph")
    assert (person.project / "graph").read_bytes().startswith(b"%PDF")


def test_the_output_of_a_task(person: Person, keeper: Keeper) -> None:
    failed_bake(person, keeper)

    shown = person.flow("show", "nightly", "fit.lr-0.1")
    assert shown.stderr.splitlines()[:2] == [
        "Attempt #1 failed",
        "Task fit.lr-0.1 failed: its exit code is 3",
    ]
    lines = shown.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("line 1", "line 20")
    raw = person.flow_ok("-q", "show", "nightly", "fit.lr-0.1", "--raw").splitlines()
    assert (raw[0], raw[-1]) == ("line 1", "::set-output name=a::b")
    assert "has no job of its own" in person.flow("show", "nightly", "fit").stderr
    rows = person.flow("show", "nightly", "fit.lr")
    assert "Did you mean one of fit.lr-0.1, fit.lr-0.2?" in rows.stderr
    assert person.offered("show", "nightly", "fi") == ["fit.lr-0.1"]


def test_why_a_bake_was_cancelled_is_told_beside_what_failed(
    person: Person, keeper: Keeper
) -> None:
    attempt = keeper.attempt(keeper.bake("late"))
    keeper.task(attempt, "fetch", P, R, F, message="exit code 1")
    keeper.end(attempt, C, "The bake's life span of 3s has ended.")

    shown = person.flow("inspect", "late", "--watch").stdout
    assert "  The bake's life span of 3s has ended.\n\n✗ fetch: exit code 1\n" in shown


def test_a_bake_that_is_over_is_watched_no_longer(person: Person, keeper: Keeper) -> None:
    failed_bake(person, keeper)

    done = person.flow("inspect", "nightly", "--watch")

    assert done.returncode == 1
    assert "Bake nightly: attempt #1 failed in " in done.stdout
    assert "✗ fit.lr-0.1: its exit code is 3\n    line 11\n" in done.stdout
    assert "    line 20\n  all of its output: neuro-flow show nightly fit.lr-0.1\n" in done.stdout
    assert "::set-output" not in done.stdout
    assert "neuro-flow restart nightly" in done.stderr
    assert person.flow("-q", "inspect", "nightly", "--watch").stdout == ""


def test_changes_are_told_as_they_come(person: Person, keeper: Keeper) -> None:
    attempt = keeper.attempt(keeper.bake("live"))
    keeper.task(attempt, "fetch", P, R)

    with person.watch("inspect", "live", "--watch") as watching:
        watching.until("fetch: running\n")
        keeper.task(attempt, "fetch", P, R, S)
        watching.until("fetch: succeeded in 0.0s\n")
        keeper.end(attempt, S)
        assert watching.end() == 0
        assert "Bake live: attempt #1 succeeded in " in watching.shown


def test_a_server_that_is_away_is_waited_for(person: Person, keeper: Keeper) -> None:
    attempt = keeper.attempt(keeper.bake("live"))
    keeper.task(attempt, "fetch", P, R)

    with person.watch("inspect", "live", "--watch") as watching:
        watching.until("fetch: running\n")
        person.ok("down")
        watching.until("The server does not answer")
        person.ok("up", "--port", str(keeper.port))
        keeper.task(attempt, "fetch", P, R, S)
        keeper.end(attempt, S)
        assert watching.end() == 0
        # What was told before is not told again.
        assert watching.shown.count("fetch: ") == 1
        assert "(1/4 done)" in watching.shown


def test_a_server_that_comes_back_elsewhere_is_found(person: Person, keeper: Keeper) -> None:
    attempt = keeper.attempt(keeper.bake("live"))
    keeper.task(attempt, "fetch", P, R)

    with person.watch("inspect", "live", "--watch") as watching, socket() as taken:
        watching.until("fetch: running\n")
        person.ok("down")
        watching.until("The server does not answer")
        taken.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", keeper.port))  # so that it is not chosen again
        person.ok("up", "--port", "0")
        moved = Keeper(person)
        assert moved.port != keeper.port
        watching.until(f"The server is at {moved.client.transport.url} now.\n")
        moved.task(attempt, "fetch", P, R, S)
        moved.end(attempt, S)
        assert watching.end() == 0
        assert "(1/4 done)" in watching.shown


def test_control_c_leaves_the_bake_alone(person: Person, keeper: Keeper) -> None:
    attempt = keeper.attempt(keeper.bake("live"))
    keeper.task(attempt, "fetch", P, R)

    with person.watch("inspect", "live", "--watch") as watching:
        watching.until("fetch: running\n")
        watching.interrupt()
        assert watching.end() == 0
        assert "Bake live goes on.\n  neuro-flow inspect --watch live " in watching.shown
    assert run(keeper.bakes.get_attempt(attempt.id)).result is R


def test_a_bake_is_cancelled_once(person: Person, keeper: Keeper) -> None:
    bake = keeper.bake("live")
    attempt = keeper.attempt(bake)

    assert person.offered("cancel", "") == ["live", bake.id]
    assert person.flow_ok("cancel", "live") == "Attempt #1 of bake live is cancelled.\n"
    assert run(keeper.bakes.get_attempt(attempt.id)).result is C
    again = person.flow("cancel", "live")
    assert again.returncode == 1
    assert again.stderr == "ERROR: Attempt #1 of bake live is over already: cancelled.\n"
    assert person.offered("cancel", "l") == []
    assert person.offered("restart", "l") == ["live"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["inspect", "nigthly"], 1, "There is no bake nigthly. Did you mean 'nightly'?"),
        (["inspect", "other"], 1, "`neuro-flow bakes` lists them all"),
        (["inspect", "sweep"], 1, "It is a batch, and its last bake is nightly."),
        (["logs", "nightly", "fetch"], 1, "neuro-flow show nightly fetch"),
        (["cancel", "bake-12345678-1234-1234-1234-123456789abc"], 1, "There is no bake bake-"),
        (["inspect", "nightly", "-a", "3"], 1, "Bake nightly has no attempt #3; it has #1."),
        (["show", "nightly", "report"], 2, "Task report had not begun when attempt #1 ended"),
        (["show", "nightly", "fit.lr-0.3"], 1, "Did you mean 'fit.lr-0.2'?"),
        (["show", "nightly", "fit.rl"], 1, "Did you mean 'fit.lr'?"),
        (["cancel", "nightly"], 1, "ERROR: Attempt #1 of bake nightly is over already: failed.\n"),
        (["unschedule", "sweep"], 1, "`neuro-flow schedules`"),
        (["show", "nightly"], 1, "neuro-flow show nightly TASK"),
    ],
)
def test_what_is_wrong_is_said(
    person: Person, keeper: Keeper, words: list[str], code: int, says: str
) -> None:
    failed_bake(person, keeper)

    done = person.flow(*words)

    assert (done.returncode, says in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize(
    ("result", "number", "code", "says"),
    [
        (R, 1, 1, "ERROR: Attempt #1 of again is running: wait for its end, or stop it"),
        (
            F,
            99,
            1,
            "ERROR: again has 99 attempts, the most that a bake can have: start a new bake.",
        ),
        # Another option does it.
        (S, 1, 1, "neuro-flow restart --no-from-failed again"),
    ],
)
def test_what_cannot_be_restarted(
    person: Person, keeper: Keeper, result: TaskStatus, number: int, code: int, says: str
) -> None:
    keeper.attempt(keeper.bake("again"), result, number)

    done = person.flow("restart", "again")

    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert ("Usage:" in done.stderr) == (code == 2)


def test_what_is_kept_can_be_forgotten(person: Person, keeper: Keeper) -> None:
    def keep(task: str) -> None:
        request = CacheEntryRequest(
            project_id=keeper.project_id, batch="sweep", task_id=task, key="k"
        )
        run(keeper.bakes.add_cache_entry(request))

    def kept() -> list[str]:
        project_id = keeper.project_id
        tasks = ("a", "b")
        found = [run(keeper.bakes.cache_entry(project_id, "sweep", it, "k")) for it in tasks]
        return [it.task_id for it in found if it is not None]

    keep("a")
    keep("b")
    said = person.flow_ok("clear-cache", "sweep", "a")
    assert said == "Forgot the cached outcomes of task a of batch sweep.\n"
    assert kept() == ["b"]
    keep("a")
    person.flow_ok("clear-cache", "sweep.yml")
    assert kept() == []
    keep("a")
    person.flow_ok("clear-cache", "ALL")
    assert kept() == []


def test_a_terminal_that_cannot_redraw_is_given_lines(person: Person, keeper: Keeper) -> None:
    attempt = keeper.attempt(keeper.bake("plain"))
    keeper.task(attempt, "fetch", P, R)

    dumb = ("env", "TERM=dumb", *NEURO_FLOW)
    words = ("inspect", "plain", "--watch")
    with person.terminal(*words, program=dumb, cwd=person.project) as shown:
        shown.until("fetch: running")
        keeper.end(attempt, F)
        assert shown.end() == 1
    assert "\x1b" not in shown.shown


def test_the_table_is_redrawn_in_a_terminal(person: Person, keeper: Keeper) -> None:
    attempt = keeper.attempt(keeper.bake("live"))
    keeper.task(attempt, "fetch", P, R)

    with person.flow_terminal("inspect", "live", "--watch", rows=10, columns=60) as shown:
        shown.until("running")
        shown.until("0/4 done · 1 running")
        keeper.task(attempt, "fetch", P, R, S)
        drawn = shown.until("1/4 done")
        assert "\x1b[" in drawn
        keeper.end(attempt, F)
        assert shown.end() == 1
        assert "attempt #1" in shown.shown


@pytest.mark.parametrize(
    "words", ["run hello", "mkvolumes", "plan sweep", "bakes", "cancel it", "clear-cache sweep"]
)
def test_a_project_of_somebody_else_is_refused_by_every_command(
    alone: Person, person: Person, words: str
) -> None:
    alone.write(".neuro/sweep.yml", BATCH)
    alone.write(".neuro/project.yml", "id: example\nowner: somebody\n")
    done = alone.flow(*words.split(), NEUROMATION_CONFIG=str(person.config_dir))

    assert done.returncode == 1
    assert "This project belongs to somebody" in done.stderr, done
    assert "log in as somebody, or remove `owner:`" in done.stderr


def test_a_project_with_its_own_owner_is_as_one_without(person: Person, keeper: Keeper) -> None:
    keeper.task(keeper.attempt(keeper.bake("own")), "fetch", P, R)
    user = keeper.client.user
    project = person.write(".neuro/project.yml", f"id: example\nowner: {user}\nrole: {user}/x\n")
    try:
        assert "own" in person.flow_ok("bakes")
        assert "fetch" in person.flow_ok("inspect", "own")
        person.flow_ok("cancel", "own")
    finally:
        project.unlink()
