"""Dockerfiles that are built, all with one context: the reference builds each of them too."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple


def _static_busybox() -> str | None:
    """A busybox that needs no library."""
    found = shutil.which("busybox")
    return found if found and b"/ld-linux" not in Path(found).read_bytes() else None


BUSYBOX = _static_busybox()


class Case(NamedTuple):
    text: str
    ignore: str = ""
    target: str = ""
    arguments: dict[str, str] = {}

    @property
    def runs(self) -> bool:
        """Whether it runs commands."""
        return "RUN" in self.text


_FILES = {
    "a.txt": ("a\n", 0o644),
    "b.txt": ("b\n", 0o600),
    "run.sh": ("#!/bin/sh\n", 0o755),
    "set": ("x", 0o4755),
    "with space.txt": ("space\n", 0o644),
    "odd[1].txt": ("odd\n", 0o644),
    "dir/f1": ("f1\n", 0o640),
    "dir/sub/f2": ("f2\n", 0o604),
    "wild/x1.txt": ("x1", 0o644),
    "wild/x2.txt": ("x2", 0o644),
    "wild/y.md": ("y", 0o644),
    "wild/deep/x3.txt": ("x3", 0o644),
    "src/py/a.py": ("a", 0o644),
    "src/py/b/c.py": ("c", 0o644),
    "src/js/a.js": ("js", 0o644),
    "node_modules/m.js": ("m", 0o644),
    "node_modules/keep/k.js": ("k", 0o644),
    "hard1": ("hard", 0o644),
    "passwd": (
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n",
        0o644,
    ),
    "group": ("root:x:0:\nstaff:x:50:bob\nbob:x:1001:\n", 0o644),
}
_FOLDERS = {"empty": 0o755, "dir": 0o750, "dir/sub": 0o700}
_LINKS = {
    "linkfile": "a.txt",
    "linkdir": "dir",
    "dir/link": "f1",
    "dir/dangling": "nowhere",
    "dir/absolute": "/etc/passwd",
    "wild/x4.txt": "y.md",
    "up": "../../../../etc",
}


def set_modes(place: Path) -> None:
    """Give the context's files their modes, which a change of owners takes away."""
    for name, (_, mode) in _FILES.items():
        (place / name).chmod(mode)


def write_context(place: Path) -> Path:
    """The context of all cases."""
    for name, (content, _) in _FILES.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    set_modes(place)
    for name, mode in _FOLDERS.items():
        (place / name).mkdir(exist_ok=True)
        (place / name).chmod(mode)
    for name in ("wild", "wild/deep", "src", "src/py", "src/py/b", "src/js"):
        (place / name).chmod(0o755)
    for name, target in _LINKS.items():
        (place / name).symlink_to(target)
    os.link(place / "hard1", place / "hard2")
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("txz", "w:xz")):
        with tarfile.open(place / f"packed.{suffix}", mode) as tar:
            _fill(tar)
    (place / "broken.tar.gz").write_bytes(b"\x1f\x8b" + b"no archive" * 10)
    if BUSYBOX:
        shutil.copy(BUSYBOX, place / "busybox")
        (place / "busybox").chmod(0o755)
    return place


def _fill(tar: tarfile.TarFile) -> None:
    def add(name: str, kind: bytes, content: bytes = b"", link: str = "", mode: int = 0o644):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
        info.uid, info.gid, info.mtime = 7, 8, 1_000_000_000
        tar.addfile(info, io.BytesIO(content))

    add("t", tarfile.DIRTYPE, mode=0o711)
    add("t/file", tarfile.REGTYPE, b"in the archive", mode=0o604)
    add("t/link", tarfile.SYMTYPE, link="file")
    add("t/hard", tarfile.LNKTYPE, link="t/file")
    add("implied/file", tarfile.REGTYPE, b"x")
    add("a.txt", tarfile.REGTYPE, b"of the archive")


_USERS = "FROM scratch\nCOPY passwd group /etc/\n"

