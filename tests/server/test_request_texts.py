"""Control characters and endless nesting: refused in one place, in every text of a request."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from neuro.domain.errors import InvalidInput
from neuro.domain.jobs import JobRequest
from neuro.server.http.bodies import decode_json, json_decoder
from neuro.server.http.texts import text_check
from tests.server_process import ServerProcess

ONLY_SQLITE = "What a text must not have in it is refused before a database is asked."

DEEP = b"[" * 1000 + b"]" * 1000
# No job is made of it: it fits into no machine, and that is the last rule that is looked at.
JOB: dict[str, Any] = {
    "image": "ubuntu",
    "preset_name": "cpu-huge",
    "name": "my-job",
    "description": "text",
    "tags": ["tag"],
    "cluster_name": "default",
    "command": "true",
    "entrypoint": "true",
    "working_dir": "/tmp",
    "env": {"NAME": "value"},
    "volumes": [],
    "org_name": "org",
    "project_name": "project",
}
LINES = ("description", "command", "entrypoint", "env")


@pytest.fixture
async def http(server: ServerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {server.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


async def refusal(http: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Any:
    async with http.request(method, url, **options) as response:
        return response.status, await response.json()


decode_job = json_decoder(JobRequest)
CONTROL = st.sampled_from([chr(code) for code in (*range(32), *range(127, 160))])


@given(
    field=st.sampled_from([name for name in JOB if name not in ("volumes", "preset_name")]),
    before=st.text(st.characters(codec="utf-8"), max_size=5),
    character=CONTROL,
    after=st.text(st.characters(codec="utf-8"), max_size=5),
    nested=st.booleans(),
)
@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
def test_a_control_character_in_any_text_of_a_job_is_refused_or_harmless(
    field: str, before: str, character: str, after: str, nested: bool
) -> None:
    text = before + character + after
    value: object = text
    if field == "tags":
        value = [text]
    elif field == "env":
        value = {"NAME": text}
    body = JOB | {field: value}
    if nested:
        body = {"container": body, "name": "my-job"}
        if field not in ("image", "command", "entrypoint", "working_dir", "env"):
            body[field] = value

    try:
        decode_json(decode_job, msgspec.json.encode(body))
    except InvalidInput as error:
        refused = error.message
    else:
        # What is left are tabs and line ends, in texts that may have lines.
        assert field in LINES
        assert not set(text) & {chr(code) for code in range(32)} - set("\t\n\r")
        return
    assert f"'{field}" in refused or f".{field}" in refused
    assert refused.isprintable()


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=9, max_size=9),
    key=st.text(st.characters(codec="utf-8"), max_size=4),
)
@settings(max_examples=500)
def test_no_accepted_job_has_a_nul_in_any_text(texts: list[str], key: str) -> None:
    a, b, c, d, e, f, g, h, i = texts
    body = {
        "image": a,
        "command": b,
        "working_dir": c,
        "env": {key: d},
        "secret_env": {key: e},
        "volumes": [{"src_storage_uri": f, "dst_path": g}],
        "secret_volumes": [{"src_secret_uri": h, "dst_path": i}],
        "disk_volumes": [{"src_disk_uri": h, "dst_path": i}],
        "resources": {"gpu_model": a},
    }

    try:
        request = decode_json(decode_job, msgspec.json.encode({"container": body, **body}))
    except InvalidInput:
        assert any(not text.isprintable() for text in [*texts, key])
    else:
        assert b"\\u0000" not in msgspec.json.encode(request)


def test_what_is_refused_is_named_with_its_field_and_its_place() -> None:
    volume = {"src_storage_uri": "storage:x", "dst_path": "/mnt/a\x1bb"}

    with pytest.raises(InvalidInput, match=r"'volumes\[0\].dst_path' has .* '.x1b' at position 6"):
        decode_job(msgspec.json.encode({"image": "u", "volumes": [volume]}))


def test_a_type_whose_texts_cannot_be_looked_at_is_no_request() -> None:
    for kind in (Any, dict[str, Any], list[msgspec.Raw], list[str] | dict[str, str]):
        with pytest.raises(TypeError, match="A request cannot hold"):
            text_check(kind)


@pytest.mark.parametrize("field", ["working_dir", "image", "name", "description"])
async def test_a_job_with_a_nul_is_refused_by_the_server(
    http: aiohttp.ClientSession, server: ServerProcess, field: str
) -> None:
    body = JOB | {field: "/\0--bind\0/\0/mnt"}

    status, answer = await refusal(http, "POST", server.url + "/jobs", json=body)

    assert status == 400
    assert answer["error"].startswith(f"'{field}' has the character '\\x00'")
    assert answer["field"] == field


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/a%1bb"),
        ("GET", "/jobs?name=a%00b"),
        ("GET", "/jobs?tag=fine&tag=a%C2%9Db"),
        ("GET", "/jobs/events?tag=a%0Ab"),
        ("GET", "/flow/projects?name=a%7Fb"),
        ("GET", "/users/a%0Ab"),
        ("GET", "/monitoring/jobs/a%00b/log"),
    ],
)
async def test_a_control_character_in_a_path_or_a_query_is_refused(
    http: aiohttp.ClientSession, server: ServerProcess, method: str, path: str
) -> None:
    status, answer = await refusal(http, method, URL(server.url + path, encoded=True))

    assert status == 400
    assert "has the character" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/jobs", b'{"image":"u","zz":' + DEEP + b"}"),
        ("POST", "/jobs", b'{"image":"u","container":{"image":"u","zz":' + DEEP + b"}}"),
        ("POST", "/jobs", DEEP),
        ("POST", "/jobs", b"[" * 1_000_000),
        ("POST", "/flow/tasks", b"[" + DEEP + b"]"),
        ("POST", "/flow/bakes", b'{"graphs":{"":' + DEEP + b"}}"),
        ("POST", "/storage/USER?op=FETCH", b'{"paths":[],"zz":' + DEEP + b"}"),
    ],
)
async def test_endless_nesting_is_refused_with_a_sentence(
    http: aiohttp.ClientSession, server: ServerProcess, method: str, path: str, body: bytes
) -> None:
    url = server.url + path.replace("USER", server.user)

    status, answer = await refusal(http, method, url, data=body)

    assert status == 400
    assert answer["code"] == "invalid"
    assert "Recursion" not in server.log()


async def test_a_token_of_endless_nesting_is_no_token(server: ServerProcess) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","x":' + DEEP + b"}").rstrip(b"=").decode()
    headers = {"Authorization": f"Bearer {head}.e30.c2ln"}

    async with aiohttp.ClientSession(headers=headers) as http:
        status, _ = await refusal(http, "GET", server.url + "/jobs")

    assert status == 401
