"""``neuro job browse``: open a job's web page."""

from __future__ import annotations

import os
import sys

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import Failure
from neuro.cli.lazy import Command
from neuro.cli.output import Output
from neuro.domain.jobs import Job


def browse(out: Output, job: Job) -> None:
    """Say where the page is and open it, where this machine has a browser."""
    url = job.http_url_named or job.http_url
    if job.container.http is None or not url or not url.startswith(("http://", "https://")):
        raise Failure(f"Job {job.id} serves no web page: run it with --port.", 127)
    out.print(f"Browsing job, please open: {url}")
    port = job.container.http.port
    out.note(
        "Pages of jobs are not served at addresses of their own yet. If it does not open:"
        f" `neuro port-forward {job.name or job.id} {port}:{port}`, then http://localhost:{port}/"
    )
    out.flush()
    if out.is_terminal or _has_windows():
        import webbrowser

        webbrowser.open(url)


def _has_windows() -> bool:
    """Whether a browser would open beside us: one of text would write into a script's output."""
    known = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in known)


@click.command("browse", cls=Command, examples="neuro job browse my-notebook")
@click.argument("job")
@pass_context
def command(context: Context, job: str) -> None:
    """Open the web page of JOB in a browser ($BROWSER, or the system's)."""
    browse(context.out, context.run(context.client.jobs.find(job)))
