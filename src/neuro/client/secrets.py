"""Secrets: values that jobs get. A value can be given, and never be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.client.messages import below, content, get, send, tell, with_message
from neuro.client.transport import Params, Request
from neuro.domain.secrets import (
    RestoreRequest,
    SecretEntry,
    SecretRequest,
    SecretsRotated,
    SecretVersion,
    check_secret_key,
    check_secret_value,
    secret_uri,
)
from neuro.domain.uris import ResourceURI, complete_uri

if TYPE_CHECKING:
    from neuro.client.client import Client

_SECRETS = "/secrets"


class Secrets:
    """Secrets of a client's cluster.

    A secret is named by its key, or by a URI: ``wandb``, ``secret:wandb``, ``secret:/bob/wandb``,
    ``secret://default/bob/wandb``.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport = client.transport

    def uri(self, text: str) -> ResourceURI:
        """The secret that a key or a URI names. Raises InvalidInput."""
        client = self._client
        short = text if text.startswith("secret:") else f"secret:{check_secret_key(text)}"
        uri = complete_uri(short, "secret", cluster=client.cluster, user=client.user)
        return secret_uri(str(uri), client.cluster)

    async def all(self) -> list[SecretEntry]:
        """One's own secrets, and those that were shared, by owner and key."""
        return await get(self._transport, _SECRETS, list[SecretEntry])

    async def put(self, secret: str, value: bytes) -> SecretVersion:
        """Make a secret, or give it another value: at most 64 KiB.

        Raises InvalidInput, NotFound, NotPermitted, Conflict where there are too many.
        """
        uri = self.uri(secret)
        request = SecretRequest(
            key=uri.segments[1], value=check_secret_value(value), owner=uri.owner
        )
        return await send(self._transport, "POST", _SECRETS, request, SecretVersion)

    async def remove(self, secret: str) -> None:
        """Remove a secret with all its versions; jobs that have its value keep it.

        Raises NotFound, NotPermitted.
        """
        uri = self.uri(secret)
        path = below(_SECRETS, uri.segments[1])
        await tell(self._transport, "DELETE", path, params=_of(uri))

    async def versions(self, secret: str) -> list[SecretVersion]:
        """The versions of a secret that are kept, newest first. Raises NotFound."""
        uri = self.uri(secret)
        path = below(_SECRETS, uri.segments[1]) + "/versions"
        return await get(self._transport, path, list[SecretVersion], params=_of(uri))

    async def restore(self, secret: str, version: int) -> SecretVersion:
        """Give a secret the value of an earlier version again, as a new version.

        Raises NotFound, NotPermitted.
        """
        uri = self.uri(secret)
        path = below(_SECRETS, uri.segments[1]) + "/restore"
        request = with_message("POST", path, RestoreRequest(version), params=_of(uri))
        return await content(self._transport, request, SecretVersion)

    async def rotate_key(self) -> SecretsRotated:
        """Have the server encrypt every secret with a new key. For administrators.

        Raises NotPermitted, Conflict where its file has too many keys.
        """
        request = Request(method="POST", path="/secrets-rotation")
        return await content(self._transport, request, SecretsRotated)


def _of(uri: ResourceURI) -> Params:
    return [("owner", uri.owner)]
