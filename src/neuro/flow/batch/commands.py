"""Commands in a task's output: ``::set-output name=x::value`` and its kin.

Output is looked at in the pieces it comes in. Lines are taken apart only where ``::`` occurs, and
nothing is kept but the values and a line that is not whole yet, so half a gigabyte of output takes
seconds and little memory.
"""

from __future__ import annotations

import re

MAX_VALUE_BYTES = 1 << 20
MAX_VALUES_BYTES = 4 << 20

# The longest line that can be a command: a value, and room for what is around it.
_MAX_LINE = MAX_VALUE_BYTES + 4096
_MAX_WARNINGS = 100

# Lines end with \n, \r\n or \r: what follows a progress bar stands in a line of its own.
_HERE = re.compile(rb"[^\S\r\n]*::")
_LATER = re.compile(rb"[\r\n]([^\S\r\n]*::)")
_LINE_END = re.compile(rb"\r\n|[\r\n]")
_WITHIN = re.compile(
    rb"::\s*(set-output|save-state)\s+name\s*=\s*([A-Za-z][A-Za-z0-9_]*)\s*(?:::|<<)"
)
_SET = re.compile(
    rb"::\s*(set-output|save-state)\s+name\s*=\s*([A-Za-z][A-Za-z0-9_]*)\s*"
    rb"(?:::(.*)|<<\s*(\S+))",
    re.DOTALL,
)
_STOP = re.compile(rb"::\s*stop-commands\s*::\s*(\S.*)", re.DOTALL)


