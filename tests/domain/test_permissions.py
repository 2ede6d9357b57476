from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.permissions import (
    Action,
    Permission,
    admin_permissions,
    best_action,
    owner_permissions,
)
from neuro.domain.uris import ResourceURI, parse_uri

SEGMENTS = st.lists(st.sampled_from(["anna", "boris", "data", "a"]), max_size=4).map(tuple)


@pytest.mark.parametrize("wide", list(Action))
@pytest.mark.parametrize("narrow", list(Action))
def test_manage_is_more_than_write_and_write_more_than_read(wide: Action, narrow: Action) -> None:
    order = [Action.READ, Action.WRITE, Action.MANAGE]

    assert wide.includes(narrow) == (order.index(wide) >= order.index(narrow))


@given(SEGMENTS, SEGMENTS)
def test_a_permission_is_for_everything_below_and_nothing_beside(
    top: tuple[str, ...], path: tuple[str, ...]
) -> None:
    granted = ResourceURI("storage", "default", top)
    asked = ResourceURI("storage", "default", path)

    covered = best_action([Permission(granted, Action.READ)], asked) is not None

    assert covered == (path[: len(top)] == top)


def test_a_name_that_begins_like_another_is_another() -> None:
    permissions = owner_permissions("anna", "default")

    assert best_action(permissions, parse_uri("storage://default/anna/data")) is Action.MANAGE
    assert best_action(permissions, parse_uri("storage://default/annabel/data")) is None
    assert best_action(permissions, parse_uri("storage://other/anna/data")) is None


def test_the_widest_of_several_permissions_counts() -> None:
    uri = parse_uri("storage://default/anna/data")
    permissions = [Permission(uri, action) for action in (Action.READ, Action.WRITE)]

    assert best_action(permissions, uri.child("file")) is Action.WRITE


@pytest.mark.parametrize("scheme", ["storage", "job", "flow"])
def test_an_administrator_may_do_all_in_the_cluster(scheme: str) -> None:
    uri = ResourceURI(scheme, "default", ("anna", "x"))

    assert best_action(admin_permissions("default"), uri) is Action.MANAGE
