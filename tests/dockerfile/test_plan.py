from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.dockerfile.image import History, Image, ImageConfig
from neuro.dockerfile.parser import parse
from neuro.dockerfile.plan import plan
from neuro.dockerfile.platforms import Platform
from neuro.dockerfile.steps import (
    AddFiles,
    AnyStep,
    BaseImage,
    ContextFiles,
    CopyFiles,
    Execute,
    Files,
    GitTree,
    ImagesNeeded,
    InlineFile,
    MakeFolder,
    Metadata,
    Plan,
    Pull,
    RemoteFile,
    StepFiles,
    context_paths,
    definition,
    inputs,
    needs,
)
from neuro.dockerfile.tree import DockerfileError
from tests.dockerfile.table import INSTRUCTIONS, SEVERAL_LINES
from tests.flow.work import calls

AMD64 = "linux/amd64"
LINES = st.sampled_from([*INSTRUCTIONS.strip().split("\n"), *SEVERAL_LINES])
RANDOM_FILES = st.lists(
    st.builds(
        lambda base, lines: "\n".join([f"FROM {base}", *lines]),
        st.sampled_from(["scratch", "scratch AS one", "one", "one AS two", "a:$V", "$V"]),
        st.lists(st.one_of(LINES, st.text(max_size=4)), max_size=3),
    ),
    min_size=1,
    max_size=3,
).map("\n".join)


def made(text: str, target: str = "", **arguments: str) -> Plan:
    found = plan(parse(text), target, arguments)
    assert isinstance(found, Plan)
    return found


def steps(text: str, **arguments: str) -> list[AnyStep]:
    """The steps that change files."""
    return [one for one in made(text, **arguments).steps if not isinstance(one, Metadata)]


def told(text: str, target: str = "") -> list[tuple[int, int, str, str | None]]:
    with pytest.raises(DockerfileError) as wrong:
        plan(parse(text), target)
    return [
        (problem.at.line, problem.at.column, problem.message, problem.hint)
        for problem in wrong.value.problems
        if problem.at
    ]


def test_images_have_to_be_known_first() -> None:
    tree = parse("FROM a AS one\nFROM --platform=linux/arm64 b:2\nCOPY --from=one /x /y")

    needed = plan(tree)

    assert isinstance(needed, ImagesNeeded)
    a, b = needed.images
    assert (a, b) == (BaseImage("a:latest", AMD64), BaseImage("b:2", "linux/arm64"))
    found = plan(tree, images={a: Image(), b: Image()})
    assert isinstance(found, Plan)
    assert [type(step) for step in found.steps] == [Pull, Pull, CopyFiles]


def test_triggers_may_need_more_images() -> None:
    tree = parse("FROM a")
    a = BaseImage("a:latest", AMD64)
    image = Image(config=ImageConfig(on_build=("COPY --from=b /x /y", "RUN z")))

    found = plan(tree, images={a: image})

    # Files are taken of an image whatever its configuration says: nobody has to know it.
    assert isinstance(found, Plan)
    assert [type(step) for step in found.steps] == [Pull, Pull, CopyFiles, Execute]
    assert found.image.config.on_build is None


def test_only_the_stages_of_the_target_are_built() -> None:
    text = (
        "FROM scratch AS a\nCOPY a /\nFROM scratch AS b\nCOPY b /\nFROM scratch\nCOPY --from=a / /"
    )

    assert [step.text for step in made(text).steps] == ["COPY a /", "COPY --from=a / /"]
    assert [step.text for step in made(text, "b").steps] == ["COPY b /"]


def test_steps_that_need_nothing_of_each_other_may_go_at_once() -> None:
    text = (
        "FROM scratch AS a\nCOPY a /\nFROM scratch AS b\nCOPY b /\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /"
    )

    first, second, third, fourth = steps(text)

    assert (needs(first), needs(second)) == (frozenset(), frozenset())
    assert (needs(third), needs(fourth)) == ({0}, {1, 2})


def test_a_step_names_what_its_files_depend_on() -> None:
    copy, run, link = steps(
        "FROM scratch\nCOPY --exclude=*.o a b* /x/\n"
        "RUN --mount=source=s,target=/t --mount=type=secret,id=k --mount=type=cache,target=/c y\n"
        "ADD --link https://example.com/z /z"
    )

    files = Files("context", "/a"), Files("context", "/b*")
    assert inputs(copy) == (ContextFiles(files, ("*.o",)),)
    assert inputs(run) == (StepFiles(0), ContextFiles((Files("context", "/s"),)))
    assert inputs(link) == (RemoteFile("https://example.com/z", "z"),)


