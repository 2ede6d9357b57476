"""What both sides make of a Dockerfile, in one form."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from neuro.dockerfile import steps, tree
from neuro.dockerfile.image import Image
from neuro.dockerfile.mounts import Mount
from neuro.dockerfile.parser import parse
from neuro.dockerfile.plan import plan
from neuro.dockerfile.platforms import Platform, parse_platform
from neuro.dockerfile.words import split_instruction
from tests.dockerfile.table import IMAGES, OTHER_IMAGE, Case

_MOUNT_TYPES = {"bind": 0, "secret": 1, "ssh": 2, "cache": 3, "tmpfs": 4}
_SHARING = {"shared": 0, "private": 1, "locked": 2}
_NETWORKS = {"default": 0, "host": 1, "none": 2}


def planned(case: Case) -> steps.Plan:
    """The plan, with every image looked up as the reference looks it up."""
    read = parse(case.text)
    platform = parse_platform(case.platform, Platform())
    assert platform is not None
    images: dict[steps.BaseImage, Image] = {}
    while True:
        made = plan(read, case.target, case.arguments, platform, images=images)
        if isinstance(made, steps.Plan):
            return made
        assert not images.keys() & set(made.images)
        for image in made.images:
            images[image] = msgspec.convert(IMAGES.get(image.reference, OTHER_IMAGE), Image)


def image_of(value: Any) -> Any:
    """An image without what is empty: Go writes some of that, and we do not."""
    if isinstance(value, dict):
        found = {name: image_of(one) for name, one in value.items() if name != "type"}
        return {
            name: one
            for name, one in found.items()
            if one not in (None, "", [], False) and not (name == "rootfs" and not one)
        }
    return list(map(image_of, value)) if isinstance(value, list | tuple) else value


def parsed(read: tree.Dockerfile) -> list[Any]:
    """Line, name, flags and here-documents of all instructions."""
    found: list[tuple[tree.Instruction, Any]] = [(one, ()) for one in read.arguments]
    for stage in read.stages:
        found.append((stage.begin, ()))
        for one in stage.instructions:
            heredocs = one.command.heredocs if isinstance(one, tree.Run) else ()
            found.append((one, one.contents if isinstance(one, tree.Copy) else heredocs))
    return [
        [
            one.at.line,
            one.text.split(None, 1)[0].upper(),
            [span.text for span in split_instruction(one.text, read.escape)[1]],
            [[doc.name, doc.expand, doc.strip_tabs, doc.text] for doc in heredocs],
        ]
        for one, heredocs in found
    ]


def parsed_there(nodes: list[dict[str, Any]]) -> list[Any]:
    return [
        [
            node["line"],
            node["name"],
            node["flags"],
            [
                [doc["Name"], doc["Expand"], doc["Chomp"], doc["Content"]]
                for doc in (node["heredocs"] or ())
                # What comes of an ONBUILD is compared as an image.
                if node["name"] != "ONBUILD"
            ],
        ]
        for node in nodes
    ]


def commands(made: steps.Plan) -> list[str]:
    return sorted(
        str(
            (
                list(step.argv),
                [f"{name}={value}" for name, value in step.env.items()],
                step.folder,
                step.user,
                _NETWORKS[step.network],
                sorted(
                    [mount for one in step.mounts for mount in _mounts(one)]
                    + ([str(("/dev/pipes/", "", 0, True, "", 0, 0))] if step.script else [])
                ),
            )
        )
        for step in made.steps
        if isinstance(step, steps.Execute)
    )


def _mounts(mount: Mount) -> list[str]:
    found = []
    if mount.kind == "secret" and mount.env is not None:
        found.append(str(("env", mount.env, mount.id)))
    if mount.target:
        is_private = mount.kind in ("secret", "ssh")
        found.append(
            str(
                (
                    mount.target,
                    "" if is_private or mount.source == "/" else mount.source,
                    _MOUNT_TYPES[mount.kind],
                    not is_private and mount.read_only,
                    mount.id if mount.kind == "cache" else "",
                    _SHARING[mount.sharing],
                    mount.size,
                )
            )
        )
    return found


def commands_there(operations: list[dict[str, Any]]) -> list[str]:
    found = []
    for run in (one["Exec"] for one in operations if "Exec" in one):
        mounts = []
        for one in run["mounts"]:
            if one["dest"] == "/":
                continue
            cache = one.get("cacheOpt") or {}
            # It makes folders of its own for scripts, and for caches with an owner.
            selector = one.get("selector", "")
            inner = one["dest"] == "/dev/pipes/" or selector == "/cache"
            mounts.append(
                str(
                    (
                        one["dest"],
                        "" if inner else selector,
                        one.get("mountType", 0),
                        bool(one.get("readonly")),
                        cache.get("ID", "")[1:],
                        cache.get("sharing", 0),
                        (one.get("TmpfsOpt") or {}).get("size", 0),
                    )
                )
            )
        mounts += [str(("env", one["name"], one["ID"])) for one in run.get("secretenv", ())]
        meta = run["meta"]
        network = run.get("network", 0)
        user = meta.get("user", "")
        found.append(str((meta["args"], meta["env"], meta["cwd"], user, network, sorted(mounts))))
    return sorted(found)


def context_there(operations: list[dict[str, Any]]) -> list[str]:
    """The paths that it sends of the context."""
    for operation in operations:
        source = operation.get("Source") or {}
        if source.get("identifier") == "local://context":
            paths = source["attrs"].get("local.followpaths")
            return json.loads(paths) if paths else ["/"]
    return []


def copies(made: steps.Plan) -> list[str]:
    found: list[Any] = []
    for step in made.steps:
        if isinstance(step, steps.MakeFolder):
            found.append(("folder", step.path))
        elif isinstance(step, steps.CopyFiles):
            found += [_copy(step, source) for source in step.sources]
    return sorted(map(str, found))


def _copy(step: steps.CopyFiles, source: steps.Source) -> Any:
    include, unpack = [], False
    if isinstance(source, steps.Files):
        path = source.source
        include = [source.include] if source.include else []
        unpack = step.unpack
    elif isinstance(source, steps.GitTree):
        path = "/"
    else:
        path = f"/{source.name}"
        unpack = isinstance(source, steps.RemoteFile) and getattr(step, "unpack_remote", False)
    octal = int(step.chmod, 8) if step.chmod.isdigit() else -1
    letters = "" if step.chmod.isdigit() else step.chmod
    return path, step.destination, unpack, include, list(step.excludes), octal, letters


def copies_there(operations: list[dict[str, Any]]) -> list[str]:
    found: list[Any] = []
    for operation in operations:
        for action in (operation.get("File") or {}).get("actions", ()):
            if copy := action["Action"].get("copy"):
                found.append(
                    (
                        copy["src"],
                        copy["dest"].removesuffix("."),
                        bool(copy.get("attemptUnpackDockerCompatibility")),
                        copy.get("include_patterns", []),
                        copy.get("exclude_patterns", []),
                        copy.get("mode", -1),
                        copy.get("modeStr", ""),
                    )
                )
            # The folder of a cache with an owner.
            elif (folder := action["Action"].get("mkdir")) and folder["path"] != "/cache":
                found.append(("folder", folder["path"]))
    return sorted(map(str, found))
