"""The file browser as a process of its own, and a client that sends exactly what it is told."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class FileBrowser:
    """``python3 -m neuro.actions.filebrowser`` on any port."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root = root
        self._process = subprocess.Popen(
            [sys.executable, "-m", "neuro.actions.filebrowser", "--root", root, "--port", "0",
             *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()
        self.port = int(self.said.rstrip("/\n").rpartition(":")[2])
        self.host = f"127.0.0.1:{self.port}"

    def __enter__(self) -> FileBrowser:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def peak_memory(self) -> int:
        """The most memory that it ever had, in bytes."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the kernel does not tell")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request; ``headers`` with underscores for dashes."""
        connection = self.connect()
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, named)  # type: ignore[arg-type]
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def put(self, path: str, body: object, **headers: str) -> Answer:
        return self.ask("PUT", path, body, **headers)

    def post(self, path: str, *names: str, headers: dict[str, str] | None = None, **fields: str):  # type: ignore[no-untyped-def]
        """A form as the page sends it: selected names are percent-encoded values."""
        pairs = [("name", quote(name, safe="")) for name in names] + list(fields.items())
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, urlencode(pairs), **(form | (headers or {})))
