"""All about a job: the rows of ``neuro status``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from neuro.cli.job.exit_code import job_exit_code
from neuro.cli.render.job_row import STATUS_COLORS
from neuro.cli.render.sizes import gnu_size
from neuro.cli.render.table import Style
from neuro.cli.render.times import iso, life_span
from neuro.cli.render.uris import short_image, short_uri
from neuro.domain.jobs import Job, JobStatus, Priority, RestartPolicy, Transition
from neuro.domain.printable import printable


class Row(NamedTuple):
    """``label: value``; ``depth`` is how far it stands in, ``fg`` the value's colour."""

    label: str
    value: str = ""
    depth: int = 0
    fg: str | None = None
    separator: str = ": "

    def text(self, style: Style) -> str:
        """The line; ``style`` is asked for the value's look.

        Further lines of a value stand in, so that none of them passes for another row.
        """
        lines = [printable(line, keep="\t") for line in self.value.split("\n")]
        value = style("\n        ".join(lines), self.fg)
        return f"{'  ' * self.depth}{printable(self.label)}{self.separator}{value}".rstrip()


def status_text(status: JobStatus, reason: str | None, description: str | None) -> str:
    """``pending (Scheduling: waits for 1 CPU)``."""
    said = ": ".join(part for part in (reason, description) if part)
    return f"{status.value} ({said})" if said else status.value


def status_rows(job: Job, *, user: str, full_uri: bool = False) -> list[Row]:
    """The rows, in the reference's order; what is not set is left out."""
    return [
        *_identity(job),
        *_command(job, user, full_uri=full_uri),
        *_resources(job),
        *_limits(job),
        *_mounts(job, user, full_uri=full_uri),
        *_network(job),
        *_environment(job, user, full_uri=full_uri),
        *_times(job),
        *_transitions(job.statuses),
    ]


def _optional(label: str, value: str | None, depth: int = 0) -> Iterator[Row]:
    if value:
        yield Row(label, value, depth)


def _identity(job: Job) -> Iterator[Row]:
    yield Row("Job", job.id)
    yield from _optional("Name", job.name)
    yield from _optional("Tags", ", ".join(job.tags))
    yield Row("Owner", job.owner)
    yield Row("Cluster", job.cluster_name)
    yield from _optional("Organization", job.org_name)
    yield from _optional("Description", job.description)
    history = job.history
    shown = None if job.status is JobStatus.FAILED else history.description
    text = status_text(job.status, history.reason, shown)
    yield Row("Status", text, fg=STATUS_COLORS.get(job.status))


def _command(job: Job, user: str, *, full_uri: bool) -> Iterator[Row]:
    container = job.container
    yield Row("Image", container.image if full_uri else short_image(job, user))
    yield from _optional("Entrypoint", container.entrypoint)
    yield from _optional("Command", container.command)
    yield from _optional("Working dir", container.working_dir)
    yield from _optional("Preset", job.preset_name)
    if job.priority is not Priority.NORMAL:
        yield Row("Priority", job.priority.value)
    if Decimal(job.price_credits_per_hour or "0"):
        yield Row("Price (credits / hour)", f"{Decimal(job.price_credits_per_hour):.4f}")
        yield Row("Current cost", f"{Decimal(job.total_price_credits or '0'):.4f}")


def _resources(job: Job) -> Iterator[Row]:
    resources = job.container.resources
    yield Row("Resources")
    yield Row("Memory", gnu_size(resources.memory), 1)
    yield Row("CPU", f"{resources.cpu:.1f}", 1)
    if count := resources.gpu or resources.nvidia_gpu:
        yield Row("GPU", f"{count} x {resources.gpu_model or 'GPU'}", 1)
    if resources.shm:
        yield Row("Additional", "Extended SHM space", 1)


def _limits(job: Job) -> Iterator[Row]:
    yield Row("Preemptible", str(job.is_preemptible or job.preemptible_node))
    if job.restart_policy is not RestartPolicy.NEVER:
        yield Row("Restart policy", job.restart_policy.value)
    if job.history.restarts:
        yield Row("Restarts", str(job.history.restarts))
    yield Row("Life span", life_span(job.max_run_time_minutes))
    if job.schedule_timeout:
        yield Row("Schedule timeout", f"{job.schedule_timeout:g}s")
    if job.container.tty:
        yield Row("TTY", "True")


def _mounts(job: Job, user: str, *, full_uri: bool) -> Iterator[Row]:
    def shown(uri: str) -> str:
        return uri if full_uri else short_uri(uri, job.cluster_name, user)

    container = job.container
    if container.volumes:
        yield Row("Volumes")
    for volume in container.volumes:
        mode = " READONLY" if volume.read_only else ""
        yield Row(volume.dst_path, shown(volume.src_storage_uri) + mode, 1)
    if container.secret_volumes:
        yield Row("Secret files")
    for secret in container.secret_volumes:
        yield Row(secret.dst_path, shown(secret.src_secret_uri), 1)
    if container.disk_volumes:
        yield Row("Disk volumes")
    for disk in container.disk_volumes:
        yield Row(disk.dst_path, shown(disk.src_disk_uri) + (" READONLY" * disk.read_only), 1)


def _network(job: Job) -> Iterator[Row]:
    yield from _optional("Internal Hostname", job.internal_hostname)
    yield from _optional("Internal Hostname Named", job.internal_hostname_named)
    yield from _optional("Http URL", job.http_url_named or job.http_url)
    if http := job.container.http:
        yield Row("Http port", str(http.port))
        yield Row("Http authentication", str(http.requires_auth))


def _environment(job: Job, user: str, *, full_uri: bool) -> Iterator[Row]:
    container = job.container
    if container.env:
        yield Row("Environment")
    for name, value in container.env.items():
        yield Row(name, value, 1, separator="=")
    if container.secret_env:
        yield Row("Secret environment")
    for name, uri in container.secret_env.items():
        yield Row(name, uri if full_uri else short_uri(uri, job.cluster_name, user), 1)


def life_span_end(job: Job) -> datetime | None:
    """When a job that has started will be stopped; None without a limit."""
    if job.max_run_time_minutes is None or job.status.is_finished:
        return None
    start = job.history.started_at
    return start + timedelta(minutes=job.max_run_time_minutes) if start else None


def _times(job: Job) -> Iterator[Row]:
    history = job.history
    yield Row("Created", iso(history.created_at))
    if history.started_at:
        yield Row("Started", iso(history.started_at))
    if end := life_span_end(job):
        yield Row("Life span ends (approx)", iso(end))
    if history.finished_at:
        yield Row("Finished", iso(history.finished_at))
    if history.exit_code is not None:
        code = job_exit_code(job)
        own = f" (its command ended with {history.exit_code})" if code != history.exit_code else ""
        yield Row("Exit code", f"{code}{own}")
    if job.status is JobStatus.FAILED:
        yield from _optional("Description", history.description)


def _transitions(transitions: list[Transition]) -> Iterator[Row]:
    if not transitions:
        return
    yield Row("Status transitions")
    for step in transitions:
        value = status_text(step.status, step.reason, None)
        yield Row(
            iso(step.transition_time), value, 1, STATUS_COLORS.get(step.status), separator="  "
        )
