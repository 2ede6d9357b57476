"""attach shows the main process; exec runs another one beside it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from neuro.engines.base import Attaches, Channel, Executes, RunNotFound
from tests.engines.harness import PATIENCE, Has, Runs, drain, mounted, needs, read_until, spec

pytestmark = needs(Has.PROGRAMS, Executes, Attaches)


async def test_exec_tells_results_errors_and_the_exit_code_apart(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    code, out, err = await runs.execute(ref, "sh", "-c", "echo out; echo err >&2; exit 5")

    assert (code, out, err) == (5, b"out\n", b"err\n")


@needs(Has.FENCE)
async def test_exec_is_inside_the_same_sandbox(runs: Runs) -> None:
    options = {"hostname": "trainer", "env": {"NAME": "value"}, "working_dir": "/project"}
    ref = await runs.start("sh", "-c", "echo x > /tmp/mine; echo ready; sleep 600", **options)
    await runs.says(ref.job_id, b"ready")

    script = "cat /tmp/mine; hostname; echo $NAME; pwd; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    _, out, _ = await runs.execute(ref, "sh", "-c", script)

    assert out.decode().split("\n")[:4] == ["x", "trainer", "value", "/project"]
    assert "sleep 600" in out.decode()


async def test_exec_has_no_more_rights_than_the_job(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    script = "grep -h -E '^(CapPrm|CapEff|CapInh|CapAmb|NoNewPrivs|Uid):' /proc/self/status"

    _, inside, _ = await runs.execute(ref, "sh", "-c", script)
    done = await runs.shell(script)

    assert inside == done.output


@needs(Has.FENCE)
async def test_exec_does_not_see_the_server(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "hush")
    ref = await runs.start("sleep", "600")

    _, out, _ = await runs.execute(ref, "sh", "-c", "env; ls -l /proc/self/fd; ls /home")

    assert b"SERVER_SECRET" not in out
    assert b"socket:" not in out


@needs(Has.FENCE)
async def test_a_script_cannot_reach_the_program_that_executes_it(runs: Runs) -> None:
    """Else ``#!/proc/self/exe`` would run a program of the host, open for writing afterwards."""
    ref = await runs.start("sleep", "600")
    script = (
        "printf '#!/proc/self/exe\\nimport os\\nprint(1)\\n"
        'os.open("/proc/self/exe", os.O_WRONLY)\\nprint(2)\\n\' > /tmp/evil; chmod +x /tmp/evil'
    )
    await runs.execute(ref, "sh", "-c", script)

    _, out, err = await runs.execute(ref, "/tmp/evil")

    assert b"2" not in out.split(), err


