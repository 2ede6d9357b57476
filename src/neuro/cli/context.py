"""What every command is given: the client, the configuration, the output.

>>> from neuro.cli.lazy import Command
>>> @click.command("df", cls=Command, examples="neuro storage df")
... @pass_context
... def command(context: Context) -> None:
...     usage = context.run(context.client.storage.disk_usage("storage:"))
...     context.out.print(str(usage.total))

Anything but click is imported when it is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from neuro.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from neuro.cli.user_config import UserConfig
    from neuro.client import Client
    from neuro.client.accounts import Account, Accounts
    from neuro.domain.server_config import ClusterMessage

T = TypeVar("T")

# A followed log may be silent for long: the longest that a socket's time-out can be is 24 days.
FOREVER = 7 * 86400.0


class Context:
    """See the module's docstring. ``timeout`` is seconds for connecting and for each read."""

    def __init__(
        self,
        *,
        config_dir: Path,
        out: Output,
        timeout: float = 60.0,
        show_traceback: bool = False,
        trace: bool = False,
    ) -> None:
        self.config_dir = config_dir
        self.out = out
        self.timeout = timeout
        self.show_traceback = show_traceback
        self.trace = trace

    @classmethod
    def from_options(
        cls,
        *,
        verbose: int,
        quiet: int,
        config_dir: str,
        color: str,
        network_timeout: float,
        show_traceback: bool,
        trace: bool,
        iso_dates: bool,
    ) -> Context:
        """The context of the global options."""
        from neuro.cli.paths import config_dir as folder

        styled = {"yes": True, "no": False}.get(color)
        return cls(
            config_dir=folder(config_dir),
            out=Output(verbose=verbose, quiet=quiet > 0, color=styled, iso_dates=iso_dates),
            timeout=network_timeout,
            show_traceback=show_traceback,
            trace=trace,
        )

    @cached_property
    def accounts(self) -> Accounts:
        """All servers that this person is logged in to."""
        from neuro.client.accounts import load

        return load(self.config_dir)

    def save_accounts(self, accounts: Accounts) -> None:
        """Write the accounts, and use them from here on."""
        from neuro.client.accounts import save

        save(self.config_dir, accounts)
        for name in ("accounts", "account", "client"):
            self.__dict__.pop(name, None)
        self.accounts = accounts

    @cached_property
    def account(self) -> Account:
        """The server in use, with the project's own cluster where ``.neuro.toml`` names one.

        Raises NotConfigured (exit code 70) where nobody is logged in.
        """
        accounts = self.accounts
        account = accounts.find(accounts.current) if accounts.current else None
        if account is None and os.environ.get("NEURO_PASSED_CONFIG"):
            from neuro.cli.login import log_in_by_passed_config

            account = log_in_by_passed_config(self)
        if account is None:
            from neuro.client.accounts import NOBODY, NotConfigured

            raise NotConfigured(NOBODY)
        if name := self.user_config.cluster_name:
            import msgspec

            account = msgspec.structs.replace(account, cluster=name)
        return account

    @property
    def cluster(self) -> ClusterMessage:
        """The current cluster: its addresses and presets, as last seen."""
        return self.account.current_cluster

    @cached_property
    def client(self) -> Client:
        """A client whose calls are run with ``run``; logged in, with cluster and user set."""
        return self._client(self.timeout)

    def streaming_client(self) -> Client:
        """A client like ``client`` that waits as long as it takes, for logs that are followed."""
        return self._client(FOREVER)

    def _client(self, timeout: float) -> Client:
        from neuro.cli.one_command import CommandClient

        client = CommandClient.blocking(self.account.url, self.account.token, timeout=timeout)
        return self._complete(client)

    def aio_client(self, *, timeout: float | None = None) -> Client:
        """A client on aiohttp, for WebSockets; call it inside a running event loop."""
        from neuro.client import Client

        account = self.account
        client = Client.connect(account.url, account.token, timeout=timeout or self.timeout)
        return self._complete(client)

    def _complete(self, client: Client) -> Client:
        client.cluster = self.account.cluster
        client.user = self.account.user
        if self.trace:
            from neuro.cli.trace import TracingTransport

            client.transport = TracingTransport(client.transport)
        return client

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call of ``client``."""
        from neuro.client.blocking import run

        return run(call)

    @cached_property
    def user_config(self) -> UserConfig:
        """``user.toml`` and ``.neuro.toml``, merged. Raises Failure (70) where one is wrong."""
        from pathlib import Path

        from neuro.cli.user_config import load

        return load(self.config_dir, Path.cwd())


pass_context = click.make_pass_decorator(Context)
