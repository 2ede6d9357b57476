"""Mounts that are made with the host's rights, for a run's own process to attach inside.

Each is a descriptor of a tree of its own (``kernel.copy_tree``), attached nowhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.kernel import ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY

_PAGE = 65_536  # the largest that machines have


def own_files(folder: str, files: Sequence[tuple[bytes, int]], block: Block) -> list[int]:
    """A mount of each new file, (content, mode), that the run is given. Raises OSError.

    They are secrets, so they are in memory alone, for as long as the run has them: ``folder`` is
    where that is mounted meanwhile.
    """
    place, trees = f"{folder}/given", list[int]()
    with in_memory(place, sum(len(content) for content, _ in files), len(files)):
        try:
            for number, (content, mode) in enumerate(files):
                path = f"{place}/{number}"
                write_file(path, content, mode)
                block.give(path)
                trees.append(_of(kernel.copy_tree(path), ATTR_RDONLY))
        except BaseException:
            for tree in trees:
                os.close(tree)
            raise
    return trees


@contextmanager
def in_memory(place: str, size: int, files: int) -> Iterator[None]:
    """A new folder ``place`` in memory, for so many files and bytes of them. Raises OSError.

    It is gone from there afterwards, and what was mounted of it meanwhile stays.
    """
    mount_in_memory(place, size, files)
    try:
        yield
    finally:
        kernel.unmount(place)
        os.rmdir(place)


def mount_in_memory(place: str, size: int, files: int) -> None:
    """Make the folder ``place``, and mount memory there for so many files. Raises OSError."""
    os.mkdir(place, 0o700)
    pages = 1 + files + size // _PAGE
    options = f"mode=0700,size={pages * _PAGE},nr_inodes={files + 16}"
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    try:
        try:
            kernel.mount("tmpfs", place, "tmpfs", flags, f"{options},noswap")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Before Linux 6.4, and for a plain user, memory without swap cannot be had.
            kernel.mount("tmpfs", place, "tmpfs", flags, options)
    except BaseException:
        os.rmdir(place)
        raise


def write_file(path: str, content: bytes, mode: int) -> None:
    """Make a file that is not there. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(content)
        while left:  # On a disk that is nearly full, the first call may write a part.
            left = left[os.write(file, left) :]
        os.fchmod(file, mode & 0o777)
    finally:
        os.close(file)


def open_source(source: str, target: str) -> int:
    """Open what is mounted as a volume. Raises ValueError, OSError: see ``launch.prepare``."""
    # By descriptor, and through no symbolic link: other jobs may write beside the volume's folder,
    # and could put a link in its place at any moment.
    try:
        return kernel.open_without_links(source)
    except FileNotFoundError:
        raise ValueError(f"the folder of the volume at {target} does not exist") from None
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise ValueError(f"the volume at {target} cannot be mounted: {error.strerror}") from None


def volume(opened: int, target: str, users: int | None, *, read_only: bool) -> int:
    """A mount of what is open; ``users`` is how the storage's files get to be the run's.

    Raises ValueError, OSError: see ``launch.prepare``.
    """
    try:
        return _of(kernel.copy_tree("", opened), ATTR_RDONLY if read_only else 0, users)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise ValueError(
            f"the volume at {target} cannot be mounted: its file system does not let files belong"
            f" to another user in a mount ({error.strerror})"
        ) from None


def of_machine(path: str) -> int:
    """A mount of a file of this machine that everybody may read. Raises OSError."""
    opened = kernel.open_without_links(path)
    try:
        return _of(kernel.copy_tree("", opened, recursive=False), ATTR_RDONLY)
    finally:
        os.close(opened)


def layer(path: str, block: Block) -> int:
    """A mount of one folder of an image. Raises OSError, where it is gone too.

    Its files belong to the run's users; to nobody where all runs are one user of the machine, and
    its file system cannot map users.
    """
    opened = kernel.open_without_links(path, os.O_PATH | os.O_DIRECTORY)
    try:
        if block.base:
            try:
                tree = kernel.copy_tree("", opened, recursive=False)
                return _of(tree, ATTR_RDONLY, block.users)
            except OSError as error:
                if block.volumes is not None or error.errno != errno.EINVAL:
                    raise
        return _of(kernel.copy_tree("", opened, recursive=False), ATTR_RDONLY)
    finally:
        os.close(opened)


def cache(folder: str, block: Block) -> int:
    """A mount of the folder of a build's cache, that the run can write to. Raises OSError.

    The run's user n owns the files that belong to n in there. Where file systems cannot map users,
    all runs have the same ones, and the files are theirs as they are.
    """
    opened = kernel.open_without_links(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        users = block.users if block.volumes is not None else None
        return _of(kernel.copy_tree("", opened, recursive=False), 0, users)
    finally:
        os.close(opened)


def private(folder: str, uppers: Sequence[str], block: Block) -> int:
    """A mount of the folder of a run's private layers, with new ones called ``uppers``.

    Raises OSError.
    """
    for upper in uppers:
        for path in (f"{folder}/{upper}", f"{folder}/{upper}.work"):
            os.mkdir(path)
            block.give(path)
    return _of(kernel.copy_tree(folder), 0)


def _of(tree: int, attributes: int, users: int | None = None) -> int:
    try:
        kernel.set_attributes(tree, ATTR_NOSUID | ATTR_NODEV | attributes, users)
    except OSError:
        os.close(tree)
        raise
    return tree


def prove_volumes(folder: str, block: Block) -> None:
    """Raise OSError where volumes beside ``folder`` could not be mounted."""
    opened = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(volume(opened, folder, block.volumes, read_only=False))
    except ValueError as error:
        raise OSError(0, str(error)) from None
    finally:
        os.close(opened)
