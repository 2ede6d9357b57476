"""What of a bake can be kept: the limits of everything that comes from outside. Pure.

The numbers are far above what a workflow needs; they keep one caller from filling the server, and
texts within what columns and their indexes can hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from neuro.domain.bakes import (
    AttemptRequest,
    BakeImageRequest,
    BakeMeta,
    BakeRequest,
    CacheEntryRequest,
    ConfigFileRequest,
    Graphs,
    Kept,
    TaskRequest,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.errors import InvalidInput, TooLarge
from neuro.domain.flows import check_batch_name
from neuro.domain.life_spans import check_longest

MAX_BODY = 32 << 20
# Five thousand tasks of which each needs all of the layer before have a million edges.
MAX_GRAPHS_BODY = 64 << 20
MAX_FILE = 4 << 20
MAX_OUTCOME = 4 << 20
MAX_DETAILS = 1 << 20
MAX_NODES = 20_000
MAX_TAGS = 256
MAX_WORD = 255
MAX_FULL_ID = 1024
MAX_PATH = 4096
MAX_MESSAGE = 64 << 10
MAX_STATUSES = 1000
MAX_TASKS_A_CALL = 1000
MAX_FILES_OF_A_BAKE = 1000
MAX_ATTEMPTS = 1000
# Times that are further away cannot be reckoned with.

_FINAL_WITH_OUTCOME = (TaskStatus.SUCCEEDED, TaskStatus.CACHED)
# No name can hold these: they end lines, and PostgreSQL keeps no NUL.
_CONTROL = frozenset(map(chr, [*range(32), 127]))
# Messages are shown in terminals, also to others than who wrote them.
_UNSHOWN = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(32), *range(127, 160))
    if chr(code) not in "\n\t"
}


def fits(text: str, limit: int) -> bool:
    """Whether a string has 1 to ``limit`` bytes of UTF-8 and no control characters."""
    return 0 < len(text) <= limit and len(text.encode()) <= limit and _CONTROL.isdisjoint(text)


def aware(moment: datetime | None) -> datetime | None:
    """A time with its zone; those without one are UTC."""
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)


def moment_or_now(moment: datetime | None) -> datetime:
    """A request's ``created_at``, or else the time now, in UTC."""
    return datetime.now(UTC) if moment is None else _in_utc(moment)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{moment.isoformat()} is not a time that can be stored.") from None


def check_message(message: str | None) -> str | None:
    """A message as it can be kept."""
    if message is None:
        return None
    if len(message) > MAX_MESSAGE:
        raise TooLarge(f"A message can have {MAX_MESSAGE} characters at most.")
    return message.translate(_UNSHOWN)


def check_bake(request: BakeRequest) -> None:
    """Raise InvalidInput or TooLarge for the first rule that a bake breaks."""
    check_batch_name(request.batch)
    if request.name is not None:
        _text("name of a bake", request.name, MAX_WORD)
    check_tags(request.tags)
    check_graphs(request.graphs)
    _size("params and meta of a bake", [request.params, request.meta], MAX_DETAILS)
    _check_meta(request.meta)


def _check_meta(meta: BakeMeta) -> None:
    if meta.concurrency is not None:
        # Messages show it, and memory holds it while the bake waits or runs.
        _text("concurrency group", meta.concurrency.group, MAX_FULL_ID)
    if meta.life_span is not None:
        if not meta.life_span >= 0:
            raise InvalidInput("The life span of a bake is 0 seconds or more.")
        check_longest("The life span of a bake", meta.life_span)


def check_tags(tags: Sequence[str]) -> None:
    """Raise InvalidInput for tags that a bake cannot have."""
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"A bake can have {MAX_TAGS} tags at most, not {len(tags)}.")
    for tag in tags:
        _text("tag", tag, MAX_WORD)


def check_graphs(graphs: Graphs) -> None:
    """Raise InvalidInput for graphs that are too large or hold malformed ids."""
    nodes = 0
    for prefix, graph in graphs.items():
        if prefix:
            _full_id(prefix)
        nodes += len(graph)
        if nodes > MAX_NODES:
            raise InvalidInput(f"The graphs of a bake can have {MAX_NODES} tasks at most.")
        for node in graph:
            _full_id(node)


def check_attempt(request: AttemptRequest) -> None:
    """Raise InvalidInput or TooLarge for the first rule that an attempt breaks."""
    if not 1 <= request.number <= MAX_ATTEMPTS:
        raise InvalidInput(f"The number of an attempt is 1 to {MAX_ATTEMPTS}.")
    if request.executor_id is not None:
        _text("executor's id", request.executor_id, MAX_WORD)
    _size("configs of an attempt", request.configs_meta, MAX_DETAILS)


