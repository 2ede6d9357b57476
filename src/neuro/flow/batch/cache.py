"""When an earlier outcome of a task is taken: the key that it is kept under, and its age."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta

from neuro.domain.bakes import CacheEntry
from neuro.flow.model import CacheRule, Outcomes, ResolvedTask, join_id

_BAKE_TAG = "bake_id:"


def key_of(task: ResolvedTask, needs: Outcomes) -> str:
    """The key of a task: the same for the same work on the same results of the tasks it needs.

    Settings of how patiently the work is done are not part of it: retries, time limits, how long
    an outcome is kept, and the tag of the bake.
    """
    return key_with(task, text_of(needs))


def text_of(needs: Outcomes) -> str:
    """The part of a task's key that its needs make; tasks that need the same share it."""
    return _canonical(
        {
            join_id(id): {"result": outcome.result.value, "outputs": dict(outcome.outputs)}
            for id, outcome in needs.items()
        }
    )


def key_with(task: ResolvedTask, needs: str) -> str:
    """``key_of``, with the string of the needs made before."""
    own = _canonical(
        {
            "id": join_id(task.id),
            "title": task.title,
            "name": task.name,
            "image": task.image,
            "preset": task.preset,
            "http_port": task.http_port,
            "http_auth": task.http_auth,
            "pass_config": task.pass_config,
            "entrypoint": task.entrypoint,
            "cmd": task.cmd,
            "workdir": task.workdir,
            "volumes": list(task.volumes),
            "life_span": task.life_span,
            "env": dict(task.env),
            "tags": sorted(tag for tag in task.tags if not tag.startswith(_BAKE_TAG)),
            "restart": task.restart,
            "enable": task.enable if isinstance(task.enable, bool) else str(task.enable),
            "strategy": {"fail_fast": task.fail_fast, "max_parallel": task.max_parallel},
            "caching_key": task.cache.key,
        }
    )
    text = f'{{"needs":{needs},"task":{own}}}'
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def is_fresh(entry: CacheEntry, rule: CacheRule, now: datetime) -> bool:
    """Whether an entry is young enough to be taken."""
    return now < entry.created_at + timedelta(seconds=rule.life_span)