def test_only_what_is_copied_has_to_be_sent() -> None:
    some = made(
        "FROM scratch\nCOPY a b* /\nCOPY --parents c/./d /\nRUN --mount=source=e,target=/t x"
    )

    assert context_paths(some) == ("/a", "/b*", "/c/d", "/e")
    assert context_paths(made("FROM scratch\nCOPY a /\nCOPY . /")) == ("/",)
    assert context_paths(made("FROM scratch AS a\nFROM scratch\nCOPY --from=a x /")) == ()


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("RUN x", "RUN x", True),
        ("RUN x", "RUN y", False),
        ("RUN x", "ENV A=1\nRUN x", False),
        ("RUN x", "ARG HTTP_PROXY_\nRUN x", True),
        ("RUN x", "USER u\nRUN x", False),
        ("RUN x", "LABEL a=b\nRUN    x", True),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=b x", True),
        (
            "RUN --mount=type=cache,id=a,target=/c x",
            "RUN --mount=type=cache,id=b,target=/c x",
            False,
        ),
        ("COPY a b", "COPY a c", False),
        ("COPY a b", "COPY --chown=1 a b", False),
        ("COPY <<E /f\n1\nE", "COPY <<E /f\n2\nE", False),
    ],
)
def test_what_is_written_counts_where_it_changes_files(one: str, other: str, is_same: bool) -> None:
    ours, theirs = (steps(f"FROM scratch\n{text}")[-1] for text in (one, other))

    assert (definition(ours) == definition(theirs)) is is_same


def test_proxies_are_given_and_never_count() -> None:
    with_proxy = steps("FROM scratch\nRUN x", HTTP_PROXY="p")[0]
    without = steps("FROM scratch\nRUN x")[0]

    assert isinstance(with_proxy, Execute)
    assert with_proxy.proxies == {"http_proxy": "p", "HTTP_PROXY": "p"}
    assert definition(with_proxy) == definition(without)
    assert with_proxy.history == without.history


def test_a_run_has_all_that_it_runs_with() -> None:
    [folder, run] = steps(
        'FROM scratch\nARG V=1\nENV A=b$V\nWORKDIR /w\nUSER u\nSHELL ["bash", "-c"]\n'
        "RUN --mount=type=ssh --network=none x $A"
    )

    assert isinstance(folder, MakeFolder)
    assert (folder.path, folder.user) == ("/w", "")
    assert isinstance(run, Execute)
    assert run.argv == ("bash", "-c", "x $A")
    assert (run.folder, run.user, run.network) == ("/w", "u", "none")
    assert list(run.env.items())[1:] == [
        ("V", "1"),
        ("A", "b1"),
        ("SSH_AUTH_SOCK", "/run/buildkit/ssh_agent.0"),
    ]


def test_commands_share_their_environment_until_it_changes() -> None:
    first, second, third = steps("FROM scratch\nENV A=1\nRUN x\nRUN y\nENV A=2\nRUN z")

    assert isinstance(first, Execute)
    assert isinstance(second, Execute)
    assert isinstance(third, Execute)
    assert first.env is second.env
    assert (second.env["A"], third.env["A"]) == ("1", "2")


def test_many_stages_cost_as_much_as_they_are() -> None:
    few, many = (
        parse(
            "".join(
                f"FROM alpin AS s{number}\nCOPY --from=q{number} a b\n" for number in range(count)
            )
        )
        for count in (100, 1000)
    )

    assert calls(lambda: plan(many)) < 15 * calls(lambda: plan(few))


def test_a_script_is_a_file() -> None:
    [run] = steps("FROM scratch\nRUN <<E\n#!/bin/python\nx\nE")

    assert isinstance(run, Execute)
    assert run.argv == ("/bin/sh", "-c", "/dev/pipes/E")
    assert run.script == InlineFile("E", "#!/bin/python\nx\n")


def test_parents_are_kept_below_the_pivot() -> None:
    [copy] = steps("FROM scratch\nCOPY --parents a/b/./c/*.py d/e /x/")

    assert isinstance(copy, CopyFiles)
    assert copy.sources == (
        Files("context", "/a/b", "c/*.py"),
        Files("context", "/", "d/e", "/d/e"),
    )


