"""A value of server.toml that cannot be is told by its key, before anything starts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import msgspec
import pytest

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB
from neuro.engines import registry
from neuro.engines.sandbox.kind import Table
from neuro.server.engine_settings import Share, engine_settings, shares_of
from neuro.server.reload import Reload
from neuro.server.settings import (
    MirrorSetting,
    PresetSetting,
    Settings,
    check_apart,
    keep_cluster,
    load_settings,
)
from tests.server.nodes import node
from tests.server_process import ServerProcess

PRESET = "[[presets]]\nname = 'a'\ncpu = 1\nmemory = '1G'\n"
# What is in the file, and what of the sentence a person needs.
MIRROR = "[[images.mirrors]]\nregistry = 'docker.io'\n"
NEEDED = {PresetSetting: PRESET, MirrorSetting: MIRROR}
CASES = {
    "[capacity]\ncpu = -3": ("capacity.cpu is -3", "CPU cores"),
    "[capacity]\ncpu = 0": ("capacity.cpu is 0", "CPU cores from 0.01 to 1000000"),
    "[capacity]\ncpu = inf": ("capacity.cpu is inf", "CPU cores"),
    "[capacity]\nmemory = '-1G'": ("capacity.memory", "'-1G' is not a size"),
    "[capacity]\nmemory = 0": ("capacity.memory is 0", "a size from 1M to 1024T"),
    "stop_grace_seconds = -5": ("stop_grace_seconds is -5", "from 0 to 86400"),
    "stop_grace_seconds = nan": ("stop_grace_seconds is nan", "seconds"),
    "log_limit = '-1G'": ("log_limit", "'-1G' is not a size"),
    "log_limit = 'inf'": ("log_limit", "'inf' is not a size"),
    "log_limit = -1": ("log_limit is -1", "a size from 1M to 1024T"),
    "[bakes]\nmain_jobs = -1": ("bakes.main_jobs is -1", "a count"),
    "[bakes]\nmain_jobs_per_owner = -1": ("bakes.main_jobs_per_owner is -1", "a count"),
    "[bakes]\nrestarts = -1": ("bakes.restarts is -1", "a count"),
    "[bakes]\ngrace = nan": ("bakes.grace is nan", "seconds"),
    "[bakes]\nexecutor_silence = -1": ("bakes.executor_silence is -1", "seconds"),
    "[retention]\ndays = -1": ("retention.days is -1", "from 0 to 36500"),
    "[retention]\ndays = 1e12": ("retention.days", "from 0 to 36500"),
    "[retention]\njobs = -1": ("retention.jobs is -1", "a count"),
    "[retention]\nlog_bytes = '-5G'": ("retention.log_bytes", "'-5G' is not a size"),
    PRESET.replace("cpu = 1", "cpu = nan"): ("presets[1].cpu is nan", "CPU cores"),
    PRESET + "gpu = -1": ("presets[1].gpu is -1", "a count of GPUs"),
    # Beyond the far end, the sentence names both ends.
    "[limits]\nhead = 100000": ("limits.head is 100000", "seconds from 0.1 to 86400"),
    "[capacity]\ncpu = 2000000": ("capacity.cpu is 2000000", "CPU cores from 0.01 to 1000000"),
    "[bakes]\nexecutor_silence = 1e300": ("is 1e+300", "seconds from 0 to 3153600000"),
    "[retention]\njobs = 12345678901234567890": ("retention.jobs is 123", "from 0 to 1000000000"),
    "[retention]\njobs = 123456789012345678901": ("retention.jobs is 123", "a count from 0 to"),
    "log_limit = '99999999999T'": ("log_limit is 99999999999T", "a size from 1M to 1024T"),
    "[retention]\nlog_bytes = '1025T'": ("retention.log_bytes is 1025T", "from 0 to 1024T"),
    "[capacity]\nmemory = '99999999999T'": ("capacity.memory is 99999999999T", "to 1024T"),
    "jobs_domain = 'a b/c'": ("jobs_domain is 'a b/c'", "a host name"),
    "jobs_domain = ''": ("jobs_domain is ''", "a host name"),
    "jobs_domain = 'lab.example:99999'": ("jobs_domain", ":PORT after it"),
    "[server]\nname = 'Lab 1'": ("server.name is 'Lab 1'", "1 to 20 lower-case letters"),
    "[server]\nurl = '10.0.0.2:8085'": ("server.url is '10.0.0.2:8085'", "without a path"),
    "[server]\nurl = 'http://lab/api/v1'": ("server.url is", '"http://10.0.0.2:8085"'),
    "[storage]\nfolder = 'files'": ("storage.folder is 'files'", "an absolute path"),
    "database = 'mysql://host/name'": ("database begins with 'mysql'", "postgresql://"),
}
# The same, where the key itself or the kind of its value is wrong.
PLACES = {
    "x = " + "[" * 5000: ("nested too deeply",),
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
    "\ncluster = 'No Good'": ("line 2: Invalid cluster name", "lower-case"),
    "\ndatabase = 'x://y'": ("line 2: database begins", "a URL"),
    MIRROR.replace("docker.io", "hub"): ("line 2: images.mirrors[1]: registry is 'hub'", "`host`"),
    MIRROR + MIRROR: ("line 4: images.mirrors[2]: docker.io is mirrored already", "remove one"),
    MIRROR + "host = 'a/b'": ("line 3: images.mirrors[1]: host is 'a/b'", ":PORT"),
    MIRROR + "user = 'me'": ("line 1: images.mirrors[1] needs both 'user' and 'password'",),
    MIRROR + "size = 'all'": ("line 3: images.mirrors[1].size",),
    PRESET + PRESET: ("line 6: presets[2]: another preset is called 'a' too", "of its own"),
    PRESET + "engine = 'kubernetes'": (
        "line 5: preset 'a': engine is",
        "must be sandbox",
    ),
    PRESET.replace("'a'", "''"): ("line 2: presets[1]: '' cannot be", "1 to 64 characters"),
    PRESET + "credits_per_hour = 'free'": ("line 5: preset 'a': credits_per_hour is 'free'",),
    PRESET + "disk = '1K'": ("line 5: presets[1].disk is 1K", "0 for no limit, or a size from 1M"),
    PRESET + "disk = '2000T'": ("line 5: presets[1].disk is 2000T", "to 1024T"),
    PRESET.replace("'1G'", "'1K'"): ("line 4: presets[1].memory is 1K", "from 1M to 1024T"),
    PRESET.replace("'1G'", "'99999999999T'"): ("line 4: presets[1].memory is 99999999999T",),
    PRESET.replace("'1G'", "'much'"): ("line 4: presets[1].memory: 'much' is not a size",),
}
TWO = "[capacity]\ncpu = 1\nmemory = '1G'\n[engines.second]\nkind = 'sandbox'\n"
ENGINES = {
    "[engines.second]\ncpu = 1": (
        "line 1: engines.second needs 'kind'",
        "must be docker, podman or sandbox",
    ),
    "[engines.second]\nkind = 'slurm'": (
        "line 2: engine 'second'",
        "'slurm'",
        "be docker, podman or sandbox",
    ),
    "[engines.second]\nkind = 3": ("line 2: engine 'second': kind is 3",),
    "[engines.Second]\nkind = 'sandbox'": ("line 1: Invalid engine name 'Second'",),
    "[engines.sandbox]\ncores = 2": (
        "line 2: there is no key 'cores'",
        "cpu, images, images_insecure",
    ),
    "[engines.sandbox]\ncpu = 0": ("line 2: engines.sandbox.cpu is 0", "from 0.01 to"),
    "[engines.sandbox]\nmemory = '1Q'": ("line 2: engines.sandbox.memory: '1Q' is not a size",),
    "[engines.sandbox]\nlog_limit = '1Q'": ("line 2: engines.sandbox.log_limit: '1Q' is not",),
    "[engines.sandbox]\nperf = 'yes'": ("line 2: engines.sandbox.perf is 'yes'", "true or false"),
    "[engines.sandbox]\nimages_offline = 'no'": (
        "line 2: engines.sandbox.images_offline is 'no'",
        'must be "host" or "wait"',
    ),
    "[engines.sandbox]\nimages_insecure = 'lab:5000'": (
        "line 2: engines.sandbox.images_insecure is 'lab:5000'",
        "must be a list of texts",
    ),
    "[network]\nprivate = false\n[engines.docker]\nbuilder = 'buildkit'": (
        "line 4: engine 'docker': builder is \"buildkit\"",
        "[network] private = false",
    ),
    "[engines.docker]\nbuilder = 'kaniko'": ('must be "embedded" or "buildkit"',),
    "engines = 3": ("line 1: engines must be sections", "[engines.NAME]"),
    "[engines]\nsandbox = 3": ("line 1: engines must be sections",),
    "engine = 'slurm'": ("line 1: engine is 'slurm'", "docker, podman or sandbox"),
    TWO: ("line 4: engine 'second' shares this machine with 'sandbox'", "cpu and memory"),
    TWO + "cpu = 1\nmemory = '1G'\n" + PRESET + "engine = 'third'": (
        "preset 'a': engine is 'third', which this server does not have",
        "must be sandbox or second",
    ),
}
CASES |= PLACES | ENGINES


def test_a_kind_of_engines_says_what_its_numbers_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(registry)["KINDS"], "memory", "tests.engines.memory_kind")
    path = tmp_path / "server.toml"
    path.write_text("[engines.memory]\nlog_bytes = 0")

    with pytest.raises(InvalidInput) as told:
        load_settings(path)

    said = "line 2: engines.memory.log_bytes is 0: give bytes from 1 to 1000000000000"
    assert str(told.value) == f"{path}: {said}"


def test_what_a_kind_of_engines_offers_by_name_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    chosen = "[engines.sandbox]\nimages_offline = 'wait'\nimages_insecure = ['lab:5000']\n"
    path.write_text(chosen + "cpu = 1\nmemory = '1G'")

    made = engine_settings(load_settings(path))["sandbox"]

    assert made.images_offline == "wait"  # type: ignore[attr-defined]
    assert made.images_insecure == ("lab:5000",)  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("domain", ["jobs.example.org", "localhost:8085", "10.0.0.1", "Lab-1"])
def test_a_host_with_or_without_a_port_is_a_domain_of_jobs(tmp_path: Path, domain: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(f"jobs_domain = '{domain}'\n")

    assert load_settings(path).jobs_domain == domain


def every_number(kind: type[msgspec.Struct], at: str = "") -> Iterator[tuple[str, str]]:
    """A file with a number too large at each key that takes one, and what that key is called."""
    for field in msgspec.structs.fields(kind):
        kinds = get_args(field.type) or (field.type,)
        for each in kinds:
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                is_list = get_origin(field.type) is list
                place = f"{at}{field.name}"
                header = f"[[{place}]]" if is_list else f"[{place}]"
                needed = NEEDED[each].partition("]]")[2] if is_list else ""
                for text, name in every_number(each, f"{place}."):
                    kept = [one for one in needed.split("\n") if one.split(" ")[0] != name]
                    is_whole = text.startswith("[")
                    yield text if is_whole else "\n".join([header, *kept, text]), name
        if kinds[0] in (int, float):
            yield (
                f"{field.name} = 1e300" if float in kinds else f"{field.name} = {10**17}",
                field.name,
            )


NUMBERS = [
    *every_number(Settings),
    *((f"[engines.sandbox]\n{line}", name) for line, name in every_number(Table)),
]


@pytest.mark.parametrize(("text", "name"), NUMBERS)
def test_every_number_has_an_upper_end(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)

    with pytest.raises(InvalidInput, match=rf"line \d+: [\w.\[\]]*{name} is .*: give .* to "):
        load_settings(path)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1251"])
def test_what_is_no_utf_8_is_told_with_what_to_do(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "server.toml"
    path.write_bytes("cluster = 'lab'  # лаборатория\n".encode(encoding))

    with pytest.raises(InvalidInput) as told:
        load_settings(path)

    assert str(told.value) == f"{path} is not UTF-8 text: save it as UTF-8"


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.mkdir()

    with pytest.raises(InvalidInput) as told:
        load_settings(path)

    assert str(told.value) == f"{path} cannot be read: it is a folder, and must be a text file"


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
    machine = [node("machine", 8, 8, "0", "1")]

    shares = shares_of(engine_settings(load_settings(path)), "sandbox")

    assert {name: share(machine) for name, share in shares.items()} == {
        "sandbox": [node("machine", 1, 1, "0", "1")],
        "second": [node("machine", 1, 1)],
    }
    others = shares_of(engine_settings(load_settings(path)), "second")
    assert [share(machine)[0].gpus for share in others.values()] == [(), ("0", "1")]


def test_what_is_taken_of_several_nodes_is_the_same_part_of_each() -> None:
    nodes = [node("a", 4, 8, "0"), node("b", 12, 8)]

    assert Share()(nodes) == nodes
    assert Share(cpu=8, memory=4 * GIB)(nodes) == [node("a", 2, 2, "0"), node("b", 6, 2)]
    assert Share(cpu=20)([]) == []


def test_a_data_directory_keeps_its_cluster(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("\ncluster = 'lab'\n")
    keep_cluster(tmp_path, load_settings(path).cluster)
    keep_cluster(tmp_path, "other")

    assert load_settings(path).cluster == "lab"
    path.write_text("\ncluster = 'other'\n")
    with pytest.raises(InvalidInput, match=r"line 2: cluster is 'other', and that .* is 'lab'"):
        load_settings(path)
    path.unlink()
    with pytest.raises(InvalidInput, match=r"cluster is 'default', .* Write cluster = .lab."):
        load_settings(path)


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


def test_whoever_asks_for_a_reload_is_answered_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> Settings:
        raise RuntimeError("a mistake of the program's own")

    monkeypatch.setattr("neuro.server.reload.load_settings", broken)
    (tmp_path / "run").mkdir()
    stop = asyncio.Event()

    Reload(tmp_path, stop).ask()

    answer = json.loads((tmp_path / "run" / "reload.json").read_text())
    assert "a mistake of the program's own" in answer["error"]
    assert not stop.is_set()


@pytest.mark.parametrize(
    "folder", [".", "data", "data/keys", "data/run/files", "data/engines", "link", "/"]
)
def test_a_storage_that_would_show_what_is_the_servers_own_is_refused(
    tmp_path: Path, folder: str
) -> None:
    data = tmp_path / "data"
    (data / "keys").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/keys")

    with pytest.raises(InvalidInput, match="has in it what is the server's own"):
        check_apart(tmp_path / folder, data)
    for good in ("data/storage", "data/files", "datax"):
        check_apart(tmp_path / good, data)


def test_keys_that_are_kept_elsewhere_are_no_part_of_the_storage_either(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "safe/keys").mkdir(parents=True)
    (tmp_path / "data/keys").symlink_to(tmp_path / "safe/keys")

    with pytest.raises(InvalidInput):
        check_apart(tmp_path / "safe", tmp_path / "data")
