from __future__ import annotations

import pytest

from neuro.domain.permissions import Action


@pytest.mark.parametrize("wide", list(Action))
@pytest.mark.parametrize("narrow", list(Action))
def test_manage_is_more_than_write_and_write_more_than_read(wide: Action, narrow: Action) -> None:
    order = [Action.READ, Action.WRITE, Action.MANAGE]

    assert wide.includes(narrow) == (order.index(wide) >= order.index(narrow))
