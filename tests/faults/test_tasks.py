"""Tasks that misbehave: they print without end, or do not end at all."""

from __future__ import annotations

from pathlib import Path

from tests.faults.project import (
    HEAD,
    Project,
    check_history,
    peak_memory,
    statuses,
    until_open,
)
from tests.server_process import SETTINGS, running_server

MOST_MEMORY = 100 << 20

LOUD = f"""\
{HEAD}
- id: loud
  image: ubuntu
  bash: |
    echo '::set-output name=first::at the beginning'
    {{ yes 'a line like any other, of which there are many' || true; }} | head -c 500M
    echo
    echo '::set-output name=last::at the end'
- id: after
  needs: [loud]
  image: ubuntu
  env:
    GOT: ${{{{ needs.loud.outputs.first }}}}, ${{{{ needs.loud.outputs.last }}}}
  bash: |
    echo "::set-output name=got::$GOT"
    {until_open("gate")}
"""


async def test_half_a_gigabyte_of_output_passes_through_little_memory(project: Project) -> None:
    project.write("loud", LOUD)
    bake, attempt = await project.bake("loud")

    await project.reached(bake, "after")
    most = peak_memory(project.executor_of(bake))
    project.open("gate")

    assert (await project.ended(bake)).result == "succeeded"
    tasks = await project.tasks(attempt)
    assert tasks["loud"].outputs == {"first": "at the beginning", "last": "at the end"}
    assert tasks["after"].outputs == {"got": "at the beginning, at the end"}
    assert most < MOST_MEMORY


ENDLESS = f"""\
{HEAD}
- id: endless
  needs: []
  timeout: 1s
  retry: {{attempts: 2, delay: 0.05}}
  image: ubuntu
  bash: |
    echo x >> /left/endless
    sleep 1000
- id: deaf
  needs: []
  timeout: 1s
  retry: {{attempts: 2, delay: 0.05}}
  image: ubuntu
  bash: |
    trap '' TERM INT HUP
    echo x >> /left/deaf
    while true; do sleep 1000; done
- id: recovers
  needs: []
  timeout: 1s
  retry: {{attempts: 2, delay: 0.05}}
  image: ubuntu
  bash: |
    echo x >> /left/recovers
    test $(wc -l < /left/recovers) -eq 2 || sleep 1000
- id: fine
  needs: []
  image: ubuntu
  bash: echo x >> /left/fine; sleep 1.5
- id: after
  needs: [fine, recovers]
  image: ubuntu
  bash: echo x >> /left/after
- id: never
  needs: [deaf]
  image: ubuntu
  bash: echo x >> /left/never
"""


async def test_tasks_without_an_end_are_ended_and_tried_again(project: Project) -> None:
    project.write("endless", ENDLESS)
    bake, attempt = await project.bake("endless")

    ended = await project.ended(bake)

    tasks = await project.tasks(attempt)
    assert statuses(tasks) == {
        "endless": "failed",
        "deaf": "failed",
        "recovers": "succeeded",
        "fine": "succeeded",
        "after": "succeeded",
        "never": "skipped",
    }
    check_history(tasks)
    assert tasks["endless"].message == tasks["deaf"].message == "timed out after 1s (try 2)"
    assert project.runs() == {"endless": 2, "deaf": 2, "recovers": 2, "fine": 1, "after": 1}
    assert ended.result == "failed"
    assert ended.message is not None
    assert "failed: timed out after 1s" in ended.message
    for job in await project.jobs(bake):
        assert job.status.is_finished


FORGETFUL = f"""\
{HEAD}
- id: loud
  image: ubuntu
  bash: |
    echo '::set-output name=first::at the beginning'
    {{ yes 'a line like any other, of which there are many' || true; }} | head -c 200M
    echo
    echo '::set-output name=last::at the end'
"""


async def test_of_output_that_is_not_kept_nothing_is_set(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", settings=f'log_limit = "1M"\n{SETTINGS}') as server:
        project = Project(server, tmp_path)
        project.write("loud", FORGETFUL)
        bake, attempt = await project.bake("loud")

        assert (await project.ended(bake)).result == "succeeded"
        tasks = await project.tasks(attempt)
        assert tasks["loud"].outputs == {"last": "at the end"}
