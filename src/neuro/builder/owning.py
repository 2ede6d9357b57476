"""Whose the files are that a command has left, where all of them are one user's on the disk.

An engine of a plain user has one user for all of an image's. What the files of other layers should
be is told beside those; a command's layer has it from there, and new files are its user's.
"""

from __future__ import annotations

import os

from neuro.builder.modes import user_of
from neuro.builder.placing import gives_owners
from neuro.builder.views import LayerFolder, View
from neuro.engines.images.limits import Limits
from neuro.engines.images.records import Recorder

_ROOT = (0, 0)


def tell_owners(below: View, layer: LayerFolder, user: str) -> None:
    """Say beside a layer whose its files are; nothing where the disk says it. Raises OSError."""
    if gives_owners():
        return
    own = user_of(user, below)
    with View((layer,)) as made, open(layer.beside, "a", encoding="ascii") as file:
        recorder = Recorder(file, Limits())
        for entry in made.entries():
            found = below.find(entry.path)
            is_old = found is not None and found.is_folder == entry.is_folder
            owner = below.owner(found) if found is not None and is_old else own
            if owner != _ROOT:
                recorder.owner(os.fsencode(entry.path), *owner)
