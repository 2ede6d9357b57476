"""What a flow file names is in its workspace: a stranger's file reads nothing else."""

from __future__ import annotations

import pytest

from neuro.flow.problems import FlowError

OUT = "leads out of the workspace"


def told(place) -> list[tuple[str, int, int]]:
    """What a check says of live.yml, and where."""
    return [
        (problem.message, problem.at.line, problem.at.column)
        for problem in place.check()
        if problem.at is not None
    ]


@pytest.mark.parametrize("kind", ["action", "module"])
@pytest.mark.parametrize(
    "name", ["../../../../etc/passwd", "../secret", "/etc/hostname", "sub/../../secret"]
)
def test_no_action_is_outside(place, kind: str, name: str) -> None:
    (place.root.parent / "secret.yml").write_text("the-secret\n")
    place.write(".neuro/live.yml", f"kind: live\njobs:\n  a: {{{kind}: ws:{name}}}\n")

    ((message, line, column),) = told(place)

    assert message.startswith(f"ws:{name} {OUT}")
    assert (line, column) == (3, 7 + len(kind) + 2)
    assert "secret" not in message.replace(name, "")


def test_no_action_is_behind_a_link_that_leads_out(place) -> None:
    (place.root.parent / "secret.yml").write_text("the-secret\n")
    (place.root / "link.yml").symlink_to("../secret.yml")
    (place.root / "folder").symlink_to("..")
    text = "kind: live\njobs:\n  a: {action: ws:link}\n  b: {action: ws:folder/secret}\n"
    place.write(".neuro/live.yml", text)

    found = told(place)

    assert [(line, column) for _, line, column in found] == [(3, 15), (4, 15)]
    assert all("behind a link that leads out of the workspace" in each[0] for each in found)


def test_a_link_within_the_workspace_is_followed(place) -> None:
    place.write("real/act.yml", "kind: live\njob: {image: x, cmd: c}\n")
    (place.root / "link.yml").symlink_to("real/act.yml")

    assert place.resolve("jobs: {a: {action: ws:link}}").image == "x"


@pytest.mark.parametrize("pattern", ["../../etc/*", "/etc/*", "sub/../../*", "*/../../*"])
def test_no_pattern_of_hashed_files_leads_out(place, pattern: str) -> None:
    text = f"jobs:\n  a:\n    image: x\n    cmd: ${{{{ hash_files('{pattern}') }}}}\n"
    place.write(".neuro/live.yml", "kind: live\n" + text)

    ((message, line, _),) = told(place)
    with pytest.raises(FlowError, match=OUT):
        place.resolve(text)

    assert message.startswith(f"'{pattern}' {OUT}")
    assert line == 5


@pytest.mark.parametrize(
    "call",
    ["hash_files('**/..' + '/*')", "hash_files('../' + 'secret')", "hash_files('link')",
     "hash_files('links/*')", "hash_files_relative('..', '*')", "hash_files_relative('/etc', '*')",
     "hash_files_relative('sub', '../../secret')"],
)  # fmt: skip
def test_nothing_outside_is_hashed(place, call: str) -> None:
    (place.root.parent / "secret").write_text("s")
    (place.root / "sub").mkdir()
    (place.root / "link").symlink_to("../secret")
    (place.root / "links").symlink_to("..")

    with pytest.raises(FlowError, match=OUT):
        place.resolve(f'jobs:\n  a: {{image: x, cmd: "${{{{ {call} }}}}"}}\n')


def test_files_of_the_workspace_beside_an_actions_are_hashed(place) -> None:
    place.write("sub/a.txt", "a")
    place.write("other/b.txt", "b")

    job = place.resolve(
        "jobs:\n  a: {image: x, cmd: \"${{ hash_files_relative('sub', '../other/*') }}\"}\n"
    )

    assert len(job.cmd) == 64


def test_a_context_to_build_from_is_inside(place) -> None:
    text = "kind: live\nimages:\n  i: {ref: 'image:i', context: ../.., dockerfile: ../../D}\n"
    place.write(".neuro/live.yml", text + "jobs: {}\n")

    assert told(place) == [("The context ../.. leads out of the workspace", 3, 32)]


def test_a_volumes_local_folder_may_be_anywhere(place) -> None:
    text = "volumes:\n  v: {remote: 'storage:v', mount: /v, local: ../elsewhere}\n"

    live = place.live(text + "jobs: {}\n")

    assert str(live.volumes["v"].full_local_path) == str(place.root.parent / "elsewhere")
