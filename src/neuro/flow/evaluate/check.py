"""Finds the problems of a workspace's flow files, without running what they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.project import Workspace
    from neuro.flow.syntax.problems import Problem


def check_workspace(workspace: Workspace, environment: Environment) -> list[Problem]:
    """Find every problem, in the order of files and places."""
    from neuro.flow.project import load
    from neuro.flow.syntax.problems import FlowError

    try:
        load(workspace, environment=environment)
    except FlowError as error:
        return list(error.problems)
    return []
