"""To which user of the machine the files of the storage belong.

A server with the rights of root runs jobs as unprivileged users, and the files that jobs share with
it belong to one of these, whoever wrote them. So what the server makes belongs to whom the folder
around it belongs to. A plain user's server is that user already.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def inherit(folder: int, made: int) -> None:
    """Give what was made in the open ``folder``, a descriptor, to the folder's owner.

    Raises OSError.
    """
    owner = os.fstat(folder)
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(made, owner.st_uid, owner.st_gid)


def adopt(folder: int, name: bytes) -> None:
    """Give the folder ``name`` in the open ``folder`` to whom ``folder`` belongs, if it is ours.

    It is ours where it was just made, or where a server was killed as soon as it had made it. A
    link is left alone. Raises OSError.
    """
    if os.fstat(folder).st_uid == os.geteuid():
        return
    try:
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        return
    try:
        if os.fstat(made).st_uid == os.geteuid():
            inherit(folder, made)
    finally:
        os.close(made)


def give_all(root: Path, owner: int) -> None:
    """Let ``root`` and all below it belong to the user and group ``owner``; once. Raises OSError.

    The root itself comes last: as long as it does not belong to them, something may be missing.
    """
    if root.stat().st_uid == owner:
        return
    # What is hidden there is the server's own.
    below = [str(path) for path in root.iterdir() if not path.name.startswith(".")]
    for start in range(0, len(below), 100):
        command = ["chown", "--recursive", "--no-dereference", f"{owner}:{owner}", "--"]
        done = subprocess.run(
            [*command, *below[start : start + 100]], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise OSError(0, f"the storage's files cannot be given to jobs: {done.stderr.strip()}")
    os.chown(root, owner, owner)
