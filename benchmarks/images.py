"""Images: unpacking one of a gigabyte, beside ``umoci`` (Debian has it: ``apt install umoci``)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from isal import igzip

from benchmarks.harness import Result, paired_seconds
from neuro.engines.images.store import Store

LAYERS = 4
SIZE = 1 << 30
SOURCES = ("/usr/share", "/usr/lib", "/usr/bin")  # small files first
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
RUNS = 3


def run() -> Iterator[Result]:
    """All of it."""
    umoci = shutil.which("umoci")
    if umoci is None:
        yield Result("unpacking an image of 1 GB", "not measured", "", "umoci is not installed")
        return
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as name:
        folder = Path(name)
        layers, entries = _make_image(folder)
        turn = itertools.count()

        def ours() -> None:
            store = Store(str(folder / f"store-{next(turn)}"))
            store.open()

            def unpack(layer: tuple[str, Path]) -> None:
                diff_id, blob = layer
                store.layer(diff_id, lambda: os.open(blob, os.O_RDONLY)).close()

            with ThreadPoolExecutor(2) as threads:
                list(threads.map(unpack, layers))

        def theirs() -> None:
            # The raw one: the other also digests every file, for who wants to repack it.
            command = [umoci, "raw", "unpack", "--image", f"{folder / 'oci'}:latest"]
            subprocess.run(
                [*command, folder / f"bundle-{next(turn)}"], check=True, stderr=subprocess.DEVNULL
            )

        processor: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}

        def counted(action: Callable[[], None]) -> None:
            before = _children()
            action()
            processor[action].append(_children() - before)

        def clean() -> None:
            for pattern in ("store-*", "bundle-*"):
                for path in folder.glob(pattern):
                    shutil.rmtree(path)
            os.sync()

        mine, peer, ratio = paired_seconds(
            lambda: counted(ours), lambda: counted(theirs), RUNS, before=clean
        )
        used = [statistics.median(processor[action]) for action in (ours, theirs)]
    yield Result(
        f"unpack an image of {SIZE >> 30} GiB ({LAYERS} layers of gzip, {entries:,} files)",
        f"{1 / ratio:.1f} × the rate of `umoci raw unpack`",
        "≥ 2 ×",
        f"{mine:.1f} s beside {peer:.1f} s; of processors {used[0]:.1f} s beside {used[1]:.1f} s",
    )


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _make_image(folder: Path) -> tuple[list[tuple[str, Path]], int]:
    """An OCI image of files of this machine: its layers by their diff ids, and how many files."""
    oci = folder / "oci"
    blobs = oci / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers, descriptors, count = [], [], 0
    for names in _chosen():
        plain, packed = folder / "layer.tar", folder / "layer.tar.gz"
        listing = folder / "names"
        listing.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
        command = ["tar", "-C", "/", "-cf", plain, "--no-recursion", "--null", "-T", listing]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        with plain.open("rb") as source:
            diff_id = "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()
            source.seek(0)
            with igzip.open(packed, "wb", 3) as target:
                shutil.copyfileobj(source, target, 1 << 20)
        with packed.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        descriptors.append(
            {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": packed.stat().st_size}
        )
        packed.rename(blobs / digest)
        plain.unlink()
        layers.append((diff_id, blobs / digest))
        count += len(names)

    def keep(value: object, media_type: str) -> dict[str, object]:
        body = json.dumps(value).encode()
        digest = hashlib.sha256(body).hexdigest()
        (blobs / digest).write_bytes(body)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(body)}

    roots = {"type": "layers", "diff_ids": [diff_id for diff_id, _ in layers]}
    config = keep({"architecture": "amd64", "os": "linux", "rootfs": roots}, CONFIG)
    manifest = keep(
        {"schemaVersion": 2, "config": config, "layers": descriptors},
        "application/vnd.oci.image.manifest.v1+json",
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (oci / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (oci / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layers, count


def _chosen() -> Iterator[list[str]]:
    """Names of files of this machine, in portions of one layer each."""
    portion: list[str] = []
    size = made = 0
    for source in SOURCES:
        for above, folders, files in os.walk(source):
            for name in (*folders, *files):
                path = Path(above, name)
                portion.append(str(path.relative_to("/")))
                size += path.lstat().st_size if name in files else 0
                if size >= SIZE // LAYERS:
                    yield portion
                    portion, size, made = [], 0, made + 1
                    if made == LAYERS:
                        return
    if portion:
        yield portion
