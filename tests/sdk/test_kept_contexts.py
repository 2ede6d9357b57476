"""Which files of a context are sent again, and which of those that are kept go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neuro.client.kept_contexts import Entry, difference, outdated

DAY = 86400
NOW = 1_800_000_000


def _context(paths: dict[str, tuple[str, bool]]) -> dict[str, Entry]:
    """A context with these files, and the folders that they are in."""
    found: dict[str, Entry] = {}
    for path, (digest, executable) in paths.items():
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if path in found or any(found.get(it, Entry(True)) != Entry(True) for it in above):
            continue
        found.update(dict.fromkeys(above, Entry(True)))
        found[path] = Entry(False, executable, digest)
    return found


PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "a.b"]), min_size=1, max_size=3).map("/".join)
CONTEXTS = st.dictionaries(PATHS, st.tuples(st.sampled_from(["", "1", "2"]), st.booleans())).map(
    _context
)


@given(CONTEXTS, CONTEXTS)
def test_what_is_removed_and_sent_makes_the_one_of_the_other(
    before: dict[str, Entry], now: dict[str, Entry]
) -> None:
    change = difference(before, now)

    there = dict(before)
    for path in change.removed:
        assert path in there, "a path is removed once"
        there = {it: e for it, e in there.items() if it != path and not it.startswith(f"{path}/")}
    for path in change.sent:
        assert path not in there or not (there[path].is_folder or now[path].is_folder)
        there[path] = now[path]
    assert there == now
    for path, entry in now.items():
        if not entry.is_folder and not entry.digest:
            assert path in change.sent, "of unknown content"


def test_what_is_the_same_is_not_sent() -> None:
    context = _context({"a/b": ("1", True), "c": ("2", False)})

    assert difference(context, context) == ((), frozenset())


def test_what_nobody_comes_back_for_goes() -> None:
    names = {
        f"{NOW - 4 * DAY}-left": True,
        f"{NOW - 2 * DAY}-left": False,
        f"{NOW - 8 * DAY}-a.kept": True,
        f"{NOW - 6 * DAY}-a.kept": False,
        "mine": False,
        "my-own": False,
        "\u0664-left": False,
    }

    assert set(outdated(names, NOW)) == {name for name, goes in names.items() if goes}


def test_the_last_eight_are_kept() -> None:
    names = [f"{NOW - age}-{age}.kept" for age in range(10)]

    assert outdated(names, NOW) == names[8:]