# Behind "FROM scratch", one case each.
_LINES = r"""
COPY a.txt /
COPY a.txt /x
COPY a.txt /x/
COPY a.txt /x/y/z
COPY a.txt x
COPY ./a.txt .
COPY a.txt b.txt /d/
COPY a.txt b.txt /d
COPY ["with space.txt", "/s p/"]
COPY odd[[]1].txt /x/
COPY odd[1].txt /x/
COPY run.sh set /bin/
COPY dir /
COPY dir /x
COPY dir /x/
COPY dir dir /x/
COPY dir/sub dir/f1 /x/
COPY dir/ /x
COPY . /all/
COPY empty /e
COPY empty /e/
COPY linkfile /x
COPY linkfile /x/
COPY linkdir /x
COPY linkdir/ /x/
COPY linkdir/f1 /x/
COPY dir/link /x/
COPY dir/dangling /x
COPY dir/absolute /x
COPY up /x
COPY up/passwd /x
COPY ../a.txt /x
COPY ../../../etc /x
COPY /a.txt /x
COPY wild/x* /w/
COPY wild/x?.txt /w/
COPY wild/[xy]* /w/
COPY wild/* /w/
COPY wild/*.zip /w/
COPY w*/x1.txt /w/
COPY */f1 /w/
COPY no /x
COPY no/such /x
COPY a.txt no /x/
COPY hard1 hard2 /h/
COPY --chmod=700 a.txt /x
COPY --chmod=4755 run.sh /x/y/
COPY --chmod=604 dir /x
COPY --chmod=u=rwX,go=rX dir /x
COPY --chmod=a+w,o-r b.txt /x
COPY --chmod=g=u,o= dir/f1 /x
COPY --chmod=+x a.txt /x
COPY --chmod=u+s,+t run.sh /x
COPY --chown=5 a.txt /x/y/
COPY --chown=5:6 dir /x/
COPY --chown=5:6 linkfile dir/dangling /l/
COPY --exclude=*.txt . /x
COPY --exclude=**/*.txt --exclude=busybox . /x
COPY --exclude=sub dir /x
COPY --exclude=* --exclude=!f1 dir /x
COPY --exclude=x1.txt wild /w
COPY --exclude=*.txt wild/* /w/
COPY --parents src/py/a.py /x/
COPY --parents src /x/
COPY --parents src/./py/a.py /x/
COPY --parents src/**/*.py /x/
COPY --parents ./src/py/b/c.py a.txt /x/
COPY --parents src/no.py /x/
COPY --parents src/py/*.zip /x/
COPY --parents --chown=3:4 src/./py /x/
COPY --parents --exclude=b src/./py /x/
COPY --link a.txt /x/
COPY --link --chown=5:6 dir /x/y
COPY --link --chmod=600 a.txt /x/y
ADD a.txt /x/
ADD dir /x
ADD packed.tar /x/
ADD packed.tar /x
ADD packed.tar.gz /
ADD packed.tar.bz2 /x/
ADD packed.txz /x/
ADD broken.tar.gz /x/
ADD --unpack=false packed.tar /x/
ADD --chown=5:6 packed.tar /x/
ADD --chmod=600 a.txt /x
ADD packed.tar a.txt /x/
WORKDIR /
WORKDIR /a/b
WORKDIR a
WORKDIR /a/../b/
ENV A=1
LABEL a=b
VOLUME /data
EXPOSE 80
CMD ["a"]
"""

