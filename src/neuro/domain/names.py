"""Which names are allowed, and the sentence a person reads when one is not."""

from __future__ import annotations

import os
import re
import uuid

from neuro.domain.errors import InvalidInput

_WORD = r"[a-z0-9](?:-?[a-z0-9])*"
_JOB_NAME = re.compile(r"[a-z](?:-?[a-z0-9])*")
_USER_NAME = re.compile(_WORD)
_JOB_ID = re.compile(r"job-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ROLE_PART = re.compile(r"[^\s:/?#%@\x00-\x1f\x7f]+")
_TAG = re.compile(r"\S{1,256}")
_VARIABLE = re.compile(r"[^\s=\0]+")

MAX_TAGS = 16
MAX_ROLE_NAME = 255


# Of ids to come. The kernel is asked for many at once: Python lets other threads go on while it
# waits for the answer, and a server with a busy database waits for its turn after that.
_randomness: list[bytes] = []
_AT_ONCE = 128
os.register_at_fork(after_in_child=_randomness.clear)  # a copy would give out the same ids


def new_job_id() -> str:
    """A fresh job id, ``job-<uuid4>``; clients tell ids from names by this very form."""
    try:
        raw = _randomness.pop()
    except IndexError:
        block = os.urandom(16 * _AT_ONCE)
        raw, *others = (block[start : start + 16] for start in range(0, len(block), 16))
        _randomness.extend(others)
    return f"job-{uuid.UUID(bytes=raw, version=4)}"


def is_job_id(text: str) -> bool:
    """Whether ``text`` has the form of a job id (and so cannot be a job's name)."""
    return _JOB_ID.fullmatch(text) is not None


def is_job_name(text: str) -> bool:
    """Whether a job can have this name."""
    fits = 3 <= len(text) <= 40 and _JOB_NAME.fullmatch(text) is not None
    return fits and not text.startswith("job-")


def is_variable(text: str) -> bool:
    """Whether an environment variable can have this name."""
    return _VARIABLE.fullmatch(text) is not None


def check_job_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput with the four rules."""
    if is_job_name(name):
        return name
    raise InvalidInput(
        f"Invalid job name '{name}'. The name\n"
        "  * can have lower-case letters, digits and hyphens,\n"
        "  * begins with a letter, and not with 'job-',\n"
        "  * has each hyphen between two letters or digits,\n"
        "  * is 3 to 40 characters long."
    )


def is_role(name: str) -> bool:
    """Whether ``name`` is that of a role, such as ``ann/projects/sweep``; in URLs it has colons."""
    return "/" in name or ":" in name


def owner_of_role(name: str) -> str:
    """Whose a role is.

    >>> owner_of_role("ann/projects/sweep")
    'ann'
    """
    return name.replace(":", "/").partition("/")[0]


def check_role_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput: a user's name, and more words behind slashes."""
    owner, *words = name.split("/")
    is_word = all(_ROLE_PART.fullmatch(word) and word not in (".", "..") for word in words)
    if words and is_word and _USER_NAME.fullmatch(owner) and len(name) <= MAX_ROLE_NAME:
        return name
    raise InvalidInput(
        f"Invalid role name '{name[:80]}': begin with a user's name and a slash, as in"
        " anna/roles/team, and use no spaces and none of : ? # % @ in it. It can be"
        f" {MAX_ROLE_NAME} characters long."
    )


def check_user_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput."""
    if name == "public":
        raise InvalidInput("No user can be called 'public': that is everybody.")
    if 3 <= len(name) <= 21 and _USER_NAME.fullmatch(name):
        return name
    raise InvalidInput(
        f"Invalid user name '{name}': use 3 to 21 lower-case letters, digits and single hyphens"
        " between them."
    )


def check_service_account_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput: it stands behind its owner's, as in anna--ci."""
    if len(name) <= 40 and _USER_NAME.fullmatch(name):
        return name
    raise InvalidInput(
        f"Invalid name of a service account '{name[:80]}': use up to 40 lower-case letters, digits"
        " and single hyphens between them."
    )


def check_cluster_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput."""
    if 3 <= len(name) <= 255 and _USER_NAME.fullmatch(name):
        return name
    raise InvalidInput(
        f"Invalid cluster name '{name}': use 3 to 255 lower-case letters, digits and single hyphens"
        " between them."
    )


def check_engine_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput: it is a folder's name too."""
    if len(name) <= 32 and _JOB_NAME.fullmatch(name):
        return name
    raise InvalidInput(
        f"Invalid engine name '{name[:80]}': use up to 32 lower-case letters, digits and single"
        " hyphens between them, a letter first."
    )


def check_known_cluster(name: str | None, known: str) -> None:
    """Raise InvalidInput where a request names a cluster that is not ``known``; None is allowed."""
    if name is not None and name != known:
        raise InvalidInput(f"Cluster '{name[:80]}' is unknown; this server's cluster is '{known}'.")


def check_tags(tags: list[str]) -> list[str]:
    """Return ``tags``, or raise InvalidInput: at most 16, each 1 to 256 non-space characters."""
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"A job can have {MAX_TAGS} tags at most, not {len(tags)}.")
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise InvalidInput(f"Invalid tag '{tag}': use 1 to 256 characters without spaces.")
    return tags


def user_name_from(login: str) -> str:
    """The nearest valid user name to a machine's login name."""
    word = re.sub(r"[^a-z0-9]+", "-", login.lower()).strip("-")[:21].strip("-")
    return word if len(word) >= 3 else f"{word or 'user'}-user".strip("-")[:21]
