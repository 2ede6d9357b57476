"""Archives as ``docker save`` writes them, of any version."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.engines.archives import archive, entry


def layer(name: str, size: int) -> bytes:
    """A layer with one file, whose content is not all the same."""
    return archive(entry(name, content=hashlib.sha256(name.encode()).digest() * (size // 32)))


def save(path: Path, layers: Sequence[bytes], name: str = "trainer:v1") -> str:
    """Write an image as old versions did; returns the digest of its config."""
    diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        for member, content in (
            (f"{digest}.json", config),
            *zip(names, layers, strict=True),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return f"sha256:{digest}"
