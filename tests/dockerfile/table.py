"""Dockerfiles of every kind, right and wrong: the reference is asked about each of them."""

from __future__ import annotations

import json
from typing import NamedTuple


class Case(NamedTuple):
    text: str
    arguments: dict[str, str] = {}
    target: str = ""
    platform: str = "linux/amd64"


LAYER = {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}
IMAGES = {
    "triggers:latest": {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/x", "B=1"],
            "Cmd": ["sh"],
            "WorkingDir": "/w",
            "User": "bob",
            "OnBuild": ["RUN trig", "COPY --from=busy:1 a b", "ARG OB=1", "ENV OBE=$OB"],
            "Shell": ["bash"],
            "Labels": {"x": "y"},
        },
        "history": [{"created_by": "x"}],
        "rootfs": LAYER,
    },
    "busy:1": {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=1"], "Cmd": ["sh"], "WorkingDir": "/rel/"},
        "rootfs": LAYER,
    },
}
OTHER_IMAGE = {"architecture": "amd64", "os": "linux"}
CONFIGURATIONS = {name: json.dumps(image) for name, image in IMAGES.items()}

# Behind "FROM busy:1", one case each.
INSTRUCTIONS = r"""
ARG V=1
ARG x=1 y='a b' z
ARG =x
ARG --flag y
ARG
ARG TARGETARCH BUILDPLATFORM
ARG X=${NOPE:?give one}
ENV a b c
ENV a=b c='d e' f=g\ h
ENV A=$A:c D='e $A'
ENV PATH=/q:$PATH
ENV a
ENV a=b c
ENV
ENV a=b\
ENV E=${NOPE:?message}
ENV E=${A:+set} F=${A#1} G=${NOPE:-x}
LABEL a=b "c d"=e
LABEL "$A"=$A 'x'='$A'
LABEL =b
RUN echo hi
RUN ["a", "$A"]
RUN ['a']
RUN [1]
RUN []
RUN ["a"
RUN
RUN a \
RUN --mount=type=cache,target=/c$A,sharing=locked x
RUN --mount=type=cache,target=rel,id=q x
RUN --mount=type=cache,target=/c,ro x
RUN --mount=type=cache,target=/c,from=busy:1,source=/s x
RUN --mount=type=bind,source=a,target=/b,rw x
RUN --mount=target=. x
RUN --mount=target=/ x
RUN --mount=type=tmpfs,target=/t,size=64m x
RUN --mount=type=secret,id=s x
RUN --mount=type=secret,id=s,env=S x
RUN --mount=type=secret,id=s,env=S,target=/z,mode=0440 x
RUN --mount=type=secret,source=a/b,required x
RUN --mount=type=secret x
RUN --mount=type=secret,id=a,source=b x
RUN --mount=type=secret,id=a,sharing=shared x
RUN --mount=type=ssh x
RUN --mount=type=ssh,id=a,target=/s --mount=type=ssh x
RUN --mount=type=ssh,source=a x
RUN --mount=type=foo x
RUN --mount=type=bind,mode=1 x
RUN --mount=type=bind,sharing=shared x
RUN --mount=required,type=secret,id=s x
RUN --mount=size=1m,type=tmpfs,target=/t x
RUN --mount=type=tmpfs,target=/t,size=x y
RUN --mount=type=cache,foo=1,target=/c x
RUN --mount=type=cache,target x
RUN --mount=type=cache,target=/c,uid=a x
RUN --mount=from=$A x
RUN --mount="type=bind,\"target=/a,b\"" x
RUN --mount=a"b x
RUN --mount x
RUN --network=none x
RUN --network=host x
RUN --network=bad x
RUN --network= x
RUN --foo x
RUN -- --mount=x
RUN --security=sandbox x
RUN --device=a,required x
RUN --device=a,b x
COPY a b
COPY a b* /d/
COPY a
COPY ["a", "b c"]
COPY ["a", 1]
COPY --from=busy:1 /x /y
COPY --from=0 a b
COPY --from=7 a b
COPY --from=nginx /x .
COPY --from=$A a b
COPY --from= a b
COPY --from a b
COPY --from=a --from=b a b
COPY --chown=1:$A --chmod=755 a b
COPY --chmod=u=rwX,go= a b
COPY --chmod=99 a b
COPY --chmod=77777 a b
COPY --chmod=z a b
COPY --link --chown=bob a b
COPY --link --chown=1 a b
COPY --link=no a b
COPY --link= a b
COPY --parents a/b/./c*.py d/./
COPY --parents a/*/b /x/
COPY --exclude=*.o --exclude=!a.o . /src
COPY --chown="a b" x y
COPY --ch\own=1 x y
COPY ../../x /a/../b/
COPY /abs//x/ rel/.
COPY https://example.com/y z
COPY --checksum=x a b
COPY a\ b c
ADD https://example.com/y.tar?q /z/
ADD --unpack=true https://example.com/y.tar /z/
ADD --checksum=sha256:zz https://example.com/y /z
ADD --checksum=x a /z
ADD a.tar b /z/
ADD --unpack=false a.tar /z
ADD https://example.com/y.git#main:sub /z
ADD git@github.com:a/b.git /z
ADD --keep-git-dir https://example.com/y.git?branch=m /z
ADD https://example.com/y.git?nope=m /z
ADD --from=x a b
WORKDIR /a
WORKDIR b/../c
WORKDIR /
WORKDIR $NOPE
WORKDIR
USER bob
USER $A
USER a b
USER
EXPOSE 80 90/UDP
EXPOSE 10-12/tcp $A
EXPOSE x
EXPOSE 1:2
EXPOSE 127.0.0.1:80:80 8000-8001:9000-9001
EXPOSE 70000
EXPOSE 5-3
EXPOSE
VOLUME /a $A
VOLUME ["/v"]
VOLUME [""]
VOLUME []
VOLUME $NOPE
VOLUME
STOPSIGNAL SIGTERM
STOPSIGNAL 9
STOPSIGNAL sigrtmin+3
STOPSIGNAL foo
STOPSIGNAL 0
STOPSIGNAL
SHELL ["/bin/bash", "-c"]
SHELL a
SHELL []
CMD echo
CMD ["a", "b\"c\n\u00e9\u200b"]
CMD []
CMD
CMD --x a
ENTRYPOINT x
ENTRYPOINT ["x"]
ENTRYPOINT []
HEALTHCHECK NONE
HEALTHCHECK NONE x
HEALTHCHECK CMD
HEALTHCHECK CMD []
HEALTHCHECK CMD y z
HEALTHCHECK FOO x
HEALTHCHECK --interval=90s --timeout=1.5ms --retries=2 CMD ["x"]
HEALTHCHECK --start-period=1h1s --start-interval=2m CMD x
HEALTHCHECK --interval=x CMD a
HEALTHCHECK --interval=1us CMD a
HEALTHCHECK --retries=-1 CMD a
HEALTHCHECK
ONBUILD RUN x
ONBUILD COPY --from=zero q r
ONBUILD ONBUILD RUN x
ONBUILD FROM x
ONBUILD FOO
ONBUILD ENV a
ONBUILD RUN [1]
ONBUILD
MAINTAINER me
MAINTAINER
FOO bar
FROM --platform=linux/arm64 q
FROM --platform=bad/ q
FROM $NOPE
FROM ${NOPE:-busy:1}
FROM Upper
FROM a b
FROM a AS 9x
# comment
"""

