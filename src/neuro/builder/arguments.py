"""What the program is told: kaniko's own options, as far as they mean something here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from neuro.builder.faults import BuildFault
from neuro.domain.images import BUILD_VOLUMES
from neuro.domain.problems import nearest

HELP = """\
Usage: python -m neuro.builder --context=FOLDER [OPTIONS]

Builds an image of a Dockerfile and pushes it. The options are those of kaniko's executor.

  --context=FOLDER       where COPY takes files from; dir:///FOLDER as well [/workspace]
  --dockerfile=PATH      in the context, or a file of another volume [Dockerfile]
  --destination=IMAGE    what the image is pushed as; may be repeated
  --build-arg=NAME=VALUE an ARG's value; without a value, that of the environment
  --target=STAGE         build this stage, and not the last one
  --platform=OS/ARCH     for another platform than this machine's
  --label=NAME=VALUE     a label of the image
  --secret=id=NAME[,src=FILE|,env=NAME]
                         what RUN --mount=type=secret,id=NAME shows
  --no-push              only build
  --no-cache             run every step, whatever was built before; --cache=false as well
  --digest-file=PATH     write the digest of what was pushed
  --insecure-registry=HOST
                         ask this registry by http; may be repeated
  --registry-map=HOST=PLACE
                         where a registry answers that has another name in FROM
                         and --destination; may be repeated
  --own-registry=HOST/CLUSTER/OWNER
                         what FROM image:NAME means
  --whole-manifests      the own registry says which layers it has not
  --mirror=REGISTRY      images of it in FROM come through the own registry, unless
                         there is a password for it; may be repeated

Example:

  python -m neuro.builder --context=/src --destination=registry.example.com/me/trainer:v1
"""
_SECRETS = "/kaniko/secrets"
_FLAGS = (
    *("no-push", "no-cache", "cache", "insecure", "insecure-pull", "help"),
    "whole-manifests",
)
_VALUES = (
    *("context", "dockerfile", "destination", "build-arg", "target", "label", "digest-file"),
    *(
        "insecure-registry",
        "registry-map",
        "own-registry",
        "mirror",
        "secret",
        "platform",
        "custom-platform",
        "context-sub-path",
    ),
)
# They ask for what is always so here, or for what a builder of this kind has no use for.
_IGNORED = frozenset(
    (
        *("verbosity", "v", "cache-repo", "cache-dir", "cache-ttl", "cache-copy-layers"),
        *("cache-run-layers", "snapshot-mode", "snapshotMode", "single-snapshot", "use-new-run"),
        *("log-format", "log-timestamp", "cleanup", "compressed-caching", "compression", "force"),
        *("compression-level", "ignore-var-run", "image-download-retry", "push-retry"),
        *("image-fs-extract-retry", "push-ignore-immutable-tag-errors", "reproducible"),
        *(
            "skip-unused-stages",
            "registry-mirror",
            "skip-push-permission-check",
            "initial-fs-unpacked",
            "kaniko-dir",
        ),
    )
)


class Secret(msgspec.Struct, frozen=True):
    """Where a secret's content is: in a file, or in a variable of the environment."""

    file: str = ""
    variable: str = ""


class Volume(msgspec.Struct, frozen=True):
    """A volume of the job, and whether commands may write to it."""

    path: str
    read_only: bool


def volumes(environment: Mapping[str, str]) -> tuple[Volume, ...]:
    """What the platform says of volumes that commands see, which no argument can.

    Anything else of the job's, such as its /proc, must not be theirs.
    """
    return tuple(msgspec.json.decode(environment.get(BUILD_VOLUMES, "[]"), type=list[Volume]))


class Options(msgspec.Struct, frozen=True):
    """What is to be built, and where it goes."""

    context: str = "/workspace"
    dockerfile: str = ""
    destinations: tuple[str, ...] = ()
    arguments: dict[str, str] = {}
    target: str = ""
    platform: str = ""
    labels: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    push: bool = True
    cache: bool = True
    digest_file: str = ""
    insecure: tuple[str, ...] = ()
    places: dict[str, str] = {}
    mirrors: tuple[str, ...] = ()
    own: tuple[str, str, str] | None = None
    whole: bool = False
    help: bool = False


def read(argv: Sequence[str], environment: dict[str, str]) -> Options:
    """The options. Raises BuildFault for what is none of them.

    >>> read(["--context=dir:///src", "--no-push"], {}).context
    '/src'
    """
    found: dict[str, list[str]] = {}
    words = list(argv)
    while words:
        name, value = _next(words)
        found.setdefault(name, []).append(value)
    return _options(found, environment)


