"""``neuro run``: submit a job, and be there while it runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import BAD_VALUE, Failure
from neuro.cli.job.exit_code import job_exit_code
from neuro.cli.job.follow import (
    follow,
    refuse_without_terminal,
    say_detached,
    wait_for_start,
)
from neuro.cli.job.hints import keyboard_hint, shell_hint
from neuro.cli.job.output import Progress, header
from neuro.cli.job.standard_input import has_input
from neuro.cli.lazy import Command
from neuro.cli.render.times import approximately
from neuro.cli.volumes import volume_option
from neuro.client.job_request import (
    RunOptions,
    Where,
    env_file_lines,
    job_request,
    unset_variables,
)
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job, JobRequest, JobStatus, Priority, RestartPolicy
from neuro.domain.permissions import Action

_EXAMPLES = """
    neuro run ubuntu echo 'Hello, World!'
    neuro run --preset cpu-small --name train -v storage:digits:/project:rw \\
        python:3.11 -- python /project/train.py --epochs 10
    neuro run --detach --life-span 2h -e SEED=7 -v storage:code:/code \\
        ubuntu /code/work.sh
    neuro run --port 8888 --no-http-auth --browse jupyter/base-notebook
    neuro run python:3.11 -- python - < script.py # piped input is passed on
    neuro run -t ubuntu bash                      # a terminal inside a job
"""

NO_WAIT = "Ctrl-C leaves it in the queue; with --no-wait-start this command does not wait."


# What follows the "d" where options are written together, as in `-dit`.
_BUNDLED = ("i", "t", "it", "ti")


def default_preset(context: Context, *, cluster: str | None) -> str | None:
    """The cluster's first preset, as the server has it now."""
    config = context.run(context.client.config())
    name = cluster or context.account.cluster
    for offered in config.clusters:
        if offered.name == name:
            return offered.resource_presets[0].name if offered.resource_presets else None
    return None


def _read_files(paths: tuple[str, ...]) -> dict[str, str]:
    return {path: _read_text(path) for path in paths}


def _read_text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8 text: save it as UTF-8.", BAD_VALUE) from None


def _check(*, http: int, http_auth: bool | None, browse: bool, wait_start: bool) -> None:
    if http == 0 and http_auth is not None:
        name = "--http-auth" if http_auth else "--no-http-auth"
        raise click.UsageError(f"{name} requires --http")
    if browse and not wait_start:
        raise click.UsageError("Cannot use --browse and --no-wait-start together")
    if browse and http == 0:
        raise click.UsageError("--browse requires --http")


def _description(context: click.Context, _: click.Parameter, text: str | None) -> str | None:
    # `-d` is what leaves a container to itself elsewhere, and here takes the next word.
    options = {name for param in context.command.params for name in param.opts} | {"-it", "-i"}
    if text is not None and (text.partition("=")[0] in options or text in _BUNDLED):
        raise click.UsageError(
            f"Here -d is --description, and it took '{text}' as the text. `--detach` ends once"
            f" the job runs; `-d TEXT {text}` describes the job."
        )
    return text


def _taken_word(description: str | None, image: str, words: tuple[str, ...]) -> str | None:
    """What to say where the word behind ``-d`` was meant to be the image; None where it was not."""
    if not description or len(description.split()) != 1 or (words and not which(image)):
        return None
    line = shlex.join([description, image, *words])
    return (
        f"'{description}' describes this job, as -d is --description, and '{image}' is its image."
        f" If '{description}' is the image: neuro run --detach {line}"
    )


def _submit(context: Context, request: JobRequest) -> Job:
    try:
        submitted = context.run(context.client.jobs.submit(request))
    except PlatformError as error:
        from neuro.cli.job.run_fields import in_words_of_run

        raise in_words_of_run(error) from None
    job, out = submitted.job, context.out
    for notice in submitted.notices:
        out.note(notice)
    if out.quiet:
        out.print(job.id)
    else:
        out.print("\n".join(header(job)))
    out.flush()
    return job