SEVERAL_LINES = [
    f"ADD --checksum=sha256:{'0' * 64} https://example.com/y /z",
    "RUN <<EOF\nhi\n  there\nEOF",
    "RUN <<-EOF\n\thi\n\tEOF",
    "RUN <<EOF\n#!/bin/python\nx\nEOF",
    "RUN cat <<a <<-'b'\n1\na\n\t2\n\tb",
    "RUN 3<<X cat\nX",
    "RUN a <<< b",
    "RUN <<EOF\nnever",
    'COPY <<a /x\n$A "quoted" \\$A\na',
    'COPY <<"a" <<-b c /x/\n$A\na\n\t${A:-q}\n\tb',
    "COPY a <<b\nb",
    "ADD <<a /x\n1\na",
    "ONBUILD COPY <<a /b\nxx\na",
    "RUN a \\\n  b \\\n# comment\n   c",
    "RUN a \\\n\n b",
    "RUN a \\ \n b",
    "RUN a \\\\\nUSER x",
    "USER \\\n  x \\\n",
    "run <<eof\r\nhi\r\neof\r",
    "CMD a\nENTRYPOINT b",
    "ENTRYPOINT b\nCMD a",
    'ENTRYPOINT ["b"]\nSHELL ["zsh", "-c"]\nCMD a',
    "ARG P=1\nRUN a\nARG P=2\nENV P=3\nRUN b",
    "ARG Q\nRUN a",
    "WORKDIR a\nCOPY x y\nWORKDIR ..\nRUN z",
]

