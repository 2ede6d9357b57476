"""Every call of the HTTP API with what it takes: the one table of who may do what.

A row is a right call, of things that are there: whoever may, is answered. Rows of one route differ
in what they ask for. A route without a row fails ``test_table``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from neuro.domain.frames import END, Kind, encode_frame
from neuro.domain.permissions import Action


class Takes(Enum):
    """What a call takes."""

    LOGIN = "a token, whoever's"
    READ = "to read what is the owner's"
    WRITE = "to write it"
    MANAGE = "to manage it"
    # A bake has its owner's rights, so nobody else writes what it runs; cached outcomes, and jobs
    # by their names alone, are each one's own.
    OWNER = "to be the owner"
    SELF = "to be the owner, or an administrator"
    ADMIN = "to be an administrator"

    @property
    def action(self) -> Action | None:
        """The action on what is the owner's, if it is that."""
        return {
            Takes.READ: Action.READ,
            Takes.WRITE: Action.WRITE,
            Takes.MANAGE: Action.MANAGE,
        }.get(self)


@dataclass(frozen=True)
class Row:
    """One call. Names in braces, of the route and of ``at``, are those of the owner's things.

    ``lists``: it is answered to everybody, with what they may see. ``whole``: one thing of the
    owner's is not enough. ``hides``: that it is there nobody else is told. ``by_person``: no job
    may do it. ``forever``: nobody may whose own right has an end. ``of``: the scheme of what it is
    about, where the route does not say so.
    """

    method: str
    route: str
    takes: Takes
    query: str = ""
    body: Any = None
    at: Mapping[str, str] = field(default_factory=dict)
    of: str = ""
    socket: bool = False
    lists: bool = False
    endless: bool = False
    whole: bool = False
    hides: bool = False
    by_person: bool = False
    forever: bool = False

    @property
    def operation(self) -> tuple[str, str]:
        prefix = "" if self.is_of_registry else "/api/v1"
        return self.method, prefix + self.route

    @property
    def is_of_registry(self) -> bool:
        """Whether it is at the place where clients of registries look for it."""
        return self.route.startswith("/v2/")

    @property
    def scheme(self) -> str:
        """Of what it is about."""
        place = self.route.split("/")[1]
        return self.of or _SCHEMES.get(place, place)

    @property
    def changes(self) -> bool:
        """Whether there may be less for others to ask for when it was done."""
        return self.method != "GET" or self.socket


_SCHEMES = {
    "secrets": "secret",
    "jobs": "job",
    "monitoring": "job",
    "v2": "image",
    "images": "image",
}
LOGIN, READ, WRITE, MANAGE = Takes.LOGIN, Takes.READ, Takes.WRITE, Takes.MANAGE
OWNER, SELF, ADMIN = Takes.OWNER, Takes.SELF, Takes.ADMIN
CONFIGS = {"workspace": "/ws", "flow_config_id": "f"}
# What an image is at least; its blob need not be there.
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = (
    b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",'
    b'"digest":"sha256:' + b"0" * 64 + b'","size":2},"layers":[]}'
)


def rows(ids: Mapping[str, str]) -> list[Row]:
    """All of them; those that end things stand last."""
    return [
        *_of_users(ids),
        *_of_presets(ids),
        *_of_jobs(ids),
        *_of_secrets(ids),
        *_of_files(ids),
        *_of_images(ids),
        *_of_flows(ids),
        *_endings(ids),
    ]


PRESETS = "/clusters/{cluster}/orchestrator/resource_presets"


def _of_presets(ids: Mapping[str, str]) -> list[Row]:
    at, preset = {"cluster": "default"}, {"cpu": 1, "memory": 1 << 30}
    added = {"name": f"preset-{ids['user']}", **preset}
    one, its = PRESETS + "/{preset}", at | {"preset": "cpu-small"}

    def row(method: str, route: str, body: Any, where: Mapping[str, str]) -> Row:
        return Row(method, route, ADMIN, body=body, at=where, of="cluster", by_person=True)

    return [
        Row("GET", PRESETS, ADMIN, at=at, of="cluster"),
        row("POST", PRESETS, added, at),
        row("PUT", PRESETS, [{"name": "cpu-small", **preset}, added], at),
        row("PUT", one, {"cpu": 1}, its),
        row("DELETE", one, None, at | {"preset": added["name"]}),
    ]


