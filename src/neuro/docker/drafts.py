"""Names that an image has in a daemon for a moment only, while the platform makes or pushes it.

Whoever gives an image such a name takes it away again. A process that is killed does not, and the
image would stay on the daemon's disk for ever: so those that are old are removed by others.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress

from neuro.docker.asking import Refused
from neuro.docker.images import Images

REPOSITORY = "neuro-drafts"
_OLD = 3 * 86400.0  # seconds: none is made for so long


def new_draft(now: float) -> str:
    """A name that nothing has; ``now`` is in seconds since 1970."""
    return f"{REPOSITORY}:{int(now)}-{secrets.token_hex(12)}"


def outdated(names: Iterable[str], now: float) -> list[str]:
    """Those of some names that a process has left which was killed.

    >>> outdated(["neuro-drafts:1-ab", "neuro-drafts:300000-cd", "other:1-ab"], 400_000.0)
    ['neuro-drafts:1-ab']
    """
    gone = []
    for name in names:
        repository, _, tag = name.rpartition(":")
        began = tag.partition("-")[0]
        is_ours = repository == REPOSITORY and began.isascii() and began.isdecimal()
        if is_ours and now - int(began) > _OLD:
            gone.append(name)
    return gone


def sweep(daemon: Images, now: float) -> None:
    """Remove the drafts that were left. It blocks; raises OSError, Refused."""
    for name in outdated(daemon.names_in(REPOSITORY), now):
        with suppress(Refused):  # somebody else has removed it, or a container is made of it
            daemon.remove_image(name)
