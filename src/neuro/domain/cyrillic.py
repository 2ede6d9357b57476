"""Cyrillic letters in Latin ones, for what has no others: the folder of a project, a PDF."""

from __future__ import annotations

_LETTERS = "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґў"
_IN_LATIN = """\
a b v g d e yo zh z i y k l m n o p r s t u f kh ts ch sh shch '' y ' e yu ya i yi ye g w"""
_TABLE = dict(zip(_LETTERS, _IN_LATIN.split(), strict=True))


def in_latin(letter: str) -> str | None:
    """How a Cyrillic letter is spelled in Latin ones; None for any other.

    >>> "".join(in_latin(letter) or letter for letter in "Мой щит 1")
    'Moy shchit 1'
    """
    spelled = _TABLE.get(letter.lower())
    return spelled if spelled is None or letter.islower() else spelled.capitalize()
