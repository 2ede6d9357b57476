"""Everything that the file browser does, over HTTP."""

from __future__ import annotations

import io
import os
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.actions.browser import FileBrowser


class _Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str, attribute: str) -> list[str]:
        return [value for name, got in self.tags if name == tag and (value := got.get(attribute))]


def test_a_folder_is_listed_folders_first(browser: FileBrowser) -> None:
    (browser.root / "b").mkdir()
    (browser.root / "a.txt").write_text("12345")

    page = browser.get("/")

    links = _Links(page.text).all("a", "href")
    assert page.status == 200
    assert links.index("./b/") < links.index("./a.txt")
    assert "5 B" in page.text


def test_a_list_is_sorted_by_size_when_asked(browser: FileBrowser) -> None:
    for name, size in (("a", 2), ("b", 3), ("c", 1)):
        (browser.root / name).write_bytes(b"x" * size)

    links = _Links(browser.get("/?sort=size&order=desc").text).all("a", "href")

    assert [link for link in links if len(link) == 3] == ["./b", "./a", "./c"]


def test_a_long_list_comes_in_pages(browser: FileBrowser) -> None:
    for number in range(1001):
        (browser.root / f"{number:04}").touch()

    first, second = browser.get("/").text, browser.get("/?page=2").text

    assert "./0999" in first
    assert "./1000" not in first
    assert "./1000" in second


def test_every_link_is_relative_so_that_any_prefix_will_do(browser: FileBrowser) -> None:
    (browser.root / "a" / "b").mkdir(parents=True)
    (browser.root / "a" / "b" / "f").touch()

    for path in ("/", "/a/", "/a/b/"):
        page = _Links(browser.get(path).text)
        links = [*page.all("a", "href"), *page.all("form", "action")]
        assert all(link.startswith((".", "?")) or link == "" for link in links)
    assert browser.get("/a/b").headers["Location"] == "./b/"


def test_a_file_is_downloaded_and_never_shown(browser: FileBrowser) -> None:
    (browser.root / "page.html").write_text("<script>alert(1)</script>")

    answer = browser.get("/page.html")

    assert answer.text == "<script>alert(1)</script>"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "status", "body", "told"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=5-2", 416, b"", "bytes */10"),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_a_part_of_a_file(
    browser: FileBrowser, asked: str, status: int, body: bytes, told: str | None
) -> None:
    (browser.root / "f").write_bytes(b"0123456789")

    answer = browser.get("/f", Range=asked)

    assert (answer.status, answer.body, answer.headers["Content-Range"]) == (status, body, told)


def test_a_part_of_a_file_that_has_changed_is_all_of_it(browser: FileBrowser) -> None:
    (browser.root / "f").write_bytes(b"0123456789")
    tag = browser.get("/f").headers["ETag"]
    assert browser.get("/f", Range="bytes=1-1", If_Range=tag).body == b"1"

    (browser.root / "f").write_bytes(b"abc")

    assert browser.get("/f", Range="bytes=1-1", If_Range=tag).body == b"abc"


def test_a_folder_is_downloaded_as_a_zip_file(browser: FileBrowser) -> None:
    (browser.root / "a" / "empty").mkdir(parents=True)
    (browser.root / "a" / "один.txt").write_text("1")
    (browser.root / "a" / "big").write_bytes(os.urandom(1_000_000))
    (browser.root / "a" / "out").symlink_to("/etc/hostname")

    answer = browser.get("/a/?zip")

    archive = zipfile.ZipFile(io.BytesIO(answer.body))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == ["big", "empty/", "один.txt"]
    assert archive.read("big") == (browser.root / "a" / "big").read_bytes()
    assert "a.zip" in answer.headers["Content-Disposition"]


def test_an_upload_makes_its_folders_and_replaces(browser: FileBrowser) -> None:
    assert browser.put("/a/b/f.bin", b"one").status == 201
    (browser.root / "a/b/f.bin").chmod(0o600)
    assert browser.put("/a/b/f.bin", b"two").status == 201

    assert (browser.root / "a" / "b" / "f.bin").read_bytes() == b"two"
    assert (browser.root / "a/b/f.bin").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(browser.root / "a" / "b") == ["f.bin"]


