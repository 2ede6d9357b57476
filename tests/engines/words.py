"""The few words of a shell that an engine without processes knows.

``echo``, ``printf``, ``seq``, ``sleep``, ``true``, ``false``, ``exit``, ``kill -NAME $$``, and
``trap``; ``while :`` lasts until the run is stopped, ``until test -e FILE`` until
there is one.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Callable, Sequence

FOREVER = 1e9  # seconds


class Ended(Exception):
    """The command is over, with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Unknown(Exception):
    """A word that is not one of the few."""


class Script:
    """One command while it runs; ``say`` is given what it prints."""

    def __init__(self, argv: Sequence[str], say: Callable[[bytes], None]) -> None:
        self._statements = statements_of(argv)
        self._say = say
        self._on_term: str | None = None
        self._woken = asyncio.Event()
        self._asked: int | None = None  # the exit code of what ends it

    async def run(self) -> int:
        """Its exit code. Raises Unknown."""
        try:
            for statement in self._statements:
                await self._do(statement)
                self._heed()
        except Ended as ended:
            return ended.code
        return 0

    def terminate(self) -> None:
        """SIGTERM."""
        if self._on_term is None:
            self.kill(128 + signal.SIGTERM)
        elif self._on_term:
            self._statements = statements_of(("sh", "-c", self._on_term))
            self.kill(-1)

    def kill(self, code: int = 128 + signal.SIGKILL) -> None:
        """End it at once."""
        self._asked = code
        self._woken.set()

    def _heed(self) -> None:
        if self._asked == -1:  # the trap's words take the place of the rest
            self._asked = None
            raise Ended(self._at_once())
        if self._asked is not None:
            raise Ended(self._asked)

    def _at_once(self) -> int:
        for words in self._statements:
            if words[0] == "exit":
                return int(words[1])
            self._print(words)
        return 0

    async def _do(self, words: Sequence[str]) -> None:
        match words:
            case ["sleep", seconds]:
                await self._sleep(float(seconds))
            case ["while", *_]:
                await self._sleep(FOREVER)
            case ["until", "test", "-e", path]:
                while not os.path.exists(path) and self._asked is None:
                    await self._sleep(0.005)
            case ["exit", code]:
                raise Ended(int(code))
            case ["kill", name, "$$"]:
                raise Ended(128 + signal.Signals[f"SIG{name[1:]}"])
            case ["trap", body, "TERM"]:
                self._on_term = body
            case _:
                self._print(words)

    def _print(self, words: Sequence[str]) -> None:
        match words:
            case ["echo", *rest]:
                self._say(" ".join(rest).encode() + b"\n")
            case ["printf", text]:
                self._say(text.encode().decode("unicode_escape").encode())
            case ["seq", count]:
                self._say(b"".join(b"%d\n" % number for number in range(1, int(count) + 1)))
            case ["true"] | ["do", *_] | ["done"]:
                pass
            case ["false"]:
                raise Ended(1)
            case _:
                raise Unknown(" ".join(words))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        if self._asked is None:
            self._woken.clear()


def statements_of(argv: Sequence[str]) -> list[list[str]]:
    """What a command does, one thing after the other."""
    if argv[:2] != ("sh", "-c"):
        return [list(argv)]
    lexer = shlex.shlex(argv[2], posix=True, punctuation_chars=";")
    lexer.whitespace_split = True
    statements: list[list[str]] = [[]]
    for word in lexer:
        if word == ";":
            statements.append([])
        else:
            statements[-1].append(word)
    return [words for words in statements if words]
