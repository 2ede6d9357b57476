"""What a caller may do is one value; beside it stands a model that looks at every grant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.permissions import PUBLIC, Action, admin_permissions
from neuro.domain.permissions import owner_permissions as owners
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.server.access.grants import Grant, Grants, Held, Visibility, held_by, role_uri
from neuro.server.access.identity import Identity

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PEOPLE = ("anna", "boris")
ROLES = ("anna/a", "anna/b", "boris/c")
NAMES = st.sampled_from(["anna", "boris", "data", "job-1"])
URIS = st.builds(
    ResourceURI,
    st.sampled_from(["storage", "job"]),
    st.sampled_from(["default", "other"]),
    st.lists(NAMES, max_size=4).map(tuple),
)
ENDS = st.none() | st.integers(-2, 3).map(lambda days: NOW + timedelta(days=days))
GRANTS = st.builds(
    Grant, URIS | st.sampled_from([role_uri(it) for it in ROLES]), st.sampled_from(Action), ENDS
)
GIVEN = st.dictionaries(
    st.sampled_from([*PEOPLE, *ROLES, PUBLIC]), st.lists(GRANTS, max_size=5), max_size=6
)


def ways(
    subject: str, given_: Mapping[str, Sequence[Grant]], seen: tuple[str, ...] = ()
) -> Iterator[tuple[Grant, datetime | None]]:
    """The model: every grant by every way to it, with the earliest end on that way."""
    for one in (subject, PUBLIC):
        for grant in given_.get(one, ()):
            yield grant, grant.until
            role = "/".join((grant.uri.host, *grant.uri.segments))
            if grant.uri.scheme == "role" and role not in seen:
                for below, until in ways(role, given_, (*seen, role)):
                    ends = [it for it in (until, grant.until) if it is not None]
                    yield below, min(ends, default=None)


def naive(given_: Mapping[str, Sequence[Grant]], uri: ResourceURI, now: datetime) -> Action | None:
    found = [
        grant.action
        for grant, until in ways("anna", given_)
        if (until is None or until > now) and grant.uri.covers(uri)
    ]
    return max(found, key=lambda it: it.rank, default=None)


@given(GIVEN, URIS, st.integers(0, 4))
def test_the_widest_action_is_what_a_look_at_every_grant_finds(
    given_: dict[str, list[Grant]], uri: ResourceURI, days: int
) -> None:
    later = NOW + timedelta(days=days)
    grants = Grants(held_by("anna", given_, NOW)).at(later)

    assert grants.action_on(uri) == naive(given_, uri, later)
    assert grants.until is None or grants.until > later


@given(GIVEN, URIS)
def test_why_says_the_same_as_whether(given_: dict[str, list[Grant]], uri: ResourceURI) -> None:
    grants = Grants(held_by("anna", given_, NOW))
    reasons = grants.covering(uri)
    assert Grants(reversed(list(grants.held))).covering(uri) == reasons

    assert grants.action_on(uri) == (reasons[0].grant.action if reasons else None)
    for reason in reasons:
        # Each step is a grant of the next role to the one before.
        for one, role in zip(("anna", *reason.path), reason.path, strict=False):
            assert role == PUBLIC or role_uri(role) in {it.uri for it in given_[one]}
        assert reason.grant in given_[reason.path[-1] if reason.path else "anna"]


@given(GIVEN, URIS)
def test_names_are_listed_on_the_way_to_what_is_granted(
    given_: dict[str, list[Grant]], uri: ResourceURI
) -> None:
    grants = Grants(held_by("anna", given_, NOW))
    depth = len(uri.segments)
    deeper = [it.uri for it in grants_of(grants) if len(it.uri.segments) > depth]
    deeper = [it for it in deeper if uri.covers(it)]

    names = grants.names_below(uri)

    assert set(names) == {it.segments[depth] for it in deeper}
    for name, action in names.items():
        at = [it.action for it in grants_of(grants) if it.uri == uri.child(name)]
        assert action == max(at, key=lambda it: it.rank, default=None)


@given(GIVEN, NAMES, NAMES, NAMES)
def test_a_list_shows_what_any_action_is_granted_on(
    given_: dict[str, list[Grant]], owner: str, one: str, name: str
) -> None:
    grants = Grants(held_by("anna", given_, NOW))
    shown = grants.scope("job", "default").shows(owner, one, name)

    may = [grants.action_on(ResourceURI("job", "default", (owner, it))) for it in (one, name)]
    assert shown == any(may)


@given(GIVEN, GIVEN)
def test_a_scope_within_another_shows_no_more(
    given_: dict[str, list[Grant]], other: dict[str, list[Grant]]
) -> None:
    one, two = (Grants(held_by("anna", it, NOW)).scope("job", "default") for it in (given_, other))
    things = [(owner, it) for owner in ("anna", "boris", "data") for it in ("job-1", "data")]

    if one.is_within(two):
        assert all(two.shows(*it, None) for it in things if one.shows(*it, None))
    assert one.is_within(one)
    assert one.is_within(Visibility(everything=True))


@given(GIVEN, URIS, st.sampled_from(Action))
def test_how_far_up_a_right_reaches(
    given_: dict[str, list[Grant]], uri: ResourceURI, action: Action
) -> None:
    grants = Grants(held_by("anna", given_, NOW))
    reasons = grants.covering(uri, action)

    if reasons:
        highest = min(len(it.grant.uri.segments) for it in reasons)
        assert grants.depth_of(uri, action) == highest
    else:
        with pytest.raises(ValueError, match="not granted"):
            grants.depth_of(uri, action)


@given(GIVEN, GIVEN, URIS, st.sampled_from(Action))
def test_what_was_allowed_holds_as_long_as_it_would_be_allowed_again(
    before: dict[str, list[Grant]], after: dict[str, list[Grant]], uri: ResourceURI, action: Action
) -> None:
    old, new = (Grants(held_by("anna", it, NOW)) for it in (before, after))
    caller = Identity("anna", old, "token").noted()
    assert caller.allowed is not None

    if caller.allows(uri, action):
        best = new.action_on(uri)
        assert caller.allowed.holds(new) == (best is not None and best.includes(action))
    else:
        assert caller.allowed.holds(new)


def grants_of(grants: Grants) -> list[Grant]:
    return [it.grant for it in grants.held]


def test_a_name_that_begins_like_another_is_another() -> None:
    grants = Grants.of(owners("anna", "default"))

    assert grants.action_on(parse_uri("storage://default/anna/data")) is Action.MANAGE
    assert grants.action_on(parse_uri("storage://default/annabel/data")) is None
    assert grants.action_on(parse_uri("storage://other/anna/data")) is None


@pytest.mark.parametrize(
    "uri", ["storage://default/anna/x", "job://default/anna/x", "role://anna/team", "user://anna"]
)
def test_who_manages_the_cluster_manages_all_that_is_in_it(uri: str) -> None:
    admin = Grants.of([*owners("boris", "default"), *admin_permissions("default")])

    assert admin.action_on(parse_uri(uri)) is Action.MANAGE
    assert Grants.of(owners("boris", "default")).action_on(parse_uri(uri)) is None


def test_of_two_ways_into_a_role_the_longer_one_counts() -> None:
    data = Grant(parse_uri("storage://default/boris"), Action.READ)
    soon, late = NOW + timedelta(days=1), NOW + timedelta(days=2)
    held = held_by(
        "anna",
        {
            "anna": [
                Grant(role_uri("boris/short"), Action.READ, soon),
                Grant(role_uri("boris/long"), Action.READ, late),
            ],
            "boris/short": [Grant(role_uri("boris/team"), Action.READ)],
            "boris/long": [Grant(role_uri("boris/team"), Action.READ)],
            "boris/team": [data],
        },
        NOW,
    )

    (way,) = [it for it in held if it.grant == data]
    assert way == Held(data, ("boris/long", "boris/team"), late)