def test_a_large_upload_and_download_take_little_memory(
    browser: FileBrowser, tmp_path: Path
) -> None:
    content = os.urandom(1 << 20) * 50
    source = tmp_path / "source"
    source.write_bytes(content)
    before = browser.peak_memory()

    with source.open("rb") as file:
        answer = browser.put("/big", file, Content_Length=str(len(content)))
    downloaded = browser.get("/big")

    assert answer.status == 201
    assert downloaded.body == content
    assert browser.peak_memory() - before < 10 << 20


def test_an_upload_that_breaks_off_changes_nothing(browser: FileBrowser) -> None:
    (browser.root / "f").write_bytes(b"old")
    connection = browser.connect()
    connection.putrequest("PUT", "/f")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"new")
    connection.sock.shutdown(1)  # No more will come; the answer still may.

    assert connection.getresponse().status == 400
    assert (browser.root / "f").read_bytes() == b"old"
    assert os.listdir(browser.root) == ["f"]


def test_an_upload_is_invisible_until_it_is_complete(browser: FileBrowser) -> None:
    connection = browser.connect()
    connection.putrequest("PUT", "/f")
    connection.putheader("Content-Length", "6")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 100")
    connection.send(b"abc")

    assert browser.get("/f").status == 404
    assert "part-of-upload" not in browser.get("/").text
    connection.send(b"def")

    assert connection.getresponse().status == 201
    assert browser.get("/f").body == b"abcdef"


def test_an_upload_says_how_long_it_is(browser: FileBrowser) -> None:
    connection = browser.connect()
    connection.putrequest("PUT", "/f")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()  # without a body: the answer does not wait for it

    answer = connection.getresponse()
    assert answer.status == 411
    assert b"Content-Length" in answer.read()
    assert not (browser.root / "f").exists()


def test_an_upload_never_takes_a_folders_place(browser: FileBrowser) -> None:
    (browser.root / "d").mkdir()

    answer = browser.put("/d", b"x")

    assert answer.status == 409
    assert answer.text == "“d” is a folder. Choose another name for the file."


def test_a_folder_is_made(browser: FileBrowser) -> None:
    answer = browser.post("/", do="folder", to="новая папка")

    assert (answer.status, answer.headers["Location"]) == (303, "./")
    assert (browser.root / "новая папка").is_dir()
    assert browser.post("/", do="folder", to="новая папка").status == 409


def test_a_file_is_renamed_and_nothing_is_overwritten(browser: FileBrowser) -> None:
    (browser.root / "a").write_text("a")
    (browser.root / "b").write_text("b")

    assert browser.post("/", "a", do="move", to="b").status == 409
    assert (browser.root / "b").read_text() == "b"
    assert browser.post("/", "a", do="move", to="c").status == 303
    assert (browser.root / "c").read_text() == "a"


def test_several_are_moved_into_a_folder(browser: FileBrowser) -> None:
    (browser.root / "d" / "e").mkdir(parents=True)
    (browser.root / "d" / "x").touch()
    (browser.root / "d" / "y").touch()

    assert browser.post("/d/", "x", "y", do="move", to="one").status == 400
    assert browser.post("/d/", "x", do="move", to="e/").status == 303
    assert browser.post("/d/", "y", do="move", to="/").status == 303
    assert (browser.root / "d" / "e" / "x").exists()
    assert (browser.root / "y").exists()
    assert browser.post("/", "d", do="move", to="d/e/").status == 409


def test_deleting_asks_first(browser: FileBrowser) -> None:
    (browser.root / "d" / "deep").mkdir(parents=True)
    (browser.root / "d" / "deep" / "f").touch()
    (browser.root / "keep").touch()

    asked = browser.post("/", "d", do="delete")
    assert "cannot be undone" in asked.text
    assert (browser.root / "d").exists()

    assert browser.post("/", "d", do="delete", sure="yes").status == 303
    assert os.listdir(browser.root) == ["keep"]


