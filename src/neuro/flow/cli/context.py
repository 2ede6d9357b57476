"""The context of every ``neuro-flow`` command: ``neuro``'s context, and the project."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Self

import click

from neuro.cli.context import Context
from neuro.cli.output import Output

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.flow.evaluate.environment import Environment
    from neuro.flow.evaluate.jobs import LiveWorkflow
    from neuro.flow.live import LiveJobs
    from neuro.flow.problems import Report
    from neuro.flow.project import Project
    from neuro.flow.workspace import Workspace


class FlowContext(Context):
    """The project is looked up and read when a command first asks for it."""

    config: str | None = None

    @classmethod
    def of(
        cls,
        *,
        config: str | None,
        verbose: int,
        quiet: int,
        color: str,
        show_traceback: bool,
    ) -> Self:
        """The context of the global options."""
        from neuro.cli.paths import config_dir

        context = cls(
            config_dir=config_dir(os.environ.get("NEUROMATION_CONFIG") or "~/.neuro"),
            out=Output(
                verbose=verbose, quiet=quiet > 0, color={"yes": True, "no": False}.get(color)
            ),
            show_traceback=show_traceback,
        )
        context.config = config
        return context

    @cached_property
    def workspace(self) -> Workspace:
        """The project's folder. Raises ValueError where there is none."""
        from pathlib import Path

        from neuro.flow.workspace import find_workspace

        return find_workspace(Path.cwd(), Path(self.config) if self.config else None)

    @cached_property
    def environment(self) -> Environment:
        """The caller and the folder; works without a login."""
        from pathlib import Path

        from neuro.cli.failures import Failure
        from neuro.client.accounts import NotConfigured
        from neuro.flow.evaluate.environment import Environment

        try:
            user = self.account.user
        except (Failure, NotConfigured):
            user = ""
        return Environment(user=user, cwd=Path.cwd(), cache_dir=self.config_dir / "flow")

    @cached_property
    def remarks(self) -> Report:
        """Holds the notes on the files that were read."""
        from neuro.flow.problems import Report

        return Report()

    def warn(self) -> None:
        """Print warnings: what is allowed in the files, and probably not meant."""
        for note in self.remarks.notes:
            if not self.out.quiet:
                self.out.warning(note.render(color=False))

    @cached_property
    def workflow(self) -> LiveWorkflow:
        """The live workflow. Raises FlowError with every problem of its files."""
        from neuro.flow.project import load

        found = load(self.workspace, environment=self.environment, report=self.remarks)
        self.require_own(found.owner)
        return found

    @cached_property
    def sections(self) -> LiveWorkflow:
        """The volumes and the images: without live.yml, those of project.yml.

        Raises FlowError with every problem of the files.
        """
        from neuro.flow.project import load

        found = load(self.workspace, environment=self.environment, with_jobs=False)
        self.require_own(found.owner)
        return found

    @cached_property
    def project(self) -> Project:
        """The project's name and owner. Raises FlowError where its file is wrong, or Failed."""
        from neuro.flow.problems import Report
        from neuro.flow.project import read_project_of

        report = Report()
        project = read_project_of(self.workspace, report)
        report.raise_if_any()
        self.require_own(project.owner)
        return project

    def require_own(self, owner: str | None) -> None:
        """Raise Failed for a project whose file says that it is somebody else's.

        Whoever is not logged in may read its files: nothing of them reaches a platform.
        """
        from neuro.flow.cli.failures import Failed

        user = self.environment.user
        if owner is None or not user or owner == user:
            return
        raise Failed(
            f"This project belongs to {owner} (`owner: {owner}` in project.yml), and you are logged"
            f" in as {user}. `neuro-flow` works in one's own projects only: log in as {owner}, or"
            " remove `owner:` to work in a project of your own."
        )

    @cached_property
    def _clients(self) -> list[Client]:
        return []

    def _complete(self, client: Client) -> Client:
        self._clients.append(client)
        return super()._complete(client)

    def loop_client(self) -> Client:
        """A client for a running event loop: quick to import, and without WebSockets."""
        from neuro.client import Client
        from neuro.client.asyncio_http import AsyncioTransport

        account = self.account
        transport = AsyncioTransport(account.url, account.token, timeout=self.timeout)
        return self._complete(Client(transport))

    def follow_server(self, bake_id: str) -> str | None:
        """Go to where `neuro up` has put the server meanwhile; the address, if it is another.

        The server that this person is logged in to now is the same one if it has the bake:
        ids of bakes are unique.
        """
        import msgspec

        from neuro.client import Client
        from neuro.client.accounts import load
        from neuro.domain.errors import PlatformError

        accounts = load(self.config_dir)
        found = accounts.find(accounts.current or "")
        if found is None or found.url == self.account.url:
            return None
        there = Client.blocking(found.url, found.token, timeout=self.timeout)
        try:
            self.run(there.bakes.get(bake_id))
        except PlatformError:
            return None
        finally:
            self.run(there.close())
        self.account = msgspec.structs.replace(self.account, url=found.url)
        for client in self._clients:
            client.transport.url = found.url
        return found.url

    def paint(self, text: str, fg: str | None) -> str:
        """A string in a colour, where colours are on."""
        return self.out.style(text, fg=fg) if fg else text

    @cached_property
    def live(self) -> LiveJobs:
        """The platform's jobs of the live workflow."""
        from neuro.flow.live import LiveJobs

        workflow = self.workflow  # Problems of the files come first.
        return LiveJobs(self.client, workflow)


pass_context = click.make_pass_decorator(FlowContext)
