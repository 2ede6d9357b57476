"""What ``bake``, ``plan`` and ``schedule`` share: a batch's parameters, of options and a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from neuro.flow.cli.bake_names import check_batch
from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import offer
from neuro.flow.cli.params import param_option

if TYPE_CHECKING:
    from neuro.flow.batch.plan import Plan

F = TypeVar("F", bound=Callable[..., Any])


def batch_argument(command: F) -> F:
    """Add ``BATCH``."""
    return click.argument("batch", metavar="BATCH", shell_complete=offer("batches"))(command)


def param_options(command: F) -> F:
    """Add ``--param`` and ``--meta-from-file``."""
    file = click.option(
        "--meta-from-file",
        "file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Parameters from a YAML file of NAME: VALUE lines; --param overrides them.",
    )
    return param_option("batch", "batch_params")(file(command))


def plan_of(
    context: FlowContext, batch: str, param: Sequence[tuple[str, str]], file: Path | None
) -> Plan:
    """Read and evaluate a batch. Raises FlowError with every problem, or Failed."""
    from neuro.flow.batch.plan import make_plan

    name = check_batch(context, batch)
    params = {**(read_params(file) if file else {}), **dict(param)}
    plan = make_plan(context.workspace, name, params, context.environment, context.remarks)
    _ = context.project  # One that belongs to somebody else is refused.
    context.warn()
    return plan


def check_presets(context: FlowContext, plan: Plan) -> None:
    """Ask the cluster whether it has what tasks want. Raises FlowError with those it has not."""
    if not plan.presets:
        return
    from neuro.domain.problems import Problem, nearest
    from neuro.flow.problems import FlowError

    cluster = context.account.cluster
    clusters = context.run(context.client.config()).clusters
    found = next((it for it in clusters if it.name == cluster), None)
    if found is None:
        return
    known = [preset.name for preset in found.resource_presets]
    has = f"There are: {', '.join(known)}."
    missing = [
        Problem(f"Cluster {cluster} has no preset '{name}'", at, nearest(name, known) or has)
        for name, at in plan.presets.items()
        if name not in known
    ]
    if missing:
        raise FlowError(missing)


def read_params(path: Path) -> dict[str, str]:
    """A flat mapping; each value is the string that is written there. Raises Failed."""
    import yaml

    try:
        root = yaml.compose(path.read_text("utf-8-sig"), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        raise Failed(f"{path} does not exist.") from None
    except UnicodeDecodeError:
        raise Failed(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.") from None
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Failed(f"{path}{where}: this is not YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise Failed(f"{path} is not YAML: {error}") from None
    if root is None:
        return {}
    found: dict[str, str] = {}
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode):
                if key.value in found:
                    line = key.start_mark.line + 1
                    raise Failed(f"{path}, line {line}: parameter {key.value} is given twice.")
                found[key.value] = value.value
                continue
            line = key.start_mark.line + 1
            raise Failed(f"{path}, line {line}: write NAME: VALUE, where VALUE is one string.")
        return found
    raise Failed(f"{path} holds no parameters: write lines of NAME: VALUE.")
