"""Who may do what: every operation by every relation to the owner."""

from __future__ import annotations

import pytest

from neuro.domain.permissions import Action
from tests.storage.people import Raw
from tests.storage.server import StorageServer

SHARED = "storage://default/alice/shared"
RANGE = {"Content-Range": "bytes 0-2/*"}

# Operation, its request, and what it needs.
OPERATIONS = [
    ("GET", "LISTSTATUS", "/alice/shared", {}, Action.READ),
    ("GET", "GETFILESTATUS", "/alice/shared/file", {}, Action.READ),
    ("GET", "GETDISKUSAGE", "/alice/shared", {}, Action.READ),
    ("GET", "OPEN", "/alice/shared/file", {}, Action.READ),
    ("POST", "FETCH", "/alice/shared", {"body": b'{"paths": ["file"]}'}, Action.READ),
    ("PUT", "CREATE", "/alice/shared/file", {"body": b"abc"}, Action.WRITE),
    ("PATCH", "WRITE", "/alice/shared/file", {"body": b"abc", "headers": RANGE}, Action.WRITE),
    ("PUT", "MKDIRS", "/alice/shared/new", {}, Action.WRITE),
    ("POST", "RENAME", "/alice/shared/file", {"destination": "/alice/shared/b"}, Action.WRITE),
    ("DELETE", "DELETE", "/alice/shared/file", {}, Action.WRITE),
    ("POST", "BULK", "/alice/shared", {"body": b""}, Action.WRITE),
    ("PUT", "UPLOAD", "/alice/shared/file", {"id": "identifier", "size": 0}, Action.WRITE),
    ("GET", "UPLOADSTATUS", "/alice/shared/file", {"id": "identifier"}, Action.WRITE),
]
RELATIONS = ["owner", "admin", "manage", "write", "read", "stranger", "unknown", "nobody"]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(("method", "op", "path", "request_", "needs"), OPERATIONS)
def test_each_operation_asks_for_its_permission(
    server: StorageServer, relation: str, method, op, path, request_, needs: Action
) -> None:
    folder = server.home("alice") / "shared"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    user: str | None = relation
    if relation in ("manage", "write", "read"):
        server.tokens.add(relation, (SHARED, Action(relation)))
    elif relation == "stranger":
        user = "bob"
    elif relation == "owner":
        user = "alice"
    elif relation == "nobody":
        user = None

    answer = Raw(server, user)(method, path, op, **request_)

    if relation in ("unknown", "nobody"):
        assert answer.status == 401
    elif relation == "stranger":
        assert answer.status == 404
    elif relation == "read" and needs is Action.WRITE:
        assert answer.status == 403
        assert "'write'" in answer.json["error"]
    else:
        # An empty bulk stream is broken off: that is told only to those who may write.
        assert answer.status in ((400,) if op in ("BULK", "UPLOAD") else (200, 201, 204))
    if answer.status >= 400:
        assert (folder / "file").read_bytes() == b"content"


def test_a_move_needs_write_at_both_ends(server: StorageServer) -> None:
    (server.home("alice") / "file").touch()
    server.home("bob")
    server.tokens.add("carol", ("storage://default/alice", Action.WRITE))

    out = Raw(server, "alice")("POST", "/alice/file", "RENAME", destination="/bob/file")
    into_readable = Raw(server, "carol")("POST", "/alice/file", "RENAME", destination="/bob/f")

    assert (out.status, into_readable.status) == (404, 404)
    assert (server.home("alice") / "file").exists()


def test_a_status_tells_the_callers_own_right(server: StorageServer) -> None:
    (server.home("alice") / "shared").mkdir()
    server.tokens.add("reader", (SHARED, Action.READ))

    def right(user: str) -> str:
        answer = Raw(server, user)("GET", "/alice/shared", "GETFILESTATUS")
        return answer.json["FileStatus"]["permission"]

    assert (right("alice"), right("admin"), right("reader")) == ("manage", "manage", "read")


def test_a_wider_right_below_shows_in_the_listing(server: StorageServer) -> None:
    (server.home("alice") / "shared/inner").mkdir(parents=True)
    (server.home("alice") / "shared/other").mkdir()
    server.tokens.add("friend", (SHARED, Action.READ), (f"{SHARED}/inner", Action.WRITE))

    entries = Raw(server, "friend")("GET", "/alice/shared", "LISTSTATUS").json

    rights = {e["path"]: e["permission"] for e in entries["FileStatuses"]["FileStatus"]}
    assert rights == {"inner": "write", "other": "read"}


def test_listings_on_the_way_to_a_share_show_nothing_else(server: StorageServer) -> None:
    (server.home("alice") / "deep/shared").mkdir(parents=True)
    (server.home("alice") / "secret").touch()
    server.home("dave")
    server.tokens.add("friend", ("storage://default/alice/deep/shared", Action.READ))
    friend = Raw(server, "friend")

    assert friend.names("/") == {"alice"}
    assert friend.names("/alice") == {"deep"}
    assert friend.names("/alice/deep") == {"shared"}
    assert friend("GET", "/alice/secret", "GETFILESTATUS").status == 404
    assert friend("GET", "/dave", "LISTSTATUS").status == 404


def test_admins_see_every_home(server: StorageServer) -> None:
    server.home("alice")
    server.home("bob")

    assert Raw(server, "admin").names("/") == {"alice", "bob"}