def check_kept(kept: Kept, number: int) -> None:
    """Raise InvalidInput or TooLarge for what the attempt of a number cannot keep."""
    if not 1 <= kept.attempt < number:
        raise InvalidInput(f"Attempt #{number} can keep only tasks of an earlier attempt.")
    ids = [*kept.tasks, *kept.calls]
    if len(ids) > MAX_NODES:
        raise TooLarge(f"An attempt can keep {MAX_NODES} tasks at most.")
    if len(set(ids)) < len(ids):
        raise InvalidInput("An attempt can keep each task only once.")
    for each in ids:
        _full_id(each)


def check_task(request: TaskRequest) -> None:
    """Raise InvalidInput or TooLarge for the first rule that a task breaks."""
    _full_id(request.yaml_id)
    if request.raw_id:
        _text("raw_id", request.raw_id, MAX_WORD)
    if request.cache_key is not None:
        _text("cache_key", request.cache_key, MAX_WORD)
    if len(request.statuses) > MAX_STATUSES:
        raise InvalidInput(f"A task can have {MAX_STATUSES} statuses at most.")
    _outcome(request.yaml_id, request.outputs, request.state)
    has_outcome = request.outputs is not None and request.state is not None
    if not has_outcome and any(each.status in _FINAL_WITH_OUTCOME for each in request.statuses):
        raise InvalidInput(
            f"Task '{request.yaml_id}' has succeeded: give its outputs and its state, {{}} if it"
            " has none."
        )


def check_batch(requests: Sequence[TaskRequest]) -> None:
    """Raise InvalidInput or TooLarge for tasks that cannot be written in one call."""
    if len(requests) > MAX_TASKS_A_CALL:
        raise TooLarge(f"One call can write {MAX_TASKS_A_CALL} tasks at most.")
    if len({request.attempt_id for request in requests}) > 1:
        raise InvalidInput("One call can write tasks of only one attempt.")
    if len({request.yaml_id for request in requests}) < len(requests):
        raise InvalidInput("One call can write each task only once.")
    for request in requests:
        check_task(request)


def in_utc(statuses: Iterable[TaskTransition]) -> list[TaskTransition]:
    """A task's steps with their times in UTC."""
    return [
        TaskTransition(created_at=_in_utc(each.created_at), status=each.status) for each in statuses
    ]


def check_file(request: ConfigFileRequest) -> None:
    """Raise InvalidInput or TooLarge for the first rule that a config file breaks."""
    _text("file name", request.filename, MAX_PATH)
    if len(request.content) > MAX_FILE or len(request.content.encode()) > MAX_FILE:
        raise TooLarge(f"A flow file can have {MAX_FILE >> 20} MiB at most.")


def check_entry(request: CacheEntryRequest) -> None:
    """Raise InvalidInput or TooLarge for the first rule that a cache entry breaks."""
    check_batch_name(request.batch)
    _full_id(request.task_id)
    _text("key", request.key, MAX_WORD)
    if request.raw_id:
        _text("raw_id", request.raw_id, MAX_WORD)
    _outcome(request.task_id, request.outputs, request.state)


def check_image(request: BakeImageRequest) -> None:
    """Raise InvalidInput or TooLarge for the first rule that a bake's image breaks."""
    _text("image", request.ref, MAX_FULL_ID)
    for path in (request.context_on_storage, request.dockerfile_rel):
        if path:
            _text("path", path, MAX_PATH)
    if request.builder_job_id is not None:
        check_builder(request.builder_job_id)
    if not request.yaml_defs:
        raise InvalidInput(f"Image '{request.ref}' needs at least one definition in yaml_defs.")
    for each in request.yaml_defs:
        _full_id(each)


def check_builder(job_id: str) -> None:
    """Raise InvalidInput for what cannot be a job's id."""
    _text("builder_job_id", job_id, MAX_WORD)


def _text(what: str, text: str, limit: int) -> None:
    if not fits(text, limit):
        raise InvalidInput(
            f"Invalid {what} '{text[:80]}': use 1 to {limit} bytes, without control characters."
        )


def _full_id(text: str) -> None:
    _text("id of a task", text, MAX_FULL_ID)


def _outcome(task: str, outputs: Mapping[str, str] | None, state: Mapping[str, str] | None) -> None:
    texts = [text for part in (outputs, state) if part for pair in part.items() for text in pair]
    # Most are short: their lengths alone say that they fit.
    if sum(map(len, texts)) * 4 <= MAX_OUTCOME:
        return
    if sum(len(text.encode()) for text in texts) > MAX_OUTCOME:
        raise TooLarge(
            f"The outputs and the state of task '{task[:80]}' are over {MAX_OUTCOME >> 20} MiB."
        )


def _size(what: str, value: Any, limit: int) -> None:
    if len(msgspec.json.encode(value)) > limit:
        raise TooLarge(f"The {what} are over {limit >> 10} KiB.")