_WHOLE = [
    Case("FROM scratch"),
    Case("FROM scratch\nCOPY a.txt /x\nCOPY b.txt /x"),
    Case("FROM scratch\nCOPY a.txt /x\nCOPY dir /x"),
    Case("FROM scratch\nCOPY dir /x\nCOPY a.txt /x"),
    Case("FROM scratch\nCOPY dir /x\nCOPY a.txt /x/sub"),
    Case("FROM scratch\nCOPY a.txt /x/sub\nCOPY dir /x"),
    Case("FROM scratch\nCOPY dir /x\nCOPY wild /x\nCOPY dir /x"),
    Case("FROM scratch\nCOPY --chmod=700 dir /x\nCOPY dir /x"),
    Case("FROM scratch\nCOPY --chown=1:1 dir /x\nCOPY dir/sub /x/sub"),
    Case("FROM scratch\nCOPY dir /x\nCOPY a.txt /x/link"),
    Case("FROM scratch\nCOPY dir /x\nCOPY a.txt /x/dangling"),
    Case("FROM scratch\nCOPY linkdir /dir\nCOPY up /\nCOPY a.txt /up/x"),
    Case("FROM scratch AS one\nCOPY . /c/\nFROM scratch\nCOPY --from=one /c/linkdir/f1 /x"),
    Case("FROM scratch AS one\nCOPY . /c/\nFROM scratch\nCOPY --from=one /c/dir /x/"),
    Case("FROM scratch AS one\nCOPY . /c/\nFROM scratch\nCOPY --from=one /c/* /x/"),
    Case("FROM scratch AS one\nCOPY . /c/\nFROM scratch\nCOPY --from=one /c/up/x /x/"),
    Case("FROM scratch AS one\nCOPY dir /c/\nFROM scratch\nCOPY --from=one /c/no /x"),
    Case("FROM scratch AS one\nCOPY --chown=9:9 dir /c/\nFROM scratch\nCOPY --from=one /c /x"),
    Case(
        "FROM scratch AS one\nCOPY --chown=9:9 dir /c/\nFROM scratch\n"
        "COPY --from=one --chown=4 /c /x/y/"
    ),
    Case("FROM scratch AS one\nCOPY hard1 hard2 /c/\nFROM scratch\nCOPY --from=one /c /x"),
    Case("FROM scratch AS one\nCOPY a.txt /c\nFROM one AS two\nCOPY b.txt /d\nFROM two"),
    Case("FROM scratch AS one\nCOPY a.txt /c\nFROM scratch\nCOPY b.txt /d", target="one"),
    Case("FROM scratch AS one\nCOPY no /c\nFROM scratch\nCOPY b.txt /d"),
    Case("ARG F=a.txt\nFROM scratch\nARG F\nCOPY $F /x", arguments={"F": "b.txt"}),
    Case("FROM scratch\nENV D=/dd\nWORKDIR $D\nCOPY a.txt .\nWORKDIR sub\nCOPY b.txt ./"),
    Case(_USERS + "COPY --chown=bob a.txt /x"),
    Case(_USERS + "COPY --chown=bob:staff dir /x/"),
    Case(_USERS + "COPY --chown=:staff a.txt /x"),
    Case(_USERS + "COPY --chown=bob:7 a.txt /x"),
    Case(_USERS + "COPY --chown=1000 a.txt /x"),
    Case(_USERS + "COPY --chown=nobody a.txt /x"),
    Case(_USERS + "COPY --chown=bob:nobody a.txt /x"),
    Case(_USERS + "USER bob\nWORKDIR /home/bob/w\nCOPY a.txt ."),
    Case(_USERS + "USER 12:13\nWORKDIR /w/x"),
    Case("FROM scratch\nCOPY a.txt /x/y\nWORKDIR /x/y"),
    Case("FROM scratch\nCOPY dir /x\nWORKDIR /x/sub"),
    Case("FROM scratch\nCOPY <<EOF /x\nhello $A\nEOF"),
    Case('FROM scratch\nENV A=1\nCOPY <<EOF <<"b" /x/\nhello $A\nEOF\n$A\nb'),
    Case("FROM scratch\nCOPY --chmod=755 --chown=2:3 <<-EOF /x/y\n\thello\nEOF"),
    Case("FROM scratch\nADD packed.tar /\nADD packed.tar /"),
    Case("FROM scratch\nCOPY dir /t\nADD packed.tar /"),
    Case("FROM scratch\nCOPY a.txt /t\nADD packed.tar /"),
    Case("FROM scratch\nCOPY dir /a.txt\nADD packed.tar /"),
    Case("FROM scratch\nCOPY dir /y\nCOPY --link a.txt /y/z"),
    Case("FROM scratch\nCOPY linkdir /dir\nCOPY --link a.txt /dir/z"),
    Case("FROM scratch\nCOPY . /x/", ignore="*.txt\nbusybox\n"),
    Case("FROM scratch\nCOPY . /x/", ignore="*\n!a.txt\n!dir/sub\n"),
    Case("FROM scratch\nCOPY . /x/", ignore="**/*.txt\n!wild/x1.txt\nnode_modules\n"),
    Case("FROM scratch\nCOPY . /x/", ignore="node_modules\n!node_modules/keep\nsrc/**\nbusybox\n"),
    Case("FROM scratch\nCOPY a.txt /x/", ignore="a.txt\n"),
    Case("FROM scratch\nCOPY dir /x/", ignore="dir\n"),
    Case("FROM scratch\nCOPY dir /x/", ignore="dir/*\n"),
    Case("FROM scratch\nCOPY wild/* /x/", ignore="wild/x1.txt\n"),
    Case("FROM scratch\nCOPY linkfile /x/", ignore="a.txt\n"),
]

