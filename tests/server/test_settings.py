"""A value of server.toml that cannot be is told by its key, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.domain.errors import InvalidInput
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
CASES |= PLACES


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
