from __future__ import annotations
from tests.builder.conftest import BuildAll
from tests.builder.table import CASES


def test_commands(build_all: BuildAll) -> None:
    cases = [case for case in CASES if case.runs]
    for case, one in zip(cases, build_all(cases), strict=True):
        print(case.text.partition('"-ec"]\n')[2] or case.text)
        print(
            "   ",
            {
                k: v
                for k, v in one.get("files", {}).items()
                if k not in ("bin/busybox", "bin", "etc")
            },
        )
        print("   ", one.get("error"))
        print(one.get("output"))
    assert 0
