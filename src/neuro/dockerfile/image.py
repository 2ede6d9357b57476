"""An image's configuration, as registries keep it (OCI, with what Docker adds to it)."""

from __future__ import annotations

import msgspec

from neuro.dockerfile.platforms import Platform, normalized

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMMENT = "buildkit.dockerfile.v0"
_NAMES = {
    "user": "User",
    "exposed_ports": "ExposedPorts",
    "env": "Env",
    "entrypoint": "Entrypoint",
    "cmd": "Cmd",
    "volumes": "Volumes",
    "working_dir": "WorkingDir",
    "labels": "Labels",
    "stop_signal": "StopSignal",
    "args_escaped": "ArgsEscaped",
    "healthcheck": "Healthcheck",
    "on_build": "OnBuild",
    "shell": "Shell",
}


class Health(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """How to see that a container is well. Times are in nanoseconds; 0 is the default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename=_NAMES):
    """What containers of an image start with. None and nothing mean the same."""

    user: str = ""
    exposed_ports: dict[str, dict[str, str]] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Health | None = None
    on_build: tuple[str, ...] | None = None
    shell: tuple[str, ...] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instruction that went into an image; ``empty_layer``: it changed no files."""

    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False
    created: str | None = None
    author: str = ""


class RootFs(msgspec.Struct, frozen=True):
    """The layers, by what is in them."""

    type: str = "layers"
    diff_ids: tuple[str, ...] | None = ()


class Image(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """An image's configuration, whole."""

    architecture: str = ""
    os: str = ""
    config: ImageConfig = ImageConfig()
    rootfs: RootFs = RootFs()
    history: tuple[History, ...] | None = ()
    created: str | None = None
    author: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] | None = None

    def for_platform(self, platform: Platform) -> Image:
        """The image as one of the platform that was asked for."""
        is_same = (self.os, self.architecture) == (platform.os, platform.architecture)
        version = platform.os_version or (self.os_version if is_same else "")
        variant = platform.variant or (self.variant if is_same else "")
        usual = normalized(Platform(platform.os, platform.architecture, variant, version))
        return msgspec.structs.replace(
            self,
            os=usual.os,
            architecture=usual.architecture,
            variant=usual.variant,
            os_version=version,
        )


def scratch(platform: Platform) -> Image:
    """The image of FROM scratch."""
    return Image(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        os_version=platform.os_version,
        config=ImageConfig(working_dir="/", env=(f"PATH={DEFAULT_PATH}",)),
    )


def entry(created_by: str, *, changes_files: bool = False, is_built: bool = False) -> History:
    """A line of the history, as BuildKit writes it."""
    text = f"{created_by} # buildkit" if is_built else created_by
    return History(text, _COMMENT, not changes_files)
