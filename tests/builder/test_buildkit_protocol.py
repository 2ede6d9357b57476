"""What is said between our builder and a daemon's BuildKit, without a daemon."""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, TrailersReceived
from hypothesis import given
from hypothesis import strategies as st

from neuro.builder import files
from neuro.builder.buildkit import offering
from neuro.builder.buildkit.fitting import Unfit, check_registries
from neuro.builder.buildkit.protobuf import field, fields, inner
from neuro.builder.buildkit.rewriting import rewritten
from neuro.builder.buildkit.session import Session
from neuro.builder.buildkit.trace import Trace
from neuro.builder.faults import BuildFault
from neuro.builder.reporting import Report
from neuro.builder.sources import ANYWHERE
from neuro.dockerfile.image import Image, ImageConfig
from neuro.dockerfile.parser import parse
from neuro.dockerfile.plan import plan
from neuro.dockerfile.platforms import Platform
from neuro.dockerfile.steps import BaseImage, ImagesNeeded
from neuro.engines.runs import PullCredentials

_HERE = Platform("linux", "amd64")


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 2**64 - 1) | st.binary(min_size=1))))
def test_a_message_is_read_as_it_was_written(parts: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(b"".join(field(*part) for part in parts))) == parts


@given(st.binary())
def test_bytes_that_nobody_wrote_end_in_fields_or_a_value_error(body: bytes) -> None:
    with suppress(ValueError):
        list(fields(body))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff", id="a number without an end"),
        pytest.param(b"\x0a\x05ab", id="fewer bytes than it says"),
        pytest.param(b"\x08", id="a field without a value"),
    ],
)
def test_a_message_that_is_cut_off_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        list(fields(body))


# The Dockerfile for the daemon.


def _rewritten(text: str, target: str = "", on_build: tuple[str, ...] = ()) -> str:
    tree = parse(text)
    images: dict[BaseImage, Image] = {}
    while True:
        made = plan(tree, target, {"ARGUMENT": "given"}, _HERE, images=images)
        missing = made.images if isinstance(made, ImagesNeeded) else ()
        if not isinstance(made, ImagesNeeded):
            missing = tuple(
                one.image
                for one in made.steps
                if getattr(one, "image", None) and one.image not in images  # type: ignore[union-attr]
            )
            if not missing:
                return rewritten(tree, made.bases, _named, images)
        config = ImageConfig(on_build=on_build)
        images |= dict.fromkeys(missing, Image(architecture="amd64", os="linux", config=config))


