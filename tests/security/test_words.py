"""Texts of a run that could be taken for more than one, and none of them is."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from neuro.engines.base import EngineFault, ExitCause, Exited, RunRef, RunSpec
from neuro.engines.sandbox import kernel
from tests.engines.harness import Finished, Runs, mounted, spec
from tests.security.host import Host

_ODD = ("\0", "\n", "\x1b[2J", "\ud800", "\udcff", "\u202e", "$(id)", "=", ":,")
_INJECTED = "/\0--bind\0/\0/mnt"


def variants(volume: str, text: str) -> dict[str, dict[str, Any]]:
    """The run, with ``text`` in each of its strings in turn."""
    return {
        "argv": {"argv": ("echo", f"a{text}b")},
        "program": {"argv": (f"echo{text}",)},
        "name of a variable": {"env": {f"A{text}B": "x"}},
        "variable": {"env": {"A": f"a{text}b"}},
        "working_dir": {"working_dir": f"/w{text}x"},
        "hostname": {"hostname": f"a{text}b"},
        "target": {"volumes": (mounted(source=volume, target=f"/v{text}x"),)},
        "source": {"volumes": (mounted(source=f"{volume}{text}x", target="/v"),)},
        "neighbours": {"neighbours": f"a{text}b"},
        "name": {"neighbours": "a", "names": (f"a{text}b",)},
        "image": {"image": f"a{text}b"},
    }


async def begin(runs: Runs, **changes: Any) -> Exited | str:
    begun: RunSpec = msgspec.structs.replace(spec("cat", "/etc/hosts"), **changes)
    try:
        await runs.engine.start(begun)
    except (EngineFault, ValueError, OSError) as error:
        return str(error)
    return (await runs.finished(RunRef(begun.job_id))).exited


@pytest.mark.asyncio(loop_scope="module")
async def test_no_text_of_a_run_is_more_than_one(runs: Runs, host: Host) -> None:
    volume = str(host.volume())
    for text in (*_ODD, _INJECTED, "x" * 5000, "x/" * 400, "/.." * 30):
        asked = variants(volume, text)
        ends = await asyncio.gather(*(begin(runs, **changes) for changes in asked.values()))

        for place, end in zip(asked, ends, strict=True):
            what = (place, text[:20], end)
            assert end if isinstance(end, str) else end.cause != ExitCause.LOST, what
            if isinstance(end, Exited) and end.cause == ExitCause.CANNOT_START:
                assert end.message, what
            told = isinstance(end, str) or end.cause == ExitCause.CANNOT_START
            if "\0" in text and place not in ("neighbours", "name", "image"):
                assert told, what
    host.check()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_command_of_exec_with_a_nul_does_not_begin(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    code, out, err = await runs.execute(ref, "echo", "a\0b")

    assert (code, out) == (126, b"")
    assert b"NUL" in err
    await runs.engine.stop(ref, 0)


@pytest.mark.parametrize("name", ["", "=", "a=b"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_variable_without_a_possible_name_is_told(runs: Runs, name: str) -> None:
    done: Finished = await runs.run("true", env={name: "x"})

    assert done.exited.cause == ExitCause.CANNOT_START
    assert "environment variable" in (done.exited.message or "")


def test_the_kernel_is_given_no_text_with_a_nul(host: Host) -> None:
    path = f"{host.canary}\0x"
    for call in (
        kernel.open_without_links,
        kernel.copy_tree,
        kernel.unmount,
        kernel.set_hostname,
        lambda text: kernel.open_below(0, text),
        lambda text: kernel.open_within(text, 0, 0),
        lambda text: kernel.mount(text, "/"),
        lambda text: kernel.mount("none", "/", options=text),
    ):
        with pytest.raises(ValueError, match="NUL"):
            call(path)
