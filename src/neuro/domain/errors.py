"""Errors as values: a stable code, what happened, and what to do about it.

The server turns them into HTTP answers (``{"error": message, "code": code}``), the client turns
those answers back into the same classes, and the command line into a sentence and an exit code.
"""

from __future__ import annotations

import os


class PlatformError(Exception):
    """Base of every error that a person may see; ``str(error)`` is the sentence they read.

    ``from_server``: a server answered with it, so this side of the wire did not find it out.
    ``retry_after``: in how many seconds another try makes sense, where that is known.
    """

    code = "error"
    status = 500
    from_server = False
    retry_after: float | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(PlatformError):
    """A request that is wrong in itself: a bad name, an unknown preset, a missing field.

    ``field`` is the text of the request that is wrong, as the wire calls it (``tags[0]``), where
    the sentence quotes it so. Whoever asked in other words says it in those.
    """

    code = "invalid"
    status = 400
    field: str | None = None


class NoSuchJob(InvalidInput):
    """The job is unknown, or the caller may not see it. The wire says 400 here, not 404."""

    code = "no_such_job"


class AlreadyExists(InvalidInput):
    """A name that is taken. The wire says 400 here, not 409."""

    code = "already_exists"


class NeverFits(InvalidInput):
    """A job that this installation can never run, with the numbers."""

    code = "never_fits"


class NotAuthenticated(PlatformError):
    """No token, or one that is unknown, expired or revoked."""

    code = "not_authenticated"
    status = 401


class NotPermitted(PlatformError):
    """A known caller who lacks a permission on something that they may see."""

    code = "not_permitted"
    status = 403


class NotFound(PlatformError):
    """Absent, or hidden from this caller: callers cannot tell which."""

    code = "not_found"
    status = 404


class Conflict(PlatformError):
    """The state of the thing forbids the operation now."""

    code = "conflict"
    status = 409


class NotUnique(Conflict):
    """A name, number or key that is taken, where the flow clients know that by this very code."""

    code = "unique"


class TooLarge(PlatformError):
    """A body, a path or a list beyond its documented limit."""

    code = "too_large"
    status = 413


class NotPlain(PlatformError):
    """A body that is compressed: the server would have to inflate it, to any size."""

    code = "not_plain"
    status = 415


class TooSlow(PlatformError):
    """A request that does not arrive: its connection is closed."""

    code = "too_slow"
    status = 408


class TooManyRequests(PlatformError):
    """Back-pressure: nothing was done; try again after ``retry_after`` seconds."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, retry_after: float | None = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Damaged(PlatformError):
    """A record that the server has and cannot read any more: that does not pass by itself."""

    code = "damaged"
    status = 500


class NotSupported(PlatformError):
    """Something that this engine or installation cannot do, said plainly."""

    code = "not_supported"
    status = 501


class Unavailable(PlatformError):
    """The server or an engine cannot be reached or is going down."""

    code = "unavailable"
    status = 503


class StorageFault(PlatformError):
    """A POSIX error of a storage operation; ``errno`` is symbolic (``"ENOTDIR"``)."""

    code = "storage"
    status = 400

    def __init__(self, errno: str, message: str | None = None) -> None:
        super().__init__(message or os.strerror(_number(errno)))
        self.errno = errno

    @property
    def number(self) -> int:
        """The numeric errno on this machine."""
        return _number(self.errno)


def new_login(user: str = "NAME") -> str:
    """How somebody whose token is good no more logs in again."""
    return (
        "log in again with `neuro login` if you started this server on this machine; else ask an"
        f" administrator for a new token (`neuro config token create --user {user}`)."
    )


def _number(symbol: str) -> int:
    import errno as numbers

    return int(getattr(numbers, symbol, numbers.EIO))