def _of_users(ids: Mapping[str, str]) -> list[Row]:
    home = f"storage://default/{ids['user']}"
    team, other = f"role://{ids['role_uri']}", {"user": ids["bystander"]}
    role, user = {"user": ids["role"]}, "/users/{user}"
    accounts, account = "/service_accounts", "/service_accounts/{account}"
    permissions, made = user + "/permissions", {"name": f"{ids['user']}/made"}
    return [
        Row("GET", "/secured-ping", LOGIN),
        Row("GET", "/server", LOGIN),
        Row("GET", "/users", ADMIN),
        Row("POST", "/users", ADMIN, body={"name": f"new-{ids['user']}"}, by_person=True),
        Row("POST", "/users", MANAGE, body=made, of="role", whole=True, by_person=True),
        Row("GET", user, SELF),
        Row("GET", user + "/removal", ADMIN),
        Row("GET", user + "/tokens", SELF),
        Row("POST", user + "/tokens", SELF, body={"label": "stolen"}, by_person=True),
        Row("GET", permissions, SELF),
        Row("GET", permissions, READ, at=role, of="role"),
        Row("GET", permissions + "/shared", SELF),
        Row("GET", permissions + "/shared", READ, at=role, of="role"),
        Row("GET", user + "/subroles", SELF),
        Row("GET", user + "/subroles", READ, at=role, of="role"),
        Row("GET", permissions + "/explain", MANAGE, f"?uri={home}", at=other, of="storage"),
        Row("GET", permissions + "/explain", MANAGE, f"?uri={home}", at=role, of="storage"),
        Row("GET", accounts, OWNER, lists=True),
        Row("POST", accounts, LOGIN, body={"name": "made"}, by_person=True),
        Row("GET", account, READ, of="user", whole=True),
        Row("GET", account, OWNER, at={"account": "robot"}, of="user", hides=True),
        _share(other, home, "storage"),
        _share(role, home, "storage"),
        _share(other, team, "role"),
        Row(
            "DELETE",
            permissions,
            MANAGE,
            f"?uri={home}/known",
            at=other,
            of="storage",
            by_person=True,
        ),
    ]


def _share(subject: Mapping[str, str], uri: str, scheme: str) -> Row:
    return Row(
        "POST",
        "/users/{user}/permissions",
        MANAGE,
        body=[{"uri": uri, "action": "read"}],
        at=subject,
        of=scheme,
        by_person=True,
        forever=True,
    )


def _of_jobs(ids: Mapping[str, str]) -> list[Row]:
    job, jobs, listed = "/jobs/{job}", "/monitoring/jobs/{job}", f"?owner={ids['user']}"
    plain = {"image": "x", "command": "true"}
    home = f"storage://default/{ids['user']}"
    reads = {"src_storage_uri": home, "dst_path": "/mnt", "read_only": True}
    writes = {**reads, "read_only": False}
    return [
        Row("GET", "/monitoring/jobs/capacity", LOGIN),
        Row("POST", "/jobs", LOGIN, body=plain),
        Row("POST", "/jobs", READ, body={**plain, "volumes": [reads]}, of="storage"),
        Row("POST", "/jobs", WRITE, body={**plain, "volumes": [writes]}, of="storage"),
        Row("POST", "/jobs", ADMIN, body={**plain, "privileged": True}),
        Row("GET", "/jobs", READ, lists=True),
        Row("GET", "/jobs", READ, listed, lists=True),
        Row("GET", "/jobs/events", READ, lists=True, endless=True),
        Row("GET", "/jobs/events", READ, f"?id={ids['job']}", lists=True, endless=True),
        Row("GET", job, READ),
        Row("GET", job, OWNER, at={"job": ids["job_name"]}, hides=True),
        Row("PUT", job + "/max_run_time_minutes", WRITE, body={"max_run_time_minutes": 9}),
        Row("GET", jobs + "/log", READ, endless=True),
        Row("GET", jobs + "/log_ws", READ, socket=True),
        Row("GET", jobs + "/attach", READ, "?stdout=1", socket=True),
        Row("GET", jobs + "/attach", WRITE, "?stdin=1&stdout=1", socket=True),
        Row("GET", jobs + "/exec", WRITE, "?cmd=true", socket=True),
        Row("GET", jobs + "/top", READ, socket=True),
        Row("GET", jobs + "/port_forward/{port}", WRITE, socket=True),
        Row("POST", jobs + "/save", WRITE, body=_saved("image:saved:v1")),
        # Everybody may do so with this job.
        Row(
            "POST",
            jobs + "/save",
            WRITE,
            body=_saved(f"image:/{ids['user']}/first:saved"),
            at={"job": ids["open_job"]},
            of="image",
        ),
    ]