def test_deleting_a_link_leaves_what_it_leads_to(browser: FileBrowser, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").touch()
    (browser.root / "link").symlink_to(outside)

    assert browser.post("/", "link", do="delete", sure="yes").status == 303

    assert (outside / "f").exists()
    assert not (browser.root / "link").is_symlink()


def test_links_that_stay_inside_are_followed(browser: FileBrowser) -> None:
    (browser.root / "runs" / "1").mkdir(parents=True)
    (browser.root / "runs" / "1" / "f").write_text("f")
    (browser.root / "latest").symlink_to("runs/1")
    (browser.root / "runs" / "up").symlink_to("../latest/f")
    (browser.root / "absolute").symlink_to(browser.root / "runs")

    assert browser.get("/latest/f").text == "f"
    assert browser.get("/runs/up").text == "f"
    assert browser.get("/absolute/1/f").text == "f"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/d/../../secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/.%2e/secret.txt",
        "//secret.txt/..",
        "/out/secret.txt",
        "/secret",
        "/climber/secret.txt",
        "/chain/secret.txt",
        "/secret.txt%00",
        "/d/%00/../../secret.txt",
    ],
)
def test_nothing_outside_is_reached(browser: FileBrowser, path: str) -> None:
    outside = browser.root.parent
    (browser.root / "d").mkdir()
    (browser.root / "out").symlink_to(outside)
    (browser.root / "secret").symlink_to(outside / "secret.txt")
    (browser.root / "climber").symlink_to("d/../..")
    (browser.root / "chain").symlink_to("climber")

    read = browser.get(path)
    written = browser.put(path, b"changed")

    assert read.status in {400, 404}
    assert read.body != b"secret"
    # A link that leads outside may be replaced by a file: the link is inside.
    assert written.status in {400, 404, 201}
    assert (outside / "secret.txt").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["root", "secret.txt"]


def test_forms_do_not_reach_outside_either(browser: FileBrowser) -> None:
    (browser.root / "f").touch()
    (browser.root / "out").symlink_to(browser.root.parent)

    assert browser.post("/", "..", do="delete", sure="yes").status == 400
    assert browser.post("/", "../secret.txt", do="delete", sure="yes").status == 400
    assert browser.post("/out/", "secret.txt", do="delete", sure="yes").status == 404
    assert browser.post("/", "../secret.txt", do="move", to="mine").status == 400
    assert browser.post("/", "f", do="move", to="../f").status == 400
    assert browser.post("/", "f", do="move", to="out/").status == 404
    assert browser.post("/", do="folder", to="../made").status == 400
    assert browser.post("/out/", do="folder", to="made").status == 404
    assert sorted(os.listdir(browser.root.parent)) == ["root", "secret.txt"]


def test_what_is_no_file_is_not_opened(browser: FileBrowser) -> None:
    os.mkfifo(browser.root / "pipe")

    assert browser.get("/pipe").status == 404
    assert "pipe" in browser.get("/").text


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://other.example"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://HOST"}, True),
        ({"Origin": "https://job.example", "X-Forwarded-Host": "job.example"}, True),
        ({}, True),
    ],
)
def test_no_other_site_changes_anything(
    browser: FileBrowser, headers: dict[str, str], *, is_allowed: bool
) -> None:
    sent = {key: value.replace("HOST", browser.host) for key, value in headers.items()}

    folder = browser.post("/", do="folder", to="made", headers=sent)
    upload = browser.ask("PUT", "/f", b"x", **sent)

    assert (folder.status, upload.status) == ((303, 201) if is_allowed else (403, 403))
    assert sorted(os.listdir(browser.root)) == (["f", "made"] if is_allowed else [])


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost", True),
        ("localhost:8085", True),
        ("LOCALHOST:1", True),
        ("files.localhost:1", True),
        ("127.0.0.1:8085", True),
        ("[::1]:8085", True),
        ("192.0.2.7", True),
        ("files.example:1", True),
        ("evil.example:8085", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evillocalhost", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_no_other_name_leads_here(root: Path, host: str, *, is_allowed: bool) -> None:
    (root / "f").write_text("secret")
    with FileBrowser(root, "--name", "Files.example") as browser:
        read = browser.ask("GET", "/f", Host=host)
        written = browser.ask("PUT", "/g", b"x", Host=host)

    assert (read.status, written.status) == ((200, 201) if is_allowed else (403, 403))
    assert ("secret" in read.text) == is_allowed


def test_what_is_no_browser_need_not_name_the_host(browser: FileBrowser) -> None:
    connection = browser.connect()
    connection.putrequest("GET", "/", skip_host=True)
    connection.endheaders()

    assert connection.getresponse().status == 200


def test_nothing_changes_by_following_a_link(browser: FileBrowser) -> None:
    (browser.root / "f").touch()

    assert browser.get("/?do=delete&name=f&sure=yes").status == 200

    assert (browser.root / "f").exists()


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>",
        '"><script>alert(1)</script>'.replace("/", "∕"),
        "' onmouseover='alert(1)",
        "javascript:alert(1)",
        "&lt;b&gt;",
    ],
)
def test_a_name_never_becomes_a_part_of_the_page(browser: FileBrowser, name: str) -> None:
    (browser.root / name).write_text("content")
    (browser.root / "plain").write_text("content")

    page = browser.get("/")
    asked = browser.post("/", name, do="delete")

    tags = _Links(page.text).tags
    plain = [tag for tag, _ in tags]
    assert plain.count("script") == 1
    assert "img" not in plain
    assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
    (link,) = [
        a["href"] for t, a in tags if t == "a" and "download" in a and a["href"] != "./plain"
    ]
    assert link is not None
    assert browser.get(link.removeprefix(".")).text == "content"
    assert [tag for tag, _ in _Links(asked.text).tags].count("script") == 1
    assert "'unsafe" not in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["отчёт 100%.txt", "a#b?c&d=e.txt", "日本語", "new\nline", " "])