WHOLE = [
    Case(""),
    Case("# only a comment\n"),
    Case("ARG x\n"),
    Case("RUN x\nFROM a"),
    Case("# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN b `\n c\nCOPY a`b d\n"),
    Case("# escape=x\nFROM a"),
    Case("# escape=`\n# escape=`\nFROM a"),
    Case("# foo=bar\n# escape=`\nFROM a\nRUN a \\\n b"),
    Case("\ufeffFROM a\nRUN b"),
    Case("ARG V=9\nFROM alpine:$V\nARG V\nRUN x"),
    Case("ARG V=9\nFROM alpine:$V\nRUN $V x"),
    Case("ARG V=9\nFROM alpine:$V\nARG V\nRUN x", {"V": "7"}),
    Case("ARG V\nFROM alpine:$V", {"V": ""}),
    Case("ARG V=a\nARG W=$V-$V\nFROM x:$W"),
    Case("FROM a\nARG TARGETPLATFORM TARGETVARIANT BUILDARCH\nRUN x", platform="linux/arm/v7"),
    Case("FROM --platform=$BUILDPLATFORM a\nRUN x", platform="linux/arm64"),
    Case("ARG TARGETARCH\nFROM a:$TARGETARCH", {"TARGETARCH": "z"}),
    Case("FROM a\nARG TARGETSTAGE\nRUN x", target="nope"),
    Case("FROM a AS One\nRUN x\nFROM one\nRUN y"),
    Case("FROM a AS one\nFROM One"),
    Case("FROM a AS one\nRUN x\nFROM b\nRUN y", target="ONE"),
    Case("FROM a AS one\nARG P=1\nENV E=$P\nRUN x\nFROM one\nRUN y\nCMD z"),
    Case("FROM a AS one\nCMD x\nFROM one\nENTRYPOINT y"),
    Case("FROM a AS one\nRUN x\nFROM b\nCOPY --from=one /x /y\nCOPY --from=0 /x /y"),
    Case("FROM a AS one\nCOPY --from=two a b\nFROM b AS two"),
    Case("FROM a AS one\nCOPY --from=two a b\nFROM b AS two\nCOPY --from=one a b"),
    Case("FROM a AS one\nCOPY --from=one a b"),
    Case("FROM a AS one\nCOPY --from=two a b\nFROM c AS three\nFROM b AS two", target="three"),
    Case("FROM a AS one\nRUN x\nFROM b\nRUN --mount=from=one,source=/x,target=/y z"),
    Case("FROM a AS x\nFROM b AS x\nRUN y\nFROM c\nCOPY --from=x a b"),
    Case("FROM scratch\nCOPY a b\nLABEL a=b"),
    Case("FROM scratch AS one\nFROM one\nWORKDIR /x"),
    Case("FROM triggers\nRUN x"),
    Case("FROM triggers AS one\nFROM one\nENV z=$OB"),
    Case("FROM a AS one\nONBUILD RUN t\nONBUILD ENV T=1\nRUN x\nFROM one\nRUN y\nFROM one\nRUN z"),
    Case("FROM a AS one\nONBUILD RUN --nope t\nFROM one"),
    Case("FROM a AS one\nONBUILD FOO\nFROM one"),
    Case("FROM a AS one\nONBUILD FOO"),
    Case("FROM a AS bad\nRUN --mount=type=nope x\nFROM b\nRUN y"),
    Case("FROM a\nRUN x", {"HTTP_PROXY": "http://p", "no_proxy": "q"}),
    Case("FROM a\nARG HTTP_PROXY\nRUN x", {"HTTP_PROXY": "http://p"}),
    Case("from a\nrun x\ncopy a b\nCmd y"),
    Case(
        """# syntax=docker/dockerfile:1.7
ARG PYTHON=3.12
FROM --platform=$BUILDPLATFORM python:${PYTHON}-slim AS build
WORKDIR /src
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=type=bind,source=requirements.txt,target=requirements.txt \\
    pip wheel -r requirements.txt -w /wheels
FROM python:${PYTHON}-slim
ARG UID=10001
ENV PYTHONUNBUFFERED=1 \\
    PATH="/opt/app/bin:$PATH"
RUN <<EOF
set -e
adduser --uid $UID app
EOF
COPY --from=build --link /wheels /wheels
COPY --chown=$UID . .
USER app
EXPOSE 8000
HEALTHCHECK --interval=30s CMD curl -f http://localhost:8000/ || exit 1
ENTRYPOINT ["gunicorn"]
CMD ["app:app", "-b", "0.0.0.0:8000"]
""",
        {"UID": "1"},
        platform="linux/arm64",
    ),
]

CASES = [
    *(Case(f"FROM busy:1\n{line}") for line in INSTRUCTIONS.strip().split("\n")),
    *(Case(f"FROM busy:1\n{lines}\n") for lines in SEVERAL_LINES),
    *WHOLE,
]