_RUN = "FROM scratch\nCOPY busybox /bin/\nCOPY passwd group /etc/\n"
_SHELL = _RUN + 'SHELL ["/bin/busybox", "sh", "-ec"]\n'
_ROOTS = [0, 0]
_FOLDER, _FILE = ["0o755", _ROOTS], ["0o644", _ROOTS]
# Modes and owners of what is there afterwards, None for what is not, or how the error begins.
_COMMANDS: dict[str, dict[str, object] | str] = {
    "RUN true": {"bin": _FOLDER},
    "RUN echo hi >/f; busybox chmod 600 /f; busybox chown 5:6 /f": {"f": ["0o600", [5, 6]]},
    "RUN busybox mkdir -p /a/b; echo x >/a/b/c\nRUN busybox rm -r /a": {"a": None, "a/b/c": None},
    "COPY dir /d\nRUN busybox rm /d/f1; echo x >/d/new": {"d/f1": None, "d/new": _FILE},
    "COPY dir /d\nRUN busybox rm -r /d; busybox mkdir /d; echo x >/d/new": {
        "d": _FOLDER,
        "d/new": _FILE,
        "d/f1": None,
        "d/sub": None,
    },
    "COPY dir /d\nRUN busybox mv /d/sub /d/other": {
        "d/sub": None,
        "d/other": ["0o700", _ROOTS],
        "d/other/f2": ["0o604", _ROOTS],
    },
    "COPY dir /d\nRUN busybox rm -r /d\nCOPY wild /d": {"d/f1": None, "d/x1.txt": _FILE},
    "COPY dir /d\nRUN busybox rm -r /d\nCOPY a.txt /d": {"d": _FILE, "d/f1": None},
    "RUN false": "The command ended with exit code 1.",
    "RUN exit 3": "The command ended with exit code 3.",
    "RUN no-such-command": "The command ended with exit code 127.",
    "WORKDIR /w\nRUN busybox pwd >where": {"w/where": _FILE},
    "USER bob\nWORKDIR /home/bob\nRUN busybox id -u >who": {
        "home": ["0o755", [1000, 1001]],
        "home/bob/who": ["0o644", [1000, 1001]],
    },
    "USER nobody\nRUN true": "The command ended with exit code 126.",
    "ENV A=1\nARG B=2\nRUN test $A$B = 12": {"bin": _FOLDER},
    "RUN <<EOF\necho 1 >/x\ntest -e /x\nEOF": {"x": _FILE},
    "RUN <<EOF\n#!/bin/busybox sh\necho 1 >/x\nEOF": {"x": _FILE, "dev": None},
    'RUN ["/bin/busybox", "touch", "/x"]': {"x": _FILE},
    "RUN --mount=type=tmpfs,target=/t echo x >/t/y; busybox cat /t/y >/z": {"t": None, "z": _FILE},
    "RUN --mount=type=cache,target=/c echo x >/c/y": {"c": None},
    "RUN --mount=type=cache,target=/c busybox cat /c/y >/z": {"c": None, "z": _FILE},
    "RUN --mount=type=cache,target=/c,id=o,uid=5,mode=0700 busybox ls -ldn /c | "
    "busybox grep -q 'drwx------ .* 5 '": {"c": None},
    "RUN --mount=type=bind,source=dir,target=/m busybox cat /m/f1 >/z": {"m": None, "z": _FILE},
    "RUN --mount=type=bind,source=dir,target=/m echo x >/m/f1": "The command ended with exit code",
    "RUN --mount=type=bind,source=dir,target=/m,rw echo x >/m/f1; busybox cat /m/f1 >/z": {
        "m": None,
        "z": _FILE,
    },
    "RUN --mount=type=bind,source=a.txt,target=/m busybox cat /m >/z": {"m": None, "z": _FILE},
    "RUN --mount=type=bind,source=no,target=/m true": "There is no 'no'.",
    "RUN --mount=type=secret,id=no test ! -e /run/secrets/no": {"run": None},
    "RUN --mount=type=secret,id=no,required echo": "There is no secret 'no'.",
    "RUN --mount=type=ssh,required echo": "There is no SSH agent for builds.",
    "RUN --network=none test $(busybox grep -c : /proc/net/dev) = 1": {"bin": _FOLDER},
    "RUN busybox ln -s /etc /e\nCOPY a.txt /e/a": {"etc/a": _FILE, "e/a": None},
    "RUN busybox ln -s ../../../.. /e\nCOPY a.txt /e/a": {"a": _FILE},
    "RUN busybox ln -s / /e\nADD packed.tar /e/": {"t/file": ["0o644", [7, 8]]},
    "RUN busybox mkfifo /p; busybox ln /bin/busybox /q": {"p": _FILE, "q": _FOLDER},
    "ADD https://127.0.0.1:1/x /x": "Images and builds do not use 127.0.0.1",
    "ADD https://example.com/x.git /x": "ADD of a repository is not supported",
}
COMMANDS = {_SHELL + text: wanted for text, wanted in _COMMANDS.items()}
_ONE = _SHELL.replace("scratch", "scratch AS one") + "COPY dir /d\nFROM one\n"
COMMANDS |= {
    _ONE + "RUN --mount=from=one,source=/d,target=/m busybox cat /m/f1 >/z": {"z": _FILE},
    _ONE + "RUN --mount=from=one,source=/d,target=/m,rw echo x >/m/f1": {"m": None},
    _ONE + "RUN --mount=type=cache,from=one,source=/d,target=/m busybox cat /m/f1 >/z": {
        "z": _FILE
    },
}

# A pattern without a match is not an error, and a user that is not known never becomes root.
OURS_ALONE = {
    "FROM scratch\nCOPY wild/*.zip /w/",
    "FROM scratch\nCOPY --parents src/py/*.zip /x/",
    _USERS + "COPY --chown=nobody a.txt /x",
    _USERS + "COPY --chown=bob:nobody a.txt /x",
    # With these it follows each link of the context, to where it leads.
    "FROM scratch\nCOPY --exclude=*.txt . /x",
    "FROM scratch\nCOPY --exclude=**/*.txt --exclude=busybox . /x",
    # Its daemon needs a program for these.
    "FROM scratch\nADD packed.txz /x/",
}
CASES = [
    *(Case(f"FROM scratch\n{line}") for line in _LINES.strip().split("\n")),
    *_WHOLE,
    *map(Case, COMMANDS),
]
# Those that are built by the reference, too.
COMPARED = [case for case in CASES if case.text not in OURS_ALONE]
