"""Why a connection failed, in words of the system and of this product, never of a library."""

from __future__ import annotations

import os
import ssl

from neuro.client.transport import ServerUnreachable


def unreachable(place: str, error: BaseException) -> ServerUnreachable:
    """The error for a server at a place that could not be reached, or went away."""
    return ServerUnreachable(
        f"Cannot reach the server at {place}: {why(error)}. Is it running? Start it with"
        " `neuro up`, or see `neuro config show` for the address in use."
    )


def lost(error: BaseException) -> ServerUnreachable:
    """The error for a connection that ended in the middle of what it carried."""
    return ServerUnreachable(f"The connection to the server was lost: {why(error)}.")


def why(error: BaseException) -> str:
    """A clause such as ``Connection refused``, without a full stop."""
    for cause in (error, getattr(error, "os_error", None), error.__cause__):
        if isinstance(cause, TimeoutError):
            return "no answer came in time"
        if isinstance(cause, ssl.SSLError):
            said = getattr(cause, "verify_message", "") or (cause.reason or "").replace("_", " ")
            return f"TLS failed ({said.lower()})" if said else "TLS failed"
        if isinstance(cause, OSError) and cause.errno:
            # Negative: the resolver's own numbers, whose words are the system's too.
            known = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
            return known or "the connection broke off"
    return "the connection broke off"