def _named(image: BaseImage) -> str:
    return f"<{image.reference}>"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM a\nRUN b", "FROM <a:latest>\nRUN b"),
        ("FROM a:1 AS x\nFROM x\nRUN b", "FROM <a:1> AS x\nFROM x\nRUN b"),
        ("ARG ARGUMENT\nFROM r/$ARGUMENT", "ARG ARGUMENT\nFROM <r/given:latest>"),
        ("FROM image:a:1 AS x\nFROM image:a:1\n", "FROM scratch AS x\nFROM <image:a:1>\n"),
        ("FROM a\nCOPY <<E /\nFROM b\nE\nADD http://h/f /\n\n # x\n FROM b AS Two\n ADD c /\n"
         "FROM d\nCOPY --from=0000001 / /\nFROM e",
         "FROM scratch\n\n\n\n\n\n\nFROM scratch AS Two\n\nFROM scratch\n\nFROM <e:latest>"),
        ("FROM a\nADD http://h/f /\nFROM b\nFROM c\nCOPY --from=0000001 / /",
         "FROM scratch\n\nFROM <b:latest>\nFROM <c:latest>\nCOPY --from=0000001 / /"),
        ("ARG S=scratch\nFROM $S AS z\nFROM a\nCOPY --from=z / /",
         "ARG S=scratch\nFROM scratch AS z\nFROM <a:latest>\nCOPY --from=z / /"),
        ("ARG X=y\nFROM a AS y\nFROM $X", "ARG X=y\nFROM <a:latest> AS y\nFROM y"),
        ("FROM \\\n # why\n a\n", "FROM \\\n # why\n <a:latest>\n"),
        ("FROM a\nCOPY --from=image:/b/c /x /y",
         "FROM <a:latest>\nCOPY --from=<image:/b/c:latest> /x /y"),
        ("FROM a\nCOPY --from=b:2 /x /y", "FROM <a:latest>\nCOPY --from=<b:2> /x /y"),
        ("FROM a AS b\nFROM a\nCOPY --from=b /x /", "FROM <a:latest> AS b\nFROM <a:latest>\n"
         "COPY --from=b /x /"),
        ("FROM a\nFROM a\nCOPY --from=0 /x /", "FROM <a:latest>\nFROM <a:latest>\n"
         "COPY --from=0 /x /"),
        ("FROM a\nRUN --mount=from=b,target=/m --mount=type=cache,from=c,target=/n ls",
         "FROM <a:latest>\nRUN --mount=from=<b:latest>,target=/m"
         " --mount=type=cache,from=<c:latest>,target=/n ls"),
        ("#syntax=docker/dockerfile:1\n#escape=`\n\nFROM `\n a",
         "# escape=`\n#\n#\nFROM `\n <a:latest>"),
        ("# syntax = docker/dockerfile:1\nFROM a", "#\nFROM <a:latest>"),
        ("#!/usr/bin/env x\n# syntax=nobody/frontend\nFROM a", "#\n#\nFROM <a:latest>"),
        ("FROM a\nRUN <<END\n# syntax=b\nFROM b\nEND\n",
         "FROM <a:latest>\nRUN <<END\n# syntax=b\nFROM b\nEND\n"),
    ],
)  # fmt: skip
def test_images_are_named_by_what_they_are(text: str, wanted: str) -> None:
    assert _rewritten(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        # Each of them keeps a name that the daemon would ask for by itself.
        "FROM a\nCOPY --exclude=--from=R/b --from=R/b / /",
        "FROM a\nRUN --mount=source=/from=R/b,target=/m,from=R/b ls",
        "FROM a\nRUN --mount=from=R/b,from=R/b,target=/m ls",
        "FROM a\nRUN --mount=from=c,target=/m,FROM=R/b ls",
        "FROM a\nONBUILD COPY --from=R/b / /",
        "FROM a AS x\nONBUILD COPY --from=R/b / /\nFROM x",
        "FROM a\nONBUILD ADD http://127.0.0.1/f /f",
        "FROM a\nARG X=git://h/r\nADD GIT://127.0.0.1/r /f",
    ],
)
def test_what_keeps_a_name_is_not_for_the_daemon(text: str) -> None:
    with pytest.raises(Unfit):
        _rewritten(text.replace("R/", "r/"))


@pytest.mark.parametrize(
    "trigger", ["COPY --from=r/b / /", "RUN --mount=from=r/b,target=/m ls", "ADD HTTP://h/f /f"]
)
def test_nor_is_a_base_that_asks_for_more(trigger: str) -> None:
    with pytest.raises(Unfit):
        _rewritten("FROM a\nRUN b", on_build=(trigger,))


def test_a_base_may_ask_for_what_is_in_the_build() -> None:
    text = "FROM scratch AS x\nCOPY x /\nFROM a"

    found = _rewritten(text, on_build=("COPY --from=x /x /", "RUN true"))

    assert found == "FROM scratch AS x\nCOPY x /\nFROM <a:latest>"


def test_a_mount_has_no_stages_by_number() -> None:
    found = _rewritten("FROM a\nRUN --mount=target=/m,from=99 ls")

    assert found == "FROM <a:latest>\nRUN --mount=target=/m,from=<99:latest> ls"


def test_a_name_in_two_pieces_is_not_for_the_daemon() -> None:
    with pytest.raises(Unfit, match="is not written in one piece"):
        _rewritten("FROM a\nCOPY --from=\\\nb:2 /x /y")


