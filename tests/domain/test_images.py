"""Which images are meant, and which are the platform's own."""

from __future__ import annotations

import pytest

from neuro.domain.errors import InvalidInput
from neuro.domain.images import in_registry, own_image


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("image:trainer", "image://lab/anna/trainer:latest"),
        ("image:trainer:v1", "image://lab/anna/trainer:v1"),
        ("image:/boris/sets/trainer:v1", "image://lab/boris/sets/trainer:v1"),
        ("image://lab/boris/trainer:v1", "image://lab/boris/trainer:v1"),
        (f"image:trainer@sha256:{'0' * 64}", f"image://lab/anna/trainer@sha256:{'0' * 64}"),
    ],
)
def test_an_image_of_the_platform_has_a_full_name(reference: str, expected: str) -> None:
    own = own_image(reference, cluster="lab", user="anna")

    assert str(own) == expected
    assert own_image(expected, cluster="lab", user="boris") == own


@pytest.mark.parametrize("reference", ["ubuntu", "image", "ghcr.io/image:v1", "lab/image:v1"])
def test_other_images_are_left_to_other_registries(reference: str) -> None:
    assert own_image(reference, cluster="lab", user="anna") is None


@pytest.mark.parametrize(
    "reference",
    [
        *("image:", "image:/anna", "image:Trainer", "image:a:b:c", "image:a b", "image:../boris/x"),
        *("image:a\n", "image:a@sha256:0", "image://other/anna/trainer", "image:" + "a/" * 300),
    ],
)
def test_what_names_no_image_of_this_cluster_is_refused(reference: str) -> None:
    with pytest.raises(InvalidInput):
        own_image(reference, cluster="lab", user="anna")


def test_an_image_is_pulled_from_where_the_registry_is() -> None:
    own = own_image("image:trainer:v1", cluster="lab", user="anna")

    assert own is not None
    assert own.at("127.0.0.1:8085") == "127.0.0.1:8085/anna/trainer:v1"
    assert in_registry("127.0.0.1:8085/anna/trainer:v1", "127.0.0.1:8085") == (
        "image:/anna/trainer:v1"
    )
    assert in_registry("127.0.0.1:80/anna/trainer:v1", "127.0.0.1:8085") == (
        "127.0.0.1:80/anna/trainer:v1"
    )
