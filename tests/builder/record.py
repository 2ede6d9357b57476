"""What BuildKit makes of the table, kept beside it: machines without BuildKit compare with that.

``make reference`` asks the newest BuildKit again, and writes ``record.json`` anew. It needs root
and what ``tests.engines.newer_daemons`` needs.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.builder import buildkit
from tests.builder.table import BUSYBOX, COMPARED, Case, write_context

FILE = Path(__file__).with_name("record.json")
_KINDS = {"0o100000": "-", "0o40000": "d", "0o120000": "l", "0o10000": "p"}
# What of a configuration is the machine's or the moment's.
_LEFT_OUT = ("architecture", "variant", "created", "moby.buildkit.buildinfo.v1")
Entry = Sequence[Any]


class Made(msgspec.Struct, frozen=True, omit_defaults=True):
    """What comes of a case: an error, or files by their paths and the image's configuration."""

    files: dict[str, str] = {}
    config: dict[str, Any] = {}
    is_error: bool = False


class _One(msgspec.Struct, frozen=True, omit_defaults=True):
    text: str
    made: Made
    ignore: str = ""
    target: str = ""
    arguments: dict[str, str] = {}


class Record(msgspec.Struct, frozen=True):
    """What a version of BuildKit made."""

    buildkit: str
    cases: list[_One]

    def of(self, case: Case) -> Made | None:
        """What is known of a case."""
        for one in self.cases:
            if Case(one.text, one.ignore, one.target, one.arguments) == case:
                return one.made
        return None

    def forgotten(self) -> list[str]:
        """What is known of cases that are in the table no more."""
        known = [(one.text, one.ignore, one.target) for one in self.cases]
        there = [(case.text, case.ignore, case.target) for case in COMPARED]
        return [text for text, ignore, target in known if (text, ignore, target) not in there]


def load() -> Record:
    return msgspec.json.decode(FILE.read_bytes(), type=Record)


def contents(context: Path) -> dict[str, str]:
    """Names of the context's files by what digests of their content begin with.

    Programs and archives in it differ from machine to machine.
    """
    found: dict[str, str] = {}
    for path in sorted(context.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.setdefault(digest[:12], str(path.relative_to(context)))
    return found


def made(files: Mapping[str, Entry], config: Mapping[str, Any], names: Mapping[str, str]) -> Made:
    """What both sides make, in one form."""
    return Made(
        {path: _entry(one, names) for path, one in sorted(files.items())},
        _plain({**config, "layers": len(config["rootfs"]["diff_ids"] or ())}),
    )


def _entry(one: Entry, names: Mapping[str, str]) -> str:
    kind, mode, (uid, gid), content = one
    said = f"{_KINDS[kind]}{mode.removeprefix('0o')} {uid}:{gid}"
    if not content:
        return said
    if _KINDS[kind] == "l":
        return f"{said} -> {content}"
    return f"{said} {names.get(content, content)}"


def _plain(value: Any) -> Any:
    """Without what is empty: Go writes some of that, and we do not."""
    if isinstance(value, dict):
        found = {
            name: _plain(one)
            for name, one in value.items()
            if name not in _LEFT_OUT and name != "rootfs"
        }
        return {name: one for name, one in found.items() if one not in (None, "", [], False)}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def asked(case: Case, context: Path, place: Path) -> Made | None:
    """What BuildKit makes of a case now; None where its Dockerfile syntax is older than ours."""
    theirs = buildkit.build(case, context, place)
    if theirs.is_older:
        return None
    if theirs.error:
        return Made(is_error=True)
    return made(theirs.files, theirs.config, contents(context))


def main() -> int:
    """Write the record anew."""
    if BUSYBOX is None:
        print("needs a static busybox (apt install busybox-static)", file=sys.stderr)
        return 2
    why = buildkit.lacking()
    if why is not None:
        print(why, file=sys.stderr)
        return 2
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        context, place = Path(folder, "context"), Path(folder, "place")
        context.mkdir(mode=0o755)
        place.mkdir()
        write_context(context)
        cases = []
        for number, case in enumerate(COMPARED):
            print(f"\r{number + 1} of {len(COMPARED)}", end="", flush=True)
            one = asked(case, context, place)
            assert one is not None, case
            cases.append(_One(case.text, one, case.ignore, case.target, case.arguments))
    print()
    body = msgspec.json.encode(Record(buildkit.version(), cases))
    FILE.write_bytes(msgspec.json.format(body, indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