def test_images_of_other_registries_are_not_for_the_daemon() -> None:
    own = {"lab:80", "127.0.0.1:8085"}

    check_registries({"image:a:1": "lab:80", "lab/me/b": "127.0.0.1:8085"}, own)
    for host in ("docker.io", "lab", "lab:81"):
        with pytest.raises(Unfit, match="is in another registry than the platform's"):
            check_registries({"image:a:1": "lab:80", "x": host}, own)


# What it tells.


def _status(*parts: bytes) -> str:
    return base64.b64encode(b"".join(parts)).decode()


def test_steps_are_told_in_our_manner() -> None:
    out = io.StringIO()
    trace = Trace(Report(out, lambda: 0.0))
    begun = field(1, "d") + field(3, "[2/2] RUN a") + inner(5, b"")
    log = field(1, "d") + field(3, 1) + field(4, "one\ntwo\n")

    trace.take(_status(inner(1, field(1, "d") + field(3, "[2/2] RUN a"))))  # it waits
    trace.take(_status(inner(1, begun), inner(3, log)))
    trace.take(_status(inner(1, begun + inner(6, b"") + field(7, "exit code: 3"))))
    trace.take(_status(inner(1, field(1, "e") + field(3, "other") + field(4, 1))))

    said = out.getvalue().splitlines()
    assert said[:2] == ["#1 [2/2] RUN a", "#1 0.000 one"]
    assert said[3:] == ["#1 ERROR: exit code: 3", "#2 other", "#2 CACHED"]
    assert trace.failure is not None
    assert (trace.failure.step, trace.failure.output[0]) == ("RUN a", "0.000 one")


def test_each_quarter_of_what_is_fetched_is_told_once() -> None:
    out = io.StringIO()
    trace = Trace(Report(out, lambda: 0.0))

    def status(name: str, here: int, size: int) -> bytes:
        said = field(1, name) + field(2, "d") + field(4, here) + field(5, size)
        return inner(2, said)

    trace.take(_status(status("a", 1, 2)))  # of a step that nobody has told of
    trace.take(_status(inner(1, field(1, "d") + field(3, "[1/1] FROM x") + inner(5, b""))))
    for here in range(5):
        trace.take(_status(status("a", 2 * here, 8), status("b", here, 4), status("c", here, 0)))

    assert out.getvalue().splitlines() == ["#1 [1/1] FROM x", "#1 0%", "#1 25%", "#1 50%", "#1 75%"]


@given(st.text() | st.binary().map(lambda body: base64.b64encode(body).decode()))
def test_a_record_that_nobody_wrote_ends_in_nothing_or_a_value_error(record: str) -> None:
    with suppress(ValueError):
        Trace(Report(io.StringIO())).take(record)


@pytest.mark.parametrize("record", ["not base64", base64.b64encode(b"\xff").decode()])
def test_a_record_that_cannot_be_read_is_refused(record: str) -> None:
    with pytest.raises(ValueError):
        Trace(Report(io.StringIO())).take(record)


# What it asks for.


