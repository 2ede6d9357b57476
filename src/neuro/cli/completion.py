"""Shell completion: the scripts for bash, zsh and fish, and the answers that they ask for."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import IO, Failure
from neuro.cli.lazy import Command
from neuro.cli.output import Output

PROGRAM = "neuro"

# "$2" is what bash puts an answer in the place of, which is less than a word where it has colons.
BASH = """\
@FUNCTION@() {
    local line="${COMP_LINE:0:COMP_POINT}" answer value
    COMPREPLY=()
    while IFS= read -r answer; do
        value="${answer#*,}"
        if [[ "$answer" == dir,* ]]; then
            compopt -o dirnames
        elif [[ "$answer" == file,* ]]; then
            compopt -o default
        elif [[ "$answer" == plain,* ]]; then
            [[ "$value" == */ || "$value" == *: ]] && compopt -o nospace
            COMPREPLY+=("$value")
        fi
    done < <(COMP_WORDS="$line" COMP_TEXT="$2" @VARIABLE@=bash_complete "$1" 2>/dev/null)
    return 0
}
complete -o nosort -F @FUNCTION@ @PROGRAM@
"""

ZSH = """\
#compdef @PROGRAM@
@FUNCTION@() {
    local -a plain described unspaced
    local kind value text
    (( ! $+commands[@PROGRAM@] )) && return 1
    while IFS= read -r kind && IFS= read -r value && IFS= read -r text; do
        if [[ "$kind" == dir ]]; then
            _path_files -/
        elif [[ "$kind" == file ]]; then
            _path_files -f
        elif [[ "$value" == */ || "$value" == *: ]]; then
            unspaced+=("$value")
        elif [[ "$text" == _ ]]; then
            plain+=("$value")
        else
            described+=("${value//:/\\\\:}:$text")
        fi
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        @VARIABLE@=zsh_complete @PROGRAM@ 2>/dev/null)
    [[ -n "$described" ]] && _describe -V unsorted described -U
    [[ -n "$plain" ]] && compadd -U -V unsorted -a plain
    [[ -n "$unspaced" ]] && compadd -U -S '' -V unsorted -a unspaced
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    @FUNCTION@ "$@"
else
    compdef @FUNCTION@ @PROGRAM@
fi
"""

FISH = """\
function @FUNCTION@
    set -l answers (env @VARIABLE@=fish_complete COMP_WORDS=(commandline -cp | string collect) \\
        COMP_CWORD=(commandline -t | string collect) @PROGRAM@ 2>/dev/null)
    for answer in $answers
        set -l pair (string split -m 1 , -- $answer)
        switch $pair[1]
            case dir
                __fish_complete_directories (commandline -t)
            case file
                __fish_complete_path (commandline -t)
            case plain
                echo -- $pair[2]
        end
    end
end
complete --no-files --command @PROGRAM@ --arguments '(@FUNCTION@)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
START_FILES = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}


def script(shell: str, program: str = PROGRAM) -> str:
    """The completion script of a program for a shell."""
    return (
        SCRIPTS[shell]
        .replace("@FUNCTION@", f"_{program.replace('-', '_')}_completion")
        .replace("@VARIABLE@", variable(program))
        .replace("@PROGRAM@", program)
    )


def markers(program: str = PROGRAM) -> tuple[str, str]:
    """The lines around what is put into a start-up file."""
    return f"# >>> {program} completion >>>", f"# <<< {program} completion <<<"


def patched(content: str, script: str, program: str = PROGRAM) -> str:
    """A start-up file with the script between its markers, in place of an older one."""
    begin, end = markers(program)
    block = f"{begin}\n{script}{end}\n"
    before, found, rest = content.partition(begin)
    if not found:
        gap = "" if not content or content.endswith("\n") else "\n"
        return f"{content}{gap}{block}"
    after = rest.partition(end)[2]
    return f"{before}{block.rstrip()}{after}"


def patch_start_file(out: Output, shell: str, program: str = PROGRAM) -> None:
    """Put completion into the start-up file of a shell. Raises Failure."""
    path = Path.home() / START_FILES[shell]
    line = f'eval "$({program} completion generate {shell})"\n'
    if shell == "fish":
        line = f"{program} completion generate fish | source\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_text("utf-8") if path.exists() else ""
        path.write_text(patched(content, line, program), "utf-8")
    except UnicodeDecodeError:
        raise Failure(
            f"{path} cannot be changed: it is not UTF-8 text. Save it as UTF-8, or add this line"
            f" yourself: {line.rstrip()}",
            IO,
        ) from None
    except OSError as error:
        raise Failure(f"{path} cannot be changed: {error.strerror}.", IO) from None
    out.print(f"Added completion to {path}. Open a new shell, or: source {path}")


def variable(program: str = PROGRAM) -> str:
    """The variable of the environment through which a shell asks a program."""
    return f"_{program.replace('-', '_').upper()}_COMPLETE"


def respond(root: click.Group, program: str) -> int:
    """Answer what the shell asked through the environment."""
    import os

    from click.shell_completion import add_completion_class, shell_complete

    from neuro.cli.shells import Bash, Zsh

    add_completion_class(Bash)
    add_completion_class(Zsh)
    name = variable(program)
    return shell_complete(root, {}, program, name, os.environ[name])


def answer(root: click.Group) -> int:
    """Answer for ``neuro``."""
    from neuro.cli.candidates import offer_candidates

    offer_candidates(root)
    return respond(root, PROGRAM)


_SHELL = click.Choice(sorted(SCRIPTS))


@click.command(
    "generate", cls=Command, examples='eval "$(neuro completion generate bash)"  # this shell only'
)
@click.argument("shell", type=_SHELL)
@pass_context
def generate(context: Context, shell: str) -> None:
    """Print the completion script of SHELL."""
    context.out.print(script(shell), newline=False)


@click.command("patch", cls=Command, examples="neuro completion patch bash")
@click.argument("shell", type=_SHELL)
@pass_context
def patch(context: Context, shell: str) -> None:
    """Add completion to the start-up file of SHELL. A second call changes nothing."""
    patch_start_file(context.out, shell)
