"""A machine's network to try the jobs' fence in, apart from the real one: three namespaces.

``lan`` is a machine beside the host, at 192.0.2.9; the host has 192.0.2.1 there.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from neuro.engines.sandbox import network
from neuro.engines.sandbox.firewall import Fence

HOST, LAN = "192.0.2.1", "192.0.2.9"
SUBNET = "10.213.0.0"
REFUSED = "refused"
FORWARD = "/proc/sys/net/ipv4/ip_forward"

_LISTEN = """
import socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
scope = socket.if_nametoindex(sys.argv[3]) if len(sys.argv) > 3 else 0
listener = socket.socket(family, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
where = (sys.argv[1], int(sys.argv[2]))
listener.bind((*where, 0, scope) if family == socket.AF_INET6 else where)
listener.listen()
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind(listener.getsockname())

def echo():
    while True:
        data, sender = datagrams.recvfrom(1000)
        datagrams.sendto(sender[0].encode(), sender)

threading.Thread(target=echo, daemon=True).start()
print(listener.getsockname()[1], flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""

# A refusal of the rules comes at once as an ICMP message; what is dropped never answers.
_ASK = """
import socket, sys
host, port, kind, patience = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
asker = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
asker.settimeout(patience)
scope = socket.if_nametoindex(sys.argv[5]) if len(sys.argv) > 5 else 0
try:
    asker.connect((host, port, 0, scope) if family == socket.AF_INET6 else (host, port))
    if kind == "udp":
        asker.send(b"hello")
    print(asker.recv(1000).decode())
except OSError as error:
    print("refused", error)
"""

_JOB = """
import json, sys, time
from neuro.engines.sandbox import network
print(network.enter_new(*json.loads(sys.argv[1])), flush=True)
sys.stdin.read()
"""

_CALL = """
import json, sys
from neuro.engines.sandbox import firewall, nat, network
what, given = sys.argv[1], json.loads(sys.argv[2])
if what == "set_up":
    given["resolvers"] = tuple(given["resolvers"])
    print(json.dumps(nat.set_up(firewall.Fence(**given))))
elif what == "tear_down":
    nat.tear_down(*given)
else:
    getattr(network, what)(*given)
"""


class Job:
    """A process in a network of its own, as a job has it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.pid = process.pid
        self.address = address


class Lab:
    """The three namespaces, and what runs in them; all of it is gone at the end."""

    def __init__(self) -> None:
        self._name = f"neuro-{secrets.token_hex(3)}"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for side in ("host", "lan"):
            _run("ip", "netns", "add", f"{self._name}-{side}")
        self.on_host("ip", "link", "set", "lo", "up")
        self.on_host("sh", "-c", f"echo 0 > {FORWARD}")  # a new namespace has the machine's value
        self.on_host(
            *("ip", "link", "add", "up0", "type", "veth", "peer", "name", "lan0"),
            *("netns", f"{self._name}-lan"),
        )
        self.on_host("ip", "address", "add", f"{HOST}/24", "dev", "up0")
        self.on_host("ip", "link", "set", "up0", "up")
        self.on_host("ip", "route", "add", "default", "via", LAN)
        self.on_lan("ip", "link", "set", "lo", "up")
        self.on_lan("ip", "address", "add", f"{LAN}/24", "dev", "lan0")
        self.on_lan("ip", "link", "set", "lan0", "up")
        self.on_lan("ip", "route", "add", "10.0.0.0/8", "via", HOST)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        for side in ("host", "lan"):
            _run("ip", "netns", "delete", f"{self._name}-{side}")

    def on_host(self, *command: str) -> str:
        """What a command on the host says."""
        return _run(*self._in("host"), *command)

    def on_lan(self, *command: str) -> str:
        """What a command on the machine beside it says."""
        return _run(*self._in("lan"), *command)

    def in_job(self, job: Job, *command: str) -> str:
        """What a command in a job's network says."""
        return _run("nsenter", f"--net=/proc/{job.pid}/ns/net", *command)

    def set_up(self, fence: Fence, *, without: str = "") -> list[str]:
        """``nat.set_up`` on the host, which has not the program ``without``; its notices."""
        given = json.dumps(asdict(fence))
        notices: list[str] = json.loads(self._call("set_up", given, without))
        return notices

    def tear_down(self, fence: Fence, *, without: str = "") -> None:
        """``nat.tear_down`` on the host, which has not the program ``without``."""
        self._call("tear_down", json.dumps([fence.installation, fence.subnet]), without)

    def _call(self, what: str, given: str, without: str = "") -> str:
        python = [sys.executable, "-c", _CALL, what, given]
        if not without:
            return self.on_host(*python)
        # A mount namespace in which the program is an empty file that cannot be executed.
        hide = f'for each in $(which -a {without}); do mount --bind /dev/null "$each"; done'
        return self.on_host("unshare", "-m", "sh", "-c", f'{hide}; exec "$@"', "sh", *python)

    def join_group(self, job: Job, number: int) -> None:
        """Make a job a neighbour of those with the same number."""
        self._call("join_group", json.dumps([job.address, number]))

    def refuse_on_host(self, networks: Sequence[str], resolvers: Sequence[str]) -> None:
        """``network.refuse`` in the host's place, as in a network that pasta made."""
        self._call("refuse", json.dumps([networks, resolvers]))

    def forwards(self) -> bool:
        """Whether the host forwards packets."""
        return self.on_host("cat", FORWARD).strip() == "1"

    def job(self, fence: Fence, group: int = 0) -> Job:
        """A job of an installation."""
        given = json.dumps([fence.subnet, 1500, network.interfaces(fence.installation)])
        process = self._start(*self._in("host"), sys.executable, "-c", _JOB, given)
        assert process.stdout is not None
        job = Job(process, process.stdout.readline().strip())
        assert job.address, "the job has no network"
        if group:
            self.join_group(job, group)
        return job

    def interface(self, fence: Fence, job: Job) -> str:
        """The name of the host's side of a job's network."""
        third, fourth = (int(number) for number in job.address.split(".")[2:])
        return f"{network.interfaces(fence.installation)}{third:02x}{fourth:02x}"

    def listen_on_host(self, address: str, port: int = 0, *interface: str) -> int:
        """Serve TCP and UDP; each caller is told its own address. The port."""
        return self._listen(self._in("host"), address, port, *interface)

    def listen_on_lan(self, address: str, port: int = 0) -> int:
        """Serve on the machine beside the host."""
        return self._listen(self._in("lan"), address, port)

    def listen_in(self, job: Job, address: str = "0.0.0.0", port: int = 0) -> int:
        """Serve in a job."""
        return self._listen(("nsenter", f"--net=/proc/{job.pid}/ns/net"), address, port)

    def _listen(self, place: tuple[str, ...], address: str, port: int, *interface: str) -> int:
        python = (sys.executable, "-ISc", _LISTEN, address, str(port), *interface)
        process = self._start(*place, *python)
        assert process.stdout is not None
        return int(process.stdout.readline())

    def ask(
        self,
        asker: Job | str,
        address: str,
        port: int,
        kind: str = "tcp",
        *,
        interface: str = "",
        patience: float = 10.0,
    ) -> str:
        """What is answered to a job, to the "host" or to the "lan": the asker's address or REFUSED.

        REFUSED is also ``patience`` seconds of silence.
        """
        place = (
            self._in(asker)
            if isinstance(asker, str)
            else ("nsenter", f"--net=/proc/{asker.pid}/ns/net")
        )
        words = [address, str(port), kind, str(patience), *([interface] if interface else [])]
        answer = _run(*place, sys.executable, "-ISc", _ASK, *words).strip()
        return REFUSED if answer.startswith(REFUSED) else answer

    def refuses(
        self, asker: Job | str, address: str, port: int, kind: str = "tcp", *, interface: str = ""
    ) -> bool:
        """Whether nothing is answered. What is let through answers at once, so this waits 0.3 s."""
        asked = self.ask(asker, address, port, kind, interface=interface, patience=0.3)
        return asked == REFUSED

    def _in(self, side: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", f"{self._name}-{side}")

    def _start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        return process


@contextmanager
def fenced(**options: Any) -> Iterator[tuple[Lab, Fence]]:
    """A lab whose host has one installation's rules."""
    with Lab() as lab:
        fence = make_fence(**options)
        lab.set_up(fence)
        yield lab, fence


def make_fence(installation: str = "0a1b2c3d", **options: Any) -> Fence:
    """The fence of an installation whose API is at port 7000."""
    address = network.host_address(installation, SUBNET)
    options.setdefault("port", 7000)
    return Fence(installation=installation, subnet=SUBNET, host_address=address, **options)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
