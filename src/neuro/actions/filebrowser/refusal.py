"""What the file browser refuses, and why."""

from __future__ import annotations

import errno
from http import HTTPStatus


class Refusal(Exception):
    """A request that is not done. ``reason`` is a key of the texts that people read."""

    def __init__(self, status: HTTPStatus, reason: str, name: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.name = name


def not_found(name: str) -> Refusal:
    """What is not there, and what is outside of the root: the two look the same."""
    return Refusal(HTTPStatus.NOT_FOUND, "not-found", name)


_SYSTEM = {
    errno.ENOENT: (HTTPStatus.NOT_FOUND, "not-found"),
    errno.ENOTDIR: (HTTPStatus.NOT_FOUND, "not-found"),
    errno.ELOOP: (HTTPStatus.NOT_FOUND, "not-found"),
    errno.EACCES: (HTTPStatus.FORBIDDEN, "forbidden"),
    errno.EPERM: (HTTPStatus.FORBIDDEN, "forbidden"),
    errno.EROFS: (HTTPStatus.FORBIDDEN, "read-only-volume"),
    errno.EEXIST: (HTTPStatus.CONFLICT, "exists"),
    errno.ENOTEMPTY: (HTTPStatus.CONFLICT, "exists"),
    errno.EISDIR: (HTTPStatus.CONFLICT, "exists"),
    errno.EINVAL: (HTTPStatus.CONFLICT, "into-itself"),
    errno.EXDEV: (HTTPStatus.CONFLICT, "other-volume"),
    errno.EBUSY: (HTTPStatus.CONFLICT, "busy"),
    errno.ENAMETOOLONG: (HTTPStatus.BAD_REQUEST, "long-name"),
    errno.ENOSPC: (HTTPStatus.INSUFFICIENT_STORAGE, "full"),
    errno.EDQUOT: (HTTPStatus.INSUFFICIENT_STORAGE, "full"),
}


def of_system(error: OSError, name: str) -> Refusal:
    """What the system said, for people."""
    status, reason = _SYSTEM.get(
        error.errno or 0, (HTTPStatus.INTERNAL_SERVER_ERROR, "system-error")
    )
    return Refusal(status, reason, name if reason != "system-error" else error.strerror or name)