def _saved(image: str) -> dict[str, object]:
    return {"container": {"image": image}}


def _of_secrets(ids: Mapping[str, str]) -> list[Row]:
    secrets, of_owner = "/secrets", f"?owner={ids['user']}"
    one = {"key": ids["secret"]}
    uri = f"secret://default/{ids['user']}/{ids['secret']}"
    value = {"value": "dmFsdWU="}
    uses = {"image": "x", "command": "true", "secret_env": {"A": uri}}
    file = {"src_secret_uri": uri, "dst_path": "/key"}
    mounts = {"image": "x", "command": "true", "secret_volumes": [file]}
    return [
        Row("GET", secrets, READ, lists=True),
        Row("POST", secrets, LOGIN, body={"key": "own", **value}),
        Row("POST", secrets, WRITE, body={**one, **value, "owner": ids["user"]}),
        Row("GET", secrets + "/{key}/versions", READ, of_owner, at=one),
        Row("POST", secrets + "/{key}/restore", WRITE, of_owner, {"version": 1}, at=one),
        Row("POST", "/secrets-rotation", ADMIN, of="cluster", by_person=True),
        Row("POST", "/jobs", READ, body=uses, of="secret"),
        Row("POST", "/jobs", READ, body=mounts, of="secret"),
    ]


def _of_files(ids: Mapping[str, str]) -> list[Row]:
    storage = "/storage{path}"
    folder, file = {"path": f"/{ids['user']}"}, {"path": f"/{ids['user']}/secret.txt"}
    piece = encode_frame(Kind.PART, "", b"piece") + END
    bulk = encode_frame(Kind.FILE, "bulk.txt", b"bulk") + END
    own, upload = {"path": "/{me}/own.txt"}, "id=an-identifier"
    moved = {"path": f"/{ids['user']}/moved.txt"}
    made, sent = {"path": f"/{ids['user']}/made"}, {"path": f"/{ids['user']}/sent"}
    return [
        Row("GET", storage, READ, "?op=LISTSTATUS", at=folder),
        Row("GET", storage, READ, "?op=GETFILESTATUS", at=file),
        Row("GET", storage, READ, "?op=GETDISKUSAGE", at=folder),
        Row("GET", storage, READ, "?op=OPEN", at=file),
        Row("GET", storage, WRITE, f"?op=UPLOADSTATUS&{upload}", at=sent),
        Row("POST", storage, READ, "?op=FETCH", {"paths": ["secret.txt"]}, at=folder),
        Row("PUT", storage, WRITE, "?op=CREATE", b"changed", at=file),
        Row("PUT", storage, WRITE, "?op=MKDIRS", at=made),
        Row("PUT", storage, WRITE, f"?op=UPLOAD&size=5&{upload}", piece, at=sent),
        Row("PATCH", storage, WRITE, "?op=WRITE", b"changed", at=file),
        Row("POST", storage, WRITE, "?op=BULK", bulk, at=folder),
        Row("PUT", storage, LOGIN, "?op=CREATE", b"mine", at=own),
        Row("POST", storage, WRITE, "?op=RENAME&destination=/{me}/moved", at=moved),
        Row("POST", storage, WRITE, f"?op=RENAME&destination={made['path']}/theirs", at=own),
    ]


