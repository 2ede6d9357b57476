"""Main jobs of bakes as published clients submit them: like any other job.

Only the route of submissions asks this. Whoever starts a main job within the server says so.
"""

from __future__ import annotations

import re

from neuro.domain.errors import InvalidInput
from neuro.domain.images import is_executor_image
from neuro.domain.jobs import ContainerRequest, JobRequest
from neuro.server.jobs.specification import argv_of, container_of

_OPTIONS_WITH_VALUE = ("--config", "--color")  # of neuro-flow itself
# Where the flow clients mount what their executors log (published ones write their option for the
# logs' life into the path). This folder itself and nothing below: a volume within a volume could
# bring programs along.
_EXECUTOR_LOGS = re.compile(r"/root/\.(?:neuro|apolo)/logs(?:--life-span=[0-9a-z]{1,32})?")


def is_main_job(request: JobRequest) -> bool:
    """Whether this runs ``neuro-flow [OPTION]... execute``, which drives the jobs of a bake.

    With an environment or files of its own it might run anything else, and is a job like all. So
    is one with a volume that is not exactly the folder of its logs, or with two.
    """
    image = request.image if request.container is None else request.container.image
    if image is None or not is_executor_image(image):
        return False
    try:
        container = container_of(request)
        if not _is_alone(container):
            return False  # before the words are taken apart, which takes longest
        program, *words = argv_of(container) or ("",)
    except InvalidInput:
        return False
    return program == "neuro-flow" and _executes(words)


def _is_alone(container: ContainerRequest) -> bool:
    if container.env or len(container.volumes) > 1:
        return False
    return all(_EXECUTOR_LOGS.fullmatch(volume.dst_path) for volume in container.volumes)


def _executes(words: list[str]) -> bool:
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            return word == "execute"
        if word in _OPTIONS_WITH_VALUE:
            next(rest, None)
    return False
