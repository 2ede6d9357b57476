"""From what was scheduled to a bake with its attempt and files. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeRequest,
    ConfigFile,
    ConfigFileRequest,
    ConfigsMeta,
    ScheduledFile,
    ScheduleRequest,
    TaskStatus,
    new_id,
)
from neuro.domain.errors import InvalidInput
from neuro.server.bakes.checks import (
    MAX_FILES_OF_A_BAKE,
    check_attempt,
    check_bake,
    check_file,
    check_tags,
)

TAG = "schedule"
_FLOW, _PROJECT = "flow", "project"


@dataclass(frozen=True)
class Made:
    """All that is written for one bake."""

    bake: Bake
    attempt: Attempt
    files: list[ConfigFile]


def make(schedule_id: str, owner: str, request: ScheduleRequest, now: datetime) -> Made:
    """The bake of a schedule whose time has come, with a first attempt that nobody drives yet."""
    bake = Bake(
        id=new_id("bake"),
        project_id=request.project_id,
        batch=request.batch,
        created_at=now,
        graphs=request.graphs,
        params=request.params,
        tags=_tags(request),
        meta=msgspec.structs.replace(request.meta, schedule=schedule_id),
        owner=owner,
    )
    ids = {file.role: new_id("config-file") for file in request.files}
    attempt = Attempt(
        id=new_id("attempt"),
        bake_id=bake.id,
        number=1,
        created_at=now,
        result=TaskStatus.PENDING,
        configs_meta=_configs(request.workspace, ids),
    )
    return Made(bake, attempt, [_file(bake.id, ids[file.role], file) for file in request.files])


def check(request: ScheduleRequest) -> None:
    """Raise InvalidInput or TooLarge for what no bake can be made of."""
    roles = [file.role for file in request.files]
    if roles.count(_FLOW) != 1 or len(set(roles)) != len(roles):
        raise InvalidInput(
            "A schedule needs the text of its batch, once: one file whose role is 'flow', and each"
            " other role once."
        )
    if len(roles) > MAX_FILES_OF_A_BAKE:
        raise InvalidInput(f"A schedule can have {MAX_FILES_OF_A_BAKE} flow files at most.")
    for file in request.files:
        check_file(ConfigFileRequest(bake_id="", filename=file.filename, content=file.content))
    check_bake(
        BakeRequest(
            project_id=request.project_id,
            batch=request.batch,
            graphs=request.graphs,
            params=request.params,
            tags=request.tags,
            meta=request.meta,
        )
    )
    check_tags(_tags(request))
    check_attempt(
        AttemptRequest(
            bake_id="",
            number=1,
            result=TaskStatus.PENDING,
            configs_meta=_configs(request.workspace, dict.fromkeys(roles, "")),
        )
    )


def _tags(request: ScheduleRequest) -> list[str]:
    return [*(tag for tag in request.tags if tag != TAG), TAG]


def _configs(workspace: str, ids: dict[str, str]) -> ConfigsMeta:
    actions = {role: file_id for role, file_id in ids.items() if role not in (_FLOW, _PROJECT)}
    return ConfigsMeta(
        workspace=workspace,
        flow_config_id=ids[_FLOW],
        project_config_id=ids.get(_PROJECT),
        action_config_ids=actions,
    )


def _file(bake_id: str, file_id: str, file: ScheduledFile) -> ConfigFile:
    return ConfigFile(id=file_id, bake_id=bake_id, filename=file.filename, content=file.content)
