"""What the registry knows of this engine: its settings, and how it is made of them."""

from __future__ import annotations

from typing import Literal

from neuro.domain.ranges import Size
from neuro.domain.resources import MIB
from neuro.domain.sizes import parse_bytes
from neuro.engines.registry import EngineSettings, Kind, Site
from neuro.engines.sandbox.engine import SandboxEngine
from neuro.engines.sandbox.firewall import refused
from neuro.engines.sandbox.output import Retention
from neuro.engines.sandbox.settings import SandboxSettings


class Table(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engines.NAME]`` of this kind; see ``SandboxSettings``.

    ``log_limit`` is the size of one job's output that is kept, ``main_jobs_memory`` what main jobs
    of bakes may have together. With ``images`` jobs run in their images, of which so many bytes are
    kept for jobs to come; ``images_offline`` is what they do where a public registry cannot be
    reached. ``images_insecure`` are registries that are asked by http, ``images_private``
    others, as they are written in the names of images: both may be on this machine, and in networks
    that are closed to jobs. ``builds_kept`` is the size of what builds of images keep for builds to
    come.
    """

    shared_ids: bool = False
    io_uring: bool = False
    perf: bool = False
    private_networks: bool = True
    shared_network: bool = False
    log_limit: int | str = "1G"
    main_jobs_memory: int | str | None = None
    images: bool = True
    images_kept: int | str = "50G"
    images_offline: Literal["host", "wait"] = "host"
    images_insecure: tuple[str, ...] = ()
    images_private: tuple[str, ...] = ()
    builds_kept: int | str = "50G"


def settings_of(site: Site, table: Table) -> SandboxSettings:
    """The engine's own settings.

    Jobs reach the API's port, and never see the data folder, nor the storage wherever it is.
    """
    masked = [site.data]
    if site.storage is not None and not site.storage.folder.is_relative_to(site.data):
        masked.append(site.storage.folder)
    most = table.main_jobs_memory
    return SandboxSettings(
        shared_ids=table.shared_ids,
        open_files=site.open_files,
        io_uring=table.io_uring,
        perf=table.perf,
        masked=tuple(map(str, masked)),
        network="shared" if table.shared_network else "auto",
        private_networks=table.private_networks,
        host_port=site.port,
        control_memory=None if most is None else parse_bytes(most),
        offline_host=table.images_offline == "host",
        builds_kept=parse_bytes(table.builds_kept),
        retention=Retention(total=parse_bytes(table.log_limit)),
    )


def make(site: Site, table: Table) -> SandboxEngine:
    """An engine that is not open yet."""
    images = None
    if table.images:
        # A server that does not pull need not load what does.
        from neuro.engines.images.reach import Reach
        from neuro.engines.images.store import Store
        from neuro.engines.sandbox.stored_images import StoredImages

        store = Store(str(site.folder / "images"))
        own = (f"127.0.0.1:{site.port}", f"localhost:{site.port}")
        insecure = (*own, *table.images_insecure)
        closed = refused(private=table.private_networks)
        reach = Reach(insecure, (*insecure, *table.images_private), closed)
        images = StoredImages(store, parse_bytes(table.images_kept), reach)
    return SandboxEngine(site.folder, settings_of(site, table), site.storage, images)


KIND = Kind(
    settings=Table,
    make=make,
    of_this_machine=True,
    has_images=lambda table: table.images,
    # One main job may have as much as all of them together.
    rules={
        "log_limit": Size(),
        "main_jobs_memory": Size(512 * MIB),
        "images_kept": Size(),
        "builds_kept": Size(),
    },
)
