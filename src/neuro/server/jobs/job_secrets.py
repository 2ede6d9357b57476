"""What jobs have to do with secrets: which they may use, what they get, and which use each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from neuro.domain.errors import InvalidInput
from neuro.domain.jobs import ContainerRequest
from neuro.domain.secrets import secret_uri
from neuro.domain.uris import ResourceURI, typed_text
from neuro.engines.base import File
from neuro.server.access.identity import Identity
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.specification import MAX_TEXT, secrets_of
from neuro.server.secrets.service import Secrets

MAX_BYTES = 1024 * 1024  # of the files of one run, which are in memory


@dataclass(frozen=True)
class SecretValues:
    """The values that a run gets: variables, and files."""

    env: dict[str, str] = field(default_factory=dict, repr=False)
    files: tuple[File, ...] = field(default=(), repr=False)


class JobSecrets:
    """The secrets of jobs; ``identity_of`` says what a user may do now, or raises NotFound."""

    def __init__(
        self, secrets: Secrets, identity_of: Callable[[str], Awaitable[Identity]], cluster: str
    ) -> None:
        self._secrets = secrets
        self._identity_of = identity_of
        self._cluster = cluster

    async def check(self, caller: Identity, container: ContainerRequest) -> None:
        """Raise NotFound for a secret that is not there, or that the caller may not use."""
        await self._secrets.check(caller, secrets_of(container, self._cluster))

    async def given(self, record: JobRecord) -> SecretValues:
        """The values for a run of a job, by what its owner may use at this moment.

        Raises NotFound for a secret that is gone or not theirs to use any more, InvalidInput for
        one that no variable can have, or for too much of it.
        """
        container = record.specification.container
        uris = secrets_of(container, self._cluster)
        if not uris:
            return SecretValues()
        owner = await self._identity_of(record.owner)
        values = await self._secrets.values(owner, uris, record.id)
        env = {
            name: _as_text(name, uri, values[uri])
            for name, uri in (
                (name, secret_uri(text, self._cluster))
                for name, text in container.secret_env.items()
            )
        }
        every = {**container.env, **env}
        if sum(len(name) + len(value.encode()) + 2 for name, value in every.items()) > MAX_TEXT:
            raise InvalidInput(
                f"The environment is over {MAX_TEXT} bytes with its secrets: mount some as files."
            )
        files = tuple(
            File(
                target=volume.dst_path,
                content=values[secret_uri(volume.src_secret_uri, self._cluster)],
            )
            for volume in container.secret_volumes
        )
        if sum(len(file.content) for file in files) > MAX_BYTES:
            raise InvalidInput(f"The job's secret files have over {MAX_BYTES:,} bytes together.")
        return SecretValues(env, files)


def _as_text(name: str, uri: ResourceURI, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidInput(
            f"The secret '{typed_text(uri)}' is not text, so the variable {name} cannot have it:"
            f" mount it as a file, with --volume {typed_text(uri)}:/PATH/FILE."
        )
    return text


def uses_of(board: Board, cluster: str, caller: Identity) -> dict[str, list[str]]:
    """The active jobs that use each secret, by its URI: those that a caller may see."""
    visible = caller.scope("job", cluster)
    found: dict[str, list[str]] = {}
    for record in board.with_secrets():
        if visible.shows(record.owner, record.id, record.name):
            for uri in secrets_of(record.specification.container, cluster):
                found.setdefault(str(uri), []).append(record.id)
    return {uri: sorted(ids) for uri, ids in found.items()}