def _next(words: list[str]) -> tuple[str, str]:
    """Take an option and its value, which is the next word where there is no ``=``."""
    word = words.pop(0)
    if not word.startswith("-") or word in ("-", "--"):
        raise BuildFault(f"'{word}' is not an option.", "Write --context=FOLDER.")
    name, equals, value = word.lstrip("-").partition("=")
    name = {"f": "dockerfile", "c": "context", "d": "destination", "h": "help"}.get(name, name)
    known = name in _FLAGS or name in _VALUES
    if not known and name not in _IGNORED:
        hint = nearest(name, (*_FLAGS, *_VALUES)) or "See --help for the options."
        raise BuildFault(f"'--{name}' is not an option of the builder.", hint)
    if equals:
        return name, value
    if name in _VALUES:
        if not words:
            raise BuildFault(f"'--{name}' has no value.", f"Write --{name}=VALUE.")
        return name, words.pop(0)
    # Of what is ignored, a word that is no option can only be the value.
    if name in _IGNORED and words and not words[0].startswith("-"):
        words.pop(0)
    return name, "true"


def _options(found: dict[str, list[str]], environment: dict[str, str]) -> Options:
    def last(name: str, otherwise: str = "") -> str:
        return found.get(name, [otherwise])[-1]

    destinations = tuple(dict.fromkeys(found.get("destination", ())))
    insecure = set(found.get("insecure-registry", ()))
    if _yes(found, "insecure") or _yes(found, "insecure-pull"):
        insecure |= {one.partition("/")[0] for one in destinations}
    push = not _yes(found, "no-push")
    if push and not destinations and not _yes(found, "help"):
        raise BuildFault(
            "There is no destination.", "Write --destination=REGISTRY/NAME:TAG, or --no-push."
        )
    context = _context(last("context", "/workspace"), last("context-sub-path"))
    return Options(
        context=context,
        dockerfile=last("dockerfile"),
        destinations=destinations,
        arguments=_pairs("build-arg", found, environment),
        target=last("target"),
        platform=last("platform") or last("custom-platform"),
        labels=_pairs("label", found, {}),
        secrets=dict(_secret(text) for text in found.get("secret", ())),
        push=push,
        cache=not _yes(found, "no-cache") and last("cache", "true") not in ("false", "0"),
        digest_file=last("digest-file"),
        insecure=tuple(sorted(insecure)),
        places=_pairs("registry-map", found, {}),
        mirrors=tuple(found.get("mirror", ())),
        # The platform's words come first: nobody says after it what is its own.
        own=_own(found.get("own-registry", [""])[0]),
        whole=_yes(found, "whole-manifests"),
        help=_yes(found, "help"),
    )


def _own(text: str) -> tuple[str, str, str] | None:
    host, _, rest = text.partition("/")
    cluster, _, owner = rest.partition("/")
    if text and not owner:
        raise BuildFault(
            f"'--own-registry={text}' has no owner.", "Write --own-registry=HOST/CLUSTER/OWNER."
        )
    return (host, cluster, owner) if text else None


def _yes(found: dict[str, list[str]], name: str) -> bool:
    return found.get(name, ["false"])[-1] not in ("false", "0")


def _context(text: str, below: str) -> str:
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme not in ("", "dir"):
        raise BuildFault(
            f"The context '{text}' is not a folder.",
            "Mount it as a volume, and write --context=FOLDER.",
        )
    folder = text.removeprefix("dir://")
    return os.path.normpath(os.path.join(folder, below.lstrip("/"))) if below else folder


def _pairs(option: str, found: dict[str, list[str]], environment: dict[str, str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in found.get(option, ()):
        name, equals, value = text.partition("=")
        if not name:
            raise BuildFault(f"'--{option}={text}' has no name.", f"Write --{option}=NAME=VALUE.")
        if equals:
            pairs[name] = value
        elif name in environment:
            pairs[name] = environment[name]
    return pairs


def _secret(text: str) -> tuple[str, Secret]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name = fields.pop("id", "")
    kind = fields.pop("type", "file")
    file = fields.pop("src", fields.pop("source", ""))
    variable = fields.pop("env", "")
    if kind == "env" and not variable:
        file, variable = "", file or name
    if not name or fields or (file and variable):
        raise BuildFault(f"'--secret={text}' is not a secret.", "Write --secret=id=NAME,src=FILE.")
    if not file and not variable:
        file = f"{_SECRETS}/{name}"
    return name, Secret(file, variable)
