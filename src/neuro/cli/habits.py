"""What to write here in place of a word of docker, kubectl, Slurm or the original platform."""

from __future__ import annotations

from collections.abc import Mapping

_PRESET = "A preset says how much a job gets: `--preset NAME`; `neuro config show` lists them."
_DOCKER_DOES = (
    "Docker does that: log in with `docker login`, your token as the password, and use the names"
    " that `neuro image ls -l` shows."
)
_KEYBOARD = (
    "`-t` alone gives a terminal with your keyboard, and piped input is passed on by itself."
)
_FOLLOWS = "`neuro logs` follows by itself; `--no-follow` ends with the output so far."

# By command: what is said of an option that it does not have.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "run": {
        "-i": _KEYBOARD,
        "--interactive": _KEYBOARD,
        "--rm": "It is not needed: of a job only its output and its volumes stay.",
        "-p": "`--port-forward LOCAL:REMOTE` leads a local port into the job.",
        "--publish": "`--port-forward LOCAL:REMOTE` leads a local port into the job.",
        "-l": "Labels are tags here: `--tag TAG`.",
        "--label": "Labels are tags here: `--tag TAG`.",
        "-J": "Its name is `--name NAME`.",
        "--job-name": "Its name is `--name NAME`.",
        "--time": "How long it may run is `--life-span 2h`.",
        "--timeout": "How long it may run is `--life-span 2h`.",
        "--mount": "Folders of the storage come in with `-v storage:FOLDER:/PATH`.",
        "-u": "A job runs as a user of its own; root inside it, where root started the server.",
        "--user": "A job runs as a user of its own; root inside it, where root started the server.",
        **dict.fromkeys(
            ("-m", "--memory", "--mem", "-c", "--cpus", "--cpus-per-task", "--gpus", "--gres"),
            _PRESET,
        ),
        "--json": "`neuro -q run --detach` prints the id, and `neuro status --json JOB` all of it.",
        "--shm-size": "The shared memory is large by itself; `--no-extshm` makes it small.",
    },
    "exec": {
        "-i": _KEYBOARD,
        "--interactive": _KEYBOARD,
        "-e": "Write `neuro exec JOB env NAME=VALUE COMMAND`.",
        "--env": "Write `neuro exec JOB env NAME=VALUE COMMAND`.",
        "-w": "Write `neuro exec JOB env -C FOLDER COMMAND`.",
        "--workdir": "Write `neuro exec JOB env -C FOLDER COMMAND`.",
    },
    "logs": {
        "-f": _FOLLOWS,
        "-n": "The last lines are `--tail N`.",
        "-t": "Times are `--timestamps`.",
    },
    "kill": dict.fromkeys(
        ("-9", "-s", "-f", "--signal", "--force"),
        "A job gets SIGTERM, and SIGKILL where that does not end it in time.",
    ),
    "top": {"--no-stream": "`--timeout SECONDS` ends it."},
}

# What is said of a command that there is not.
COMMANDS: Mapping[str, str] = {
    "stop": "`neuro kill` stops jobs.",
    "scancel": "`neuro kill` stops jobs.",
    "delete": "`neuro kill` stops jobs, and `neuro rm` removes files.",
    "inspect": "`neuro status` shows all about a job.",
    "describe": "`neuro status` shows all about a job.",
    "squeue": "`neuro ps` lists jobs.",
    "jobs": "`neuro ps` lists jobs.",
    "get": "`neuro ps` lists jobs.",
    "srun": "`neuro run` runs a job.",
    "sbatch": "`neuro run --detach` runs a job and leaves it to itself.",
    "submit": "`neuro run --detach` runs a job and leaves it to itself.",
    "start": "`neuro up` starts the platform, `neuro run` a job.",
    "restart": "`neuro job generate-run-command JOB` prints the line that makes a job again.",
    "sinfo": "`neuro config show` lists the presets, and how many jobs of each could start.",
    "stats": "`neuro top` shows what running jobs use.",
    "cat": "`neuro cp storage:FILE -` prints a file.",
    "du": "`neuro storage df` shows how full the storage is.",
    "find": "`neuro storage glob` lists what matches wildcards.",
    "ssh": "`neuro exec JOB bash` opens a shell in a job.",
    "shell": "`neuro exec JOB bash` opens a shell in a job.",
    "whoami": "`neuro config show` says who and where you are.",
    "version": "`neuro --version` prints it.",
    "images": "`neuro image ls` lists images.",
    "rmi": "`neuro image rm` removes images.",
    **dict.fromkeys(("build", "commit", "save"), _DOCKER_DOES),
}


def about_option(command: str, option: str) -> str | None:
    """What to write for an option that ``command`` does not have; None where that is not known.

    >>> about_option("logs", "-f")
    '`neuro logs` follows by itself; `--no-follow` ends with the output so far.'
    """
    return OPTIONS.get(command, {}).get(option)


def about_command(name: str) -> str | None:
    """What to write for a command that there is not; None where that is not known."""
    return COMMANDS.get(name)
