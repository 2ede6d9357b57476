from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.dockerfile.copying import Entry, MissingSource, copied
from neuro.dockerfile.steps import Files
from tests.dockerfile.reference import Reference, Refused

TREE = ("a/b/c.py", "a/d.txt", "e.py", "f/")


def entries(paths: Iterable[str]) -> list[Entry]:
    """The paths, and the folders above them. Names of folders end with a slash."""
    found: dict[str, bool] = {}
    for path in paths:
        names = path.rstrip("/").split("/")
        for length in range(1, len(names)):
            found["/".join(names[:length])] = True
        found["/".join(names)] = path.endswith("/") or found.get("/".join(names), False)
    return [Entry(*one) for one in sorted(found.items(), key=lambda one: one[0].split("/"))]


def files_of(
    source: str, destination: str, *, include: str = "", excludes: Iterable[str] = ()
) -> dict[str, str]:
    """Where the files of the tree go."""
    made = copied(
        Files("context", source, include),
        excludes,
        destination,
        entries(TREE),
        {"/": 1}.__contains__,
    )
    return {one.target: one.path for one in made if not one.is_folder}


@pytest.mark.parametrize(
    ("source", "destination", "goes"),
    [
        ("/e.py", "/x", {"/x": "e.py"}),
        ("/e.py", "/x/", {"/x/e.py": "e.py"}),
        ("/a", "/x", {"/x/b/c.py": "a/b/c.py", "/x/d.txt": "a/d.txt"}),
        ("/*.py", "/x/", {"/x/e.py": "e.py"}),
        ("/a/*", "/x/", {"/x/c.py": "a/b/c.py", "/x/d.txt": "a/d.txt"}),
        ("/z*", "/x/", {}),
    ],
)
def test_files_go_to_the_destination(source: str, destination: str, goes: dict[str, str]) -> None:
    assert files_of(source, destination) == goes


def test_excludes_count_from_the_folder_that_is_copied() -> None:
    assert files_of("/a", "/x", excludes=["b"]) == {"/x/d.txt": "a/d.txt"}
    assert files_of("/", "/x", excludes=["*", "!a"]) == {
        "/x/a/b/c.py": "a/b/c.py",
        "/x/a/d.txt": "a/d.txt",
    }


def test_parents_keep_their_folders() -> None:
    assert files_of("/a", "/x/", include="**/*.py") == {"/x/b/c.py": "a/b/c.py"}


@pytest.mark.parametrize("files", [Files("context", "/z"), Files("context", "/", "q", "/q")])
def test_a_source_that_is_not_there_is_told(files: Files) -> None:
    with pytest.raises(MissingSource, match=r"^(z|q)$"):
        list(copied(files, (), "/x", entries(TREE), bool))


MISSING_THERE = re.compile(r"lstat \S*/from/")
NAMES = st.sampled_from(["a", "b", "c.py", "d.txt", "src"])
PATHS = st.builds(
    "".join,
    st.tuples(
        st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.sampled_from(["", "", "/"])
    ),
)


def fit(paths: list[str]) -> list[str]:
    """The paths that can be there together."""
    kept: dict[str, bool] = {}
    for path in paths:
        names = path.rstrip("/").split("/")
        above = ["/".join(names[:length]) for length in range(1, len(names))]
        is_new = path.rstrip("/") not in kept
        if is_new and all(kept.get(one, True) for one in above):
            kept |= dict.fromkeys(above, True)
            kept[path.rstrip("/")] = path.endswith("/")
    return [f"{path}/" if is_folder else path for path, is_folder in kept.items()]


@given(
    st.lists(PATHS, min_size=1, max_size=8).map(fit),
    st.one_of(
        st.tuples(
            st.sampled_from(
                ["/", "/a", "/src", "/*", "/a/*", "/*/b", "/?", "/c.py", "/s*", "/*.py", "/a/b"]
            ),
            st.just(""),
        ),
        st.tuples(
            st.sampled_from(["/", "/a", "/src"]),
            st.sampled_from(["**/*.py", "a", "a/*", "src/**/b", "*/b", "c.py"]),
        ),
    ),
    st.sampled_from([[], ["*.py"], ["**/*.py"], ["*", "!a"], ["b"], ["**", "!**/*.txt"]]),
    st.sampled_from(["/d", "/d/", "/x/y", "/", "/e/", "/e"]),
    st.sampled_from([[], ["e/"], ["d"], ["e/a"]]),
)
def test_files_go_where_they_go_in_the_reference(
    reference: Reference,
    paths: list[str],
    source: tuple[str, str],
    excludes: list[str],
    destination: str,
    below: list[str],
) -> None:
    pattern, include = source
    try:
        theirs = reference.ask(
            "copy",
            pattern,
            paths=paths,
            target=destination,
            below=below,
            include=[include] if include else [],
            exclude=excludes,
        )
    except Refused as refused:
        theirs, why = None, str(refused)
    there = {f"/{one.path}": one.is_folder for one in entries(below)} | {"/": True}

    try:
        ours = list(
            copied(
                Files("context", pattern, include),
                excludes,
                destination,
                entries(paths),
                lambda path: there.get(path.rstrip("/") or "/", False),
            )
        )
    except MissingSource:
        assert theirs is None
        return
    if theirs is None:
        # A file where a folder has to be: whoever copies finds out.
        assert not MISSING_THERE.search(why)
        return

    made = {f"{path.rstrip('/')}/": "" for path, is_folder in there.items() if is_folder}
    made |= {f"/{path}": path for path in below if not path.endswith("/")}
    parent = destination if destination.endswith("/") else destination.rpartition("/")[0]
    if ours:
        made |= folders(parent.rstrip("/") + "/x")
    for one in ours:
        made |= folders(one.target)
        if one.is_folder:
            made[f"{one.target.rstrip('/')}/"] = ""
        else:
            made[one.target] = one.path
    # It makes the folder of the destination even for nothing.
    assert {path: text for path, text in theirs.items() if path in made or text} == made


def folders(path: str) -> dict[str, str]:
    names = path.split("/")
    return {"/".join(names[:length]) + "/": "" for length in range(1, len(names))}
