"""Makes what others wrote harmless to the terminal that shows it.

Descriptions, tags, paths and flow files may hold escape sequences, which move the cursor, rewrite
lines that were shown before, conceal others, or set the clipboard. ``printable`` writes all of them
out: it is for one name or value, in a table, a field or a message. ``harmless`` is the last guard
before the terminal: it leaves lines, tabs and, where asked, the colours that this program uses.
"""

from __future__ import annotations

import re

# Spaces that Python does not call printable, and no terminal minds.
_SPACES = "\u00a0\u202f"
# Control characters but tabs and line ends, and what turns the direction of writing around.
_CONTROLS = r"\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
# Bold, plain and the colours of letters: none that conceals, blinks or paints the background.
_COLOR = r"(?:[01]|3[1-7]|9[0-7])"
_TRICKS = re.compile(rf"[{_CONTROLS}]|\x1b(?!\[{_COLOR}(?:;{_COLOR})*m)")
_TRICKS_AND_COLORS = re.compile(rf"[{_CONTROLS}\x1b]")


def printable(text: str, *, keep: str = "") -> str:
    r"""``text`` with everything that is no visible character written out, but for ``keep``.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    if text.isprintable():
        return text
    kept = _SPACES + keep
    return "".join(c if c.isprintable() or c in kept else _written(c) for c in text)


def _written(character: str) -> str:
    # Python's stand-in for a byte of a name that is not UTF-8.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return repr(character)[1:-1]


def harmless(text: str, *, colors: bool = True) -> str:
    r"""``text`` with its lines, its tabs and, with ``colors``, the colours that are this program's.

    >>> harmless("\x1b[31mred\x1b[0m\n\x1b[2J")
    '\x1b[31mred\x1b[0m\n\\x1b[2J'
    >>> harmless("\x1b[31mred", colors=False)
    '\\x1b[31mred'
    """
    tricks = _TRICKS if colors else _TRICKS_AND_COLORS
    return tricks.sub(lambda found: _written(found[0]), text)


def display_width(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    # Loaded for the names that need it only: joined letters and emoji take what tables say.
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)
