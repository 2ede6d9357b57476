"""Following a job without a terminal of its own: its start, its output, its end.

Two threads, because the standard library's HTTP client blocks: one reads the log (the server keeps
it open while the job is pending, so the first byte is here as soon as it exists), the main one asks
for the status and prints the steps. The reader waits at a gate until the last step is printed.
"""

from __future__ import annotations

import time
from threading import Event, Thread

from neuro.cli.context import Context
from neuro.cli.failures import USAGE, Failure
from neuro.cli.job.exit_code import job_exit_code
from neuro.cli.job.log_copy import LogCopy, write_all
from neuro.cli.job.output import ATTACHED, Progress
from neuro.cli.outage import Outage
from neuro.client.blocking import run
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job, JobStatus

# Between two questions for the status of a job that starts: soon first, then seldom.
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
# The first one where a log is read beside: its first bytes, or its end, tell that sooner.
FIRST_PAUSE_BESIDE = 0.03
# How long the main thread waits at a time. A signal that arrives just before a wait begins, or in
# another thread, does not end it: Python runs its handler only when the wait is over.
_HEARING = 0.25
# When somebody who asked for quiet is told once what a job waits for.
QUIET_SECONDS = 5.0


class LogReader:
    """Copies a job's log to a descriptor in a thread, from behind a gate."""

    def __init__(
        self, context: Context, job_id: str, outage: Outage, *, descriptor: int = 1
    ) -> None:
        self._descriptor = descriptor
        self._gate = Event()
        self.stirred = Event()  # the first bytes are here, or the log is over
        self.ended = Event()
        self.error: BaseException | None = None
        client = context.streaming_client()
        self._copy = LogCopy(client, job_id, self._let_through, outage, answered=True)
        self._thread = Thread(target=self._read, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def open(self) -> None:
        """Let the output through."""
        self._gate.set()

    @property
    def finished(self) -> Job | None:
        """The job as it was when it was over, once all of its log is here."""
        return self._copy.finished

    def _read(self) -> None:
        try:
            self._copy.to_the_end()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()
            self.stirred.set()

    def _let_through(self, data: bytes) -> None:
        self.stirred.set()
        self._gate.wait()
        write_all(self._descriptor, data)


def wait_for_start(
    context: Context,
    job: Job,
    progress: Progress,
    *,
    stirred: Event | None = None,
    hint: str | None = None,
    outage: Outage | None = None,
) -> Job:
    """Print the job's steps until it runs or is over; ``stirred`` ends a pause early.

    ``hint`` is said once, where the job has to wait for others. Where little is wanted, what it
    waits for is said once, after some seconds.
    """
    silent_until = time.monotonic() + QUIET_SECONDS if context.out.quiet else None
    pause = FIRST_PAUSE if stirred is None else FIRST_PAUSE_BESIDE
    client, wake = context.client, stirred or Event()
    outage, job_id = outage or Outage(context.out.note), job.id
    progress.show(job)
    while job.status in (JobStatus.PENDING, JobStatus.SUSPENDED):
        if hint is not None and job.history.description:
            progress.end()
            context.out.note(hint)
            hint = None
        if silent_until and job.history.description and time.monotonic() > silent_until:
            context.out.warning(f"Job {job.name or job_id} waits: {job.history.description}")
            silent_until = None
        if wake.wait(pause):
            # Its output has begun, or there is none to come: now the status cannot be far.
            wake = Event()
        pause = min(pause * 1.5, LONGEST_PAUSE)
        job = outage.insist(lambda: run(client.jobs.get(job_id)))
        progress.show(job)
    return job


def wait_for_end(context: Context, job_id: str, outage: Outage) -> Job:
    """The job once it is over; ask it when its output has ended."""
    pause, jobs = FIRST_PAUSE, context.client.jobs
    while not (job := outage.insist(lambda: run(jobs.get(job_id)))).status.is_finished:
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return job


def has_begun(job: Job) -> bool:
    """Whether the job's command ran, or runs."""
    return any(step.status is JobStatus.RUNNING for step in job.statuses)


def follow(context: Context, job: Job, *, sends_input: bool = False) -> int:
    """Print the steps, the output and return the exit code. Ctrl-C detaches.

    ``sends_input`` passes standard input on to the job meanwhile.
    """
    outage = Outage(context.out.note)
    reader = LogReader(context, job.id, outage)
    progress = Progress(context.out)
    reader.start()
    window = job.container.tty and context.out.is_terminal
    if sends_input or window:
        from neuro.cli.job.sending import Upstream

        Upstream(context, job.id, sends_input=sends_input, window=window).start()
    try:
        job = wait_for_start(context, job, progress, stirred=reader.stirred, outage=outage)
        if has_begun(job) and not context.out.quiet:
            context.out.print(ATTACHED.format(keys="Ctrl-C"))
            context.out.flush()
        reader.open()
        return job_exit_code(end_of(context, job.id, reader, outage))
    except KeyboardInterrupt:
        progress.end()
        say_detached(context, job)
        return 0


def end_of(context: Context, job_id: str, reader: LogReader, outage: Outage) -> Job:
    """Wait until the whole log is printed and the job is over; say why, and what it is then."""
    while not reader.ended.wait(_HEARING):
        pass
    if isinstance(reader.error, OSError):
        raise reader.error  # Nobody reads our output any more.
    job = reader.finished or wait_for_end(context, job_id, outage)
    if reader.error is not None and job.history.started_at is not None:
        if isinstance(reader.error, PlatformError):
            context.out.warning(f"The output could not be read: {reader.error}")
        else:
            raise reader.error
    context.out.flush()
    explain_end(context, job)
    return job


def explain_end(context: Context, job: Job) -> None:
    """Say on standard error why a job is over, where its output cannot have said it."""
    reason, description = job.history.reason, job.history.description
    if job.status is JobStatus.SUCCEEDED or (reason in (None, "Error") and not description):
        return
    said = f" ({reason})" if reason else ""
    more = f": {description}" if description else ""
    text = f"Job {job.name or job.id} {job.status.value}{said}{more}"
    # A failure is told even to those who asked for quiet, as every error is.
    (context.out.say if job.status is JobStatus.FAILED else context.out.note)(text)


def say_detached(context: Context, job: Job) -> None:
    """The job goes on; how to come back."""
    name = job.name or job.id
    goes_on = "goes on running" if has_begun(job) else "stays in the queue"
    context.out.note(
        f"\nDetached: job {name} {goes_on}. `neuro attach {name}` comes back,"
        f" `neuro kill {name}` stops it."
    )


def refuse_without_terminal(context: Context) -> None:
    """A terminal job can only be used from a terminal."""
    if not context.out.is_terminal:
        raise Failure(
            "The operation should be executed from a terminal: its input, output and errors are not"
            " all a terminal here. Leave -t out, and it needs none.",
            USAGE,
        )
