"""Files on the platform.

>>> async with Client.connect(url, token) as client:  # doctest: +SKIP
...     await client.storage.upload_tree("data", "storage:digits/data")
...     async for entry in client.storage.list("storage:digits"):
...         print(entry.path, entry.length)
"""

from neuro.client.storage.storage import Storage
from neuro.client.storage.transfer import Failed, Outcome, Progress, Silent

__all__ = ["Failed", "Outcome", "Progress", "Silent", "Storage"]
