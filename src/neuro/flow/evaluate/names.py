"""Ids, and the names and tags that are made of them."""

from __future__ import annotations

import re
from pathlib import PurePath

from neuro.domain.flows import tag_form

MAX_NAME = 40


def id_problem(text: str) -> str | None:
    """Say why a string is not an id, or None."""
    if not text.isidentifier():
        return f"'{text}' is not an identifier: use letters, digits and underscores."
    if text == text.upper():
        return f"'{text}' is not a valid id: names without a lower-case letter are reserved."
    return None


def default_project_id(workspace: PurePath) -> str:
    """Make the project's id of its folder's name, where no project file says one.

    >>> default_project_id(PurePath("/src/my-project.git"))
    'my_project'

    Raises ValueError where the name is of no use.
    """
    name = workspace.stem.replace("-", "_")
    problem = id_problem(name)
    if problem is not None:
        raise ValueError(
            f"The folder's name '{workspace.stem}' cannot be the project's id ({problem[:-1]}). "
            "Write `id: NAME` into project.yml."
        )
    return name


def flow_tags(project_id: str, flow_id: str) -> tuple[str, ...]:
    """Return the tags that all jobs of a workflow have on the platform."""
    return (f"flow:{tag_form(flow_id)}", f"project:{tag_form(project_id)}")


def job_tags(
    project_id: str, flow_id: str, job_id: str, suffix: str | None = None
) -> tuple[str, ...]:
    """Return the tags that find a live job on the platform."""
    own = [f"job:{tag_form(job_id)}"]
    if suffix is not None:
        own.append(f"multi:{suffix}")
    return tuple(sorted([*flow_tags(project_id, flow_id), *own]))


def default_job_name(project_id: str, job_id: str, suffix: str | None = None) -> str:
    """Name a live job of at most 40 characters that never starts or ends with a dash.

    The project's part gives way first, then the job's; a suffix stays, it tells jobs apart.

    >>> default_job_name("my_project", "train", "a1")
    'my-project-train-a1'
    """
    first, job = _dashed(project_id), _dashed(job_id)
    tail = _dashed(suffix) if suffix else ""
    if tail:
        tail = tail[: MAX_NAME - 2]
        job = job[: MAX_NAME - len(tail) - 1].rstrip("-")
    else:
        job = job[:MAX_NAME].rstrip("-")
    rest = "-".join(part for part in (job, tail) if part)
    first = first[: max(0, MAX_NAME - len(rest) - 1)].rstrip("-")
    return "-".join(part for part in (first, rest) if part)


def _dashed(text: str) -> str:
    return re.sub("-+", "-", text.replace("_", "-")).strip("-")
