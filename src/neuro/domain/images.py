"""Image references: ``[registry/]path[:tag][@digest]``, as every container tool writes them."""

from __future__ import annotations

import re

import msgspec

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import ResourceURI, complete_uri

MAX_REFERENCE = 512
# The image whose programs are the platform's own: jobs in it run the commands of this very version.
EXECUTOR_IMAGE = "neuro/executor"
# The image whose program builds images. Published clients build with kaniko's, whose arguments it
# takes.
BUILDER_IMAGE = "neuro/builder"
_BUILDERS = (BUILDER_IMAGE, "gcr.io/kaniko-project/executor", "martizih/kaniko")
# Where its job has the layers of earlier builds, and the variable that says which volumes commands
# in the image see.
BUILD_CACHE, BUILD_VOLUMES = "/cache", "NEURO_BUILD_VOLUMES"
# The usual image to start from; until somebody builds it, it means the machine's own userland.
BASE_IMAGE = "neuro/base"
_HOST_IMAGES = ("host", BASE_IMAGE)
# The label of an image whose layers lie above the userland of the machine that made them.
BASE_LABEL, ON_HOST = "neuro.base", "host"
_FLOW_NAME = "neuro-flow"  # as the original publishes it, whatever the registry and the tag

# A part of a repository's name, between slashes.
PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_VERSION = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
_REFERENCE = re.compile(rf"(?:{_HOST}(?::\d+)?/)?{PART}(?:/{PART})*{_VERSION}")
_OWN = re.compile(rf"(?P<repository>{PART}(?:/{PART})+)(?P<version>{_VERSION})")
_SCHEME = "image:"
_WRITTEN = re.compile(rf"{_SCHEME}(?://[^/]+/|/)?{PART}(?:/{PART})*{_VERSION}")


class OwnImage(msgspec.Struct, frozen=True):
    """An image of the platform's own registry.

    ``repository`` is ``OWNER/NAME``, and ``version`` what follows: a tag, a digest or both.
    """

    cluster: str
    repository: str
    version: str

    def __str__(self) -> str:
        return f"{_SCHEME}//{self.cluster}/{self.repository}{self.version}"

    @property
    def uri(self) -> ResourceURI:
        """What permissions are about: the image with all its tags."""
        return ResourceURI("image", self.cluster, tuple(self.repository.split("/")))

    def at(self, registry: str) -> str:
        """The reference by which it is pulled from the host of the registry."""
        return f"{registry}/{self.repository}{self.version}"


def own_image(reference: str, *, cluster: str, user: str) -> OwnImage | None:
    """The image of the platform's registry that is meant, as clients write it; else None.

    >>> str(own_image("image:trainer", cluster="lab", user="anna"))
    'image://lab/anna/trainer:latest'

    Raises InvalidInput for what begins so, and names no image.
    """
    if not reference.startswith(_SCHEME):
        return None
    uri = complete_uri(reference, "image", cluster=cluster, user=user)
    if uri.host != cluster:
        raise InvalidInput(
            f"'{reference}' is an image of the cluster '{uri.host}', and this is '{cluster}': push"
            " it here first."
        )
    found = _OWN.fullmatch("/".join(uri.segments))
    if found is None or len(reference) > MAX_REFERENCE:
        raise InvalidInput(
            f"Invalid image '{reference[:80]}': write image:NAME:TAG for one of your own, or"
            " image:/OWNER/NAME:TAG, in lower-case letters."
        )
    return OwnImage(cluster, found["repository"], found["version"] or ":latest")


def in_registry(reference: str, registry: str) -> str:
    """The reference; of what is in the platform's registry, by its host, the platform's own.

    >>> in_registry("platform:8085/anna/trainer:v1", "platform:8085")
    'image:/anna/trainer:v1'
    """
    path = reference.removeprefix(f"{registry}/")
    return reference if path == reference else f"{_SCHEME}/{path}"


def check_image(reference: str) -> str:
    """Return ``reference``, or raise InvalidInput with an example of the right form."""
    if len(reference) <= MAX_REFERENCE and _REFERENCE.fullmatch(reference):
        return reference
    raise InvalidInput(
        f"Invalid image '{reference[:80]}': write NAME, NAME:TAG or REGISTRY/NAME:TAG in lower-case"
        " letters, for example ubuntu:latest."
    )


def check_written(reference: str) -> str:
    """As ``check_image``, for images of the platform's registry, too.

    >>> check_written("image:/bob/trainer:v1")
    'image:/bob/trainer:v1'
    """
    if len(reference) <= MAX_REFERENCE and _WRITTEN.fullmatch(reference):
        return reference
    return check_image(reference)


def with_tag(reference: str) -> str:
    """The reference with the tag that is meant where none is written.

    >>> with_tag("ubuntu")
    'ubuntu:latest'
    """
    name = reference.rpartition("/")[2]
    return reference if ":" in name or "@" in name else f"{reference}:latest"


def without_version(reference: str) -> str:
    """The name alone, without a tag and a digest.

    >>> without_version("registry:5000/a/b:v1@sha256:0")
    'registry:5000/a/b'
    """
    folder, slash, name = reference.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"


def is_host_image(reference: str) -> bool:
    """Whether an image is the machine's own userland, unless somebody has built it.

    >>> [is_host_image(it) for it in ("host", "host:latest", "neuro/base:v1", "ghost", "host:1/a")]
    [True, True, True, False, False]
    """
    return without_version(reference) in _HOST_IMAGES


def is_executor_image(reference: str) -> bool:
    """Whether jobs in this image run the platform's own commands.

    >>> is_executor_image("ghcr.io/neuro-inc/neuro-flow:22.8.1")
    True
    """
    name = without_version(reference)
    return name.rpartition("/")[2] == _FLOW_NAME or name == EXECUTOR_IMAGE


def is_builder_image(reference: str) -> bool:
    """Whether jobs in this image build images, by the platform's own builder.

    >>> is_builder_image("gcr.io/kaniko-project/executor:v1.20.0-debug")
    True
    """
    return without_version(reference).removeprefix("docker.io/") in _BUILDERS
