"""Builds in a job of the sandbox, as builder jobs have them: commands run, images come and go."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from tests.builder.conftest import InJob
from tests.builder.table import BUSYBOX

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BUSYBOX is None, reason="needs a static busybox (apt: busybox-static)"),
]
_FIRST = "FROM BASE\nRUN echo hi; cat /more/file; id -u; echo made >/made\nUSER bob\nRUN id -u\n"
_PROGRAMS = {
    "first": _FIRST,
    "again": _FIRST,
    "on the result": "FROM HOST/me/made:v0\nUSER root\nRUN cat /made; rm /made\n",
    "fails": "FROM BASE\nRUN true\nRUN echo one; echo two >&2; exit 3\n",
    "host": "FROM host\nRUN python3 -c 'print(1 + 1)' && echo made >/made\n",
    "on the host's": "FROM HOST/me/made:v4\nRUN cat /made; ls -d /usr/bin\n",
    "neuro/base": "FROM neuro/base\nRUN test -d /usr/bin\n",
    "hidden": (
        "FROM host\nRUN ls /cache /kaniko /context /given; "
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' '\n"
    ),
    "taken": "FROM host AS h\nFROM BASE\nCOPY --from=h /given/tests/builder/inside.py /t\n",
    "bound": "FROM host AS h\nFROM BASE\nRUN --mount=from=h,source=/given,target=/t,rw ls /t\n",
    "secret": "FROM BASE\nRUN --mount=type=secret,id=builders cat /run/secrets/builders\n",
    "none": "FROM BASE\nRUN true\nFROM HOST/me/none:v1\n",
    "stages": (
        "FROM BASE AS one\nRUN echo 1 >/one\nFROM BASE AS two\nRUN echo 2 >/two\n"
        "FROM BASE\nCOPY --from=one /one /\nCOPY --from=two /two /\nRUN cat /one /two\n"
    ),
    "cached": "FROM BASE\nWORKDIR /w\n" + "RUN true\n" * 5 + "ENV A=2\n" * 15,
    "cached again": "FROM BASE\nWORKDIR /w\n" + "RUN true\n" * 5 + "ENV A=2\n" * 15,
    "packages": "FROM host\nRUN false apt-get install curl\n",
}


@pytest.fixture(scope="module")
def programs(in_job: InJob) -> dict[str, dict[str, Any]]:
    found = in_job("with_registry", {"TEXTS": json.dumps(list(_PROGRAMS.values()))})
    return dict(zip(_PROGRAMS, found, strict=True))


def test_an_image_is_pulled_changed_and_pushed(programs: dict[str, dict[str, Any]]) -> None:
    first = programs["first"]

    assert first["code"] == 0, first["said"]
    assert first["layers"][2:] == [["made"], []]
    assert re.search(r"^#2 [0-9.]+ hi$", first["said"], re.MULTILINE)
    assert first["config"]["config"]["User"] == "bob"


def test_the_same_build_makes_the_same_image(programs: dict[str, dict[str, Any]]) -> None:
    again = programs["again"]

    assert again["said"].count("CACHED") == 2
    assert again["config"] == programs["first"]["config"]


def test_what_was_pushed_can_be_built_on(programs: dict[str, dict[str, Any]]) -> None:
    assert programs["on the result"]["layers"][-1] == [".wh.made"]


def test_a_command_that_fails_is_told_with_its_line(programs: dict[str, dict[str, Any]]) -> None:
    failed = programs["fails"]

    assert failed["code"] == 1
    assert 'exit code 3.\n  in "Dockerfile", line 3, column 1\n    RUN echo one' in failed["said"]
    assert failed["said"].count(" two\n") == 2  # as it came, and at the end


def test_a_package_that_the_machines_userland_cannot_have_is_told_so(
    programs: dict[str, dict[str, Any]],
) -> None:
    assert "begin with an image such as debian for that" in programs["packages"]["said"]
    assert "begin with an image" not in programs["fails"]["said"]


def test_the_machines_userland_can_be_built_on(programs: dict[str, dict[str, Any]]) -> None:
    made, above, base = (programs[name] for name in ("host", "on the host's", "neuro/base"))

    assert made["layers"] == [["made"]]
    assert made["config"]["config"]["Labels"] == {"neuro.base": "host"}
    assert above["layers"] == [["made"], []]
    assert above["config"]["config"]["Labels"] == {"neuro.base": "host"}
    assert base["code"] == 0, base["said"]


def test_a_command_sees_nothing_of_its_builder(programs: dict[str, dict[str, Any]]) -> None:
    hidden = programs["hidden"]

    assert hidden["code"] == 0, hidden["said"]
    assert "neuro.builder" not in hidden["said"]
    for place in ("/cache", "/kaniko", "/context", "/given"):
        assert f"'{place}'" in hidden["said"] or f"{place}:" not in hidden["said"]


def test_nothing_of_the_builder_is_taken_from_the_machines_userland(
    programs: dict[str, dict[str, Any]],
) -> None:
    for name in ("taken", "bound"):
        assert programs[name]["code"] == 1
        assert "There is no 'given" in programs[name]["said"]


def test_a_secret_is_a_file_of_a_volume(programs: dict[str, dict[str, Any]]) -> None:
    secret = programs["secret"]

    assert secret["code"] == 1
    assert "inside.py is in no volume of the job" in secret["said"]


def test_a_base_that_is_not_there_is_told_with_its_line(
    programs: dict[str, dict[str, Any]],
) -> None:
    none = programs["none"]

    assert none["code"] == 1
    assert "There is no image" in none["said"]
    assert 'in "Dockerfile", line 3' in none["said"]


def test_stages_take_files_of_each_other(programs: dict[str, dict[str, Any]]) -> None:
    stages = programs["stages"]

    assert stages["code"] == 0, stages["said"]
    assert stages["layers"][2:] == [["one"], ["two"], []]
    assert "[stage-2 4/4] RUN cat /one /two" in stages["said"]


def test_a_cached_build_is_quick(programs: dict[str, dict[str, Any]]) -> None:
    cached = programs["cached again"]

    assert cached["said"].count("CACHED") == 6
    # Half a second is the aim (``benchmarks``): a loaded machine takes longer.
    assert cached["seconds"] < 5


def test_a_build_is_told_where_it_may_go(in_job: InJob) -> None:
    (told,) = in_job("reach", {"NEURO_BUILD_REACH": '{"closed": []}'})

    assert "169.254.0.0/16" in told["closed"]


def test_a_build_that_is_stopped_while_it_pushes_leaves_no_image_and_all_layers(
    in_job: InJob,
) -> None:
    stopped, again = in_job("stopped_in_push", {})

    assert stopped["code"] == 128 + signal.SIGTERM, stopped
    assert stopped["said"].endswith("The build was stopped.\n")
    assert stopped["layers"] is None
    assert again["code"] == 0, again["said"]
    assert "CACHED" in again["said"]
    assert len(again["layers"]) == 3