def _share(context: Context, job: Job, users: Sequence[str]) -> None:
    """Share a job that was submitted; it runs also where somebody cannot be given it."""
    for user in users:
        try:
            context.run(context.client.permissions.share(job.uri, user, Action.WRITE))
        except PlatformError as error:
            context.out.warning(f"{job.id} was not shared with '{user}': {error}")


def _stay(
    context: Context,
    job: Job,
    *,
    detach: bool,
    browse: bool,
    forwards: tuple[str, ...],
) -> int:
    if detach and not browse:
        job = wait_for_start(context, job, Progress(context.out), hint=NO_WAIT)
        return _started(context, job)
    if job.container.has_keyboard and not detach:
        from neuro.cli.job.terminal import attach_terminal

        return attach_terminal(context, job, browse=browse, forwards=forwards)
    if forwards or browse:
        job = wait_for_start(context, job, Progress(context.out))
        if forwards and not job.status.is_finished:
            from neuro.cli.job.port_forward import forward_in_background

            forward_in_background(context, job.id, forwards)
        if browse and not job.status.is_finished:
            from neuro.cli.job.browse import browse as say_page

            say_page(context.out, job)
        if detach:
            return _started(context, job)
    return follow(context, job, sends_input=job.container.stdin is True)


def _started(context: Context, job: Job) -> int:
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        from neuro.cli.job.follow import explain_end

        explain_end(context, job)
        return job_exit_code(job)
    return 0


def _life_span(context: Context, given: str | None) -> str | None:
    from datetime import timedelta

    from neuro.domain.durations import format_duration, parse_duration
    from neuro.domain.life_spans import life_span_minutes

    text = given or context.user_config.life_span
    seconds = parse_duration(text).total_seconds() if text else 0
    if text and seconds % 60 and (minutes := life_span_minutes(seconds, text)):
        span = format_duration(timedelta(minutes=minutes))
        context.out.warning(f"A life span is in whole minutes: {text} is rounded up to {span}.")
    if given is not None and not parse_duration(given):
        context.out.warning(
            "--life-span 0 means no limit: the job runs until it ends or is killed."
        )
    elif text and context.out.verbose:
        span = approximately(parse_duration(text))
        context.out.info(f"The job will be stopped after {span}: see --life-span.")
    return text


