"""Who a user's share of the server is counted for: their owner, of service accounts.

Anybody can make a hundred of these, and would have a hundred shares by them.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_

_BETWEEN = "--"  # a person's name and their account's; no person's name has it


def person_of(user: str) -> str:
    """The person behind a user.

    >>> person_of("anna--ci"), person_of("anna")
    ('anna', 'anna')
    """
    return user.partition(_BETWEEN)[0]


def accounts_like(user: str) -> str:
    """What the names of a person's service accounts are like, for ``LIKE … ESCAPE '/'``.

    >>> accounts_like("a_b--ci")
    'a/_b--%'
    """
    person = person_of(user)
    for special in "/%_":
        person = person.replace(special, f"/{special}")
    return f"{person}{_BETWEEN}%"


def is_of(column: ColumnElement[str], user: str) -> ColumnElement[bool]:
    """Whether a column has the person behind a user, or a service account of theirs."""
    person = person_of(user)
    return or_(column == person, column.startswith(person + _BETWEEN, autoescape=True))