def test_add_takes_from_elsewhere() -> None:
    [add] = steps("FROM scratch\nADD --unpack a.tar https://example.com/b.tar?x=1 /x/")

    assert isinstance(add, AddFiles)
    assert add.sources == (
        Files("context", "/a.tar"),
        RemoteFile("https://example.com/b.tar?x=1", "b.tar"),
    )
    assert (add.unpack, add.unpack_remote) == (True, True)


def test_the_history_tells_which_instructions_made_layers() -> None:
    found = made('FROM scratch\nENV A=1\nCOPY a b\nWORKDIR /x\nCMD ["y"]')

    assert found.image.history == tuple(
        History(text, "buildkit.dockerfile.v0", is_empty)
        for text, is_empty in [
            ("ENV A=1", True),
            ("COPY a b # buildkit", False),
            ("WORKDIR /x", False),
            ('CMD ["y"]', True),
        ]
    )
    assert [step.history for step in found.steps] == [
        line.created_by for line in found.image.history or ()
    ]


def test_an_entrypoint_takes_away_the_command_of_the_base() -> None:
    tree = parse("FROM a\nENTRYPOINT x")
    image = Image(config=ImageConfig(cmd=("sh",), env=("A=1",)))

    found = plan(tree, images={BaseImage("a:latest", AMD64): image})

    assert isinstance(found, Plan)
    assert found.image.config.cmd is None
    assert found.image.config.env is not None
    assert found.image.config.env[0] == "A=1"


def test_the_image_is_of_the_platform_that_is_asked_for() -> None:
    found = plan(
        parse("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /"),
        platform=Platform("linux", "arm64"),
    )

    assert isinstance(found, Plan)
    assert (found.image.os, found.image.architecture) == ("linux", "arm64")
    assert found.steps[1].history == "COPY arm64 / # buildkit"


