"""What others wrote, made harmless to the terminal that shows it.

Descriptions, tags, paths and flow files may hold escape sequences: they move the cursor, rewrite
lines that were shown before, or set the clipboard. Tables and fields write all of it out; what is
printed at all passes the second function, which leaves lines and this program's own colours.
"""

from __future__ import annotations

import re

# Spaces that Python does not call printable, and no terminal minds.
_SPACES = "\u00a0\u202f"
# Control characters but tabs and line ends, an escape that begins no colour, and what turns the
# direction of writing around.
_TRICKS = re.compile(
    r"\x1b(?!\[[0-9;]*m)"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


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


def harmless(text: str) -> str:
    r"""``text`` with its lines, tabs and colours, and nothing else that a terminal obeys.

    >>> harmless("\x1b[31mred\x1b[0m\n\x1b[2J")
    '\x1b[31mred\x1b[0m\n\\u001b[2J'
    """
    return _TRICKS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    if found[0] >= "\udc80":
        return _written(found[0])
    return f"\\u{ord(found[0]):04x}"  # In the form that is also JSON's.


def display_width(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    # Loaded for the names that need it only: joined letters and emoji take what tables say.
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)
