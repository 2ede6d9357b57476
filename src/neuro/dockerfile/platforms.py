"""Platforms such as ``linux/arm64/v8``, in the one spelling that images use."""

from __future__ import annotations

import re

import msgspec

_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?")
_PART = re.compile(r"[A-Za-z0-9_-]+")
_ARCHITECTURES = frozenset(
    re.findall(
        r"\S+",
        """386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64
        mips64le mips64p32 mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm""",
    )
)
_SYSTEMS = frozenset(
    re.findall(
        r"\S+",
        """aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9
        solaris windows zos""",
    )
)
_SPELLINGS = {"i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        system = f"{self.os}({self.os_version})" if self.os_version else self.os
        return "/".join(part for part in (system, self.architecture, self.variant) if part)


def normalized(platform: Platform) -> Platform:
    """The platform in the usual spelling: ``x86_64`` is ``amd64``, ``arm`` is ``arm/v7``."""
    architecture, variant = _architecture(platform.architecture, platform.variant)
    system = {"macos": "darwin"}.get(platform.os.lower(), platform.os.lower())
    return Platform(system, architecture, variant, platform.os_version)


def parse_platform(text: str, default: Platform) -> Platform | None:
    """A platform as people write it; what is left out is the default's. None: it is not one.

    >>> str(parse_platform("arm64", Platform()))
    'linux/arm64'
    """
    parts = text.split("/")
    system = _OS.fullmatch(parts[0])
    if system is None or len(parts) > 3 or not all(map(_PART.fullmatch, parts[1:])):
        return None
    os = {"macos": "darwin"}.get(system[1].lower(), system[1].lower())
    version = system[2] or ""
    if len(parts) == 1:
        if os in _SYSTEMS:
            return Platform(os, default.architecture, default.variant, version)
        architecture, variant = _architecture(parts[0], "")
        if architecture not in _ARCHITECTURES:
            return None
        return Platform(default.os, architecture, _short(architecture, variant))
    architecture, variant = _architecture(parts[1], parts[2] if len(parts) == 3 else "")
    if len(parts) == 2:
        variant = _short(architecture, variant)
    elif architecture == "arm64" and not variant:
        variant = "v8"
    return Platform(os, architecture, variant, version)


def automatic_arguments(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The arguments that every Dockerfile has before its first FROM."""
    return {
        "BUILDPLATFORM": str(Platform(build.os, build.architecture, build.variant)),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": target.os_version,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }


def _architecture(name: str, variant: str) -> tuple[str, str]:
    name, variant = name.lower(), variant.lower()
    name = _SPELLINGS.get(name, name)
    if name == "386":
        return name, ""
    if name == "amd64":
        return name, "" if variant == "v1" else variant
    if name == "arm64":
        return name, "" if variant in ("8", "v8") else variant
    if name in ("armhf", "armel"):
        return "arm", "v7" if name == "armhf" else "v6"
    if name == "arm":
        return name, {"": "v7", "7": "v7", "5": "v5", "6": "v6", "8": "v8"}.get(variant, variant)
    return name, variant


def _short(architecture: str, variant: str) -> str:
    return "" if (architecture, variant) == ("arm", "v7") else variant
