"""Actions of every scheme, called from jobs."""

from __future__ import annotations

import subprocess

import pytest

from neuro.flow.problems import FlowError

ACTION = """\
kind: live
inputs:
  n: {type: int, default: 3}
  f: {type: float, default: 0.5}
  b: {type: bool, default: true}
  s: {default: text}
job:
  image: x
  multi: false
  tags: [own]
  cmd: ${{ inputs.n + 1 }} ${{ inputs.f }} ${{ inputs.b }} ${{ inputs.s }}
  workdir: ${{ flow.action_path }}
"""


@pytest.fixture
def mirror(place, tmp_path, monkeypatch):
    """A folder of repositories with me/act in it, tagged v1."""
    repository = tmp_path / "mirror" / "me" / "act"
    repository.mkdir(parents=True)
    (repository / "action.yml").write_text(ACTION)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    monkeypatch.setenv("NEURO_FLOW_GITHUB", (tmp_path / "mirror").as_uri())
    return repository


@pytest.mark.parametrize("reference", ["ws:acts/act", "workspace:acts/act.yml"])
def test_a_local_action(place, reference) -> None:
    place.write("acts/act.yml", ACTION)
    job = place.resolve(f"""\
        defaults: {{env: {{A: 1}}, tags: [t], preset: cpu, volumes: ["storage:d:/d"]}}
        jobs: {{a: {{action: "{reference}"}}}}
        """)
    assert job.cmd == "4 0.5 True text"
    assert job.workdir == str(place.root / "acts")
    assert job.tags == ("flow:live", "job:a", "own", "project:my-ws", "t")
    assert (job.env, job.preset, job.volumes, job.name) == ({}, None, (), "my-ws-a")


def test_literal_arguments_keep_their_types(place) -> None:
    place.write("act.yml", ACTION)
    text = "jobs: {a: {action: 'ws:act', args: {n: 5, f: 2, b: false, s: 7}}}"
    assert place.resolve(text).cmd == "6 2.0 False 7"
    with pytest.raises(FlowError, match="the argument is 'str', the input is 'int'"):
        place.resolve("jobs: {a: {action: 'ws:act', args: {n: '5'}}}")


def test_a_module_sees_its_callers_contexts_and_mixins(place) -> None:
    place.write(
        "mod.yml",
        """\
        kind: live
        inputs: {s: {}}
        job: {mixins: [m], cmd: "${{ inputs.s }} ${{ env.A }} ${{ params.p }}"}
        """,
    )
    job = place.resolve("""\
        defaults: {env: {A: 1}, preset: cpu}
        mixins: {m: {image: mixed}}
        jobs: {a: {module: "ws:mod", params: {p: P}, args: {s: "${{ params.p }}"}}}
        """)
    assert (job.image, job.cmd, job.preset, job.env) == ("mixed", "P 1 P", "cpu", {"A": "1"})


@pytest.mark.parametrize("scheme", ["gh", "github"])
def test_an_action_from_a_repository_is_fetched_once(place, mirror, scheme) -> None:
    text = f"jobs: {{a: {{action: '{scheme}:me/act@v1'}}}}"
    assert place.resolve(text).cmd == "4 0.5 True text"
    mirror.rename(mirror.with_name("gone"))
    assert place.resolve(text).cmd == "4 0.5 True text"
    assert not list(place.cache.rglob(".clone-*"))
    assert not list(place.cache.rglob(".git"))


def test_a_version_that_is_not_there(place, mirror) -> None:
    with pytest.raises(
        FlowError, match=r"Cannot get the action from .*me/act, version v2"
    ) as error:
        place.resolve("jobs: {a: {action: 'gh:me/act@v2'}}")
    assert error.value.problems[0].at is not None
    assert not list(place.cache.rglob("*@*"))


def test_without_git(place, mirror, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(place.root))
    with pytest.raises(FlowError, match="`git` is not installed"):
        place.resolve("jobs: {a: {action: 'gh:me/act@v1'}}")


@pytest.mark.parametrize(
    "spec",
    [
        "me/act",
        "me@v1",
        "../x@v1",
        "me/..@v1",
        "-me/act@v1",
        "me/act@--upload-pack=x",
        "me/act@../v",
    ],
)
def test_names_that_lead_elsewhere_are_refused(place, mirror, spec) -> None:
    with pytest.raises(FlowError, match=r"format|cannot be the name"):
        place.resolve(f"jobs: {{a: {{action: 'gh:{spec}'}}}}")


def test_a_link_out_of_the_repository_is_no_action(place, mirror) -> None:
    (mirror / "action.yml").unlink()
    (mirror / "action.yml").symlink_to("/etc/hostname")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "commit", "-qam", "link"], cwd=mirror, check=True)
    subprocess.run([*git, "tag", "v3"], cwd=mirror, check=True)
    with pytest.raises(FlowError, match=r"has no action\.yml in its root"):
        place.resolve("jobs: {a: {action: 'gh:me/act@v3'}}")


def test_a_bundled_action(place) -> None:
    job = place.resolve("jobs: {a: {action: 'neuro:jupyter@v1'}}")
    assert job.image == "python:3.11"
    with pytest.raises(FlowError, match="has the version v1"):
        place.resolve("jobs: {a: {action: 'neuro:jupyter@v2'}}")


def test_mixins_in_an_actions_job_are_told(place) -> None:
    place.write("act.yml", "kind: live\njob: {image: x, mixins: [m]}\n")
    with pytest.raises(FlowError, match="Mixins are not available in an action"):
        place.resolve("jobs: {a: {action: 'ws:act'}}")


def test_an_action_that_is_a_multi_job(place) -> None:
    place.write("act.yml", "kind: live\njob: {image: x, multi: true}\n")
    flow = place.live("jobs: {a: {action: 'ws:act'}}")
    assert flow.is_multi("a")
