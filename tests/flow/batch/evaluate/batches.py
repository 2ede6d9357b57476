"""A workspace on the disk whose batch is planned, and rebuilt of what would be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from neuro.domain.bakes import ConfigFile, ConfigsMeta, TaskStatus
from neuro.flow.batch.plan import Plan, make_plan
from neuro.flow.evaluate.batch.facts import Facts
from neuro.flow.evaluate.batch.sources import FLOW, PROJECT, StoredFiles
from neuro.flow.evaluate.batch.workflow import BatchWorkflow, stored_batch
from neuro.flow.evaluate.environment import Environment
from neuro.flow.model import Graph, Node, NodeKind, Outcome, ResolvedTask, join_id
from neuro.flow.problems import FlowError
from neuro.flow.workspace import find_workspace

DONE = Outcome(TaskStatus.SUCCEEDED)
FAILED = Outcome(TaskStatus.FAILED)
SKIPPED = Outcome(TaskStatus.SKIPPED)
CANCELLED = Outcome(TaskStatus.CANCELLED)


def gave(**outputs: str) -> Outcome:
    """A success with outputs."""
    return Outcome(TaskStatus.SUCCEEDED, outputs)


@dataclass
class Batch:
    """A batch of a test: its plan, and the workflow that an executor would make of it."""

    plan: Plan
    workflow: BatchWorkflow

    def node(self, full_id: str) -> Node:
        return self.plan.nodes[full_id]

    def stored(self, full_id: str) -> Node:
        """A node of the outermost graph, as an executor has it."""
        return self.workflow.root().nodes[(full_id,)]

    def enable(self, full_id: str, **outcomes: Outcome) -> object:
        return self.workflow.enable(self.stored(full_id), root(outcomes))

    def task(self, full_id: str, **outcomes: Outcome) -> ResolvedTask:
        return self.workflow.task(self.stored(full_id), root(outcomes))

    def open(self, full_id: str, **outcomes: Outcome) -> Graph:
        return self.workflow.open(self.stored(full_id), root(outcomes))


def root(outcomes: Mapping[str, Outcome]) -> dict[tuple[str, ...], Outcome]:
    return {(name.replace("__", "-"),): outcome for name, outcome in outcomes.items()}


@dataclass
class Place:
    """A workspace in a temporary folder."""

    root: Path
    cache: Path

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def plan(self, text: str = "", params: Mapping[str, str] | None = None, **files: str) -> Plan:
        """Plan `b.yml`; files are actions: `act="kind: batch..."` is `ws:act`."""
        if text:
            self.write(".neuro/b.yml", "kind: batch\n" + dedent(text))
        for name, content in files.items():
            self.write(f"{name}.yml", content)
        environment = Environment(user="user", cwd=self.root, cache_dir=self.cache)
        return make_plan(find_workspace(self.root), "b", params or {}, environment)

    def batch(self, text: str = "", params: Mapping[str, str] | None = None, **files: str) -> Batch:
        """Plan `b.yml`, and rebuild it of its stored files."""
        plan = self.plan(text, params, **files)
        return Batch(plan, rebuilt(plan))

    def problems(self, text: str, params: Mapping[str, str] | None = None, **files: str):
        with pytest.raises(FlowError) as caught:
            self.plan(text, params, **files)
        return [problem.message for problem in caught.value.problems]


def rebuilt(plan: Plan) -> BatchWorkflow:
    """What an executor makes of a bake, far from the workspace."""
    texts = {
        f"config-file-{role}": ConfigFile(
            id=f"config-file-{role}", bake_id="bake-1", filename=filename, content=text
        )
        for role, filename, text in plan.files
    }
    roles = [file.role for file in plan.files]
    configs = ConfigsMeta(
        workspace=str(plan.workflow.ground.facts.workspace),
        flow_config_id=f"config-file-{FLOW}",
        project_config_id=f"config-file-{PROJECT}" if PROJECT in roles else None,
        action_config_ids={
            role: f"config-file-{role}" for role in roles if role not in (FLOW, PROJECT)
        },
    )
    facts = Facts(
        bake_id="bake-1",
        batch="b",
        workspace=Path(configs.workspace),
        user="user",
        git=plan.git,
        hashes=dict(plan.hashes),
    )
    return stored_batch(StoredFiles(configs, texts), facts, plan.params)


def every_graph(
    workflow: BatchWorkflow, outcomes: Mapping[tuple[str, ...], Outcome] | None = None
) -> dict[str, dict[str, list[str]]]:
    """All graphs of a workflow. What calls wait for has succeeded, unless outcomes are given."""
    found: dict[str, dict[str, list[str]]] = {}
    graphs = [workflow.root()]
    while graphs:
        graph = graphs.pop()
        found[join_id(graph.prefix)] = {
            join_id(node.id): [join_id(need) for need in node.needs]
            for node in graph.nodes.values()
        }
        graphs += [
            workflow.open(node, {**dict.fromkeys(node.needs, DONE), **(outcomes or {})})
            for node in graph.nodes.values()
            if node.kind is NodeKind.CALL
        ]
    return found