class _Asking:
    """The daemon's end of a session."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()

    def call(
        self, path: str, *messages: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[list[bytes], int]:
        """Send messages, and take what comes until the call is over: it, and the status."""
        stream = self._http.get_next_available_stream_id()
        named = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": path}
        self._http.send_headers(stream, [*named.items(), *(headers or {}).items()])
        for one in messages:
            self._http.send_data(stream, b"\0" + len(one).to_bytes(4, "big") + one)
        come, status, is_over = b"", -1, False
        while not is_over:
            self._socket.sendall(self._http.data_to_send())
            piece = self._socket.recv(1 << 16)
            assert piece, "the session was ended"
            for event in self._http.receive_data(piece):
                if isinstance(event, DataReceived):
                    come += event.data or b""
                    size = event.flow_controlled_length or 0
                    self._http.acknowledge_received_data(size, stream)
                elif isinstance(event, TrailersReceived):
                    status = int(dict(event.headers or ())["grpc-status"])
                elif isinstance(event, StreamEnded):
                    is_over = True
        found = []
        while come:
            end = 5 + int.from_bytes(come[1:5], "big")
            found.append(come[5:end])
            come = come[end:]
        return found, status


@contextmanager
def _session(
    folder: Path, secrets: Callable[[str], bytes | None] = {"word": b"hidden"}.get
) -> Iterator[_Asking]:
    ours, theirs = socket.socketpair()
    passwords = {"here:5000": PullCredentials("me", "secret")}.get
    with files.context(str(folder), str(folder / "Dockerfile"), ANYWHERE) as context, theirs:
        methods = offering.methods("FROM scratch", context, passwords, secrets)
        session = Session(ours, methods)
        session.start()
        theirs.settimeout(30)
        try:
            yield _Asking(theirs)
        finally:
            session.close()


_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


def test_passwords_and_secrets_are_told_by_their_names(tmp_path: Path) -> None:
    credentials = "/moby.filesync.v1.Auth/Credentials"
    with _session(tmp_path) as asking:
        assert asking.call(credentials, field(1, "here:5000")) == (
            [field(1, "me") + field(2, "secret")],
            0,
        )
        assert asking.call(credentials, field(1, "there:5000")) == ([b""], 0)
        assert asking.call(_SECRET, field(1, "word")) == ([field(1, "hidden")], 0)
        assert asking.call(_SECRET, field(1, "other")) == ([], 5)
        assert asking.call("/nobody/Knows", b"") == ([], 12)
        assert asking.call(credentials, b"\xff") == ([], 2)


def _refused(name: str) -> bytes:
    raise BuildFault(f"The secret '{name}' is larger than 1 MiB.")


def test_a_secret_that_cannot_be_given_ends_its_call_alone(tmp_path: Path) -> None:
    with _session(tmp_path, _refused) as asking:
        assert asking.call(_SECRET, field(1, "word")) == ([], 2)
        assert asking.call(_SECRET, field(1, "other")) == ([], 2)


def _broken(name: str) -> bytes:
    raise KeyError(name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_daemon_does_not_wait_for_a_session_that_broke(tmp_path: Path) -> None:
    ended = AssertionError, ConnectionError  # and no TimeoutError
    with _session(tmp_path, _broken) as asking, pytest.raises(ended):
        asking.call(_SECRET, field(1, "word"))


_FILES = "/moby.filesync.v1.FileSync/DiffCopy"


def test_files_of_the_context_are_given_and_no_others(tmp_path: Path) -> None:
    large = bytes(range(256)) * 4096  # more than a window of HTTP/2 takes at once
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "large").write_bytes(large)
    (tmp_path / "left").write_text("out")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / ".dockerignore").write_text("left\n.dockerignore\n")
    wants, ends = field(1, 1) + field(3, 1), field(1, 3)
    with _session(tmp_path) as asking:
        packets, status = asking.call(_FILES, wants, ends, headers={"dir-name": "context"})
        refused = asking.call(_FILES, field(1, 1) + field(3, 7), headers={"dir-name": "context"})
        nobody, unknown = asking.call(_FILES, ends, headers={"dir-name": "/etc"})

    told = [dict(fields(packet)) for packet in packets]
    described = [dict(fields(one[2])) for one in told if isinstance(one.get(2), bytes)]
    assert status == 0
    assert [one[1] for one in described] == [b"dir", b"dir/large", b"link"]
    assert described[2][7] == b"/etc/passwd"
    assert b"".join(one[4] for one in told if isinstance(one.get(4), bytes)) == large  # type: ignore[misc]
    assert refused[1] == 2
    assert (nobody, unknown) == ([], 5)


def test_the_dockerfile_comes_by_itself(tmp_path: Path) -> None:
    wants, ends = field(1, 1), field(1, 3)
    with _session(tmp_path) as asking:
        packets, _ = asking.call(_FILES, wants, ends, headers={"dir-name": "dockerfile"})
        ignored = {"dir-name": "context", "followpaths": ".dockerignore"}
        nothing, _ = asking.call(_FILES, ends, headers=ignored)

    assert b"FROM scratch" in b"".join(packets)
    assert nothing == [b"", ends]
