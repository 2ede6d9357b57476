"""Flows as the wire knows them: projects and their live jobs.

See docs/reference/wire-protocol.md#flows.
"""

from __future__ import annotations

import re
import uuid

import msgspec

from neuro.domain.errors import InvalidInput

MAX_LIVE_JOB_TAGS = 64

# What one segment of a URI and one column of the database can hold.
_WORD = re.compile(r"[^\s/\x00-\x1f\x7f]{1,255}")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PROJECT_ID = re.compile(f"projects-{_UUID}")
_LIVE_JOB_ID = re.compile(f"live-job-{_UUID}")
MAX_BATCH_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLANK = re.compile(r"\s")
# With a word and a colon in front it is no longer than a tag.
_MAX_TAG_FORM = 240


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's project. On this platform its ``project_name`` is its owner's, without an org."""

    id: str
    name: str
    owner: str
    cluster: str
    project_name: str
    org_name: str | None = None


class ProjectRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST /flow/projects. None means the server's cluster, and the caller's own project."""

    name: str
    cluster: str | None = None
    org_name: str | None = None
    project_name: str | None = None


class ProjectFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The query of GET /flow/projects. None means: no condition; an empty org means: without."""

    name: str | None = None
    cluster: str | None = None
    org_name: str | None = None
    owner: str | None = None
    project_name: str | None = None


class LiveJob(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job of a live workflow: where the runs of ``yaml_id`` are found."""

    id: str
    yaml_id: str
    project_id: str
    multi: bool
    tags: list[str]
    raw_id: str = ""


class LiveJobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /flow/live_jobs, and PUT /flow/live_jobs/replace."""

    yaml_id: str
    project_id: str
    multi: bool
    tags: list[str] = []
    raw_id: str = ""


def new_project_id() -> str:
    """A fresh project id, ``projects-<uuid4>``."""
    return f"projects-{uuid.uuid4()}"


def new_live_job_id() -> str:
    """A fresh live job id, ``live-job-<uuid4>``."""
    return f"live-job-{uuid.uuid4()}"


def is_project_id(text: str) -> bool:
    """Whether ``text`` has the form of a project's id."""
    return _PROJECT_ID.fullmatch(text) is not None


def is_live_job_id(text: str) -> bool:
    """Whether ``text`` has the form of a live job's id."""
    return _LIVE_JOB_ID.fullmatch(text) is not None


def is_word(text: str) -> bool:
    """Whether ``text`` can be a part of a name: 1 to 255 characters, no blanks, no slash."""
    return text not in (".", "..") and _WORD.fullmatch(text) is not None


def check_project_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput. A name cannot look like an id: both are in URIs."""
    if is_word(name) and not is_project_id(name):
        return name
    raise InvalidInput(
        f"Invalid project name '{name[:80]}': use 1 to 255 characters without blanks and slashes,"
        " and not the form of an id."
    )


def check_batch_name(name: str) -> str:
    """Return ``name``, or raise InvalidInput: a batch is called by its file's path."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # of a file whose name is not UTF-8
        size = 0
    folders_and_file = name.split("/")
    if (
        0 < size <= MAX_BATCH_NAME
        and not _CONTROL.search(name)
        and not {"", ".", ".."}.intersection(folders_and_file)
    ):
        return name
    shown = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in name[:80])
    raise InvalidInput(
        f"Invalid batch '{shown}': a batch is called by its file's path in .neuro,"
        f" without the ending. Use 1 to {MAX_BATCH_NAME} bytes of UTF-8, without control"
        " characters."
    )


def tag_form(name: str) -> str:
    """Write a name the way tags of jobs have it: in lower case, with dashes, without blanks.

    Of a name that is longer than a tag, the beginning finds the jobs still.

    >>> tag_form("nightly/Train_big net")
    'nightly/train-big-net'
    """
    return _BLANK.sub("-", name.replace("_", "-").lower())[:_MAX_TAG_FORM]


def check_live_job(request: LiveJobRequest) -> LiveJobRequest:
    """Return ``request``, or raise InvalidInput for the first rule that it breaks."""
    if not is_word(request.yaml_id):
        raise InvalidInput(
            f"Invalid job '{request.yaml_id[:80]}': use 1 to 255 characters without blanks and"
            " slashes."
        )
    if request.raw_id and not is_word(request.raw_id):
        raise InvalidInput(f"'{request.raw_id[:80]}' cannot be the id of a job.")
    if len(request.tags) > MAX_LIVE_JOB_TAGS:
        raise InvalidInput(
            f"A live job can have {MAX_LIVE_JOB_TAGS} tags at most, not {len(request.tags)}."
        )
    for tag in request.tags:
        if len(tag) > 256 or not tag.isprintable() or tag.split() != [tag]:
            raise InvalidInput(f"Invalid tag '{tag[:80]}': use 1 to 256 characters without blanks.")
    return request
