"""Remarks about commands that do something else than they look like."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

# What a shell would take as its own. A lone ";" is left out: `find -exec` ends with one.
_OPERATORS = {"|", "||", "|&", "&", "&&", "<", "<<", ">", ">>", "2>", "2>>", "2>&1", "&>"}
# Programs whose own arguments these are.
_COMPARING = {"expr", "test", "["}
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
    except ValueError:  # The server says what is wrong with the quotes.
        return None
    found = next((word for word in words[1:] if word in _OPERATORS), None)
    if found is None or words[0] in _COMPARING:
        return None
    line = " ".join(word if word in _OPERATORS else shlex.quote(word) for word in words)
    return (
        f"No shell reads the command: '{found}' is a word like all others. A shell reads it with\n"
        f"  {before} -- bash -c {shlex.quote(line)}"
    )


def keyboard_hint(words: Sequence[str], image: str) -> str | None:
    """What to say of a shell, or the like, that nobody can type into; None for other commands."""
    words = words[1:] if words[:1] == ("--",) else words
    if len(words) != 1 or words[0].rpartition("/")[2] not in _TYPED_INTO:
        return None
    return (
        f"Nobody can type into this job, so that {words[0]} has ended. With a keyboard:\n"
        f"  neuro run -t {image} {words[0]}"
    )
