"""A value of server.toml that cannot be is told by its key, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB, Amount
from neuro.engines.sandbox.kind import Table
from neuro.server.engine_settings import capacities_of, engine_settings
from neuro.server.settings import load_settings
from tests.server_process import ServerProcess

PRESET = "[[presets]]\nname = 'a'\ncpu = 1\nmemory = '1G'\n"
# What is in the file, and what of the sentence a person needs.
CASES = {
    "[capacity]\ncpu = -3": ("capacity.cpu is -3", "CPU cores"),
    "[capacity]\ncpu = 0": ("capacity.cpu is 0", "0.01 or more"),
    "[capacity]\ncpu = inf": ("capacity.cpu is inf", "CPU cores"),
    "[capacity]\nmemory = '-1G'": ("capacity.memory", "'-1G' is not a size"),
    "[capacity]\nmemory = 0": ("capacity.memory is 0", "1M or more"),
    "stop_grace_seconds = -5": ("stop_grace_seconds is -5", "from 0 to 86400"),
    "stop_grace_seconds = nan": ("stop_grace_seconds is nan", "seconds"),
    "log_limit = '-1G'": ("log_limit", "'-1G' is not a size"),
    "log_limit = 'inf'": ("log_limit", "'inf' is not a size"),
    "log_limit = -1": ("log_limit is -1", "not negative"),
    "[bakes]\nmain_jobs = -1": ("bakes.main_jobs is -1", "a count"),
    "[bakes]\nmain_jobs_per_owner = -1": ("bakes.main_jobs_per_owner is -1", "a count"),
    "[bakes]\nrestarts = -1": ("bakes.restarts is -1", "a count"),
    "[bakes]\ngrace = nan": ("bakes.grace is nan", "seconds"),
    "[bakes]\nexecutor_silence = -1": ("bakes.executor_silence is -1", "seconds"),
    "[retention]\ndays = -1": ("retention.days is -1", "from 0 to 36500"),
    "[retention]\ndays = 1e12": ("retention.days", "from 0 to 36500"),
    "[retention]\njobs = -1": ("retention.jobs is -1", "a count"),
    "[retention]\nlog_bytes = '-5G'": ("retention.log_bytes", "'-5G' is not a size"),
    PRESET + PRESET: ("two are called 'a'", "a name of its own"),
    PRESET + "engine = 'kubernetes'": ("engine is 'kubernetes'", "must be sandbox"),
    PRESET.replace("'a'", "''"): ("presets", "1 to 64 characters"),
    PRESET.replace("cpu = 1", "cpu = nan"): ("presets[1].cpu is nan", "CPU cores"),
    PRESET + "gpu = -1": ("presets[1].gpu is -1", "a count of GPUs"),
    PRESET + "credits_per_hour = 'free'": ("credits_per_hour is 'free'", '"0.5"'),
    "database = 'mysql://host/name'": ("database begins with 'mysql'", "postgresql://"),
}
# The same, where the key itself or the kind of its value is wrong.
PLACES = {
    "# x\nclustre = 'lab'": ("line 2: there is no key 'clustre'", "did you mean 'cluster'?"),
    "[capacity]\n\ncores = 2": ("line 3: there is no key 'cores' in [capacity]", "cpu, memory"),
    "[capacity]\ncpu = '2'": ("line 2: capacity.cpu is '2'", "must be a number"),
    "[network]\nshared = 1": ("line 2: network.shared is 1", "true or false"),
    "log_limit = true": ("line 1: log_limit is True", 'a size such as "2G"'),
    "[retention]\njobs = 1.5": ("line 2: retention.jobs is 1.5", "a whole number"),
    "presets = 3": ("line 1: presets must be tables", "[[presets]]"),
    "limits = 3": ("line 1: limits must be a section", "[limits]"),
    PRESET + PRESET.replace("cpu = 1", "cpu = 'x'"): ("line 7: presets[2].cpu is 'x'", "a number"),
    "[[presets]]\nname = 'a'\ncpu = 1": ("line 1: presets[1] needs 'memory'",),
    "[capacity]\ncpu = -3": ("line 2: capacity.cpu is -3", "CPU cores"),
    "x = 1\ncluster = lab": ("line 2",),
}
TWO = "[capacity]\ncpu = 1\nmemory = '1G'\n[engines.second]\nkind = 'sandbox'\n"
ENGINES = {
    "[engines.second]\ncpu = 1": ("line 1: engines.second needs 'kind'", "must be sandbox"),
    "[engines.second]\nkind = 'docker'": ("line 2: engine 'second'", "'docker'", "be sandbox"),
    "[engines.second]\nkind = 3": ("line 2: engine 'second': kind is 3",),
    "[engines.Second]\nkind = 'sandbox'": ("line 1: Invalid engine name 'Second'",),
    "[engines.sandbox]\ncores = 2": ("line 2: there is no key 'cores'", "cpu, io_uring, kind"),
    "[engines.sandbox]\ncpu = 0": ("line 1: engines.sandbox.cpu is 0", "0.01 or more"),
    "[engines.sandbox]\nmemory = '1Q'": ("engines.sandbox.memory", "'1Q' is not a size"),
    "[engines.sandbox]\nlog_limit = '1Q'": ("log_limit", "'1Q' is not a size"),
    "[engines.sandbox]\nperf = 'yes'": ("line 2: engines.sandbox.perf is 'yes'", "true or false"),
    "engines = 3": ("line 1: engines must be sections", "[engines.NAME]"),
    "[engines]\nsandbox = 3": ("line 1: engines must be sections",),
    TWO: ("line 4: engine 'second' shares this machine with 'sandbox'", "cpu and memory"),
    TWO + "cpu = 1\nmemory = '1G'\n" + PRESET + "engine = 'third'": (
        "preset 'a': engine is 'third', which this server does not have",
        "must be sandbox or second",
    ),
}
CASES |= PLACES | ENGINES


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_bytes(b"\xef\xbb\xbfcluster = 'lab'\r\n")

    assert load_settings(path).cluster == "lab"


@pytest.mark.parametrize("text", CASES)
def test_what_cannot_be_is_told_with_what_may_be(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)

    with pytest.raises(InvalidInput) as told:
        load_settings(path)

    assert str(told.value).startswith(f"{path}: ")
    for part in CASES[text]:
        assert part in str(told.value)


def test_a_server_with_a_preset_of_an_engine_that_is_not_there_does_not_start(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path / "data", settings=PRESET + "engine = 'gone'\n")

    with pytest.raises(RuntimeError, match="engine is 'gone', which this server does not have"):
        server.start()


def test_the_sections_of_before_say_what_the_embedded_engine_is(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(
        "log_limit = '3M'\n[capacity]\ncpu = 2\nmemory = '2G'\n[network]\nprivate = false\n"
        "[sandbox]\nperf = true\nio_uring = true\n"
        "[engines.sandbox]\nio_uring = false\n"
        "[engines.second]\nkind = 'sandbox'\ncpu = 1\nmemory = '1G'\n"
    )

    made = engine_settings(load_settings(path))

    assert made == {
        "sandbox": Table(
            cpu=2, memory="2G", log_limit="3M", private_networks=False, perf=True, io_uring=False
        ),
        "second": Table(
            kind="sandbox",
            cpu=1,
            memory="1G",
            log_limit="3M",
            private_networks=False,
            perf=True,
            io_uring=True,
        ),
    }


def test_the_gpus_of_a_machine_are_given_away_once(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(TWO + "cpu = 1\nmemory = '1G'\n")
    machine = Amount(cpu=8, memory=8 * GIB, gpu=2)

    capacities = capacities_of(
        engine_settings(load_settings(path)), {"sandbox": machine, "second": machine}
    )

    assert capacities == {
        "sandbox": Amount(cpu=1, memory=GIB, gpu=2),
        "second": Amount(cpu=1, memory=GIB),
    }


def test_what_the_guide_shows_is_fine(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    for name in ("guide/server.md", "ru/guide/server.md"):
        text = (docs / name).read_text().partition("```toml\n")[2].partition("```")[0]
        path = tmp_path / "server.toml"
        path.write_text(text)

        assert [preset.name for preset in load_settings(path).presets] == ["cpu-small", "gpu-small"]


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_bytes(b"\xef\xbb\xbfcluster = 'lab'\r\nlog_limit = '2G'\r\n")

    assert load_settings(path).cluster == "lab"
