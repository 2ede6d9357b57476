"""Messages about tasks: records keep them, and views of records recognise them. Pure."""

from __future__ import annotations

from neuro.domain.bakes import TaskStatus

_PAST = {
    TaskStatus.SUCCEEDED: "has succeeded",
    TaskStatus.FAILED: "has failed",
    TaskStatus.CANCELLED: "was cancelled",
    TaskStatus.SKIPPED: "was skipped",
}
_MAY_FAIL = "; it may fail"


def told(status: TaskStatus) -> str:
    """A status as the end of a sentence about what has it."""
    return _PAST.get(status, f"is {status.value}")


def failure_of(full_id: str) -> str:
    """How a sentence begins that tells what something around a task failed of."""
    return f"Task {full_id} failed"


def forgiven(message: str) -> str:
    """Why a task with continue_on_error failed; the first line says that the others go on."""
    what, newline, where = message.partition("\n")
    return f"{what}{_MAY_FAIL}{newline}{where}"


def is_forgiven(message: str | None) -> bool:
    """Whether a message tells of a failure that is allowed."""
    return message is not None and _MAY_FAIL in message
