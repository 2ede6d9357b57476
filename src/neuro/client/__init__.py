"""The SDK: the platform's API as Python functions.

In a program or a notebook with an event loop (top-level ``await`` works):

>>> from neuro.client import Client, JobRequest
>>> async with Client.from_config() as client:  # doctest: +SKIP
...     new = await client.jobs.submit(JobRequest(image="ubuntu", command="echo hello"))
...     async for chunk in client.jobs.logs(new.job.id):
...         print(chunk.decode(), end="")

Without one:

>>> from neuro.client import iterate, run
>>> client = Client.blocking("http://127.0.0.1:8085", "TOKEN")
>>> for job in iterate(client.jobs.list()):  # doctest: +SKIP
...     print(job.id, job.status)
"""

from typing import TYPE_CHECKING, Any

from neuro.client.client import Client

if TYPE_CHECKING:
    from neuro.client.accounts import NotConfigured
    from neuro.client.blocking import iterate, run
    from neuro.client.transport import ServerUnreachable
    from neuro.domain.jobs import Job, JobFilter, JobRequest, RequestedResources, Volume

__all__ = [
    "Client",
    "Job",
    "JobFilter",
    "JobRequest",
    "NotConfigured",
    "RequestedResources",
    "ServerUnreachable",
    "Volume",
    "iterate",
    "run",
]

# Where the names are that the command line does not need at every start.
_HOMES = {
    "NotConfigured": "neuro.client.accounts",
    "ServerUnreachable": "neuro.client.transport",
    "iterate": "neuro.client.blocking",
    "run": "neuro.client.blocking",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "neuro.domain.jobs")), name)
