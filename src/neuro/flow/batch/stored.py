"""The workflow of a bake as it was when it was submitted: from the files that are kept with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from neuro.client.messages import below, get
from neuro.domain.bakes import Attempt, BakeMeta

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from neuro.client import Client
    from neuro.domain.bakes import Bake, ConfigFile, ConfigsMeta
    from neuro.flow.batch.patience import Patience
    from neuro.flow.model import Workflow


class BriefBake(msgspec.Struct, frozen=True, kw_only=True):
    """A bake without its graphs, which can be a hundred times larger than all the rest."""

    id: str
    project_id: str
    batch: str
    params: dict[str, str] = {}
    name: str | None = None
    meta: BakeMeta = BakeMeta()
    last_attempt: Attempt | None = None
    owner: str | None = None


async def brief_bake(client: Client, bake_id: str) -> BriefBake:
    """A bake with its last attempt. Raises NotFound."""
    params = [("fetch_last_attempt", "1")]
    return await get(client.transport, below("/flow/bakes", bake_id), BriefBake, params=params)


def is_foreign(client: Client, bake: Bake | BriefBake) -> bool:
    """Whether a bake is another's: nothing of it runs here, or with this person's rights."""
    return bool(client.user) and bake.owner not in (None, client.user)


async def stored_workflow(
    client: Client, bake: Bake | BriefBake, attempt: Attempt, patience: Patience
) -> Workflow:
    """Read an attempt's files, and evaluate what its tasks share. Raises FlowError."""
    import asyncio  # not for those who only submit

    def read(file_id: str) -> asyncio.Future[ConfigFile]:
        return asyncio.ensure_future(patience(lambda: client.bakes.file(file_id)))

    ids = config_ids(attempt.configs_meta)
    texts = {file.id: file for file in await asyncio.gather(*map(read, ids))}
    return workflow_of(client.user, bake, attempt, texts)


def config_ids(configs: ConfigsMeta) -> list[str]:
    """The ids of the files that an attempt is read from, each once."""
    ids = [configs.flow_config_id, *configs.action_config_ids.values()]
    if configs.project_config_id is not None:
        ids.append(configs.project_config_id)
    return [*dict.fromkeys(ids)]


def workflow_of(
    user: str, bake: Bake | BriefBake, attempt: Attempt, texts: Mapping[str, ConfigFile]
) -> Workflow:
    """An attempt's workflow, of its files by their ids. Raises FlowError."""
    from neuro.flow.evaluate.batch.facts import Facts
    from neuro.flow.evaluate.batch.sources import StoredFiles
    from neuro.flow.evaluate.batch.workflow import stored_batch

    configs = attempt.configs_meta
    facts = Facts(
        bake_id=bake.id,
        batch=bake.batch,
        workspace=Path(configs.workspace),
        user=user,
        git=bake.meta.git_info,
        hashes=dict(bake.meta.hashes),
    )
    return stored_batch(StoredFiles(configs, texts), facts, bake.params)