def _of_images(ids: Mapping[str, str]) -> list[Row]:
    repository, blob = {"name": ids["repository"]}, {"digest": ids["blob"]}
    tagged, owner = {**repository, "reference": "v1"}, {"owner": ids["user"]}
    return [
        Row("GET", "/v2/", LOGIN),
        Row("GET", "/v2/token", LOGIN),
        Row("GET", "/images/files", ADMIN),
        Row("POST", "/images/scrub", ADMIN),
        Row("GET", "/images/quotas", ADMIN),
        Row("GET", "/images/quotas/{owner}", SELF, at=owner),
        Row("PUT", "/images/quotas/{owner}", ADMIN, body={"size": 1 << 30}, at=owner),
        Row("GET", "/images/tags/{name}", READ, at=repository),
        Row("GET", "/images/rules/{name}", READ, at=repository),
        Row("PUT", "/images/rules/{name}", MANAGE, body={"keep_last": 1000}, at=repository),
        Row("DELETE", "/images/rules/{name}", MANAGE, at=repository),
        Row("GET", "/v2/_catalog", READ, lists=True),
        Row("GET", "/v2/{name}/tags/list", READ, at=repository),
        Row("GET", "/v2/{name}/referrers/{digest}", READ, at=repository | blob),
        Row("HEAD", "/v2/{name}/manifests/{reference}", READ, at=tagged),
        Row("GET", "/v2/{name}/manifests/{reference}", READ, at=tagged),
        Row("HEAD", "/v2/{name}/blobs/{digest}", READ, at=repository | blob),
        Row("GET", "/v2/{name}/blobs/{digest}", READ, at=repository | blob),
        Row("POST", "/v2/{name}/blobs/uploads{slash}", WRITE, at=repository | {"slash": "/"}),
        Row("PUT", "/v2/{name}/manifests/{reference}", WRITE, body=MANIFEST, at=tagged),
    ]


def _of_flows(ids: Mapping[str, str]) -> list[Row]:
    project, bake, attempt, user = ids["project"], ids["bake"], ids["attempt"], ids["user"]
    named = f"?name={ids['project_name']}&owner={user}"
    live = {"yaml_id": "train", "project_id": project, "multi": False, "tags": []}
    task = {"attempt_id": attempt, "yaml_id": "t", "statuses": []}
    image = {"bake_id": bake, "ref": "n", "yaml_defs": ["t"]}
    config = {"bake_id": bake, "filename": "n", "content": ""}
    entry = {"project_id": project, "batch": "b", "task_id": "t", "key": "n"}
    key = f"?project_id={project}&batch=b&task_id=t&key=k"
    own, others = {"name": f"own-{project[-12:]}"}, {"name": "others", "project_name": user}
    of_project, of_bake, of_attempt = (
        f"?project_id={project}",
        f"?bake_id={bake}",
        f"?attempt_id={attempt}",
    )
    schedule = {
        "project_id": project,
        "batch": "b",
        "cron": "0 3 1 1 *",
        "timezone": "UTC",
        "workspace": "/ws",
        "graphs": {},
        "files": [{"role": "flow", "filename": "b.yml", "content": "kind: batch"}],
    }
    return [
        Row("POST", "/flow/projects", LOGIN, body=own),
        Row("POST", "/flow/projects", WRITE, body=others, whole=True),
        Row("GET", "/flow/projects", READ, lists=True),
        Row("GET", "/flow/projects/by_name", READ, named),
        Row("GET", "/flow/projects/{project}", READ),
        Row("GET", "/flow/live_jobs", READ, of_project, lists=True),
        Row("POST", "/flow/live_jobs", WRITE, body={**live, "yaml_id": "new"}),
        Row("PUT", "/flow/live_jobs/replace", WRITE, body=live),
        Row("GET", "/flow/live_jobs/by_yaml_id", READ, f"{of_project}&yaml_id=train"),
        Row("GET", "/flow/live_jobs/{live_job}", READ),
        Row("GET", "/flow/bakes", READ, of_project, lists=True),
        Row("POST", "/flow/bakes", WRITE, body={"project_id": project, "batch": "b", "graphs": {}}),
        Row("GET", "/flow/bakes/by_name", READ, f"{of_project}&name={ids['bake_name']}"),
        Row("GET", "/flow/bakes/{bake}", READ),
        Row("GET", "/flow/bakes/{bake}/events", READ, endless=True),
        Row("GET", "/flow/bakes/{bake}/events", OWNER, "?executor=1", endless=True),
        Row("PATCH", "/flow/bakes/{bake}", OWNER, body={"graphs": {}}),
        Row("GET", "/flow/attempts", READ, of_bake, lists=True),
        Row("GET", "/flow/attempts/by_number", READ, f"{of_bake}&number=-1"),
        Row("GET", "/flow/attempts/{attempt}", READ),
        Row("GET", "/flow/tasks", READ, of_attempt, lists=True),
        Row("POST", "/flow/tasks", OWNER, body={**task, "yaml_id": "new"}),
        Row("PUT", "/flow/tasks/replace", OWNER, body=task),
        Row("PUT", "/flow/tasks/batch", OWNER, body=[task]),
        Row("GET", "/flow/tasks/by_yaml_id", READ, f"{of_attempt}&yaml_id=t"),
        Row("GET", "/flow/tasks/{task}", READ),
        Row("POST", "/flow/config_files", OWNER, body=config),
        Row("GET", "/flow/config_files/{file}", READ),
        Row("GET", "/flow/bake_images", READ, of_bake, lists=True),
        Row("POST", "/flow/bake_images", OWNER, body=image),
        Row("GET", "/flow/bake_images/by_ref", READ, f"{of_bake}&ref=r"),
        Row("GET", "/flow/bake_images/{image}", READ),
        Row("PATCH", "/flow/bake_images/{image}", OWNER, body={"status": "built"}),
        Row("POST", "/flow/cache_entries", WRITE, body=entry),
        Row("GET", "/flow/cache_entries/by_key", OWNER, key, hides=True),
        Row("GET", "/flow/cache_entries/{entry}", READ),
        Row("GET", "/flow/schedules", READ, of_project, lists=True),
        Row("PUT", "/flow/schedules", WRITE, body=schedule),
        Row("POST", "/flow/attempts/{attempt}/executor", WRITE, body={}),
    ]


