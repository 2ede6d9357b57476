"""The command lines of ``neuro`` that a project's jobs and volumes stand for."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuro.flow.evaluate.contexts import VolumeRecord
    from neuro.flow.evaluate.jobs import ResolvedJob

COPY_OPTIONS = ("--recursive", "--update", "--no-target-directory")


def run_words(job: ResolvedJob, args: tuple[str, ...] = ()) -> list[str]:
    """The words behind ``neuro run``. Raises ValueError for a command that cannot be split."""
    words: list[str] = []

    def option(name: str, value: str | int | None) -> None:
        if value is not None:
            words.append(f"--{name}={value}")

    option("description", job.description)
    option("name", job.name)
    option("preset", job.preset)
    option("schedule-timeout", _seconds(job.schedule_timeout))
    option("http", job.http_port)
    if job.http_auth is not None:
        words.append("--http-auth" if job.http_auth else "--no-http-auth")
    option("entrypoint", job.entrypoint)
    option("workdir", job.workdir)
    words += [f"--env={name}={value}" for name, value in job.env.items()]
    words += [f"--volume={volume}" for volume in job.volumes]
    words += [f"--tag={tag}" for tag in job.tags]
    option("life-span", _seconds(job.life_span))
    flags = (("browse", job.browse), ("detach", job.detach))
    words += [f"--{name}" for name, wanted in flags if wanted]
    words += [f"--port-forward={pair}" for pair in job.port_forward]
    if job.pass_config:
        words.append("--pass-config")
    option("restart", job.restart)
    words.append(job.image)
    command = [*_split(job), *args]
    return [*words, "--", *command] if command else words


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def _split(job: ResolvedJob) -> list[str]:
    try:
        return shlex.split(job.cmd or "")
    except ValueError as error:
        raise ValueError(f"The command of job {job.id} cannot be split ({error}).") from None


def parent_of(uri: str) -> str:
    """The folder that a storage URI is in.

    >>> parent_of("storage:digits/data"), parent_of("storage:digits")
    ('storage:digits', 'storage:')
    """
    scheme, _, path = uri.rstrip("/").partition(":")
    lead = "//" if path.startswith("//") else "/" if path.startswith("/") else ""
    above = path.removeprefix(lead).rpartition("/")[0]
    return f"{scheme}:{lead}{above}" if above or not lead else uri


def upload_lines(volume: VolumeRecord) -> tuple[list[str], list[str]]:
    """The two commands that send a volume's local folder: behind ``neuro``."""
    make = ["mkdir", "--parents", parent_of(volume.remote)]
    return make, ["cp", *COPY_OPTIONS, str(volume.full_local_path), volume.remote]
