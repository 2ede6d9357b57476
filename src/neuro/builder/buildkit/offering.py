"""What a session offers the daemon: passwords, secrets, the Dockerfile and the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from neuro.builder.buildkit import protobuf
from neuro.builder.buildkit.session import (
    CallRefused,
    Exchange,
    Metadata,
    Methods,
    NotFound,
    Reply,
)
from neuro.builder.buildkit.sharing import Files, NoFiles, OfContext, OneFile, Sharing
from neuro.builder.faults import BuildFault
from neuro.builder.views import Context
from neuro.engines.runs import PullCredentials

DOCKERFILE = "Dockerfile"
_SERVING = protobuf.field(1, 1)
# The daemon asks for these files first, to know what is to be left out. We leave it out ourselves.
_IGNORE = (".dockerignore", f"{DOCKERFILE}.dockerignore")


def methods(
    dockerfile: str,
    context: Context,
    password: Callable[[str], PullCredentials | None],
    secret: Callable[[str], bytes | None],
) -> Methods:
    """The methods by their paths.

    ``password`` is asked for the one of a registry's host, and ``secret`` for one by its name.
    """

    def check(metadata: Metadata) -> Exchange:
        return Reply(lambda request: _SERVING)

    def credentials(metadata: Metadata) -> Exchange:
        def answer(request: bytes) -> bytes:
            known = password(protobuf.Message(request).text(1))
            if known is None:
                return b""
            return protobuf.field(1, known.user) + protobuf.field(2, known.password)

        return Reply(answer)

    def secrets(metadata: Metadata) -> Exchange:
        def answer(request: bytes) -> bytes:
            name = protobuf.Message(request).text(1)
            try:
                content = secret(name)
            except BuildFault as fault:
                raise CallRefused(fault.sentence) from None
            if content is None:
                raise NotFound(f"There is no secret '{name}'.")
            return protobuf.field(1, content)

        return Reply(answer)

    def files(metadata: Metadata) -> Exchange:
        return Sharing(_files(metadata, dockerfile, context))

    return {
        "/grpc.health.v1.Health/Check": check,
        "/moby.filesync.v1.Auth/Credentials": credentials,
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": secrets,
        "/moby.filesync.v1.FileSync/DiffCopy": files,
    }


def _files(metadata: Mapping[str, object], dockerfile: str, context: Context) -> Files:
    def asked(name: str) -> list[str]:
        value = metadata.get(name, [])
        return value if isinstance(value, list) else []

    name = (asked("dir-name") or [""])[0]
    wanted = {*asked("include-patterns"), *asked("followpaths")}
    if wanted and wanted <= set(_IGNORE):
        return NoFiles()
    if name == "dockerfile":
        return OneFile(DOCKERFILE, dockerfile.encode("utf-8", "surrogateescape"))
    if name == "context":
        return OfContext(Context.again(context))
    raise NotFound(f"There is no folder '{name}'.")
