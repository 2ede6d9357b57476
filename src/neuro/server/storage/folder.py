"""Where on this machine the storage is: the folder that ``server.toml`` names."""

from __future__ import annotations

import os
from pathlib import Path

from neuro.domain.errors import InvalidInput
from neuro.engines.exhaustion import FULL
from neuro.engines.storage import Storage
from neuro.server.settings import Settings, check_apart, storage_folder


def storage_of(settings: Settings, data: Path, *, make: bool = True) -> Storage:
    """Where the storage is: there before the engines, which keep it from the eyes of jobs.

    What the folder is in has to be there, or the storage would begin on the local disk while the
    shared one is not mounted. Without ``make``, it is only seen whether the folder can be used.
    """
    folder = storage_folder(settings, data)
    check_apart(folder, data)
    try:
        if make:
            folder.mkdir(exist_ok=True, mode=0o700)
        elif not folder.is_dir():
            # Raises what making it would, but for the folder itself.
            with os.scandir(folder if folder.exists() else folder.parent):
                pass
        return Storage(settings.cluster, folder.resolve(strict=make))
    except FileNotFoundError:
        raise InvalidInput(
            f"The folder of the storage, {folder}, is not there, and neither is {folder.parent}: is"
            " it mounted? See [storage] in server.toml."
        ) from None
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InvalidInput(
            f"The folder of the storage, {folder}, cannot be used: {error.strerror or error}. See"
            " [storage] in server.toml."
        ) from None
