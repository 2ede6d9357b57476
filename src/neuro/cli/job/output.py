"""What ``neuro run`` and ``neuro attach`` say around a job's output."""

from __future__ import annotations

import re
from time import monotonic

from neuro.cli.output import Output, terminal_width
from neuro.cli.render.job_row import STATUS_COLORS
from neuro.cli.render.redrawing import rows_of
from neuro.domain.jobs import Job, JobStatus
from neuro.domain.printable import printable

ATTACHED = """\
Terminal is attached to the remote job, so you receive the job's output.
Use {keys} to detach (it will NOT terminate the job), or restart the job with `--detach` option."""

_SPINNER = "◢◣◤◥"
_PROGRESS = re.compile(r" \(\d+%\)")


def header(job: Job) -> list[str]:
    """What is known of a job right after its submission."""
    lines = [f"Job ID: {job.id}", f"Status: {job.status.value}"]
    if job.name:
        lines.append(f"Name: {job.name}")
    if job.container.http and (url := job.http_url_named or job.http_url):
        lines.append(f"Http URL: {url}")
    return [*lines, "Shortcuts:", *shortcuts(job.name or job.id)]


def shortcuts(job: str) -> list[str]:
    """The commands that a person needs next."""
    return [
        f"  neuro status {job} # check job status",
        f"  neuro logs {job} # monitor job stdout",
        f"  neuro top {job} # display real-time job telemetry",
        f"  neuro exec {job} bash # execute bash shell to the job",
        f"  neuro kill {job} # kill job",
    ]


def step_text(status: JobStatus, reason: str | None, description: str | None) -> str:
    """``pending Scheduling (2 jobs are ahead)``; a running job needs no reason."""
    words = [status.value, "" if status is JobStatus.RUNNING else reason or ""]
    if description:
        words.append(f"({description})")
    return " ".join(word for word in words if word)


def steps(job: Job) -> list[tuple[JobStatus, str]]:
    """Every step of a job up to its start; the last one with the freshest description.

    The end of a job that has run comes after its output, so it is no step here.
    """
    texts = [
        (step.status, step_text(step.status, step.reason, step.description))
        for step in job.statuses[:-1]
    ]
    history = job.history
    if job.status.is_finished and any(status is JobStatus.RUNNING for status, _ in texts):
        return texts
    return [*texts, (job.status, step_text(job.status, history.reason, history.description))]


class Progress:
    """The status lines while a job starts: one per step, the last one moving on a terminal."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live = out.is_terminal
        self._index = 0  # of the first step that may still have to be said
        self._said: str | None = None  # what was said of that step
        self._moving = ""  # the line that is drawn again and again
        self._turns = 0
        self._started = monotonic()

    def show(self, job: Job) -> None:
        """Say what is new."""
        if self._out.quiet:
            return
        every = steps(job)
        for index in range(self._index, len(every)):
            self._step(*every[index], is_last=index == len(every) - 1)
            if index < len(every) - 1:
                self._index, self._said = index + 1, None
        self._out.flush()

    def end(self) -> None:
        """Leave the line as it is, and begin a new one."""
        if self._moving:
            self._out.print()
            self._moving = ""

    def _step(self, status: JobStatus, text: str, *, is_last: bool) -> None:
        waits = status in (JobStatus.PENDING, JobStatus.SUSPENDED)
        if self._live and is_last and waits:
            line = f"{self._line(status, text)} {self._sign()}"
            self._out.draw(f"{self._back()}{line}")
            self._moving = line
            return
        if self._moving:
            self._out.draw(f"{self._back()}{self._line(status, text)}\n")
            self._moving, self._said = "", text
            return
        # How far a pull is would be a hundred lines of a file.
        text = _PROGRESS.sub("", text)
        if self._said is None or (is_last and self._said != text):
            # What a step says may change while it is the last: the place in the queue.
            self._out.print(self._line(status, text))
            self._said = text

    def _back(self) -> str:
        """To the beginning of the line that moves, with all its rows cleared."""
        rows = rows_of(self._moving, terminal_width() or 80)
        return f"\r\x1b[{rows - 1}A\x1b[J" if rows > 1 else "\r\x1b[K"

    def _line(self, status: JobStatus, text: str) -> str:
        word, space, rest = text.partition(" ")
        styled = self._out.style(word, fg=STATUS_COLORS.get(status))
        return f"Status: {styled}{space}{printable(rest)}"

    def _sign(self) -> str:
        self._turns += 1
        turn = _SPINNER[self._turns % len(_SPINNER)]
        return f"{turn} [{monotonic() - self._started:.1f} sec]"
