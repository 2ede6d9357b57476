"""Whether the way to a registry is open at all, found out beside those who ask."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

from neuro.engines.images.faults import ImageFault
from neuro.engines.images.reach import Reach
from neuro.engines.images.reaching import Place, connection_to

_CONNECT_SECONDS = 5.0
_PATIENCE = 2.0  # seconds that somebody waits for the first answer
_FRESH_SECONDS = 60.0  # that an answer is good for


@dataclass
class _State:
    """Of one host; ``why`` it cannot be reached, None where it can."""

    known: bool = False
    why: str | None = None
    until: float = 0.0
    asking: threading.Event | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Reachability:
    """Remembers what it found out for a minute; then it looks again, and nobody waits for that."""

    def __init__(self, patience: float = _PATIENCE, fresh: float = _FRESH_SECONDS) -> None:
        self._patience = patience
        self._fresh = fresh
        self._states: dict[str, _State] = {}
        self._lock = threading.Lock()

    def why_away(self, host: str) -> str | None:
        """Why nothing of a host (perhaps with a port) answers, None where something does."""
        state = self._state(host)
        with state.lock:
            if time.monotonic() >= state.until and state.asking is None:
                state.asking = threading.Event()
                threading.Thread(
                    target=self._ask, args=(host, state, state.asking), daemon=True
                ).start()
            asking = state.asking
        if not state.known and asking is not None and not asking.wait(self._patience):
            return f"it says nothing for {self._patience:.0f} seconds"
        return state.why

    def forget(self, host: str) -> None:
        """Look again the next time: what was found out is not so any more."""
        state = self._state(host)
        with state.lock:
            state.until, state.known = 0.0, False

    def _state(self, host: str) -> _State:
        with self._lock:
            return self._states.setdefault(host, _State())

    def _ask(self, host: str, state: _State, asking: threading.Event) -> None:
        why = trouble_of(host)
        with state.lock:
            state.known, state.why = True, why
            state.until = time.monotonic() + self._fresh
            state.asking = None
        asking.set()


def trouble_of(host: str) -> str | None:
    """Why a host, perhaps with a port, cannot be reached; None where it can. Blocks."""
    name, _, port = host.partition(":")
    # Through a proxy it is the proxy that knows; otherwise a connection is enough, without TLS.
    proxied = bool(getproxies().get("https")) and not proxy_bypass(name)
    place = Place("https" if proxied else "http", name, int(port or 443))
    try:
        connection = connection_to(place, _CONNECT_SECONDS, Reach())
        with closing(connection):
            connection.connect()
    except ssl.SSLError:
        return None  # it can be reached; what is wrong with it, the pull will say
    except ImageFault as fault:
        return fault.sentence
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
