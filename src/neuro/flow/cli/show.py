"""``neuro-flow show``: a job with every expression evaluated, or the output of a bake's task."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click
import msgspec

from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.flow.cli.bake_options import attempt_option
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import check_job, offer
from neuro.flow.cli.params import check_params, job_options, made_up_suffix

if TYPE_CHECKING:
    from neuro.flow.evaluate.jobs import ResolvedJob

# As the flow file has it, in its usual order.
_KEYS = (
    "name", "image", "preset", "description", "entrypoint", "cmd", "workdir", "env", "volumes",
    "tags", "life_span", "schedule_timeout", "http_port", "http_auth", "pass_config", "restart",
    "detach", "browse", "port_forward", "multi",
)  # fmt: skip


def as_told(job: ResolvedJob) -> dict[str, dict[str, Any]]:
    """The job as a flow file would have it, without what is not set."""
    given = msgspec.structs.asdict(job)
    shown: dict[str, Any] = {}
    for key in _KEYS:
        if (value := given[key]) not in (None, "", (), [], {}, False):
            shown[key] = _plain(key, value)
    return {job.id: shown}


def as_yaml(job: ResolvedJob) -> str:
    """The job as a flow file would have it."""
    import yaml

    text: str = yaml.safe_dump(
        as_told(job), sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000
    )
    return text


def _plain(key: str, value: Any) -> Any:
    if key in ("life_span", "schedule_timeout"):
        from datetime import timedelta

        from neuro.domain.durations import format_duration

        return format_duration(timedelta(seconds=value))
    if isinstance(value, tuple | list):
        return [str(item) for item in value]
    if isinstance(value, dict):
        return {str(name): str(item) for name, item in value.items()}
    return str(value) if isinstance(value, str | PurePath) else value


@click.command(
    "show",
    cls=Command,
    examples="""
        neuro-flow show train
        neuro-flow show multitrain --suffix a -p lr 0.1
        neuro-flow show nightly evaluate          # what a task of a bake printed
        neuro-flow show nightly evaluate --raw | tail
    """,
)
@click.argument("job_id", metavar="JOB|BAKE", shell_complete=offer("jobs_and_bakes"))
@click.argument("task_id", metavar="[TASK]", required=False, shell_complete=offer("tasks"))
@job_options
@attempt_option("Which attempt of the bake", default=None)
@click.option(
    "-r/-R",
    "--raw/--no-raw",
    default=None,
    help="Print the task's lines that are commands (`::set-output …`) too.",
)
@json_option("Print what is known of it as JSON.")
@pass_context
def command(
    context: FlowContext,
    job_id: str,
    task_id: str | None,
    suffix: str | None,
    param: tuple[tuple[str, str], ...],
    attempt: int | None,
    raw: bool | None,
    as_json: bool,
) -> None:
    """Print what is behind a name.

    With one name: JOB of live.yml as it would be run, every expression evaluated; nothing is sent
    or run. With two: the outputs of TASK in BAKE, and what it printed, followed while it runs; with
    --json, what is known of TASK, without what it printed.
    """
    if task_id is not None:
        if suffix is not None or param:
            raise click.UsageError("--suffix and --param are for jobs of live.yml, not for tasks")
        from neuro.flow.cli.show_task import show_task

        show_task(context, job_id, task_id, attempt=attempt, raw=bool(raw), as_json=as_json)
        return
    if attempt is not None or raw is not None:
        raise click.UsageError(
            f"--attempt and --raw are for tasks of bakes: neuro-flow show {job_id} TASK"
        )
    from neuro.flow.cli.effects import NoUpload

    workflow = context.workflow
    try:
        check_job(workflow, job_id, suffix)
    except Failed as error:
        raise Failed(
            f"{error}\nOf a bake, name a task too: neuro-flow show {job_id} TASK"
        ) from None
    params = check_params(workflow, job_id, param)
    if suffix is None and workflow.is_multi(job_id):
        suffix = made_up_suffix()
    job = workflow.resolve(job_id, params=params, suffix=suffix, effects=NoUpload(context))
    if as_json:
        context.out.print(document(as_told(job)))
        return
    context.out.print(as_yaml(job), newline=False)
