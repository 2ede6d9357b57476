"""Where the flow files of a batch come from: the disk at submission, the server later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from neuro.domain.problems import Source, nearest
from neuro.flow.evaluate.actions import Action, Actions
from neuro.flow.syntax.reader import load_source, read_action
from neuro.flow.workspace import SUFFIXES, flow_file

if TYPE_CHECKING:
    from neuro.domain.bakes import ConfigFile, ConfigsMeta
    from neuro.domain.problems import Position
    from neuro.flow.problems import Report
    from neuro.flow.workspace import Workspace

FLOW, PROJECT = "flow", "project"


class Files(Protocol):
    """The files of one batch. What cannot be had is None, with the reason in the report."""

    @property
    def workspace(self) -> Path:
        """The workspace's folder, which need not be there."""
        ...

    def flow(self, report: Report) -> Source | None:
        """The batch's file."""
        ...

    def project(self, report: Report) -> Source | None:
        """The project's file; None without a report where there is none."""
        ...

    def action(self, reference: str, at: Position, report: Report) -> Action | None:
        """An action's file, read."""
        ...


class DiskFiles:
    """The files of a workspace; `texts` are those that were asked for, by their role."""

    def __init__(self, workspace: Workspace, batch_name: str, actions: Actions) -> None:
        self.workspace = workspace.root
        self.texts: dict[str, tuple[Path, Source]] = {}
        self._config_dir = workspace.config_dir
        self._batch_name = batch_name
        self.actions = actions

    def flow(self, report: Report) -> Source | None:
        """Load the batch's file."""
        path = flow_file(self._config_dir, self._batch_name)
        if path is None:
            known = {found.stem for end in SUFFIXES for found in self._config_dir.glob(f"*{end}")}
            report.add(
                f"Config file for flow '{self._batch_name}' not found in {self._config_dir} folder",
                None,
                nearest(self._batch_name, known),
            )
            return None
        return self._load(FLOW, path, report)

    def project(self, report: Report) -> Source | None:
        """Load the project's file, from beside the flow files or its older place."""
        path = flow_file(self._config_dir, PROJECT) or flow_file(self.workspace, PROJECT)
        return self._load(PROJECT, path, report) if path is not None else None

    def action(self, reference: str, at: Position, report: Report) -> Action | None:
        """Find and read an action; one of a repository is fetched."""
        action = self.actions.get(reference, at, report)
        if action is not None:
            self.texts[reference] = action.path.absolute(), action.file.at.source
        return action

    def _load(self, role: str, path: Path, report: Report) -> Source | None:
        source = load_source(path, report)
        if source is not None:
            self.texts[role] = path.absolute(), source
        return source


class StoredFiles:
    """The files that were stored with a bake: nothing else is read."""

    def __init__(self, configs: ConfigsMeta, texts: Mapping[str, ConfigFile]) -> None:
        self.workspace = Path(configs.workspace)
        self._configs = configs
        self._texts = texts
        self._actions: dict[str, Action] = {}

    def flow(self, report: Report) -> Source | None:
        """Return the batch's file."""
        return self._source(self._configs.flow_config_id, report)

    def project(self, report: Report) -> Source | None:
        """Return the project's file."""
        stored = self._configs.project_config_id
        return self._source(stored, report) if stored is not None else None

    def action(self, reference: str, at: Position, report: Report) -> Action | None:
        """Read an action's file, once."""
        if reference in self._actions:
            return self._actions[reference]
        stored = self._configs.action_config_ids.get(reference)
        if stored is None:
            report.add(f"The bake has no file of the action {reference}", at)
            return None
        before = len(report.problems)
        source = self._source(stored, report)
        file = read_action(source, report) if source is not None else None
        if source is None or file is None or len(report.problems) > before:
            return None
        path = Path(self._texts[stored].filename)
        action = self._actions[reference] = Action(file, path)
        return action

    def _source(self, stored: str, report: Report) -> Source | None:
        file = self._texts.get(stored)
        if file is None:
            report.add(f"The bake has no config file {stored}", None)
            return None
        # Shown as where it was submitted from.
        path = Path(file.filename)
        is_own = path.is_relative_to(self.workspace)
        name = path.relative_to(self.workspace) if is_own else path
        return Source(name.as_posix(), file.content)
