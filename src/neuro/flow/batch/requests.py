"""From a task whose expressions are evaluated to the job that the platform is asked for."""

from __future__ import annotations

import hashlib

from neuro.client.job_request import Where, environment, parse_volumes
from neuro.domain.jobs import HttpPort, JobRequest, RequestedResources, RestartPolicy
from neuro.domain.life_spans import life_span_minutes
from neuro.domain.names import MAX_TAGS, check_tags
from neuro.flow.model import FullId, ResolvedTask, join_id

_LONGEST_KEY = 255


def job_request(task: ResolvedTask, where: Where, tag: str | None = None) -> JobRequest:
    """The request for a task's job, with ``tag`` besides its own where there is room for it.

    The same task gives the same request, always: it is what makes a repeated submission find the
    job that there is. Raises InvalidInput.
    """
    plain, secret = environment([f"{k}={v}" for k, v in task.env.items()], {}, where)
    volumes = parse_volumes(task.volumes, where)
    port = task.http_port
    tags = [*task.tags]
    if tag is not None and len(tags) < MAX_TAGS:
        tags.append(tag)
    return JobRequest(
        cluster_name=where.cluster,
        preset_name=task.preset,
        name=task.name,
        # By which `neuro ps` tells the jobs of a bake apart.
        description=task.title or join_id(task.id),
        tags=check_tags(tags),
        max_run_time_minutes=life_span_minutes(task.life_span) if task.life_span else None,
        schedule_timeout=task.schedule_timeout,
        restart_policy=RestartPolicy(task.restart) if task.restart else RestartPolicy.NEVER,
        pass_config=task.pass_config,
        image=task.image,
        command=task.cmd,
        entrypoint=task.entrypoint,
        working_dir=task.workdir,
        env=plain,
        secret_env=secret,
        volumes=volumes.storage,
        secret_volumes=volumes.secrets,
        disk_volumes=volumes.disks,
        http=HttpPort(port=port, requires_auth=task.http_auth is not False) if port else None,
        tty=False,
        resources=RequestedResources(shm=True),
    )


def submission_key(attempt_id: str, id: FullId, number: int) -> str:
    """The key that makes try ``number`` of a task one job, however often it is submitted.

    Keys are short and ASCII; where a full id is not, its digest stands for it.
    """
    key = f"{attempt_id}/{join_id(id)}/{number}"
    if len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable():
        return key
    digest = hashlib.sha256(join_id(id).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{attempt_id}/sha256:{digest}/{number}"


def attempt_tag(number: int) -> str:
    """The tag that the jobs of one attempt have besides the bake's.

    With it, what belongs to no record can be told from what still runs of an earlier attempt.
    """
    return f"attempt:{number}"
