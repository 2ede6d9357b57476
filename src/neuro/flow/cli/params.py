"""The options that ``run`` and ``show`` share: a suffix and parameters, which batches have too."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from neuro.cli.lazy import PairOption
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import offer

if TYPE_CHECKING:
    from neuro.flow.evaluate.jobs import LiveWorkflow

F = TypeVar("F", bound=Callable[..., Any])


def job_options(command: F) -> F:
    """Add ``--suffix`` and ``--param``."""
    suffix = click.option(
        "-s",
        "--suffix",
        metavar="SUFFIX",
        help="Which one of a multi-job's; made up unless given.",
        shell_complete=offer("suffixes"),
    )
    return suffix(param_option("job", "params")(command))


def param_option(what: str, names: str) -> Callable[[F], F]:
    """Add ``--param`` of ``what``; ``names`` are the candidates of completion."""
    return click.option(
        "-p",
        "--param",
        "param",
        cls=PairOption,
        nargs=2,
        multiple=True,
        metavar="NAME VALUE",
        help=f"A parameter of the {what}, or NAME=VALUE (repeatable).",
        shell_complete=offer(names),
    )


def check_params(
    workflow: LiveWorkflow, job_id: str, given: Sequence[tuple[str, str]]
) -> Mapping[str, str]:
    """The parameters by name. Raises Failed for one that the job does not have."""
    declared = workflow.params_of(job_id)
    for name, _ in given:
        if name not in declared:
            from neuro.domain.problems import nearest

            known = ", ".join(sorted(declared))
            has = f"its parameters are: {known}" if known else "it has none"
            hint = nearest(name, declared)
            raise Failed(
                f"Job {job_id} has no parameter '{name}'; {has}" + (f"\n{hint}" if hint else "")
            )
    return dict(given)


def made_up_suffix() -> str:
    """A suffix for one of a multi-job's that was given none: ten hexadecimal digits."""
    return secrets.token_hex(5)
