"""``neuro job generate-run-command``: the line that makes a job again."""

from __future__ import annotations

import shlex

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.times import life_span
from neuro.domain.jobs import Container, Job, Priority, RestartPolicy


def run_command(job: Job) -> str:
    """``neuro run …`` with the options that differ from what is left out."""
    words = ["neuro", "run", *_job_options(job), *_container_options(job.container)]
    words.append(job.container.image)
    if job.container.command:
        words += ["--", *_command_words(job.container.command)]
    return shlex.join(words)


def _command_words(command: str) -> list[str]:
    # One word is sent as it is, several are quoted: only what comes apart and together again
    # unchanged may be shown as several.
    try:
        words = shlex.split(command)
    except ValueError:
        return [command]
    return words if len(words) > 1 and shlex.join(words) == command else [command]


def _job_options(job: Job) -> list[str]:
    options: list[str] = []

    def add(name: str, value: object | None) -> None:
        if value not in (None, ""):
            options.extend((name, str(value)))

    add("--preset", job.preset_name)
    add("--name", job.name)
    add("--description", job.description)
    for tag in job.tags:
        add("--tag", tag)
    if job.max_run_time_minutes != 24 * 60:
        span = job.max_run_time_minutes
        add("--life-span", "0" if span is None else life_span(span))
    if job.schedule_timeout:
        add("--schedule-timeout", f"{job.schedule_timeout:g}s")
    if job.restart_policy is not RestartPolicy.NEVER:
        add("--restart", job.restart_policy.value)
    if job.priority is not Priority.NORMAL:
        add("--priority", job.priority.value)
    if job.pass_config:
        options.append("--pass-config")
    if job.privileged:
        options.append("--privileged")
    return options


def _container_options(container: Container) -> list[str]:
    options: list[str] = []
    if container.http is None:
        options += ["--http", "0"]
    else:
        if container.http.port != 80:
            options += ["--http", str(container.http.port)]
        if not container.http.requires_auth:
            options.append("--no-http-auth")
    if container.has_keyboard:
        options.append("--tty")
    if not container.resources.shm:
        options.append("--no-extshm")
    if container.entrypoint:
        options += ["--entrypoint", container.entrypoint]
    if container.working_dir:
        options += ["--workdir", container.working_dir]
    for volume in container.volumes:
        mode = "ro" if volume.read_only else "rw"
        options += ["--volume", f"{volume.src_storage_uri}:{volume.dst_path}:{mode}"]
    for secret in container.secret_volumes:
        options += ["--volume", f"{secret.src_secret_uri}:{secret.dst_path}"]
    for disk in container.disk_volumes:
        mode = "ro" if disk.read_only else "rw"
        options += ["--volume", f"{disk.src_disk_uri}:{disk.dst_path}:{mode}"]
    for name, value in (container.env | container.secret_env).items():
        options += ["--env", f"{name}={value}"]
    return options


@click.command(
    "generate-run-command",
    cls=Command,
    examples="""
        neuro job generate-run-command my-job
        eval "$(neuro job generate-run-command my-job)"
    """,
)
@click.argument("job")
@pass_context
def command(context: Context, job: str) -> None:
    """Print the `neuro run` line that would make JOB again."""
    context.out.print(run_command(context.run(context.client.jobs.find(job))))