async def test_a_command_that_is_not_found_is_127(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    code, _, err = await runs.execute(ref, "no-such-command")

    assert code == 127
    assert b"no-such-command" in err


async def test_a_command_that_is_not_executable_is_126(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    assert (await runs.execute(ref, "/etc/hostname"))[0] == 126


async def test_exec_reads_its_input_to_the_end(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["cat"], tty=False)
    data = os.urandom(3_000_000)

    async def feed() -> None:
        await session.write(data)
        await session.write_eof()

    (out, _), _ = await asyncio.gather(drain(session), feed())

    assert out == data
    assert await session.wait() == 0
    await session.close()


async def test_exec_with_a_terminal(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["bash", "--norc"], tty=True)

    await session.resize(99, 33)
    await session.write(b"test -t 0 && stty size; exit 6\n")
    out = await read_until(session, b"33 99")

    await drain(session)
    assert out
    assert await session.wait() == 6
    await session.close()


async def test_a_process_of_exec_that_closes_its_terminal_goes_on(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    closes = "import os, time; [os.close(stream) for stream in (0, 1, 2)]; time.sleep(0.5)"
    session = await runs.engine.exec(ref.job_id, ["python3", "-c", closes], tty=True)

    await drain(session)

    assert await session.wait() == 0
    await session.close()


@needs(Has.FENCE)
async def test_a_job_that_used_up_its_terminals_gets_none_of_the_machines(runs: Runs) -> None:
    uses_up = (
        "import os, time\n"
        "try:\n"
        "    while True: os.open('/dev/ptmx', os.O_RDWR)\n"
        "except OSError: print('none left', flush=True)\n"
        "time.sleep(600)"
    )
    ref = await runs.start("python3", "-c", uses_up)
    await runs.says(ref.job_id, b"none left")

    session = await runs.engine.exec(ref.job_id, ["tty"], tty=True)

    assert b"cannot be started" in b"".join(await drain(session))
    assert await session.wait() == 126
    await session.close()


async def test_the_terminal_of_exec_has_a_name_inside(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(
        ref.job_id, ["sh", "-c", 'test -e "$(tty)" && echo hello > "$(tty)"'], tty=True
    )

    assert await read_until(session, b"hello")
    await drain(session)
    assert await session.wait() == 0
    await session.close()


async def test_the_exit_code_is_known_without_reading(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["sh", "-c", "echo x; exit 8"], tty=False)

    async with asyncio.timeout(PATIENCE):
        assert await session.wait() == 8

    assert await session.read() == (Channel.STDOUT, b"x\n")
    assert await session.read() is None
    await session.close()


@needs(Has.FENCE)
async def test_closing_an_exec_session_ends_its_process(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["sh", "-c", "echo ready; cat"], tty=False)
    await read_until(session, b"ready")

    await session.close()

    async def going() -> bool:
        _, out, _ = await runs.execute(ref, "sh", "-c", "head -n 1 /proc/*/comm")
        return b"cat" in out.split()

    async with asyncio.timeout(PATIENCE):
        while await going():
            pass


async def test_a_slow_reader_loses_nothing(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["head", "-c", "5000000", "/dev/zero"], tty=False)
    await runs.execute(ref, "true")  # nobody reads meanwhile

    out, _ = await drain(session)

    assert len(out) == 5_000_000
    await session.close()


async def test_exec_ends_with_its_run(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["sh", "-c", "echo ready; sleep 600"], tty=False)
    await read_until(session, b"ready")

    await runs.engine.stop(ref, 0)
    await drain(session)

    assert await session.wait() == 137
    await session.close()


async def test_exec_and_attach_of_what_does_not_run_are_not_found(runs: Runs) -> None:
    done = await runs.run("true")

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await runs.engine.exec(job_id, ["true"], tty=False)
        with pytest.raises(RunNotFound):
            await runs.engine.attach(job_id, stdin=False, output=True)


@needs(Has.FENCE)
async def test_attach_shows_the_output_from_now_on_and_the_exit_code(
    runs: Runs, tmp_path: Path
) -> None:
    (tmp_path / "gate").mkdir()
    os.mkfifo(tmp_path / "gate" / "gate")
    mounts = (mounted(source=str(tmp_path / "gate"), target="/gate", read_only=False),)
    script = "echo before; read x < /gate/gate; echo after; exit 9"
    ref = await runs.start("sh", "-c", script, volumes=mounts)
    await runs.says(ref.job_id, b"before")

    session = await runs.engine.attach(ref.job_id, stdin=False, output=True)
    await asyncio.to_thread((tmp_path / "gate" / "gate").write_text, "go\n")
    out, _ = await drain(session)

    assert out == b"after\n"
    assert await session.wait() == 9
    await session.close()


async def test_attach_without_output_says_nothing_until_the_end(runs: Runs) -> None:
    begun = spec("sh", "-c", "echo one; sleep 0.3")
    await runs.engine.start(begun)
    session = await runs.engine.attach(begun.job_id, stdin=False, output=False)

    assert await session.read() is None
    assert await session.wait() == 0
    await session.close()


async def test_many_sessions_at_once(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    results = await asyncio.gather(*(runs.execute(ref, "echo", str(i)) for i in range(20)))

    assert [out for _, out, _ in results] == [f"{i}\n".encode() for i in range(20)]


async def test_a_process_left_behind_by_exec_does_not_hold_the_session(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    async with asyncio.timeout(PATIENCE):
        code, out, _ = await runs.execute(ref, "sh", "-c", "sleep 600 & echo started")

    assert (code, out) == (0, b"started\n")


async def test_the_input_of_a_job_is_what_is_sent_to_it(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "echo begun; cat", stdin=True)
    await runs.says(ref.job_id, b"begun")
    data = os.urandom(3_000_000)
    session = await runs.engine.attach(ref.job_id, stdin=True, output=True)

    async def feed() -> None:
        await session.write(data)
        await session.write_eof()

    (out, _), _ = await asyncio.gather(drain(session), feed())

    assert out == data
    assert session.input.taken == len(data)
    assert await session.wait() == 0
    await session.close()


async def test_a_sender_that_comes_back_goes_on_where_it_was(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "head -n 1; cat", stdin=True)
    first = await runs.engine.attach(ref.job_id, stdin=True, output=True)
    await first.write(b"one\n")
    await read_until(first, b"one\n")
    await first.close()

    second = await runs.engine.attach(ref.job_id, stdin=True, output=True)
    assert second.input.taken == len(b"one\n")
    await second.write(b"two\n")
    await second.write_eof()

    assert await drain(second) == (b"two\n", b"")
    await second.close()


async def test_a_process_that_closes_its_input_is_noticed(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")
    session = await runs.engine.exec(ref.job_id, ["sh", "-c", "exec <&-; sleep 600"], tty=False)

    async with asyncio.timeout(PATIENCE):
        while not session.input.closed:
            assert await session.read() is not None

    await session.close()


async def test_who_sends_beside_one_that_waits_has_to_wait_too(runs: Runs) -> None:
    """Nobody's input piles up in a supervisor, whose memory is not the job's."""
    ref = await runs.start("sleep", "600", stdin=True)
    first = await runs.engine.attach(ref.job_id, stdin=True, output=False)
    for _ in range(4):
        await first.write(b"x" * 65_536)  # more than a pipe holds
    async with asyncio.timeout(PATIENCE):
        while not first.input.taken:
            assert await first.read() is not None

    second = await runs.engine.attach(ref.job_id, stdin=True, output=False)
    sending = asyncio.ensure_future(second.write(b"x" * (4 << 20)))
    done, _ = await asyncio.wait([sending], timeout=3)

    assert not done
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await first.close()
    await second.close()
