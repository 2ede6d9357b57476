"""The whole program: arguments, a base that is pulled, an image that is pushed, exit codes."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuro.builder.copying import Copying
from neuro.builder.program import run
from neuro.docker import build_place
from neuro.engines.images.reach import Reach, as_environment
from tests.builder.registry import Place, place
from tests.engines.relayed import relayed


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


def test_an_image_is_built_on_a_base_and_pushed(here: Place) -> None:
    (here.context / "a.txt").write_text("a")

    code, said = here.build("FROM BASE\nCOPY --chown=bob a.txt /x/\nCMD run\n", "--label=l=1")

    assert code == 0, said
    assert here.layers() == [["bin", "etc", "etc/passwd"], ["more/file"], ["x", "x/a.txt"]]
    config = here.config()
    settings = config["config"]
    assert isinstance(settings, dict)
    assert settings["Env"][0] == "A=1"
    assert settings["Env"][-1] == "T=1"  # of the base's ONBUILD
    assert settings["Cmd"] == ["/bin/sh", "-c", "run"]
    assert settings["Labels"] == {"l": "1"}
    assert "Digest: sha256:" in said


def test_nothing_is_made_twice(here: Place) -> None:
    (here.context / "a.txt").write_text("a")
    text = "FROM BASE\nCOPY a.txt /x/\nWORKDIR /w\n"
    here.build(text)
    before = here.registry.manifest("me/made", "v1")
    here.registry.asked.clear()

    code, said = here.build(text)

    assert (code, said.count("CACHED")) == (0, 2)
    assert here.registry.manifest("me/made", "v1") == before
    assert not [one for one in here.registry.asked if one.startswith(("POST", "PATCH"))]
    assert not [
        one
        for one in here.registry.asked
        if one.startswith("GET base/small/blobs/")
        and one.removeprefix("GET base/small/blobs/") in _layers_of(here)
    ]


def test_the_platforms_registry_is_only_told_of_an_image_that_it_has(here: Place) -> None:
    here.registry.knows_whole = here.registry.takes_small = True
    text = "FROM BASE\nWORKDIR /w\n"
    words = [f"--own-registry={here.host}/default/me", "--whole-manifests"]
    here.build(text, *words)
    here.registry.asked.clear()

    code, said = here.build(text, *words)

    assert (code, said.count("CACHED")) == (0, 1)
    assert [one for one in here.registry.asked if "me/made" in one] == ["PUT me/made/manifests/v1"]


@pytest.mark.parametrize("words", [["--whole-manifests"], ["--own-registry=HERE/default/me"]])
def test_no_other_registry_is_believed_to_look_for_the_blobs_of_a_manifest(
    here: Place, words: list[str]
) -> None:
    """One that does not know the word would keep an image without its layers."""
    text = "FROM BASE\nWORKDIR /w\n"

    code, said = here.build(text, *[word.replace("HERE", here.host) for word in words])

    assert code == 0, said
    made = [one for one in here.registry.asked if "me/made" in one]
    assert made.index("PUT me/made/manifests/v1") == len(made) - 1
    assert len(here.layers()) == 3


def _layers_of(here: Place) -> set[str]:
    return {digest for digest, body in here.registry.blobs.items() if body.startswith(b"\x1f\x8b")}


def test_a_change_makes_what_follows_anew(here: Place) -> None:
    (here.context / "a.txt").write_text("a")
    (here.context / "b.txt").write_text("b")
    text = "FROM BASE\nCOPY a.txt /x/\nCOPY b.txt /y/\nWORKDIR /w\n"
    here.build(text)
    (here.context / "b.txt").write_text("changed")

    _, said = here.build(text)

    assert "COPY a.txt /x/\n#2 CACHED" in said
    assert said.count("CACHED") == 1


def test_the_cache_is_tidied_by_builds_that_add_to_it(here: Place, tmp_path: Path) -> None:
    here.build("FROM BASE\nWORKDIR /w\n")
    left = tmp_path / "cache" / "trash" / "left"
    left.touch()

    here.build("FROM BASE\nWORKDIR /w\n")
    assert left.exists(), "nobody waits for that whose build adds nothing"

    here.build("FROM BASE\nWORKDIR /x\n")
    assert left.exists(), "a moment ago it was tidied, and little was added"

    os.utime(tmp_path / "cache" / "swept", (1, 1))
    here.build("FROM BASE\nWORKDIR /y\n")
    assert not left.exists()


def test_without_the_cache_every_step_is_done(here: Place) -> None:
    here.build("FROM BASE\nWORKDIR /w\n")

    _, said = here.build("FROM BASE\nWORKDIR /w\n", "--cache=false")

    assert "CACHED" not in said


def test_several_destinations_get_the_image(here: Place) -> None:
    code, said = here.build("FROM BASE\nWORKDIR /w\n", f"--destination={here.host}/other/name:v2")

    assert code == 0, said
    assert here.registry.manifest("other/name", "v2") == here.registry.manifest("me/made", "v1")


def test_the_digest_is_written_where_it_is_wanted(here: Place, tmp_path: Path) -> None:
    _, said = here.build("FROM scratch\nWORKDIR /w\n", f"--digest-file={tmp_path}/digest")

    assert f"Digest: {(tmp_path / 'digest').read_text()}\n" in said


def test_nothing_is_pushed_that_need_not_be(here: Place) -> None:
    code, said = here.build("FROM BASE\nWORKDIR /w\n", "--no-push", to="")

    assert (code, said.splitlines()[-1]) == (0, "Built, and not pushed.")
    assert not [one for one in here.registry.asked if one.startswith("POST")]


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (["own"], "docker.io/library/small"),
        # Whoever has a password for the registry may want what only that one gives them.
        (["own", "https://index.docker.io/v1/"], "library/small"),
        # Nobody could ask the mirror.
        ([], "library/small"),
    ],
)
def test_a_base_comes_through_the_mirror_of_its_registry(
    here: Place, tmp_path: Path, known: list[str], asked: str
) -> None:
    for name in ("docker.io/library/small", "library/small"):
        here.registry.copy_without_layers(here.registry, name)
    login = base64.b64encode(b"token:secret").decode()
    auths = {here.host if name == "own" else name: {"auth": login} for name in known}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    words = [f"--own-registry={here.host}/default/me", "--mirror=docker.io"]
    words.append(f"--registry-map=docker.io={here.host}")  # where the public one is for this test

    code, said = here.build(
        "FROM small:v1\nLABEL a=b\n", *words, env={"DOCKER_CONFIG": str(tmp_path)}
    )

    assert code == 0, said
    bases = [path for path, _ in here.registry.requests if "/manifests/v1" in path]
    assert f"/v2/{asked}/manifests/v1" in bases
    assert len({path for path in bases if "small" in path}) == 1


def test_a_base_whose_registry_is_away_is_what_it_was(here: Place, tmp_path: Path) -> None:
    here.build("FROM BASE\nWORKDIR /w\n")
    here.registry.fails["/v2/base"] = 503, b"{}"

    code, said = here.build("FROM BASE\nWORKDIR /w\n")

    assert code == 0, said
    assert "WARNING: The registry" in said
    assert "CACHED" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM BASE\nCOPIE a b\n", "'COPIE' is not an instruction."),
        ("FROM BASE\nCOPIE a b\n", 'in "Dockerfile", line 2, column 1\n    COPIE a b\n    ^'),
        ("FROM BASE\nCOPIE a b\n", "Did you mean 'COPY'?"),
        ("FROM BASE\nCOPY b.txt /x\n", "There is no 'b.txt'."),
        ("FROM BASE\nCOPY b.txt /x\n", "Did you mean 'a.txt'?"),
        ("FROM BASE\nCOPY b.txt /x\n", 'in "Dockerfile", line 2, column 1'),
        ("FROM BASE\nCOPY b/c/d /x\n", "There is no 'b/c/d'.\n"),
        ("FROM BASE\nCOPY b/c/d /x\n", "from has Dockerfile, a.txt.\n"),
        ("FROM BASE\nCOPY a.txt/b/c /x\n", "'a.txt' is not a folder."),
        ("FROM BASE\nCOPY --chown=eve a.txt /x\n", "the image has no user 'eve'"),
        ("FROM BASE\nCOPY a.txt /bin\nCOPY a.txt /etc/passwd/x\n", "'/etc/passwd' is not a folder"),
        ("FROM image:made\n", "'image:made' has no registry in it."),
        ("FROM image:/bob/made\n", "'image:/bob/made:latest' has no registry in it."),
        ("FROM BASE\nCOPY --from=BASE0 b /x\n", "There is no image "),
        ("FROM BASE\nCOPY --from=BASE0 b /x\n", 'in "Dockerfile", line 2, column 6'),
        ("FROM --platform=linux/riscv64 host\n", "The machine's userland is not for linux/riscv64"),
        ("FROM BASE\nADD git://example.com/x /x\n", "ADD of a repository is not supported"),
    ],
)
def test_what_is_wrong_is_told(here: Place, text: str, told: str) -> None:
    (here.context / "a.txt").write_text("a")

    code, said = here.build(text)

    assert code == 1
    assert told in said
    assert not [one for one in here.registry.asked if one.startswith("POST")]


def test_what_dockerignore_leaves_out_is_told_so(here: Place) -> None:
    (here.context / "b.log").write_text("b")
    (here.context / ".dockerignore").write_text("*.log\n")

    code, said = here.build("FROM BASE\nCOPY b.log /x\n")

    assert code == 1
    assert "There is no 'b.log'." in said
    assert "`.dockerignore` leaves it out: a line !b.log keeps it." in said


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (403, "not yours."),
        (404, "not yours. Push under a name of your own, or ask its owner"),
    ],
)
def test_a_registry_that_refuses_is_told(here: Place, status: int, told: str) -> None:
    here.registry.fails["/v2/me"] = status, b'{"errors": [{"message": "not yours"}]}'

    code, said = here.build("FROM BASE\nWORKDIR /w\n")

    assert code == 1
    assert f"does not let you push {here.host}/me/made:v1: {told}" in said


def test_what_a_registry_says_is_told_to_its_end(here: Place) -> None:
    why = f"{'There is no room. ' * 20}Ask an administrator for more"
    told = json.dumps({"errors": [{"code": "DENIED", "message": why}]}).encode()
    here.registry.fails["/v2/me"] = 403, told

    _, said = here.build("FROM BASE\nWORKDIR /w\n")

    assert f"{why}.\n" in said


def test_a_context_that_changes_meanwhile_is_told_and_leaves_no_layer(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = here.context / "a.txt"
    file.write_text("a")
    copy = Copying.run

    def change_and_copy(copying: Copying) -> None:
        file.write_text("changed")
        copy(copying)

    with monkeypatch.context() as patch:
        patch.setattr(Copying, "run", change_and_copy)
        code, said = here.build("FROM BASE\nCOPY a.txt /x\n")
    file.write_text("a")
    again, then = here.build("FROM BASE\nCOPY a.txt /x\n")

    assert (code, again) == (1, 0), then
    assert "Files of the context changed while they were copied.\n" in said
    assert 'in "Dockerfile", line 2' in said
    assert "Build again when nobody writes to it." in said
    assert "CACHED" not in then
    assert here.contents("x") == b"a"


def test_a_layer_that_is_packed_otherwise_by_now_is_told_and_pushed_the_next_time(
    here: Place, tmp_path: Path
) -> None:
    text = "FROM BASE\nWORKDIR /w\n"
    here.build(text)
    (known,) = (tmp_path / "cache" / "layers").glob("*/packed.json")
    before = json.loads(known.read_text())
    known.write_text(json.dumps({**before, "digest": f"sha256:{'0' * 64}"}))
    del here.registry.blobs[before["digest"]]

    code, said = here.build(text)
    again, _ = here.build(text)

    assert (code, again) == (1, 0)
    assert "A layer of an earlier build is packed otherwise now. Build it again." in said


class _Files(http.server.BaseHTTPRequestHandler):
    content = b"of a url"
    asked: list[str | None] = []

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.asked.append(self.headers.get("If-None-Match"))
        status = 304 if self.headers.get("If-None-Match") == '"v1"' else 200
        self.send_response(status)
        self.send_header("ETag", '"v1"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        body = b"" if status == 304 else self.content
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _serving() -> Iterator[str]:
    _Files.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _host(url: str) -> str:
    return url.split("/")[2]


def test_a_file_of_a_url_is_fetched_once(here: Place) -> None:
    with _serving() as url:
        here.near.append(_host(url))
        first, said = here.build(f"FROM BASE\nADD {url} /x/\n")
        again, _ = here.build(f"FROM BASE\nADD {url} /x/\n")

    assert (first, again) == (0, 0), said
    assert _Files.asked == [None, '"v1"']
    assert here.layers()[-1] == ["x", "x/file"]


def test_a_checksum_is_checked(here: Place) -> None:
    right = hashlib.sha256(_Files.content).hexdigest()
    with _serving() as url:
        here.near.append(_host(url))
        wrong, said = here.build(f"FROM BASE\nADD --checksum=sha256:{'0' * 64} {url} /x/\n")
        good, _ = here.build(f"FROM BASE\nADD --checksum=sha256:{right} {url} /x/\n")

    assert (wrong, good) == (1, 0)
    assert f"Its checksum is sha256:{right}." in said


@pytest.mark.parametrize(
    "address", ["{url}", "http://localhost:{port}/file", "http://127.0.0.%31:{port}/file"]
)
def test_no_file_is_fetched_from_this_machine(here: Place, address: str) -> None:
    with _serving() as url:
        port = url.split(":")[2].split("/")[0]
        code, said = here.build(f"FROM BASE\nADD {address.format(url=url, port=port)} /x/\n")

    assert code == 1
    assert "Images and builds do not use" in said
    assert _Files.asked == []


def test_no_place_sends_a_build_to_this_machine(here: Place) -> None:
    with _serving() as url:
        here.near.append(_host(url))
        other = url.replace("127.0.0.1", "127.0.0.2")
        code, said = here.build(f"FROM BASE\nADD {url.replace('/file', '/to/')}{other} /x/\n")

    assert code == 1
    assert "Images and builds do not use 127.0.0.2" in said
    assert _Files.asked == []


def test_a_proxy_is_not_sent_to_this_machine(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with _serving() as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)
        for scheme in ("http", "https"):
            text = f"FROM BASE\nADD {scheme}://169.254.169.254/latest /x/\n"
            code, said = here.build(text)

            assert code == 1
            assert "Images and builds do not use 169.254.169.254" in said
    assert _Files.asked == []


@pytest.mark.parametrize("name", ["169.254.169.254", "localhost:{port}", "127.1.2.3:{port}"])
def test_no_image_comes_from_this_machine(here: Place, name: str) -> None:
    host = name.format(port=here.host.partition(":")[2])

    # Which registries are asked by http is for the arguments to say; what is near, is not.
    code, said = here.build(f"FROM {host}/base/small:v1\n", f"--insecure-registry={host}")

    assert code == 1
    assert "Images and builds do not use" in said
    assert here.registry.asked == []


def test_an_image_is_not_pushed_to_this_machine(here: Place) -> None:
    here.near.clear()

    code, said = here.build("FROM scratch\nCOPY . /x/\n")

    assert code == 1
    assert f"Images and builds do not use {here.host.partition(':')[0]}" in said


def test_a_closed_network_is_closed_to_builds(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM 192.0.2.7/x\n")
    out = io.StringIO()
    closed = as_environment(Reach(closed=("192.0.2.0/24",)))

    code = run(["--context", str(tmp_path), "--no-push"], closed, out, str(tmp_path / "cache"))

    assert code == 1
    assert "Images and builds do not use 192.0.2.7" in out.getvalue()


def test_an_ignore_file_beside_the_dockerfile_is_honoured(here: Place) -> None:
    for name in ("a.txt", "b.txt"):
        (here.context / name).write_text(name)
    (here.context / "Dockerfile.dockerignore").write_text("*\n!b.txt\n")
    (here.context / ".dockerignore").write_text("b.txt\n")

    here.build("FROM BASE\nCOPY . /x/\n")

    assert here.layers()[-1] == ["x", "x/b.txt"]


def test_a_context_cannot_lead_out_of_itself(here: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (here.context / "out").symlink_to("../../../../../../../../.." + str(tmp_path))
    os.symlink(tmp_path, here.context / "straight")

    for source in ("out/secret", "straight/secret", "../secret"):
        code, said = here.build(f"FROM BASE\nCOPY {source} /x/\n")

        assert code == 1, said
        assert "There is no" in said


def test_our_builder_builds_only_where_nobody_reaches_the_daemon(
    here: Place, tmp_path: Path
) -> None:
    (here.context / "a.txt").write_text("a")
    env = build_place.as_environment(build_place.BuildPlace(here.host, "ada"))
    with (
        socket.socket(socket.AF_UNIX) as daemon,
        relayed(tmp_path, str(tmp_path / "target")) as relay,
    ):
        daemon.bind(str(tmp_path / "target"))
        daemon.listen()

        code, said = here.build(
            "FROM scratch\nCOPY a.txt /x/\nONBUILD COPY --from=x/y / /\n", env=env, socket=relay
        )

        assert code == 0, said
        assert "NOTE: The platform's own builder builds this: x/y, of which" in said
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(relay)


def test_where_somebody_could_reach_it_nothing_is_built(here: Place, tmp_path: Path) -> None:
    env = build_place.as_environment(build_place.BuildPlace(here.host, "ada"))
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "target"))
        daemon.listen()

        def hang_up() -> None:
            daemon.accept()[0].close()

        answering = threading.Thread(target=hang_up)
        answering.start()
        code, said = here.build("FROM host\n", env=env, socket=str(tmp_path / "target"))
        answering.join()

    assert code == 1
    assert "ERROR: The way to the daemon that builds cannot be closed.\n" in said
    assert here.registry.asked.count("PUT me/made/manifests/v1") == 0
