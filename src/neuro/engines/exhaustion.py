"""Which error numbers are the machine's trouble, so that trying again later may help."""

from __future__ import annotations

import errno

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
# It is out of memory, descriptors or disk.
EXHAUSTED = FULL | {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS}
# Or its disk fails. Where a run's end is looked for this is not among them: a disk that fails stays
# so, and whoever waited for it would wait for ever.
FAILING = EXHAUSTED | {errno.EIO}
# Those of them that a process cannot bring upon itself by its own limits.
BEYOND_LIMITS = FAILING - {errno.ENOMEM, errno.EMFILE, errno.ENOBUFS}
