"""The kind ``podman``: the same engine over podman's service, which listens at another place."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from neuro.docker.places import PODMAN
from neuro.engines.docker.kind import KIND as DOCKER_KIND
from neuro.engines.docker.kind import check, make

KIND = replace(DOCKER_KIND, make=partial(make, places=PODMAN), check=partial(check, places=PODMAN))
