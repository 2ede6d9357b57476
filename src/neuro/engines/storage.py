"""Where the files of the platform's storage are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuro.domain.uris import ResourceURI
from neuro.engines.base import EngineFault


@dataclass(frozen=True)
class Storage:
    """The storage of a cluster as a folder of this machine; no part of its path is a link."""

    cluster: str
    folder: Path

    def path_of(self, uri: ResourceURI) -> str:
        """The path that a URI stands for, whatever is there: it may be a link by now.

        Raises EngineFault for one that is not in this storage.
        """
        leads_out = any(name in ("", ".", "..") or "/" in name for name in uri.segments)
        if uri.scheme != "storage" or uri.host != self.cluster or leads_out:
            raise EngineFault(f"{uri} is not in the storage of cluster {self.cluster}.")
        return "/".join((str(self.folder).rstrip("/"), *uri.segments))
