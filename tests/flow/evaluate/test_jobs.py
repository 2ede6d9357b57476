"""The rules by which a job is made of its file."""

from __future__ import annotations

import json
import subprocess

import pytest

from neuro.flow.evaluate.names import default_job_name, default_project_id, job_tags
from neuro.flow.problems import FlowError
from neuro.flow.workspace import find_workspace


def test_a_falsy_value_falls_back_to_the_default(place) -> None:
    job = place.resolve("""\
        defaults: {life_span: 1h, preset: cpu, workdir: /w}
        jobs:
          a: {image: x, life_span: 0, preset: "", title: "", name: "", http_port: 0}
        """)
    assert (job.life_span, job.preset, job.workdir) == (3600.0, "cpu", "/w")
    assert (job.description, job.name, job.http_port) == ("live.a", "my-ws-a", None)


def test_the_projects_defaults_lie_below_the_workflows(place) -> None:
    place.write(
        ".neuro/project.yml",
        """\
        id: shared
        owner: alice
        defaults: {env: {A: p, B: p}, tags: [p], preset: small}
        volumes: {v: {remote: storage:p, mount: /p}, w: {remote: storage:w, mount: /w}}
        mixins: {m: {cmd: project}, n: {cmd: project}}
        """,
    )
    job = place.resolve("""\
        defaults: {env: {A: f}, tags: [f]}
        volumes: {v: {remote: storage:f, mount: /f}}
        mixins: {m: {cmd: "flow ${{ volumes.v.ref }} ${{ volumes.w.ref }}"}}
        jobs:
          a: {image: "${{ project.id }}-${{ project.owner }}", mixins: [m]}
        """)
    assert job.image == "shared-alice"
    assert job.env == {"A": "f", "B": "p"}
    assert job.tags == ("f", "flow:live", "job:a", "p", "project:shared")
    assert (job.preset, job.cmd) == ("small", "flow storage:f:/f:rw storage:w:/w:rw")


def test_multi_jobs_have_a_suffix_and_quoted_arguments(place) -> None:
    text = "jobs: {a: {image: x, multi: true, cmd: 'run ${{ multi.args }} ${{ multi.suffix }}'}}"
    job = place.resolve(text, suffix="s1", args=("one two", "3"))
    assert job.cmd == "run 'one two' 3 s1"
    assert job.name == "my-ws-a-s1"
    assert "multi:s1" in job.tags
    with pytest.raises(FlowError, match="multi-jobs only"):
        place.resolve("jobs: {a: {image: x}}", suffix="s1")


def test_params(place) -> None:
    text = """\
        defaults: {env: {A: "1"}}
        jobs:
          a:
            image: x
            params: {p: ~, q: "${{ env.A }}2"}
            cmd: ${{ params.p }} ${{ params.q }}
        """
    assert place.resolve(text, params={"p": "x"}).cmd == "x 12"
    assert place.live(text).params_of("a") == {"p": None, "q": "12"}
    with pytest.raises(FlowError, match="Param p is not initialized and has no default value"):
        place.resolve(text)
    with pytest.raises(FlowError, match=r"Unsupported arg\(s\): r") as caught:
        place.resolve(text, params={"p": "x", "r": "y"})
    assert caught.value.problems[0].hint == "The parameters are: p, q."


def test_an_unknown_job_is_told_with_the_nearest(place) -> None:
    with pytest.raises(FlowError, match="Unknown job trian"):
        place.resolve("jobs: {train: {image: x}}", "trian")


def test_volumes_are_uploaded_when_a_job_asks_for_it(place, effects) -> None:
    job = place.resolve(
        """\
        volumes: {code: {remote: storage:c, mount: /c, local: src/../code, read_only: true}}
        jobs: {a: {image: x, volumes: ["${{ upload(volumes.code).ref }}", ""]}}
        """,
        effects=effects,
    )
    assert job.volumes == ("storage:c:/c:ro",)
    assert effects.uploads == ["code"]
    assert place.load().volumes["code"].full_local_path == place.root / "code"


def test_inspect_job_asks_by_the_tags(place, effects) -> None:
    text = "jobs: {a: {image: x, cmd: \"${{ inspect_job('b', 's').id }}\"}, b: {image: x}}"
    with pytest.raises(FlowError, match="Job b s is not running"):
        place.resolve(text, effects=effects)
    assert effects.inspected == [("flow:live", "job:b", "multi:s", "project:my-ws")]


def test_images_with_a_context(place) -> None:
    flow = place.live("""\
        images:
          i: {ref: "image:i:v1", context: ., dockerfile: docker/Dockerfile, build_args: [A=1]}
          s: {ref: r, context: "storage:x", dockerfile: "storage:x/d/Dockerfile"}
        jobs: {}
        """)
    assert flow.images["i"].context == place.root
    assert str(flow.images["i"].dockerfile_rel) == "docker/Dockerfile"
    assert str(flow.images["s"].dockerfile_rel) == "d/Dockerfile"


