"""From a run that goes on to an image of its files, in a registry.

A run's own files are in its private layers. They are read by a process that sees nothing else, as
the run's users own them, while the run goes on.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from neuro.domain.images import BASE_LABEL, ON_HOST
from neuro.engines.base import EngineFault, NotReady, RunNotFound, RunRef, SaveStep, Saving
from neuro.engines.images.composing import Base, NewLayer, image_of
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import check_spare, packing_seconds, spare_of
from neuro.engines.images.manifests import Manifest, read_manifest
from neuro.engines.images.processes import LayerProcess, turn
from neuro.engines.images.pushing import OfFile, OfRegistry, Push, Source
from neuro.engines.images.reach import plain
from neuro.engines.images.references import parse
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.stopping import Stop, Stopped
from neuro.engines.sandbox import layout
from neuro.engines.sandbox.disk import EVERYTHING, Census
from neuro.engines.sandbox.images import Images

# What the engine mounts or writes there, of the run's own or of the machine's.
_WITHOUT = ("proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf")
_BY = "neuro save"
_SLICE = 1.0  # seconds of counting between two looks at whether to go on


class Save:
    """One image of the run ``ref``, which told ``state``. ``pack``, then ``push``, then ``close``.

    Both block, and ``stop`` ends them from another thread.
    """

    def __init__(
        self,
        folder: str,
        ref: RunRef,
        state: Mapping[str, Any],
        saving: Saving,
        images: Images | None,
        told: Callable[[SaveStep], None],
    ) -> None:
        self._folder = folder
        self._run = layout.run_folder(folder, ref.job_id, ref.run)
        self._ref = ref
        self._files: dict[str, Any] | None = state.get("files")
        self._saving = saving
        self._images = images
        self._told = told
        self._blob = -1
        self._layer = NewLayer("", 0, "")
        self._stop = Stop()
        self._changed = 0

    def stop(self) -> None:
        """End it, from another thread."""
        self._stop.set()

    def close(self) -> None:
        """Let go of the layer."""
        if self._blob >= 0:
            os.close(self._blob)
            self._blob = -1

    def pack(self) -> None:
        """Read the run's files. Raises RunNotFound, EngineFault, NotReady, Stopped."""
        if self._files is None:
            raise EngineFault(
                f"{self._ref.job_id} cannot be saved: it keeps its files in memory, or it began"
                " before this server was updated. Start it again, then save it."
            )
        layers = f"{self._run}/layers"
        try:
            # Who owns it is the run's user 0, and the run cannot reach it.
            base = os.stat(layers).st_uid if os.geteuid() == 0 else 0
            # It has no name, so nothing of it is left whatever happens.
            with tempfile.TemporaryFile(dir=self._folder) as file:
                self._blob = os.dup(file.fileno())
            spare = spare_of(os.fstatvfs(self._blob))
            check_spare(self._blob, spare)
            order = {
                "parts": self._files["parts"],
                "without": _WITHOUT,
                "base": base,
                "seconds": packing_seconds(self._allocated(layers)),
                "spare": spare,
            }
            with turn(self._stop):
                process = LayerProcess("packer", (self._blob,), layers, json.dumps(order))
                with self._stop.telling(process.stop):
                    made = process.wait()
        except FileNotFoundError:
            self.close()
            raise RunNotFound(self._ref.job_id) from None
        except ImageFault as fault:
            self.close()
            raise self._refusal(fault) from None
        except OSError as error:
            self.close()
            why = error.strerror or str(error)
            raise NotReady(f"{self._ref.job_id} cannot be saved: {why}") from error
        except Stopped:
            self.close()
            raise
        self._layer = NewLayer(made["digest"], made["size"], made["diff_id"], _BY)
        self._changed = made["changed"]

    def push(self) -> None:
        """Push the image. Raises EngineFault, NotReady, Stopped."""
        self._tell(0.0)
        target = parse(self._saving.image)
        try:
            base = self._base()
            labels = {BASE_LABEL: ON_HOST} if base is None else None
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            image = image_of(
                base, [self._layer], {"Labels": labels} if labels else None, created=now
            )
            sources: dict[str, Source] = {self._layer.digest: OfFile(self._blob)}
            if base is not None:
                found = read_manifest(base.manifest, "")
                assert isinstance(found, Manifest)
                assert self._images is not None
                of_base = parse(self._saving.base)
                registry = Registry(of_base, self._saving.pull, self._images.reach)
                # There the layers are, so they need only be given to the other repository.
                place = of_base.repository if of_base.registry == target.registry else ""
                for one in found.layers:
                    sources.setdefault(one.digest, OfRegistry(registry, one.digest, place))
            own = Registry(target, self._saving.push, plain(target.registry))
            push = Push(own, target, tell=self._tell)
            with self._stop.telling(push.stop):
                push.run(image, sources)
        except ImageFault as fault:
            raise self._refusal(fault) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise NotReady(f"{self._ref.job_id} cannot be saved: {why}") from error

    def _base(self) -> Base | None:
        assert self._files is not None
        if self._files["lock"] is None:
            return None
        # Earlier versions did not say by what the image was had.
        grant = self._files.get("grant", "")
        base = self._images.base(grant) if self._images is not None else None
        if base is None:
            raise EngineFault(
                f"{self._ref.job_id} cannot be saved: of the image that it runs in it is not known"
                " what it is made of. Start the job again, then save it."
            )
        return base

    def _allocated(self, layers: str) -> int:
        """How many bytes the run's files have on the disk. Raises Stopped."""
        census = Census(layers, EVERYTHING)
        while not census.step(_SLICE):
            if self._stop.is_set:
                census.close()
                raise Stopped
        return census.use.bytes

    def _refusal(self, fault: ImageFault) -> EngineFault | NotReady:
        kind = NotReady if fault.kind in (FaultKind.AWAY, FaultKind.NO_ROOM) else EngineFault
        return kind(f"{self._ref.job_id} cannot be saved. {fault.sentence}")

    def _tell(self, share: float) -> None:
        self._told(SaveStep(share, self._changed))
