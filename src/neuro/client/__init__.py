"""The SDK: the platform's API as Python functions.

>>> from neuro.client import Client, ServerAddress
>>> async with Client.connect("http://127.0.0.1:8085/api/v1", token) as client:  # doctest: +SKIP
...     async for job in client.jobs.list():
...         print(job.id, job.status)
"""

from neuro.client.client import Client

__all__ = ["Client"]