@click.command(
    "run",
    cls=Command,
    examples=_EXAMPLES,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("image")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
@click.option("-s", "--preset", metavar="PRESET", help="Resources; default: the first preset.")
@click.option(
    "-n", "--name", metavar="NAME", help="A name; only one of your active jobs can have it."
)
@click.option("-d", "--description", metavar="DESC", callback=_description, help="What it is for.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag (repeatable).")
@volume_option("A storage folder at a path in the job")
@click.option(
    "-e",
    "--env",
    metavar="VAR=VAL",
    multiple=True,
    help="An environment variable; VAR alone copies yours (repeatable).",
)
@click.option(
    "--env-file",
    "env_files",
    metavar="PATH",
    multiple=True,
    help="A file of VAR=VAL lines (repeatable; --env wins).",
)
@click.option(
    "--http",
    "--port",
    "--http-port",
    "http",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=80,
    show_default=True,
    help="The port of the job's web server; 0 for none.",
)
@click.option("--http-auth/--no-http-auth", default=None, help="Ask visitors to sign in.")
@click.option("--browse", is_flag=True, help="Say where the job's web page is once it runs.")
@click.option("--detach", is_flag=True, help="End once the job runs; do not follow its output.")
@click.option(
    "--wait-start/--no-wait-start", default=True, help="Wait until the job runs, or fails."
)
@click.option(
    "-t/-T",
    "--tty/--no-tty",
    default=None,
    help="Use the job's terminal from here: keys go to it, Ctrl-P Ctrl-Q detaches."
    " -T: no terminal.",
)
@click.option("--entrypoint", help="In place of the image's entrypoint.")
@click.option("-w", "--workdir", help="Where in the job the command starts.")
@click.option("-x/-X", "--extshm/--no-extshm", default=True, help="A large /dev/shm.")
@click.option("--life-span", metavar="TIMEDELTA", help="Stop it after 1d2h3m4s; default: 1d.")
@click.option("--schedule-timeout", metavar="TIMEDELTA", help="Give up if it waits longer.")
@click.option(
    "--restart",
    type=click.Choice([policy.value for policy in RestartPolicy]),
    default=RestartPolicy.NEVER.value,
    show_default=True,
    help="Whether to run it again when it ends.",
)
@click.option(
    "--priority",
    type=click.Choice([priority.value for priority in Priority]),
    default=Priority.NORMAL.value,
    show_default=True,
    help="How urgent it is.",
)
@click.option(
    "--port-forward",
    "forwards",
    metavar="LOCAL:REMOTE",
    multiple=True,
    help="Forward a local port into the job while it is attached (repeatable).",
)
@click.option(
    "--share",
    "shares",
    metavar="USER",
    multiple=True,
    help="Let USER, or a role, write to the job: see it, exec, kill (repeatable).",
)
@click.option("--pass-config/--no-pass-config", help="Log in `neuro` inside the job.")
@click.option("--wait-for-seat/--no-wait-for-seat", help="Wait where a quota is used up.")
@click.option("--privileged", is_flag=True, help="With all capabilities, where allowed.")
@click.option("--cluster", metavar="CLUSTER", help="In another cluster.")
@pass_context
def command(
    context: Context,
    /,
    image: str,
    cmd: tuple[str, ...],
    browse: bool,
    detach: bool,
    wait_start: bool,
    forwards: tuple[str, ...],
    shares: tuple[str, ...],
    cluster: str | None,
    **given: Any,
) -> int:
    """Run CMD in IMAGE with a preset's resources.

    Options of `neuro run` come before IMAGE; everything after it belongs to the command.
    """
    _check(http=given["http"], http_auth=given["http_auth"], browse=browse, wait_start=wait_start)
    detach = detach or not wait_start
    if not detach:
        context.out.leave_stdout_to_job()
    if forwards and detach:
        context.out.warning("--port-forward needs an attached job: with --detach it does nothing.")
        forwards = ()
    tty = given.pop("tty")
    if tty and not detach:
        refuse_without_terminal(context)
    stdin = None
    if tty is None and context.out.is_terminal and not detach:
        # A terminal for the output: the keys, Ctrl-C among them, stay here. The log of a job that
        # nobody is attached to is read as plain text.
        tty, stdin = True, False
    elif not tty and not detach and has_input():
        stdin = True
    given["life_span"] = _life_span(context, given["life_span"])
    given["preset"] = given["preset"] or default_preset(context, cluster=cluster)
    options = RunOptions(image=image, command=cmd, tty=bool(tty), stdin=stdin, **given)
    where = Where(cluster or context.client.cluster, context.client.user)
    files = _read_files(options.env_files)
    request = job_request(options, where, environ=os.environ, read_text=files)
    copied = [it for path, text in files.items() for it in env_file_lines(text, path)]
    for name in unset_variables([*copied, *options.env], os.environ):
        context.out.warning(f"{name} is not set here: the job gets it empty.")
    if hint := shell_hint(request.command, f"neuro run {image}"):
        context.out.note(hint)
    if hint := _taken_word(given["description"], image, cmd):
        context.out.note(hint)
    job = _submit(context, request)
    _share(context, job, shares)
    if not wait_start:
        return 0
    try:
        code = _stay(context, job, detach=detach, browse=browse, forwards=forwards)
        hint = keyboard_hint(cmd, image) if code == 0 and tty and stdin is False else None
        if hint and context.run(context.client.jobs.get(job.id)).status.is_finished:
            context.out.note(hint)
        return code
    except KeyboardInterrupt:
        say_detached(context, job)
        return 0
    except BrokenPipeError:
        raise
    except Failure as error:
        raise Failure(f"{error} (job {job.id})", error.exit_code) from error
