"""``neuro-flow show``: a job with every expression evaluated."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
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


def as_yaml(job: ResolvedJob) -> str:
    """The job as a flow file would have it, without what is not set."""
    import yaml

    given = asdict(job)
    shown: dict[str, Any] = {}
    for key in _KEYS:
        if (value := given[key]) not in (None, "", (), [], {}, False):
            shown[key] = _plain(key, value)
    text: str = yaml.safe_dump(
        {job.id: shown}, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000
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
    """,
)
@click.argument("job_id", metavar="JOB", shell_complete=offer("jobs"))
@job_options
@pass_context
def command(
    context: FlowContext, job_id: str, suffix: str | None, param: tuple[tuple[str, str], ...]
) -> None:
    """Print JOB as it would be run: every expression evaluated. Nothing is sent or run."""
    from neuro.flow.cli.effects import NoUpload

    workflow = context.workflow
    check_job(workflow, job_id, suffix)
    params = check_params(workflow, job_id, param)
    if suffix is None and workflow.is_multi(job_id):
        suffix = made_up_suffix()
    job = workflow.resolve(job_id, params=params, suffix=suffix, effects=NoUpload(context))
    context.out.print(as_yaml(job), newline=False)