class CommandReader:
    """Reads the output of one task; what ``feed`` and ``close`` return is for people.

    ``outputs`` and ``state`` are what its commands have set. ``warnings`` are about commands that
    nobody knows; ``problem`` says why the task has failed, whatever its job says.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, str] = {}
        self.state: dict[str, str] = {}
        self.warnings: list[str] = []
        self.problem: str | None = None
        # A line whose end is still to come: what might be a command is kept, of any other line it
        # is enough to know that its rest is to be shown (or not: a command that is too long).
        self._kept = b""
        # Commands that stood in the middle of a line; a shell's trace repeats them there.
        self._within: dict[tuple[str, str], None] = {}
        self._in_plain = False
        self._in_dropped = False
        self._stop: bytes | None = None
        self._end: bytes | None = None
        self._target = ("", "")
        self._lines: list[bytes] = []
        self._size = 0
        self._sizes: dict[tuple[str, str], int] = {}
        self._total = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of output; return what of it is to be shown."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        shown: list[bytes] = []
        start = 0
        if self._in_plain or self._in_dropped:
            end = _LINE_END.search(data)
            start = end.end() if end else 0
            if self._in_plain:
                shown.append(self._plain(data[: start or len(data)]))
            if not start:
                return b"".join(shown)
            self._in_plain = self._in_dropped = False
        while start < len(data):
            if self._end is not None:
                start = self._collect(data, start)
            else:
                start = self._pass(data, start, shown)
        return shown[0] if len(shown) == 1 else b"".join(shown)

    def close(self) -> bytes:
        """The output has ended; return what is still to be shown."""
        line, self._kept = self._kept, b""
        shown = b""
        if line and self._end is None:
            shown = self._line(line)
        elif line:
            self._collect_line(line)
        if self._end is not None:
            self._end = None
            self._warn(
                f"`{self._target[0]}` of {self._target[1]} is not closed: the line after its value"
                " is missing"
            )
            self._lines = []
        for command, name in self._within:
            if name not in (self.outputs if command == "set-output" else self.state):
                self._warn(
                    f"`::{command}` of {name} stands in the middle of a line and sets nothing:"
                    " print a line end before it"
                )
        return shown

    def _plain(self, data: bytes) -> bytes:
        """Output that is shown as it is; commands that are lost in it are noted."""
        if self._stop is None and data.find(b"::") >= 0:
            for found in _WITHIN.finditer(data):
                if len(self._within) < _MAX_WARNINGS:
                    self._within[found[1].decode(), found[2].decode()] = None
        return data

    def _pass(self, data: bytes, start: int, shown: list[bytes]) -> int:
        """Show lines up to the first that may be a command, and take that; return its end."""
        begin = self._beginning(data, start)
        if begin is None:
            # The last line may still become a command's.
            last = max(data.rfind(b"\n"), data.rfind(b"\r"), start - 1) + 1
            if last < len(data) and self._may_begin(data[last:]):
                shown.append(self._plain(data[start:last]))
                self._kept = data[last:]
            else:
                shown.append(self._plain(data[start:] if start else data))
                self._in_plain = last < len(data)
            return len(data)
        if begin > start:
            shown.append(self._plain(data[start:begin]))
        end = _LINE_END.search(data, begin)
        # A \r that comes last may be half of an end.
        if end is not None and (end.end() < len(data) or end[0] != b"\r"):
            shown.append(self._line(data[begin : end.end()]))
            return end.end()
        self._keep(data[begin:], shown)
        return len(data)

    @staticmethod
    def _beginning(data: bytes, start: int) -> int | None:
        """Where the first line begins that may be a command; ``start`` begins a line."""
        if data.find(b"::", start) < 0:
            return None
        if _HERE.match(data, start):
            return start
        found = _LATER.search(data, start)
        return found.start(1) if found else None

    @staticmethod
    def _may_begin(line: bytes) -> bool:
        return len(line) <= _MAX_LINE and line.strip() in (b"", b":")

    def _keep(self, line: bytes, shown: list[bytes]) -> None:
        if len(line) <= _MAX_LINE:
            self._kept = line
        elif self._stop is not None:
            shown.append(line)
            self._in_plain = True
        else:
            found = _SET.match(line.lstrip())
            if found:
                self._too_large(found[2].decode())
            else:
                self._unknown(line.lstrip())
            self._in_dropped = True

    def _line(self, line: bytes) -> bytes:
        """Take a whole line that begins like a command; return it where it is to be shown."""
        text = line.strip()
        if self._stop is not None:
            if text == b"::" + self._stop + b"::":
                self._stop = None
                return b""
            return line
        if not text.startswith(b"::"):
            return line
        if found := _SET.fullmatch(text):
            command, name = found[1].decode(), found[2].decode()
            if found[3]:
                self._set(command, name, found[3])
            elif found[4] is None:
                shown = text.decode()
                self._warn(f"A value needs at least one character: {shown} has none")
            else:
                self._target, self._end, self._size = (command, name), found[4], 0
                self._lines = []
        elif found := _STOP.fullmatch(text):
            self._stop = found[1].strip()
        else:
            self._unknown(text)
        return b""

    def _collect(self, data: bytes, start: int) -> int:
        """Take a line of a value of several lines; return its end."""
        end = data.find(b"\n", start) + 1
        if not end:
            rest = data[start:]
            if len(rest) <= _MAX_LINE:
                self._kept = rest
            else:
                self._too_large(self._target[1])
                self._in_dropped = True
                self._size += len(rest)
            return len(data)
        self._collect_line(data[start : end - 1])
        return end

    def _collect_line(self, line: bytes) -> None:
        if line.strip() == self._end:
            self._end = None
            command, name = self._target
            value = b"\n".join(self._lines)
            self._lines = []
            if self._size <= MAX_VALUE_BYTES + 1:
                self._set(command, name, value)
            return
        self._size += len(line) + 1
        if self._size > MAX_VALUE_BYTES + 1:
            self._too_large(self._target[1])
            self._lines = []
        else:
            self._lines.append(line.removesuffix(b"\r"))

    def _set(self, command: str, name: str, value: bytes) -> None:
        if len(value) > MAX_VALUE_BYTES:
            self._too_large(name)
            return
        values = self.outputs if command == "set-output" else self.state
        # A database's texts have no zero characters.
        text = value.decode("utf-8", "replace").replace("\0", "\ufffd")
        size = len(name) + (len(value) if text.isascii() else len(text.encode()))
        total = self._total + size - self._sizes.get((command, name), 0)
        if total > MAX_VALUES_BYTES:
            self._fail(
                f"The outputs and the state of a task are {MAX_VALUES_BYTES >> 20} MiB at most"
                " together: write what is larger to the storage, and give its path."
            )
            return
        self._total, self._sizes[command, name] = total, size
        values[name] = text

    def _too_large(self, name: str) -> None:
        self._fail(
            f"The value of {name} is larger than {MAX_VALUE_BYTES >> 20} MiB: write it to the"
            " storage, and give its path."
        )

    def _fail(self, problem: str) -> None:
        if self.problem is None:
            self.problem = problem

    def _unknown(self, text: bytes) -> None:
        self._warn(f"Unknown command {text[:200].decode('utf-8', 'replace')}")

    def _warn(self, warning: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(warning)
