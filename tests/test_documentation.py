"""The documentation tells of commands that exist, and tells the same in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from neuro.cli.main import root as neuro_root
from neuro.flow.cli.main import root as flow_root

HOME = Path(__file__).parent.parent
GUIDE = (
    *("tutorial.md", "security.md"),
    *(f"guide/{page.name}" for page in sorted(HOME.glob("docs/guide/*.md"))),
)
PAGES = [
    HOME / "README.md",
    HOME / "README.ru.md",
    HOME / "CONTRIBUTING.md",
    HOME / "SECURITY.md",
    HOME / "examples" / "digits" / "README.md",
    *sorted(HOME.glob("docs/**/*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(neuro(?:-flow)? [^`\n]+)`")
PROGRAMS = {"neuro": neuro_root, "neuro-flow": flow_root}
OPTION = re.compile(r"--?[a-z][\w-]*", re.IGNORECASE)


def lines_of_blocks(page: Path) -> Iterator[str]:
    """Every ``neuro …`` and ``neuro-flow …`` in the page's blocks of commands."""
    text = page.read_text()
    for language, block in FENCE.findall(text):
        if language in ("", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ")
                if line.startswith(("neuro ", "neuro-flow ")):
                    yield line.partition(" #")[0].partition(" | xargs ")[0].strip()


def lines_of_sentences(page: Path) -> list[str]:
    """Every ``neuro …`` and ``neuro-flow …`` in the page's text."""
    return INLINE.findall(FENCE.sub("", page.read_text()))


def resolve(line: str) -> tuple[list[str], list[str]]:
    """The words that name the command and the options that it is given; fails on unknown ones."""
    program, *words = re.sub(r"[][|,]", " ", line.partition(" -- ")[0]).split()
    node: click.Command = PROGRAMS[program]()
    context = click.Context(node)
    known = _options(node)
    path: list[str] = []
    options: list[str] = []
    for word in words:
        found = None
        if isinstance(node, click.Group) and not word.startswith("-"):
            found = node.get_command(context, word)
            assert found is not None, f"there is no command {word!r}: {line}"
        if found is not None:
            node = found
            path.append(word)
            known |= _options(node)
        elif OPTION.fullmatch(word.partition("=")[0]):
            options.append(word.partition("=")[0])
            assert options[-1] in known, f"there is no option {options[-1]}: {line}"
    return path, options


def _options(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts, "--help")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_every_command_and_option_on_the_page_exists(page: Path) -> None:
    for line in [*lines_of_blocks(page), *lines_of_sentences(page)]:
        resolve(line)


@pytest.mark.parametrize("page", GUIDE)
def test_both_languages_show_the_same_commands(page: str) -> None:
    english = [resolve(line) for line in lines_of_blocks(HOME / "docs" / page)]
    russian = [resolve(line) for line in lines_of_blocks(HOME / "docs" / "ru" / page)]

    assert english == russian


@pytest.mark.parametrize("page", GUIDE)
def test_both_languages_have_the_same_sections_and_tables(page: str) -> None:
    def shape(path: Path) -> list[str]:
        lines = path.read_text().splitlines()
        return [line.split()[0] for line in lines if line.startswith(("#", "|", "```"))]

    assert shape(HOME / "docs" / page) == shape(HOME / "docs" / "ru" / page)


def test_both_readmes_begin_with_the_two_commands() -> None:
    for name in ("README.md", "README.ru.md"):
        first = FENCE.search((HOME / name).read_text())

        assert first is not None
        commands = [line.split(" #")[0].strip() for line in first.group(2).splitlines()]
        assert commands == ["make demo", "make test"]


@pytest.mark.parametrize("name", ["requirements/dev.txt", "examples/digits/requirements.txt"])
def test_a_lock_file_has_hashes_and_names_no_index(name: str) -> None:
    text = (HOME / name).read_text()

    assert "://" not in text
    pins = re.findall(r"^([\w.-]+)==[^\n]*\\\n +--hash=sha256:", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[\w.-]+", text, re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """What a link may name on the page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings}


def test_every_page_that_the_code_refers_to_is_there() -> None:
    found = 0
    for source in (*HOME.glob("src/**/*.py"), *HOME.glob("tests/**/*.py")):
        for name, anchor in re.findall(r"(docs/[\w/-]+\.md)(?:#([\w-]+))?", source.read_text()):
            found += 1
            assert (HOME / name).is_file(), f"{source}: {name}"
            assert not anchor or anchor in anchors(HOME / name), f"{source}: {name}#{anchor}"

    assert found > 20


def test_every_section_that_a_route_names_is_on_the_page() -> None:
    page = anchors(HOME / "docs" / "reference" / "wire-protocol.md")

    named = {
        section
        for source in HOME.glob("src/neuro/server/**/routes.py")
        for section in re.findall(r'(?:section=|SECTION = )"([^"]+)"', source.read_text())
    }

    assert named
    assert named <= page


def test_every_module_that_the_architecture_names_is_there() -> None:
    modules = [f"/{path.relative_to(HOME)}" for path in HOME.glob("src/**/*.py")]
    text = (HOME / "docs" / "architecture.md").read_text()

    named = set(re.findall(r"[\w/]+\.py\b", text))

    assert len(named) > 80
    assert {name for name in named if not any(one.endswith(f"/{name}") for one in modules)} == set()


def test_no_comment_cites_a_document_that_is_not_here() -> None:
    cited = re.compile(r"\b(?:cli-surface|flow-spec)\b|wire protocol, section|\(sections? \d")

    for source in HOME.glob("src/**/*.py"):
        assert not cited.search(source.read_text()), source
