"""How an instruction's text splits: its name, its flags, its arguments. Quotes stay on."""

from __future__ import annotations

import json
import math
import re

from neuro.dockerfile.lines import SPACES, Span

_GAP = re.compile(r"[\t\v\f\r ]+")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class NotStrings(Exception):
    """A JSON list holds something that is not a string."""


def strip(span: Span) -> Span:
    """The piece without the space around it."""
    text = span.text.lstrip(SPACES)
    return Span(text.rstrip(SPACES), span.start + len(span.text) - len(text))


def split_instruction(text: str, escape: str) -> tuple[Span, list[Span], Span]:
    """The instruction's name, its flags without their quotes, and the rest."""
    whole = strip(Span(text, 0))
    gap = _GAP.search(whole.text)
    if gap is None:
        return whole, [], Span("", whole.start + len(whole.text))
    name = Span(whole.text[: gap.start()], whole.start)
    flags, end = _flags(whole.text, gap.end(), escape)
    rest = strip(Span(whole.text[end:], whole.start + end))
    return name, [Span(flag, whole.start + start) for flag, start in flags], rest


def _flags(text: str, pos: int, escape: str) -> tuple[list[Span], int]:
    flags: list[Span] = []
    while True:
        while pos < len(text) and text[pos] in SPACES:
            pos += 1
        if not text.startswith("--", pos):
            return flags, pos
        start, word, quote = pos, "", ""
        while pos < len(text):
            char = text[pos]
            pos += 1
            if not quote and char in SPACES:
                pos -= 1
                break
            if char == escape:
                word += text[pos : pos + 1]
                pos += 1
            elif quote and char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            else:
                word += char
        # A lone -- ends the flags, and is not one.
        if word == "--":
            return flags, min(pos, len(text))
        flags.append(Span(word, start))


def spaced_words(span: Span) -> list[Span]:
    """The words between gaps; quotes mean nothing."""
    words, pos = [], 0
    for gap in _GAP.finditer(span.text):
        words.append(Span(span.text[pos : gap.start()], span.start + pos))
        pos = gap.end()
    if span.text:
        words.append(Span(span.text[pos:], span.start + pos))
    return words


def quoted_words(span: Span, escape: str) -> list[Span]:
    """The words between gaps outside of quotes, as in a shell. Quotes and escapes stay in them."""
    text, words, pos = span.text, list[Span](), 0
    while pos < len(text):
        if text[pos] in SPACES:
            pos += 1
            continue
        start, quote, word = pos, "", list[str]()
        while pos < len(text) and (quote or text[pos] not in SPACES):
            char = text[pos]
            if char == escape and quote != "'":
                # At the very end it escapes nothing, and is dropped.
                word.append(text[pos : pos + 2] if pos + 1 < len(text) else "")
                pos += 2
                continue
            if quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            word.append(char)
            pos += 1
        if joined := "".join(word):
            words.append(Span(joined, span.start + start))
    return words


def json_words(span: Span) -> list[Span] | None:
    """The strings of a JSON list. None if it is not JSON: then it is a text for the shell.

    Raises NotStrings for a list with anything else in it.
    """
    if not span.text.lstrip(SPACES).startswith("["):
        return None
    try:
        found = json.loads(
            span.text, parse_constant=_refuse, parse_float=_number, parse_int=_number
        )
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(one, str) for one in found):
        raise NotStrings
    places = [at.start() + span.start for at in _JSON_STRING.finditer(span.text)]
    return [Span(_whole(text), start) for text, start in zip(found, places, strict=True)]


def _refuse(text: str) -> float:
    raise ValueError(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _whole(text: str) -> str:
    # Half a pair of UTF-16 can be written in JSON, and is not a character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