def test_any_name_makes_the_round_trip(browser: FileBrowser, name: str) -> None:
    from urllib.parse import quote

    assert browser.put("/" + quote(name), b"content").status == 201
    answer = browser.get("/" + quote(name))
    assert answer.body == b"content"
    assert quote(name, safe="") in answer.headers["Content-Disposition"]

    assert browser.post("/", name, do="move", to="plain").status == 303
    assert os.listdir(browser.root) == ["plain"]


def test_a_name_that_is_no_text_can_be_deleted(browser: FileBrowser) -> None:
    raw = os.fsencode(browser.root) + b"/\xff\xfe"
    with open(raw, "wb") as file:
        file.write(b"content")

    page = browser.get("/")

    assert browser.get("/%FF%FE").body == b"content"
    assert "%FF%FE" in page.text
    body = "name=%25FF%25FE&do=delete&sure=yes"
    assert browser.ask("POST", "/", body).status == 303
    assert os.listdir(browser.root) == []


def test_the_page_speaks_the_browsers_language(browser: FileBrowser) -> None:
    assert 'lang="ru"' in browser.get("/", Accept_Language="ru-RU,ru;q=0.9,en;q=0.8").text
    assert 'lang="en"' in browser.get("/", Accept_Language="ru;q=0.1,en-GB;q=0.8").text
    assert 'lang="en"' in browser.get("/", Accept_Language="de").text
    assert "Здесь нет «нет»." in browser.get("/%D0%BD%D0%B5%D1%82", Accept_Language="ru").text


def test_both_languages_have_the_same_texts() -> None:
    from neuro.actions.filebrowser.texts import ENGLISH, RUSSIAN

    def holes(text: str) -> list[str]:
        return re.findall(r"{\w*}", text)

    assert ENGLISH.keys() == RUSSIAN.keys()
    assert all(holes(ENGLISH[key]) == holes(RUSSIAN[key]) for key in ENGLISH)


def test_read_only_shows_and_changes_nothing(root: Path) -> None:
    (root / "f").write_text("f")
    with FileBrowser(root, "--read-only") as browser:
        page = _Links(browser.get("/").text)

        assert browser.get("/f").text == "f"
        assert browser.put("/g", b"g").status == 403
        assert browser.post("/", "f", do="delete", sure="yes").status == 403
        assert not page.all("button", "value")
        assert not page.all("input", "type")
    assert os.listdir(root) == ["f"]


def test_connections_are_kept(browser: FileBrowser) -> None:
    connection = browser.connect()
    for path, status in (("/", 200), ("/nothing", 404), ("/", 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert not response.will_close


def test_a_refused_form_does_not_spoil_the_connection(browser: FileBrowser) -> None:
    connection = browser.connect()
    connection.request("PUT", "/f", b"x" * 100_000, {"Origin": "https://evil.example"})
    refused = connection.getresponse()
    refused.read()
    connection.request("GET", "/")

    assert refused.status == 403
    assert connection.getresponse().status == 200


def test_a_signal_ends_it_and_an_upload_that_goes_on(browser: FileBrowser) -> None:
    connection = browser.connect()
    connection.putrequest("PUT", "/f")
    connection.putheader("Content-Length", "1000")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 100")

    assert browser.stop() == 0

    assert os.listdir(browser.root) == []


def test_a_port_that_is_taken_is_told_in_a_sentence(browser: FileBrowser) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "neuro.actions.filebrowser", "--root", str(browser.root)]
    done = subprocess.run(
        [*command, "--port", str(browser.port)], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 2
    assert "Cannot listen on" in done.stderr
