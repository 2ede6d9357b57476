"""The image of a build: its layers packed, its configuration, pushed to where it is to be.

A layer is packed once; what it was as an archive is remembered with it. So what is pushed again is
only asked for, and the same build makes the same image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

import msgspec

from neuro.builder.bases import Base
from neuro.builder.cache import HeldLayer, Packed
from neuro.builder.credentials import Credentials
from neuro.builder.faults import BuildFault
from neuro.builder.reporting import Report
from neuro.builder.trees import Tree
from neuro.dockerfile.image import History, Image
from neuro.domain.errors import InvalidInput
from neuro.domain.printable import printable
from neuro.engines.images import records
from neuro.engines.images.composing import OCI_MANIFEST, Composed, digest_of
from neuro.engines.images.connections import Connections
from neuro.engines.images.faults import ImageFault, refused
from neuro.engines.images.manifests import Descriptor
from neuro.engines.images.pushing import OfFile, OfRegistry, Push, Source
from neuro.engines.images.reach import Reach
from neuro.engines.images.references import Reference, parse
from neuro.engines.images.registry_client import Registry

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_OF_DOCKER = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": (
        "application/vnd.oci.image.layer.v1.tar+zstd"
    ),
}
_MIB = 1 << 20


class OfLayer:
    """The bytes of a layer, packed when they are asked for, in a file without a name.

    ``before`` is called before one is packed that never was: it takes a while.
    """

    place = ""

    def __init__(
        self, layer: HeldLayer, folder: str, before: Callable[[], None] = lambda: None
    ) -> None:
        self._before = before
        self._layer = layer
        self._folder = folder
        self._file = -1

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def packed(self) -> Packed:
        """What the layer is as an archive. Raises ImageFault, OSError."""
        known = self._layer.packed()
        if known is None:
            self._before()
            known = self._pack()
        return known

    def read(self, offset: int) -> Iterator[bytes]:
        """See ``pushing.Source``. Raises ImageFault where the archive is another by now."""
        if self._file < 0:
            told = self._layer.packed()
            if self._pack() != told:
                # Another version of the platform packs otherwise; what it makes is remembered now.
                raise refused(
                    "A layer of an earlier build is packed otherwise now. Build it again."
                )
        return OfFile(self._file).read(offset)

    def _pack(self) -> Packed:
        # A layer that was pushed once is packed already.
        from neuro.engines.images.packing import Part, pack

        with open(_nameless(self._folder), "w+b", buffering=_MIB) as file, ExitStack() as stack:
            folder = os.open(self._layer.folder.files, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            with open(self._layer.folder.beside, encoding="ascii") as told:
                beside = records.read(told)
            made = pack((Part(folder),), file.write, beside=beside)
            file.flush()
            self._file = os.dup(file.fileno())
        known = Packed(_LAYER, made.digest, made.size, made.diff_id)
        self._layer.remember(known)
        return known


def _nameless(folder: str) -> int:
    """A file without a name, as ``tempfile`` makes one: importing that takes longer than to pack.

    Raises OSError.
    """
    path = f"{folder}/{os.urandom(8).hex()}"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return file


def composed(
    image: Image, base: Base | None, layers: Sequence[tuple[HeldLayer, Packed]]
) -> Composed:
    """The manifest and the configuration of an image whose own layers are packed."""
    moments = iter([layer.created for layer, _ in layers])
    own = len(layers)
    past = list(image.history or ())
    known = len(base.image.history or ()) if base is not None else 0
    began = base.image.created if base is not None else None
    now = began or _written(min((layer.created for layer, _ in layers), default=0.0))
    history: list[History] = past[:known]
    for line in past[known:]:
        if not line.empty_layer and own:
            now = _written(next(moments))
            own -= 1
        history.append(msgspec.structs.replace(line, created=now))
    plain = msgspec.to_builtins(msgspec.structs.replace(image, created=now, history=tuple(history)))
    below = (base.image.rootfs.diff_ids or ()) if base is not None else ()
    diff_ids = [*below, *(packed.diff_id for _, packed in layers)]
    plain["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    config = msgspec.json.encode(plain)
    blob = Descriptor(digest_of(config), len(config), _CONFIG)
    lower = base.manifest.layers if base is not None and base.manifest is not None else ()
    descriptors = (
        *(
            Descriptor(one.digest, one.size, _OF_DOCKER.get(one.media_type, one.media_type))
            for one in lower
        ),
        *(Descriptor(packed.digest, packed.size, packed.media_type) for _, packed in layers),
    )
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _described(blob),
            "layers": [_described(one) for one in descriptors],
        }
    )
    return Composed(manifest, OCI_MANIFEST, digest_of(manifest), config, blob, descriptors)


def _described(one: Descriptor) -> dict[str, object]:
    return {"mediaType": one.media_type, "digest": one.digest, "size": one.size}


def _written(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Exporter:
    """Pushes what was built. ``scratch`` is a folder for what is on its way.

    ``own`` is the host of the platform's registry, and ``whole`` is for it as in ``Push``.
    Registries are asked over ``connections``.
    """

    def __init__(
        self,
        credentials: Credentials,
        reach: Reach,
        report: Report,
        scratch: str,
        *,
        own: str = "",
        whole: bool = False,
        connections: Connections | None = None,
    ) -> None:
        self._own, self._whole, self._connections = own, whole, connections
        self._credentials = credentials
        self._reach = reach
        self._report = report
        self._scratch = scratch

    def push(self, image: Image, tree: Tree, destinations: Sequence[str]) -> Composed:
        """Push an image to each destination. Raises BuildFault, OSError."""
        references = [_reference(one) for one in destinations]
        with ExitStack() as stack:
            sources: dict[str, Source] = {}
            layers: list[tuple[HeldLayer, Packed]] = []
            task = self._report.begin("exporting layers", held=True)
            try:
                for layer in tree.layers:
                    source = OfLayer(layer, self._scratch, self._report.flush)
                    stack.callback(source.close)
                    packed = source.packed()
                    layers.append((layer, packed))
                    sources[packed.digest] = source
                made = composed(image, tree.base, layers)
            except ImageFault as fault:
                task.fail(fault.sentence)
                raise BuildFault(fault.sentence) from None
            task.end(held=True)
            for reference in references:
                self._push(made, reference, tree.base, sources)
        return made

    def _push(
        self, made: Composed, reference: Reference, base: Base | None, own: dict[str, Source]
    ) -> None:
        task = self._report.begin(f"pushing {reference}")
        whole = self._whole and self._is_own(reference)
        push = Push(self._registry(reference), reference, tell=task.share, whole=whole)
        try:
            push.run(made, {**self._of_base(base, reference), **own})
        except ImageFault as fault:
            task.fail(fault.sentence)
            raise BuildFault(fault.sentence) from None
        task.end(held=True)

    def _of_base(self, base: Base | None, target: Reference) -> dict[str, Source]:
        if base is None or base.manifest is None or base.reference is None:
            return {}
        is_near = base.reference.registry == target.registry
        place = base.reference.repository if is_near else ""
        registry = self._registry(base.reference)
        return {one.digest: OfRegistry(registry, one.digest, place) for one in base.manifest.layers}

    def _registry(self, reference: Reference) -> Registry:
        return Registry(
            self._credentials.located(reference),
            self._credentials.of(reference.registry),
            self._reach,
            own=self._is_own(reference),
            connections=self._connections,
        )

    def _is_own(self, reference: Reference) -> bool:
        return bool(self._own) and self._credentials.located(reference).registry == self._own


def summary(digest: str, size: int, destinations: Sequence[str]) -> str:
    """What is said of an image at the end; ``size`` is bytes."""
    names = "\n".join(f"Pushed {printable(one)}" for one in destinations)
    amount = f"{size / _MIB:.1f} MiB" if size >= _MIB else f"{size / 1024:.1f} KiB"
    return f"{names}\nDigest: {digest}\nSize: {amount}\n"


def _reference(text: str) -> Reference:
    try:
        return parse(text)
    except InvalidInput as wrong:
        raise BuildFault(f"--destination: {wrong}") from None
