"""Which characters a text may hold. The type of a field says it; the server checks it once.

A plain ``str`` in a message is one line: a name, a path, a URI, an image. It has no control
character, because those end lines, steer terminals, and (NUL) end a string for the system. Fields
that take more say so by their type: ``Lines``, ``Verbatim`` or ``Message``. No text has a lone
surrogate, which has no bytes.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from neuro.domain.errors import InvalidInput

KIND = "text"

# Text of several lines, or words for a shell: tab and line ends, and no other control character.
Lines = Annotated[str, msgspec.Meta(extra={KIND: "lines"})]
# What a program or a file has said, kept as it is: anything but NUL. Nothing starts a process
# with it, and what shows it in a terminal replaces what a terminal would obey.
Verbatim = Annotated[str, msgspec.Meta(extra={KIND: "verbatim"})]
# Anything: the server itself replaces what cannot be shown, before it keeps the text.
Message = Annotated[str, msgspec.Meta(extra={KIND: "message"})]

_REFUSED = {
    "line": re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]"),
    "lines": re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]"),
    "verbatim": re.compile("[\x00\ud800-\udfff]"),
    "message": re.compile("[\ud800-\udfff]"),
}


def check_text(text: str, field: str, kind: str = "line") -> None:
    """Raise InvalidInput, with the field and the character, for a text that is not of its kind.

    >>> check_text("two\\nlines", "description", "lines")
    """
    found = _REFUSED[kind].search(text)
    if found is not None:
        raise InvalidInput(
            f"{field} has the character {found[0]!a} at position {found.start()}: remove it."
            f" {_ALLOWED[kind]}"
        )


_ALLOWED = {
    "line": "Control characters are not allowed there.",
    "lines": "The only control characters allowed there are tabs and line ends.",
    "verbatim": "All characters but NUL and lone surrogates are allowed there.",
    "message": "All characters but lone surrogates are allowed there.",
}
