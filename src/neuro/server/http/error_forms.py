"""The forms of errors on the wire. A route says which one is its own; by default, ours.

A form writes the body. What all have alike (status, ``Retry-After``, ``WWW-Authenticate``) and
where errors come from is in ``neuro.server.http.errors``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from neuro.domain.errors import InvalidInput, NotUnique, PlatformError, StorageFault
from neuro.server.http.pages import error_page


@dataclass(frozen=True, eq=False)
class ErrorForm:
    """How an error is written.

    ``write`` makes the body, for a reader who asked in some ``Accept-Language``; ``schema`` is its
    type where it is JSON. ``below`` is the prefix of the paths that are this form's even where no
    route is.
    """

    media_type: str
    write: Callable[[PlatformError, str], bytes]
    schema: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    below: str | None = None

    def has(self, path: str) -> bool:
        """Whether a path without a route is this form's."""
        return self.below is not None and (path + "/").startswith(self.below + "/")


def form_at(path: str, forms: tuple[ErrorForm, ...]) -> ErrorForm:
    """The form of errors at a path that no route has."""
    return next((form for form in forms if form.has(path)), OURS)


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every answer of 400 or above.

    ``errno`` comes with storage errors, ``field`` with a wrong one of the request; ``description``
    with what is taken, for the flow clients.
    """

    error: str
    code: str
    errno: str | None = None
    field: str | None = None
    description: str | None = None


def _write_ours(error: PlatformError, languages: str) -> bytes:
    return msgspec.json.encode(
        Failure(
            error.message,
            error.code,
            errno=error.errno if isinstance(error, StorageFault) else None,
            field=error.field if isinstance(error, InvalidInput) else None,
            description=error.message if isinstance(error, NotUnique) else None,
        )
    )


OURS = ErrorForm("application/json", _write_ours, Failure)


class OciError(msgspec.Struct, frozen=True):
    """One of the errors in an answer of a registry."""

    code: str
    message: str
    detail: Any = None


class OciFailure(msgspec.Struct, frozen=True):
    """What went wrong, as the OCI distribution specification writes it."""

    errors: list[OciError]


# The specification's own, and below those of the original registry, which clients know too.
OCI_CODES = frozenset(
    {
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
        *("MANIFEST_UNVERIFIED", "PAGINATION_NUMBER_INVALID", "RANGE_INVALID", "TAG_INVALID"),
        *("UNAVAILABLE", "UNKNOWN"),
    }
)
_OCI_CODE_OF = {
    400: "UNSUPPORTED",  # "or an invalid set of parameters", says the specification
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    415: "UNSUPPORTED",
    429: "TOOMANYREQUESTS",
    501: "UNSUPPORTED",
    503: "UNAVAILABLE",
}


def _write_oci(error: PlatformError, languages: str) -> bytes:
    """An error whose ``code`` is one of OCI's says that one, and its ``detail`` if it has any.

    One with several ``details`` is told once for each of them.
    """
    code = error.code if error.code in OCI_CODES else _OCI_CODE_OF.get(error.status, "UNKNOWN")
    details = getattr(error, "details", None) or [getattr(error, "detail", None)]
    return msgspec.json.encode(
        OciFailure([OciError(code, error.message, detail) for detail in details])
    )


# A registry's clients know no other place for it than /v2/ of a host.
OCI = ErrorForm(
    "application/json",
    _write_oci,
    OciFailure,
    headers={"Docker-Distribution-Api-Version": "registry/2.0"},
    below="/v2",
)


def _write_page(error: PlatformError, languages: str) -> bytes:
    return error_page(error.status, error.message, languages).encode()


PAGE = ErrorForm("text/html", _write_page)
