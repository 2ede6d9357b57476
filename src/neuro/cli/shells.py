"""What shells are answered. Bash gives its line as it is typed, and puts answers in as they are."""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from click.shell_completion import BashComplete, CompletionItem, ZshComplete

# All else might mean something to bash.
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
_SPECIAL_IN_DOUBLE_QUOTES = re.compile(r'["\\$`]')


class Typed(NamedTuple):
    """The words of a line that may not be at its end."""

    words: list[str]  # What is meant by them; the last one is being typed.
    quote: str  # The quotation mark that is open, if any.


def typed(line: str) -> Typed:
    r"""Cut a line as bash does.

    >>> typed("show a\\ b 'c d").words
    ['show', 'a b', 'c d']
    >>> typed("show a ").words
    ['show', 'a', '']
    """
    words: list[str] = []
    word, quote = "", ""
    escaped = begun = False
    for sign in line:
        if escaped:
            word += sign if quote == "" or _SPECIAL_IN_DOUBLE_QUOTES.match(sign) else f"\\{sign}"
            escaped = False
        elif sign == "\\" and quote != "'":
            begun = escaped = True
        elif quote:
            word, quote = (word, "") if sign == quote else (word + sign, quote)
        elif sign in "'\"":
            begun, quote = True, sign
        elif not sign.isspace():
            begun = True
            word += sign
        elif begun:
            words.append(word)
            word, begun = "", False
    return Typed([*words, word], quote)


def quoted(text: str, quote: str = "") -> str:
    r"""A text as it has to be typed, where a quotation mark is perhaps open.

    >>> quoted("it's"), quoted("it's", "'"), quoted("$1", '"')
    ("it\\'s", "it'\\''s", '\\$1')
    """
    if quote == "'":
        return text.replace("'", r"'\''")
    special = _SPECIAL_IN_DOUBLE_QUOTES if quote else _SPECIAL
    return special.sub(r"\\\g<0>", text)


def _option_of(word: str) -> str:
    """The option that stands in one word before its value; of it nothing is said in answers."""
    option, equals, _ = word.partition("=")
    return option + equals if equals and option.startswith("-") else ""


class Bash(BashComplete):
    """Reads ``COMP_WORDS``, the line up to the cursor, and ``COMP_TEXT``.

    That is the end of the line in whose place an answer is put. It is not always a word: bash cuts
    at colons too, and behind a quotation mark that is open.
    """

    name: ClassVar[str] = "bash"

    @cached_property
    def _words(self) -> list[str]:
        return typed(os.environ["COMP_WORDS"]).words

    @cached_property
    def _ahead(self) -> Typed:
        return typed(os.environ["COMP_WORDS"].removesuffix(os.environ["COMP_TEXT"]))

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and that one."""
        return self._words[1:-1], self._words[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A kind and a text, which is put in as it is."""
        if item.type != "plain":
            return f"{item.type},"
        whole = f"{_option_of(self._words[-1])}{item.value}"
        text = whole.removeprefix(self._ahead.words[-1])
        return f"plain,{quoted(text, self._ahead.quote)}"


class Zsh(ZshComplete):
    """Answers with whole words, which zsh itself puts in quotes."""

    name: ClassVar[str] = "zsh"

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A kind, a word and what is said of it, or an underscore; each in its line."""
        option = _option_of(self.get_completion_args()[1])
        return f"{item.type}\n{option}{item.value}\n{(item.help or '_').splitlines()[0]}"