def _endings(ids: Mapping[str, str]) -> list[Row]:
    tried = {"bake_id": ids["bake"], "number": 1, "configs_meta": CONFIGS}
    file, other = {"path": f"/{ids['user']}/secret.txt"}, f"/{ids['user']}/other"
    return [
        Row("PUT", "/flow/attempts/replace", OWNER, body={**tried, "result": "failed"}),
        Row("POST", "/flow/attempts", OWNER, body={**tried, "number": 2, "result": "failed"}),
        Row("DELETE", "/flow/cache_entries", WRITE, f"?project_id={ids['project']}"),
        Row("DELETE", "/flow/schedules/{schedule}", WRITE),
        Row("DELETE", "/flow/projects/{project}", WRITE),
        Row("POST", "/storage{path}", WRITE, f"?op=RENAME&destination={other}", at=file),
        Row("DELETE", "/storage{path}", WRITE, "?op=DELETE", at={"path": other}),
        Row(
            "DELETE",
            "/v2/{name}/blobs/{digest}",
            WRITE,
            at={"name": ids["repository"], "digest": ids["blob"]},
        ),
        Row(
            "DELETE",
            "/v2/{name}/manifests/{reference}",
            WRITE,
            at={"name": ids["repository"], "reference": "v1"},
        ),
        Row(
            "DELETE",
            "/secrets/{key}",
            MANAGE,
            f"?owner={ids['user']}",
            at={"key": ids["secret"]},
        ),
        Row("POST", "/monitoring/jobs/{job}/kill", WRITE, body={}),
        Row("DELETE", "/jobs/{job}", WRITE),
        Row(
            "DELETE",
            "/users/{user}",
            MANAGE,
            at={"user": ids["role"]},
            of="role",
            by_person=True,
        ),
        Row(
            "DELETE",
            "/service_accounts/{account}",
            MANAGE,
            of="user",
            whole=True,
            by_person=True,
        ),
        Row("DELETE", "/users/{user}/tokens/{token}", SELF, by_person=True),
        Row("DELETE", "/users/{user}", ADMIN, by_person=True),
    ]
