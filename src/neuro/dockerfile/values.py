"""Small values inside of instructions, as Go reads and writes them: times, yes and no, lists."""

from __future__ import annotations

import re

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_AMOUNT = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = 2**63 - 1
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(?:([kKmMgGtTpP])(?:i?[bB])?|[bB])?")
_MOST_DIGITS = 19  # before the point; Python reads 4,300 at most
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_WHOLE = re.compile(r"([+-]?)0*([0-9]{1,19})")


def duration(text: str) -> int | None:
    """Nanoseconds of a time such as ``1m30s``. None: that is not a time.

    >>> duration("1.5s")
    1500000000
    """
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total, pos = 0, 0
    while found := _AMOUNT.match(rest, pos):
        whole, _, part = found[1].partition(".")
        whole = whole.lstrip("0")
        if len(whole) > _MOST_DIGITS:
            return None
        unit = _UNITS[found[2]]
        total += int(whole or "0") * unit
        if part:
            total += int(part[:18]) * unit // 10 ** len(part[:18])
        pos = found.end()
        if total > _LONGEST:
            return None
    return sign * total if pos and pos == len(rest) else None


def written_duration(nanoseconds: int) -> str:
    """As Go prints it.

    >>> written_duration(90_000_000_000), written_duration(1_500_000), written_duration(0)
    ('1m30s', '1.5ms', '0s')
    """
    if nanoseconds < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if nanoseconds >= size:
                return _decimal(nanoseconds, size) + unit
        return "0s"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0") if unit > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)


def go_integer(text: str) -> int | None:
    """A number as Go's ``strconv.Atoi`` reads it, zeros before it and a sign included.

    None: that is not one, or does not fit into 64 bits.

    >>> go_integer("0000001"), go_integer("+1"), go_integer("1_0"), go_integer(str(2**63))
    (1, 1, None, None)
    """
    found = _WHOLE.fullmatch(text)
    if found is None:
        return None
    number = int(found[1] + found[2])
    return number if -_LONGEST - 1 <= number <= _LONGEST else None


def boolean(text: str) -> bool | None:
    """Yes or no, in the spellings that Go knows. None: neither."""
    return True if text in _TRUE else False if text in _FALSE else None


def integer(text: str) -> int | None:
    """A whole number of up to 18 digits. None: that is not one."""
    return int(text) if _INTEGER.fullmatch(text) else None


def size(text: str) -> int | None:
    """Bytes of a size such as ``64m`` or ``1.5GiB``: units are powers of 1,024. None: that is none.

    >>> size("64m")
    67108864
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    if len(found[1].partition(".")[0].lstrip("0")) > _MOST_DIGITS:
        return None
    power = " kmgtp".index((found[2] or " ").lower())
    amount = int(float(found[1]) * 1024**power)
    return amount if amount <= _LONGEST else None


def fields(text: str) -> list[str] | None:
    """The fields of one line of CSV. None: a quote stands where it cannot.

    >>> fields('type=cache,"target=/a,b"')
    ['type=cache', 'target=/a,b']
    """
    if not text:
        return None
    found: list[str] = []
    pos = 0
    while True:
        if text.startswith('"', pos):
            end = pos + 1
            while (end := text.find('"', end)) >= 0 and text.startswith('""', end):
                end += 2
            if end < 0:
                return None
            found.append(text[pos + 1 : end].replace('""', '"'))
            end += 1
            if end < len(text) and text[end] != ",":
                return None
        else:
            end = text.find(",", pos)
            end = len(text) if end < 0 else end
            found.append(text[pos:end])
            if '"' in found[-1]:
                return None
        if end >= len(text):
            return found
        pos = end + 1


def quoted(text: str) -> str:
    """A text in double quotes, with the escapes of Go's ``%q``."""
    return '"' + "".join(_ESCAPED.get(char) or _shown(char) for char in text) + '"'


_ESCAPED = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
