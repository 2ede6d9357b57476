"""Where a build may take files from: the volumes of its job, and nothing else that is in there.

Whoever submits a build chooses by its arguments where the context, the Dockerfile and the secrets
are, and a link in a folder that people share leads anywhere. The job has more than they may see:
the cache, the login for the registry, the machine's folders, its /proc.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from neuro.builder.faults import BuildFault
from neuro.domain.images import BUILD_CACHE
from neuro.engines.sandbox import kernel

# Of the job, and none of the volumes that commands see.
_BUILDERS = ("/kaniko", "/kaniko_context", "/workspace")
_NEVER = (BUILD_CACHE, "/dev", "/kaniko/.docker", "/proc", "/run", "/sys")
_HINT = "Mount it as a volume, such as --volume=URI:/kaniko/context:ro."


class Sources(msgspec.Struct, frozen=True):
    """``volumes`` are those that commands see. ``is_job`` is False where all may be read."""

    volumes: Sequence[str] = ()
    is_job: bool = True

    def real(self, path: str) -> str:
        """Where a path leads, all links resolved. Raises BuildFault where nothing is taken from."""
        real = os.path.realpath(path)
        if self.is_job and not self._has(real):
            raise BuildFault(f"{path} is in no volume of the job.", _HINT)
        return real

    def open(self, path: str) -> int:
        """A descriptor to read a file by, which may be anything. Raises BuildFault, OSError."""
        real = os.path.realpath(path)
        # Without links, so that it is what we judge, whatever is changed meanwhile.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        fd = kernel.open_without_links(real, flags)
        try:
            self.real(real)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _has(self, real: str) -> bool:
        if any(_is_in(real, one) or _is_in(one, real) for one in _NEVER):
            return False
        volumes = map(os.path.realpath, self.volumes)
        return any(_is_in(real, one) for one in (*_BUILDERS, *volumes))


ANYWHERE = Sources(is_job=False)


def _is_in(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