def test_files_are_hashed_without_folders(place) -> None:
    text = "jobs: {a: {image: x, cmd: \"${{ hash_files('data/**/*') }}\"}}"
    place.write("data/sub/one", "1")
    first = place.resolve(text).cmd
    place.write("data/sub/one", "2")
    second = place.resolve(text).cmd
    assert first is not None
    assert len(first) == 64
    assert first != second


def test_git_is_the_repository_around(place) -> None:
    text = "jobs: {a: {image: x, cmd: '${{ git.branch }} ${{ git.sha }} ${{ git.tags }}'}}"
    with pytest.raises(FlowError, match="is this project under git"):
        place.resolve(text)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q", "-b", "work"], cwd=place.root, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], cwd=place.root, check=True)
    subprocess.run([*git, "tag", "t1"], cwd=place.root, check=True)
    sha = subprocess.check_output([*git, "rev-parse", "HEAD"], cwd=place.root, text=True).strip()
    assert place.resolve(text).cmd == f"work {sha} ['t1']"


@pytest.mark.parametrize(
    ("project", "job", "suffix", "name"),
    [
        ("my_project", "train", None, "my-project-train"),
        ("my__project_", "train", "a1", "my-project-train-a1"),
        ("p" * 60, "train", None, "p" * 34 + "-train"),
        ("project", "j" * 39, None, "j" * 39),
        ("project", "j" * 60, None, "j" * 40),
        ("project", "j" * 60, "s", "j" * 38 + "-s"),
    ],
)
def test_names_are_short_and_start_with_no_dash(project, job, suffix, name) -> None:
    assert default_job_name(project, job, suffix) == name
    assert len(name) <= 40


def test_ids_and_tags(tmp_path) -> None:
    assert default_project_id(tmp_path / "my-ws.git") == "my_ws"
    with pytest.raises(ValueError, match="cannot be the project's id"):
        default_project_id(tmp_path / "1st")
    assert job_tags("A_b", "live", "J_x") == ("flow:live", "job:j-x", "project:a-b")


def test_the_workspace_is_found_above(place, tmp_path) -> None:
    below = place.root / "a" / "b"
    below.mkdir(parents=True)
    assert find_workspace(below).root == place.root
    assert find_workspace(tmp_path, place.root / ".neuro").root == place.root
    with pytest.raises(ValueError, match="does not exist"):
        find_workspace(below, below / "none")
    with pytest.raises(ValueError, match=r"No \.neuro folder"):
        find_workspace(tmp_path)


def test_a_projects_mixin_takes_in_all_keys_of_a_workflows(place) -> None:
    place.write(
        ".neuro/project.yml",
        """\
        id: shared
        mixins:
          debug: {mixins: [own], preset: small}
          batches: {mixins: [only_in_a_batch]}
        """,
    )
    job = place.resolve("""\
        mixins: {own: {image: x, detach: true, port_forward: ["80:80"]}}
        jobs:
          a: {mixins: [debug]}
        """)
    assert (job.image, job.preset, job.detach, job.port_forward) == ("x", "small", True, ("80:80",))
    assert place.check() == []


@pytest.mark.parametrize(
    ("project", "name"),
    [("id: p", "user"), ("{id: p, owner: ann}", "ann"), ("{id: p, project_name: q}", "q")],
)
def test_the_platforms_project_is_called_as_its_owner(place, project, name) -> None:
    place.write(".neuro/project.yml", project)
    job = place.resolve("""\
        volumes: {v: {remote: "storage:/${{ project.project_name }}/x", mount: /v}}
        jobs:
          a: {image: "image:/${{ project.project_name }}/i", volumes: ["${{ volumes.v.ref }}"]}
        """)
    assert (job.image, job.volumes) == (f"image:/{name}/i", (f"storage:/{name}/x:/v:rw",))


def test_records_are_written_as_json_with_the_fields_that_they_store(place) -> None:
    job = place.resolve("""\
        volumes: {v: {remote: storage:v, mount: /v}}
        jobs:
          a:
            image: x
            env:
              PROJECT: ${{ to_json(project) }}
              FLOW: ${{ to_json(flow) }}
              VOLUME: ${{ to_json(volumes.v) }}
        """)
    assert job.env["PROJECT"] == (
        '{"id": "my_ws", "project_name": "user", "owner": null, "role": null}'
    )
    assert json.loads(job.env["FLOW"]) == {
        "flow_id": "live",
        "project_id": "my_ws",
        "workspace": str(place.root),
        "title": "live",
        "username": "user",
    }
    assert job.env["VOLUME"] == (
        '{"id": "v", "remote": "storage:v", "mount": "/v", "read_only": false,'
        ' "local": null, "full_local_path": null}'
    )


def test_a_params_description_may_hold_an_expression_that_nobody_evaluates(place) -> None:
    text = "jobs: {a: {image: x, params: {n: {default: '1', descr: 'of ${{ needs.nobody }}'}}}}"
    assert place.resolve(text).image == "x"
    assert place.check() == []
