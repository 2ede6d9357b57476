"""Making a folder of the entries of a layer's archive, in the form that overlayfs mounts.

It runs where the layer's folder is the root and nothing else is to be seen (``unpacker``). Later
entries replace earlier ones, as containers elsewhere have it, not as GNU tar does. No device is
ever made: an empty file stands in its place, and ``records`` say what it stands for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from neuro.engines.images import tar
from neuro.engines.images.faults import FaultKind, ImageFault, corrupt, refused, shown
from neuro.engines.images.limits import Limits, check_spare
from neuro.engines.images.places import HIDDEN, OPAQUE, Places, is_whiteout, open_folder, parts_of
from neuro.engines.images.records import Recorder
from neuro.engines.sandbox.removal import remove_beside

_OPAQUE_MARK = b".wh..opq"  # behind the first ".wh."
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What overlayfs itself says of files: an archive that has it would redirect files of other layers.
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_KEPT = ("user.", "security.capability")
_NOBODY = 65534
_LOOK_FILES, _LOOK_BYTES = 10_000, 64 << 20  # between two looks at the disk
_DEVICES = {tar.CHARACTER: "character", tar.BLOCK_DEVICE: "block"}


class Extraction:
    """One layer on its way to a folder, which is empty at first.

    ``owners`` is how many user ids this process can give files to, from 0 on.
    """

    def __init__(self, root: int, recorder: Recorder, limits: Limits, owners: int) -> None:
        self.size = 0
        self.entries = 0
        # Whether there are folders that the archive had no entry for, at first.
        self.implied = False
        self._root = root
        self._written = 0  # bytes since the last look at the disk
        self._recorder = recorder
        self._limits = limits
        self._owners = owners
        self._places = Places(root, self._imply, self._uncover)
        self._times: dict[bytes, tuple[int, int]] = {}  # of folders: when changed, which inode
        self._makers: dict[bytes, Callable[[int, bytes, bytes, tar.Entry], None]] = {
            tar.FOLDER: self._folder,
            tar.LINK: self._link,
            tar.HARD_LINK: self._hard_link,
            tar.FIFO: self._fifo,
            tar.CHARACTER: self._device,
            tar.BLOCK_DEVICE: self._device,
        }

    def run(self, archive: tar.Archive) -> None:
        """Unpack all of it. Raises ImageFault."""
        name = b""
        try:
            for entry in archive:
                name = entry.name
                self._take(entry, archive)
            self._set_times()
        except OSError as error:
            if error.errno in _NO_ROOM:
                sentence = f"There is no room on the disk of images: {error.strerror}."
                raise ImageFault(FaultKind.NO_ROOM, sentence) from error
            why = error.strerror or str(error)
            raise refused(f"The layer's {shown(name)} cannot be made here: {why}.") from error

    def _take(self, entry: tar.Entry, archive: tar.Archive) -> None:
        self._count()
        self.size += entry.size
        self._limits.check_size(self.size)
        parts = parts_of(entry.name)
        if not parts:
            if entry.kind != tar.FOLDER:
                raise refused("The layer has a root that is not a folder.")
            self._dress_folder(self._root, b".", b"", entry)
            return
        *above, name = parts
        if HIDDEN in entry.name and any(part.startswith(HIDDEN) for part in above):
            raise refused(f"The layer hides a folder and has files in it: {shown(entry.name)}.")
        parent, folder = self._places.folder(b"/".join(above))
        path = folder + b"/" + name if folder else name
        if name.startswith(HIDDEN):
            self._hide(parent, folder, name[len(HIDDEN) :])
        elif entry.kind == tar.FILE:
            self._file(parent, path, name, entry, archive)
        else:
            self._makers[entry.kind](parent, path, name, entry)

    def _count(self) -> None:
        self.entries += 1
        self._limits.check_entries(self.entries)
        if not self.entries % _LOOK_FILES:
            self._check_room()

    def _check_room(self) -> None:
        """Others need the disk too. Raises ImageFault."""
        check_spare(self._root, self._limits.spare)

    # Each kind of thing

    def _file(
        self, parent: int, path: bytes, name: bytes, entry: tar.Entry, archive: tar.Archive
    ) -> None:
        try:
            fd = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(parent, path, name)
            fd = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        try:
            end = 0
            for offset, piece in archive.data():
                if offset != end:
                    os.lseek(fd, offset, os.SEEK_SET)
                end = offset + len(piece)
                self._written += len(piece)
                if self._written >= _LOOK_BYTES:
                    self._written = 0
                    self._check_room()
                while written := os.write(fd, piece):
                    if written == len(piece):
                        break
                    piece = piece[written:]
            if end < entry.size:
                os.ftruncate(fd, entry.size)  # it ends with a hole
            owner = self._own(path, entry)
            if self._owners > 1:  # the folder may have given it a group
                os.chown(fd, *owner)
            if entry.mode & 0o7000:
                os.chmod(fd, entry.mode)
            if entry.xattrs:
                self._set_xattrs(fd, path, entry.xattrs)
            os.utime(fd, ns=(entry.time, entry.time))
        finally:
            os.close(fd)

    def _folder(self, parent: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if is_whiteout(status):
                self._uncover(parent, name, path)
            elif not stat.S_ISDIR(status.st_mode):
                parent = self._clear(parent, path, name)
                os.mkdir(name, 0o700, dir_fd=parent)
            self._recorder.told(path)
        self._dress_folder(parent, name, path, entry)

    def _link(self, parent: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        if not entry.link:
            raise corrupt(f"The layer has a link that leads nowhere: {shown(path)}.")
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(parent, path, name)
            os.symlink(entry.link, name, dir_fd=parent)
        self._dress_name(parent, name, path, entry)

    def _hard_link(self, parent: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        *above, original = parts_of(entry.link) or [b""]
        if not original or original.startswith(HIDDEN):
            raise refused(f"The layer has a hard link that is not to a file: {shown(path)}.")
        entered = b"/".join(above)
        target, _ = self._places.folder(entered)
        wanted = self._status(target, original)
        if wanted is None or stat.S_ISDIR(wanted.st_mode):
            raise refused(
                f"The layer has a hard link to what is not a file in it: {shown(path)} to"
                f" {shown(entry.link)}."
            )
        parent, _ = self._places.folder(path.rpartition(b"/")[0])
        present = self._status(parent, name)
        if present is not None:
            if os.path.samestat(present, wanted):
                return
            self._clear(parent, path, name)
            target, _ = self._places.folder(entered)
            parent, _ = self._places.folder(path.rpartition(b"/")[0])
        os.link(original, name, src_dir_fd=target, dst_dir_fd=parent, follow_symlinks=False)
        self._own(path, entry)

    def _fifo(self, parent: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        try:
            os.mkfifo(name, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(parent, path, name)
            os.mkfifo(name, 0o600, dir_fd=parent)
        self._dress_name(parent, name, path, entry)

    def _device(self, parent: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        if self._status(parent, name) is not None:
            parent = self._clear(parent, path, name)
        os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=parent))
        self._dress_name(parent, name, path, entry)
        self._recorder.device(path, _DEVICES[entry.kind], *entry.device)

    def _hide(self, parent: int, folder: bytes, name: bytes) -> None:
        """Hide a lower layer's file, or all files that lower layers have in a folder."""
        if name == _OPAQUE_MARK:
            self._make_opaque(parent, b".", folder)
            return
        if name.startswith(HIDDEN):
            return  # what AUFS kept for itself
        if name in (b"", b".", b".."):
            raise refused(f"The layer hides a file without a name in {shown(folder)}.")
        status = self._status(parent, name)
        if status is None:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)  # anybody may make this one
        elif stat.S_ISDIR(status.st_mode):
            self._make_opaque(parent, name, folder + b"/" + name if folder else name)

    # What things have besides

    def _make_opaque(self, parent: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, _FOLDER, dir_fd=parent)
        try:
            os.setxattr(fd, OPAQUE, b"y")
        finally:
            os.close(fd)
        self._recorder.opaque(path)

    def _imply(self, parent: int, name: bytes, path: bytes) -> None:
        """Make a folder that the archive has no entry for, or not yet."""
        self._count()
        os.mkdir(name, dir_fd=parent)
        # Else its group and its mode may be those of the folder above.
        os.chown(name, 0, 0, dir_fd=parent)
        os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - as containers elsewhere
        self.implied = True
        self._recorder.implied(path)

    def _uncover(self, parent: int, name: bytes, path: bytes) -> None:
        """Put a folder where a lower layer's file is hidden: of a lower folder nothing shows."""
        os.unlink(name, dir_fd=parent)
        self._imply(parent, name, path)
        self._make_opaque(parent, name, path)

    def _status(self, parent: int, name: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _clear(self, parent: int, path: bytes, name: bytes) -> int:
        """Remove what is in the way of a later entry; the folder anew, which may be another fd."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            remove_beside(parent, os.fsdecode(name))
        else:
            os.unlink(name, dir_fd=parent)
        self._recorder.gone(path)
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return parent
        self._places.forget()
        return self._places.folder(path.rpartition(b"/")[0])[0]

    def _dress_folder(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        fd = os.open(name, _FOLDER, dir_fd=parent)
        try:
            os.chown(fd, *self._own(path, entry))
            os.chmod(fd, entry.mode)
            if entry.xattrs:
                self._set_xattrs(fd, path, entry.xattrs)
            self._times[path] = entry.time, os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def _dress_name(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        """Owner, mode and time of what must not be opened."""
        os.chown(name, *self._own(path, entry), dir_fd=parent, follow_symlinks=False)
        if entry.kind != tar.LINK:
            # No link is there: we made this a moment ago.
            os.chmod(name, entry.mode, dir_fd=parent)
        elif entry.xattrs:
            self._recorder.xattrs(path, _without_overlays(entry.xattrs))
        os.utime(name, ns=(entry.time, entry.time), dir_fd=parent, follow_symlinks=False)

    def _own(self, path: bytes, entry: tar.Entry) -> tuple[int, int]:
        """The owner that a file can have here; the one it should have is recorded."""
        wanted = entry.user, entry.group
        if wanted == (0, 0) or all(0 <= number < self._owners for number in wanted):
            return wanted
        self._recorder.owner(path, *wanted)
        if self._owners == 1:
            return 0, 0
        user, group = (one if 0 <= one < self._owners else _NOBODY for one in wanted)
        return user, group

    def _set_xattrs(self, fd: int, path: bytes, xattrs: dict[str, bytes]) -> None:
        left = {}
        for name, value in _without_overlays(xattrs).items():
            try:
                if not name.startswith(_KEPT):
                    raise PermissionError
                os.setxattr(fd, name, value)
            except (OSError, ValueError):
                left[name] = value  # this file system has no such attributes, or not so large
        if left:
            self._recorder.xattrs(path, left)

    def _set_times(self) -> None:
        """Of folders: making files in them has changed them until now."""
        self._places.forget()
        for path, (time, inode) in self._times.items():
            try:
                fd = open_folder(self._root, path)
            except OSError:
                continue  # it was replaced
            try:
                if os.fstat(fd).st_ino == inode:
                    # By its name in itself: this descriptor is not open for reading.
                    os.utime(b".", ns=(time, time), dir_fd=fd)
            finally:
                os.close(fd)


def _without_overlays(xattrs: dict[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in xattrs.items() if not name.startswith(_OVERLAY)}
