"""A program that looks at all that its process was given, or does as it is told: see test_warm.

Written as pip writes console scripts: under another name than __main__ it only imports.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pathlib
import signal
import sys
import threading
import time

LOGS = pathlib.Path("~/.probe/logs").expanduser()
HOME = os.path.expanduser("~")
HERE = os.getcwd()
WANTED = os.environ.get("WANTED")
CALLS: list[str] = []


def state() -> object:
    """What may differ between two processes of one program."""
    module = sys.modules["__main__"]
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    os.umask(umask := os.umask(0))
    return {
        "arguments": [sys.argv, sys.orig_argv],
        "interpreter": [sys.executable, sys.prefix, str(sys.flags), sys.path],
        "main": [__name__, __file__, str(__package__), str(__spec__), vars(module) is globals()],
        "imported": [str(LOGS), HOME, HERE, WANTED],
        "calls": CALLS,
        "variables": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask,
        "descriptors": list(descriptors()),
        "streams": [stream(number) for number in range(3)],
        "handlers": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
        "signals": [line for line in status if line.startswith(("Sig", "Shd", "NoNew"))][1:],
        "group": [os.getpgid(0), os.getsid(0), os.nice(0)],
        "threads": [thread.name for thread in threading.enumerate()],
        "time": [time.tzname, time.timezone],
    }


def stream(number: int) -> object:
    file = (sys.stdin, sys.stdout, sys.stderr)[number]
    kept = (sys.__stdin__, sys.__stdout__, sys.__stderr__)[number]
    return [
        file is kept, file.name, file.mode, file.encoding, file.errors, file.line_buffering,
        file.write_through, file.seekable(), file.isatty(), file.fileno(),
    ]  # fmt: skip


def descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the list itself
            found.append(f"{number} {os.get_inheritable(int(number))}")
    return found


def spoil() -> None:
    """Change all that the next one must not see."""
    CALLS.append("spoil")
    os.environ["SPOILT"] = "1"
    del os.environ["HOME"]
    os.umask(0o777)
    os.chdir("/")
    os.nice(1)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    sys.path.append("/spoilt")
    os.set_inheritable(os.open("/", os.O_RDONLY), True)
    threading.Thread(target=signal.pause, daemon=True).start()
    atexit.register(print, "at the end")


def search(*parts: str) -> None:
    """Print each value that is held anywhere and has the parts, put together, in it."""
    word = "".join(parts)
    gc.unfreeze()
    todo = gc.get_objects()
    while todo:
        for value in gc.get_referents(todo.pop()):
            if isinstance(value, (str, bytes)):
                if word in os.fsdecode(value):
                    print(value)
            elif not gc.is_tracked(value):
                todo.append(value)


def main() -> int | None:
    what, *more = sys.argv[1:]
    if what == "state":
        print(json.dumps(state()))
    elif what == "spoil":
        spoil()
    elif what == "search":
        search(*more)
    elif what == "fail":
        print("on one stream", end="")
        print("on the other", file=sys.stderr)
        raise ValueError("its own")
    elif what == "exit":
        print("not flushed", end="")
        return int(more[0])
    elif what == "die":
        print("flushed", flush=True)
        os.kill(os.getpid(), int(more[0]))
    elif what == "wait":
        print("up", os.getpid(), sep="\n", flush=True)
        signal.pause()
    return None


if __name__ == "__main__":
    sys.exit(main())
