"""Attacks from runs that have an image: the fence is the same, without the machine's userland."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from neuro.engines.sandbox import SandboxEngine
from neuro.engines.sandbox.images import Root
from tests.engines import made_images
from tests.engines.harness import EVERYWHERE, Runs
from tests.engines.made_images import MadeImages
from tests.security.host import Host
from tests.security.test_kernel import (
    test_a_jobs_first_process_cannot_be_harmed_or_seen as test_its_first_process_is_out_of_reach,
)
from tests.security.test_kernel import (
    test_no_command_of_exec_has_more_rights as test_no_command_of_exec_has_more_rights,
)
from tests.security.test_kernel import (
    test_no_system_call_opens_the_fence as test_no_system_call_opens_the_fence,
)
from tests.security.test_kernel import (
    test_no_system_call_opens_the_fence_for_privileged_jobs as test_nor_for_privileged_jobs,
)
from tests.security.test_kernel import (
    test_nothing_of_the_kernel_is_writable_or_more_readable_than_outside as test_the_kernel,
)
from tests.security.test_paths import (
    test_a_working_folder_never_leads_to_the_host as test_a_working_folder_leads_nowhere,
)
from tests.security.test_paths import (
    test_the_place_of_a_volume_never_leads_to_the_host as test_the_place_of_a_volume,
)

__all__ = [
    "test_a_working_folder_leads_nowhere",
    "test_its_first_process_is_out_of_reach",
    "test_no_command_of_exec_has_more_rights",
    "test_no_system_call_opens_the_fence",
    "test_nor_for_privileged_jobs",
    "test_the_kernel",
    "test_the_place_of_a_volume",
]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(host: Host) -> AsyncIterator[Runs]:
    """An engine whose runs all have an image, with links that lead to the host in its layers."""
    layer = host.place / "storage" / "layer"
    layer.mkdir(parents=True)
    layer.chmod(0o755)
    for name, target in _LINKS.items():
        (layer / name).symlink_to(target.format(canary=host.canary))
    below = made_images.userland()
    images = MadeImages(Root((*below.layers, str(layer)), below.config))
    engine = SandboxEngine(host.place / "engine", storage=EVERYWHERE, images=images)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


_LINKS = {
    "host": "{canary}",
    "up": "../../../../../../{canary}",
    "old-root": "/proc/1/root/{canary}",
    "descriptor": "/proc/self/fd/3",
}


@pytest.mark.parametrize("name", _LINKS)
async def test_links_of_an_image_lead_nowhere(runs: Runs, host: Host, name: str) -> None:
    done = await runs.shell(f"find /{name}/; cat /{name}/*; touch /{name}/made")
    inside = await runs.shell("find .; cat *; touch made", working_dir=f"/{name}/folder")

    host.check()
    for each in (done, inside):
        host.check_output(each.output)


async def test_nothing_of_the_machine_is_left(runs: Runs, host: Host) -> None:
    mounts = await runs.run("cat", "/proc/self/mountinfo")
    files = await runs.run("find", "/", "-xdev", "-name", "canary*")

    places = {line.split()[4] for line in mounts.lines}
    others = {place for place in places if not place.startswith(("/proc", "/sys", "/dev"))}
    assert others == {"/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
    assert files.output == b""