@pytest.mark.parametrize(
    ("text", "target", "problems"),
    [
        (
            "FROM a AS builder\nRUN x",
            "bulider",
            [(1, 1, "There is no stage 'bulider'.", "Did you mean 'builder'?")],
        ),
        (
            "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b\nCOPY --from=a x y",
            "",
            [
                (
                    4,
                    6,
                    "Stages need each other: a ← b ← a.",
                    "A stage takes files of stages above it only.",
                )
            ],
        ),
        (
            "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b",
            "a",
            [(2, 6, "The stage 'b' is defined below.", "Move it above this stage.")],
        ),
        (
            "FROM scratch\nCOPY --from=3 x y",
            "",
            [(2, 6, "There is no stage number 3.", "The stages are numbered from 0 to 0.")],
        ),
        (
            "FROM scratch AS base\nFROM Base",
            "",
            [(2, 6, "'Base' is not an image or a stage.", "Did you mean 'base'?")],
        ),
        (
            "FROM image:/Bob/x",
            "",
            [
                (
                    1,
                    6,
                    "'image:/Bob/x' is not an image or a stage.",
                    "Write NAME:TAG in lower-case letters.",
                )
            ],
        ),
        (
            "FROM a:$V",
            "",
            [(1, 6, "'a:' is not an image or a stage.", "Write NAME:TAG in lower-case letters.")],
        ),
        (
            "FROM scratch\nENV A=b${V:?none}\nEXPOSE x\nRUN --mount=type=cahce,target=/x y",
            "",
            [
                (2, 8, "V: none", None),
                (3, 8, "'x' is not a port.", "Write 8080, 8080/udp or 8000-8010."),
                (4, 5, "'cahce' is not a type of mount.", "Did you mean 'cache'?"),
            ],
        ),
        (
            "FROM scratch\nCOPY https://a/b c",
            "",
            [(2, 6, "COPY cannot take 'https://a/b'.", "Write ADD.")],
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    text: str, target: str, problems: list[tuple[int, int, str, str | None]]
) -> None:
    assert told(text, target) == problems


def test_a_wrong_trigger_is_told_at_its_base() -> None:
    tree = parse("FROM scratch\nFROM a")
    image = Image(config=ImageConfig(on_build=("RUN --mout=x y",)))

    with pytest.raises(DockerfileError) as wrong:
        plan(tree, images={BaseImage("a:latest", AMD64): image})

    [problem] = wrong.value.problems
    assert problem.at is not None
    assert problem.at[1:] == (2, 6)
    assert problem.message == "An ONBUILD of a cannot be read: RUN has no flag '--mout'."


def test_an_image_that_looks_like_a_stage_is_noted() -> None:
    needed = plan(parse("FROM scratch AS builder\nFROM buidler"))
    found = made("FROM scratch AS builder\nFROM scratch\nCOPY --from=bulider a b")

    assert isinstance(needed, ImagesNeeded)
    assert needed.hints == {"buidler:latest": "Did you mean the stage 'builder'?"}
    assert [(note.message, note.hint) for note in found.notes] == [
        ("'bulider' is not a stage: it is an image.", "Did you mean 'builder'?")
    ]


def test_a_name_that_no_stage_has_is_told_where_the_image_is_missing() -> None:
    found = made("FROM scratch AS a\nFROM scratch\nCOPY --from=other b c\nCOPY --from=x/y b c")

    assert found.hints == {"other:latest": "No stage is called 'other': it is taken for an image."}


@pytest.mark.parametrize("name", ["image:a", "image:/bob/a:v1", "image://default/bob/a:v1"])
def test_images_of_the_platform_are_called_as_everywhere(name: str) -> None:
    needed = plan(parse(f"FROM {name}"))
    found = made(f"FROM scratch\nCOPY --from={name} a b")

    assert isinstance(needed, ImagesNeeded)
    assert needed.images[0].reference.startswith(name)
    assert [one.image for one in found.steps if isinstance(one, Pull)] == list(needed.images)


def test_an_argument_that_nobody_asks_for_is_noted() -> None:
    found = made("FROM scratch\nARG VERSION", VERSON="1", https_proxy="p")

    assert [note.message for note in found.notes] == [
        "No ARG asks for 'VERSON'. Did you mean 'VERSION'?"
    ]


@given(RANDOM_FILES, st.sampled_from(["", "one", "nope"]))
def test_every_file_has_a_plan_or_a_place_for_what_is_wrong(text: str, target: str) -> None:
    try:
        found, problems = plan(parse(text), target, {"V": "1"}), ()
    except DockerfileError as wrong:
        found, problems = None, wrong.problems
    if found is None:
        assert problems
        assert all(problem.at and problem.render() for problem in problems)
    elif isinstance(found, Plan):
        assert all(needs(step) <= set(range(step.number)) for step in found.steps)
    else:
        assert found.images


def test_variables_that_double_end_with_a_sentence() -> None:
    doubled = "FROM scratch\nENV A=0123456789\n" + "ENV A=$A$A$A$A\n" * 100
    repeated = f"FROM scratch\nARG A={'a' * 100_000}\n" + "RUN x\n" * 1000

    assert told(doubled)[0][2] == "This becomes longer than 1 MiB when it is expanded."
    assert told(repeated)[0][2] == "What the variables become is more than 16 MiB in all."


@pytest.mark.parametrize("number", ["1", "0000001", "+1", "+0001"])
def test_a_stage_by_its_number_is_the_one_that_go_reads(number: str) -> None:
    text = (
        "FROM scratch\nCOPY zero /\nFROM scratch\nCOPY one /\n"
        f"FROM scratch\nCOPY --from={number} /one /"
    )

    assert made(text).steps[0].text == "COPY one /"


def test_a_number_of_a_stage_that_is_not_there_is_a_mistake() -> None:
    for number in ("-1", "0000003", "999999999999999999"):
        with pytest.raises(DockerfileError, match=f"There is no stage number {number}"):
            made(f"FROM scratch\nFROM scratch\nCOPY --from={number} /one /")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("HTTP://example.com/f", RemoteFile),
        ("Https://example.com/f", RemoteFile),
        ("HTTPS://example.com/r.git", GitTree),
        ("GIT://example.com/r", GitTree),
        ("SSH://git@example.com/r", GitTree),
    ],
)
def test_a_scheme_may_be_in_upper_case(source: str, kind: type[RemoteFile | GitTree]) -> None:
    (step,) = steps(f"FROM scratch\nADD {source} /f")

    assert isinstance(step, AddFiles)
    (found,) = step.sources
    assert isinstance(found, kind)
    url = found.url if isinstance(found, RemoteFile) else found.remote
    assert url.partition("://")[0].islower()


def test_add_takes_no_other_scheme() -> None:
    with pytest.raises(DockerfileError, match="ADD cannot take 'ftp:"):
        made("FROM scratch\nADD ftp://example.com/f /f")
