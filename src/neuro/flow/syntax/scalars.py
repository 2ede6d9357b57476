"""Where each character of a parsed scalar stands in the source.

YAML folds lines, strips indentation and replaces escapes, so that an offset in a value says little
about its place in the file. This module reads a scalar again, the way the YAML library does, and
keeps the index of every character. Only an error needs that, so it is done when one asks.
"""

from collections.abc import Sequence
from typing import Final

_BREAKS: Final = "\r\n\x85\u2028\u2029"
_BLANKS: Final = " \t"
_HEX_ESCAPES: Final = {"x": 2, "u": 4, "U": 8}


def offsets(text: str, start: int, end: int, style: str | None, value: str) -> Sequence[int]:
    """The source's index of each character of the value, and one past the last.

    ``start`` and ``end`` bound the scalar in the text, quotes or the block's indicator included.
    """
    if style in ("|", ">"):
        found = _block(text, start, style == "|", value)
    elif style in ("'", '"'):
        found = _flow(text, start + 1, max(start + 1, end - 1), style)
    else:
        found = _flow(text, start, end, "")
    if found is None or len(found) < len(value):
        # The library read it otherwise: its start is still a place to look at.
        return [start] * (len(value) + 1)
    past = found[len(value) - 1] + 1 if value else start
    return [*found[: len(value)], past]


def _line_break(text: str, index: int) -> int:
    """How many characters the line break at an index has."""
    return 2 if text.startswith("\r\n", index) else 1


def _flow(text: str, index: int, end: int, quote: str) -> list[int]:
    """Plain and quoted scalars: lines fold into spaces, empty lines into line feeds."""
    found: list[int] = []
    while index < end:
        character = text[index]
        if character in _BLANKS or character in _BREAKS:
            blanks = index
            while index < end and text[index] in _BLANKS:
                index += 1
            if index >= end or text[index] not in _BREAKS:
                found.extend(range(blanks, index))
                continue
            index = _fold(text, index, end, found)
        elif quote == "'" and character == "'":
            found.append(index)
            index += 2
        elif quote == '"' and character == "\\":
            index = _escape(text, index, end, found)
        else:
            found.append(index)
            index += 1
    return found


def _fold(text: str, index: int, end: int, found: list[int]) -> int:
    """The first line break is a space, unless others follow: those are kept instead."""
    first = index
    breaks: list[int] = []
    while index < end and text[index] in _BLANKS + _BREAKS:
        if text[index] in _BREAKS:
            breaks.append(index)
            index += _line_break(text, index)
        else:
            index += 1
    if text[first] in "\u2028\u2029":
        found.extend(breaks)
    else:
        found.extend(breaks[1:] or [first])
    return index


def _escape(text: str, index: int, end: int, found: list[int]) -> int:
    """One escape of a double-quoted scalar; before a line's end it joins the lines."""
    following = text[index + 1] if index + 1 < end else ""
    if following in _HEX_ESCAPES:
        found.append(index)
        return index + 2 + _HEX_ESCAPES[following]
    if following and following in _BREAKS:
        index += 1
        index += _line_break(text, index)
        while index < end and text[index] in _BLANKS + _BREAKS:
            if text[index] in _BREAKS:
                found.append(index)
                index += _line_break(text, index)
            else:
                index += 1
        return index
    found.append(index)
    return index + 2


def _block(text: str, start: int, literal: bool, value: str) -> list[int] | None:
    """Block scalars. The header may leave the indentation to be found: the one that fits is it."""
    index = start
    while index < len(text) and text[index] not in _BREAKS:
        index += 1
    if index >= len(text):
        return []
    index += _line_break(text, index)
    for indent in _indents(text, index, text[start:index], value):
        read = _block_lines(text, index, indent, literal, len(value))
        if "".join(read[0])[: len(value)] == value:
            return read[1]
    return None


def _indents(text: str, index: int, header: str, value: str) -> Sequence[int]:
    """The indentations that a block may have: that of its first line with text, or any below."""
    deepest = column = 0
    while index < len(text):
        character = text[index]
        if character == " ":
            column += 1
        elif character in _BREAKS:
            deepest = max(deepest, column)
            column = 0
        else:
            break
        index += 1
    deepest = max(deepest, column)
    explicit = any(character.isdigit() for character in header.partition("#")[0])
    if explicit or not value.strip():
        return range(deepest + 1)
    return (deepest, column)


def _block_lines(
    text: str, index: int, indent: int, literal: bool, enough: int
) -> tuple[list[str], list[int]]:
    """Read a block's lines with an indentation, up to enough characters."""
    characters: list[str] = []
    found: list[int] = []

    def add(at: int) -> None:
        characters.append("\n" if text[at] in "\r\n\x85" else text[at])
        found.append(at)

    # The break that ended the line before, and the empty lines since then.
    ended: int | None = None
    was_blank = False
    index, empty = _empty_lines(text, index, indent)
    while index < len(text) and len(found) <= enough:
        is_blank = text[index] in _BLANKS
        if ended is not None:
            if literal or was_blank or is_blank or text[ended] in "\u2028\u2029":
                add(ended)
            elif not empty:
                characters.append(" ")
                found.append(ended)
        for at in empty:
            add(at)
        was_blank = is_blank
        while index < len(text) and text[index] not in _BREAKS:
            add(index)
            index += 1
        ended = None
        empty = []
        if index >= len(text):
            break
        ended = index
        index += _line_break(text, index)
        index, empty = _empty_lines(text, index, indent)
        if not _indented(text, index, indent):
            break
    if ended is not None:
        add(ended)
    for at in empty:
        add(at)
    return characters, found


def _indented(text: str, index: int, indent: int) -> bool:
    """Whether the text at an index stands behind the indentation, on a line of its own."""
    line = index
    while line > 0 and text[line - 1] == " " and index - line < indent:
        line -= 1
    return index < len(text) and index - line >= indent


def _empty_lines(text: str, index: int, indent: int) -> tuple[int, list[int]]:
    """Skip indentation and empty lines: the next text's index, and the lines' breaks."""
    breaks: list[int] = []
    while True:
        column = 0
        while column < indent and index < len(text) and text[index] == " ":
            column += 1
            index += 1
        if index >= len(text) or text[index] not in _BREAKS:
            return index, breaks
        breaks.append(index)
        index += _line_break(text, index)
