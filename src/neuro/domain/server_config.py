"""What ``GET /config`` answers: where everything is, and what the cluster offers.

See docs/reference/wire-protocol.md#configuration.
"""

from __future__ import annotations

import msgspec


class PresetMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A preset in the spelling of every client's era at once; ``memory`` and ``disk`` are bytes.

    ``disk`` 0 is no limit.
    """

    name: str
    credits_per_hour: str
    cpu: float
    memory_mb: int
    memory: int
    scheduler_enabled: bool
    preemptible_node: bool
    is_preemptible: bool
    is_preemptible_node_required: bool
    gpu: int | None = None
    gpu_model: str | None = None
    nvidia_gpu: int | None = None
    engine: str | None = None
    disk: int = 0


class PresetRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A preset that an administrator adds, or what of one they change: what is left out stays.

    ``memory`` and ``disk`` are bytes. Each client's era has other words for the same.
    """

    name: str | None = None
    cpu: float | None = None
    memory: int | None = None
    memory_mb: int | None = None
    gpu: int | None = None
    nvidia_gpu: int | None = None
    amd_gpu: int | None = None
    intel_gpu: int | None = None
    gpu_model: str | None = None
    nvidia_gpu_model: str | None = None
    credits_per_hour: str | None = None
    scheduler_enabled: bool | None = None
    is_preemptible: bool | None = None
    preemptible_node: bool | None = None
    is_preemptible_node_required: bool | None = None
    tpu_type: str | None = None
    tpu_software_version: str | None = None
    engine: str | None = None
    disk: int | None = None


class PoolMessage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    min_size: int
    max_size: int
    cpu: float
    memory: int
    disk_size: int


class ClusterMessage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    orgs: list[str | None]
    registry_url: str
    storage_url: str
    users_url: str
    monitoring_url: str
    secrets_url: str
    disks_url: str
    buckets_url: str
    resource_presets: list[PresetMessage]
    resource_pool_types: list[PoolMessage]


class ProjectMessage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cluster_name: str
    org_name: str | None
    role: str


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``authorized`` and what follows it are left out of the answer to an anonymous caller.

    ``features`` names this platform's own additions to the wire (``storage-bulk``, …), so that a
    client uses only what the server offers.
    """

    auth_url: str
    token_url: str
    logout_url: str
    client_id: str
    audience: str
    headless_callback_url: str
    callback_urls: list[str]
    authorized: bool = False
    user_name: str | None = None
    clusters: list[ClusterMessage] = []
    projects: list[ProjectMessage] = []
    features: list[str] = []
    server_version: str | None = None
