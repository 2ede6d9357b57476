"""Messages of Protocol Buffers, as far as BuildKit's need it: numbers, bytes and messages in them.

What a message means is its reader's to know. Nothing here depends on a description of messages.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DIGITS = 10  # of a number of 64 bits
_SIZES = {_FIXED64: 8, _FIXED32: 4}

Value = int | bytes


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a message; one that is empty or 0 is left out, as everybody does.

    >>> field(1, "hi").hex()
    '0a026869'
    """
    if not value:
        return b""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value & (1 << 64) - 1)
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return inner(number, value)


def inner(number: int, message: bytes) -> bytes:
    """A message as a field of another one, also where it is empty."""
    return _varint(number << 3 | _BYTES) + _varint(len(message)) + message


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message in their order. Raises ValueError for what is not one.

    >>> list(fields(field(1, "hi") + field(2, 300)))
    [(1, b'hi'), (2, 300)]
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind, number = key & 7, key >> 3
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"a field of the kind {kind}")
        if at + size > len(message):
            raise ValueError("a message that is cut")
        yield number, message[at : at + size]
        at += size


class Message:
    """The fields of a message by their numbers; of several of one number, the last counts.

    What is of another kind than is asked for is not there. Raises ValueError for what is not one.

    >>> message = Message(field(1, "hi") + field(2, 300))
    >>> message.text(1), message.number(2), message.number(3)
    ('hi', 300, 0)
    """

    def __init__(self, message: bytes) -> None:
        self._numbers: dict[int, int] = {}
        self._bytes: dict[int, bytes] = {}
        for name, value in fields(message):
            if isinstance(value, int):
                self._numbers[name] = value
            else:
                self._bytes[name] = value

    def __contains__(self, name: int) -> bool:
        return name in self._numbers or name in self._bytes

    def number(self, name: int, default: int = 0) -> int:
        return self._numbers.get(name, default)

    def data(self, name: int) -> bytes:
        return self._bytes.get(name, b"")

    def text(self, name: int) -> str:
        return self.data(name).decode("utf-8", "replace")


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for count in range(_MOST_DIGITS):
        if at + count >= len(message):
            raise ValueError("a number that is cut")
        digit = message[at + count]
        number |= (digit & 0x7F) << 7 * count
        if digit < 0x80:
            return number, at + count + 1
    raise ValueError("a number of more than 64 bits")
