"""Remarks about commands that do something else than they look like."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# What a shell would take as its own. A lone ";" is left out: `find -exec` ends with one.
_OPERATORS = {"|", "||", "|&", "&", "&&", "<", "<<", ">", ">>", "2>", "2>>", "2>&1", "&>"}
# Programs whose own arguments these are.
_COMPARING = {"expr", "test", "["}
# Words that need no quotes (variables are for the shell inside), and what double quotes change.
_PLAIN = re.compile(r"[\w@%+=:,./$-]+")
_QUOTED = re.compile(r"""["'\\`!]""")
# What waits for what a person types, if it is called without arguments.
_TYPED_INTO = {"bash", "sh", "zsh", "fish", "dash", "python", "python3", "ipython", "julia", "R"}


def shell_hint(command: str | None, before: str) -> str | None:
    """What to say of a command with a word that only a shell understands; None for any other.

    ``before`` is the part of the command line that stands before the command.

    >>> print(shell_hint("ls '|' wc -l", "neuro run ubuntu"))
    No shell reads the command: '|' is a word like all others. A shell reads it with
      neuro run ubuntu -- bash -c 'ls | wc -l'
    """
    try:
        words = shlex.split(command or "")
        bare = _bare_operator(command or "")
    except ValueError:  # The server says what is wrong with the quotes.
        return None
    found = next((word for word in words[1:] if word in _OPERATORS), None)
    if (found is None and bare is None) or words[0] in _COMPARING:
        return None
    # A command of one word is what a shell would read; of several, each was taken from its quotes.
    line = command if bare else " ".join(map(_readable, words))
    what = f"'{found}' is a word" if found else f"'{bare}' is a character"
    return (
        f"No shell reads the command: {what} like all others. A shell reads it with\n"
        f"  {before} -- bash -c {shlex.quote(str(line).strip())}"
    )


def _bare_operator(command: str) -> str | None:
    """The first operator of ``command`` that stands there without quotes."""
    words = shlex.split(command, posix=False)  # Not as POSIX has it: words keep their quotes.
    if any(len(word) > 1 and word.endswith(";") and word[-2] != "\\" for word in words[:-1]):
        return ";"
    return next((word for word in words[1:] if word in _OPERATORS), None)


def _readable(word: str) -> str:
    """A word as a shell has to read it inside of single quotes: double ones, where it needs any."""
    if word in _OPERATORS or _PLAIN.fullmatch(word):
        return word
    return shlex.quote(word) if _QUOTED.search(word) else f'"{word}"'


def keyboard_hint(words: Sequence[str], image: str) -> str | None:
    """What to say of a shell, or the like, that nobody can type into; None for other commands."""
    words = words[1:] if words[:1] == ("--",) else words
    if len(words) != 1 or words[0].rpartition("/")[2] not in _TYPED_INTO:
        return None
    return (
        f"Nobody can type into this job, so {words[0]} has ended. With a keyboard:\n"
        f"  neuro run -t {image} {words[0]}"
    )
