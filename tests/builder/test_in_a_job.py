"""Builds in a job of the sandbox, as builder jobs have them: commands run, images come and go."""

from __future__ import annotations

import json

from tests.builder.conftest import InJob

_TEXTS = [
    "FROM BASE\nRUN echo hi; cat /more/file; id -u; echo made >/made\nUSER bob\nRUN id -u\n",
    "FROM BASE\nRUN echo hi; cat /more/file; id -u; echo made >/made\nUSER bob\nRUN id -u\n",
    "FROM HOST/me/made:v0\nUSER root\nRUN cat /made; rm /made\n",
    "FROM BASE\nRUN true\nRUN echo one; echo two >&2; exit 3\n",
    "FROM host\nRUN python3 -c 'print(1 + 1)' && echo made >/made\n",
    "FROM HOST/me/made:v4\nRUN cat /made; ls -d /usr/bin\n",
    "FROM HOST/me/none:v1\n",
]


def test_x(in_job: InJob) -> None:
    found = in_job("with_registry", {"TEXTS": json.dumps(_TEXTS)})
    for one in found:
        print(one.pop("said"))
        print(one)
    assert 0
