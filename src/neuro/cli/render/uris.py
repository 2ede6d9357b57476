"""URIs and images as their reader would write them."""

from __future__ import annotations

from neuro.domain.jobs import Job
from neuro.domain.uris import parse_uri


def short_uri(uri: str, cluster: str, user: str) -> str:
    """A URI as its reader would write it: ``storage:data``, ``storage:/bob/data``."""
    parsed = parse_uri(uri)
    if parsed.host != cluster:
        return str(parsed)
    if parsed.segments[:1] == (user,):
        return f"{parsed.scheme}:{'/'.join(parsed.segments[1:])}"
    return f"{parsed.scheme}:{parsed.path}"


def short_image(job: Job, user: str) -> str:
    """The job's image; one of the platform's registry as its reader would write it."""
    image = job.container.image
    return short_uri(image, job.cluster_name, user) if image.startswith("image:") else image
