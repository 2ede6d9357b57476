"""``neuro project init``: a new project's folder from a template."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import BAD_VALUE, IO, Failure
from neuro.cli.lazy import Command
from neuro.cli.output import Output
from neuro.cli.project.answers import TEMPLATES, complaint, default, questions
from neuro.cli.project.render import make_project

NEXT = {
    "flow": """\
cd {folder}
neuro-flow mkvolumes      # make the project's folders on the platform
neuro-flow upload ALL     # send code and data
neuro-flow run train      # train, and watch""",
    "makefile": """\
cd {folder}
make upload               # send code, data and notebooks
make run_training         # train, and watch""",
}
READ = {"flow": "HELP.md", "makefile": "README.md"}


@click.command(
    "init",
    cls=Command,
    examples="""
        neuro project init                              # asks for the names
        neuro project init 'Neuro Tutorial'             # offers this one
        neuro project init Digits --no-input            # asks nothing
        neuro project init Digits code_directory=nets   # asks for the others
        neuro project init --template makefile          # make, not neuro-flow
    """,
)
@click.argument("words", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
@click.option(
    "--template",
    type=click.Choice(sorted(NEXT)),
    default="flow",
    show_default=True,
    help="flow: jobs in .neuro/live.yml, for neuro-flow; makefile: jobs in a Makefile.",
)
@click.option("--no-input", is_flag=True, help="Ask nothing: take the defaults.")
@click.option(
    "--output-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Where to make the project's folder.  [default: here]",
)
@pass_context
def command(
    context: Context, words: tuple[str, ...], template: str, no_input: bool, output_dir: Path
) -> None:
    """Make the folder of a new project, with a small example that works.

    Asks for the project's name, its folder's name (the slug) and the code's folder; Enter takes
    the offered value. NAME is offered as the project's name; KEY=VALUE answers a question before
    it is asked.
    """
    variables = questions(template)
    name, given = _parse(words, variables)
    if name is not None:
        variables["project_name"] = name
    answers: dict[str, str] = {}
    for key, written in variables.items():
        offered = default(key, written, answers)
        if key in given or no_input:
            answers[key] = given.get(key, offered)
            if sentence := complaint(template, key, answers[key]):
                raise Failure(f"{key}: {sentence}", BAD_VALUE)
        else:
            answers[key] = _ask(context.out, template, key, offered)
        if key == "project_slug":
            _check_free(output_dir / answers[key])
    folder = make_project(TEMPLATES / template, answers, output_dir)
    _say_what_next(context.out, template, folder)


def _parse(words: tuple[str, ...], known: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    name = words[0] if words and "=" not in words[0] else None
    given: dict[str, str] = {}
    for word in words if name is None else words[1:]:
        key, sign, value = word.partition("=")
        if not sign:
            raise click.UsageError(
                f"'{word}' is one word too many: quote a NAME of several words, and write answers"
                " as KEY=VALUE."
            )
        if key not in known:
            raise click.UsageError(f"There is no '{key}'; known are {', '.join(known)}.")
        given[key] = value
    return name, given


def _ask(out: Output, template: str, key: str, offered: str) -> str:
    while True:
        answer: str = click.prompt(key, default=offered, type=str)
        sentence = complaint(template, key, answer)
        if sentence is None:
            return answer
        out.error(sentence)


def _check_free(folder: Path) -> None:
    # Before the other questions: nobody answers them for nothing.
    if os.path.lexists(folder):
        raise Failure(
            f"{folder} exists already, and was not changed: choose another project_slug.", IO
        )


def _say_what_next(out: Output, template: str, folder: Path) -> None:
    if out.quiet:
        out.print(str(folder))
        return
    out.print(f"\nMade {folder}. What to do next:\n")
    for line in NEXT[template].format(folder=_quoted(folder)).splitlines():
        out.print(f"    {line}")
    out.print(f"\nThe platform must run: `neuro up`, or `neuro login`. Then read {READ[template]}.")


def _quoted(folder: Path) -> str:
    import shlex

    return shlex.quote(str(folder))
