"""Words of docker, kubectl and Slurm, and of libraries: what to write here is said."""

from __future__ import annotations

import pytest

from neuro.cli import habits
from neuro.cli.lazy import load
from neuro.cli.main import JOB, PLATFORM, SHORTCUTS
from tests.cli.platform import Home


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run -it ubuntu bash", "'-i'. `-t` alone gives a terminal with your keyboard"),
        ("run -dit ubuntu bash", "Here -d is --description"),
        ("run -d -it ubuntu bash", "Here -d is --description"),
        ("run --rm ubuntu ls", "'--rm'. It is not needed"),
        ("run -p 8080:80 ubuntu ls", "`--port-forward LOCAL:REMOTE`"),
        ("run -m 4G ubuntu ls", "`--preset NAME`"),
        ("run --memory=4G ubuntu ls", "`--preset NAME`"),
        ("job run --gpus all ubuntu ls", "`--preset NAME`"),
        ("logs -f web", "`neuro logs` follows by itself"),
        ("exec -it web bash", "`-t` alone gives a terminal"),
        ("kill -9 web", "A job gets SIGTERM"),
        ("stop web", "`neuro kill` stops jobs."),
        ("images", "neuro image ls"),
        ("commit web", "docker login"),
        ("inspect web", "`neuro status` shows"),
        ("cat storage:a", "`neuro cp storage:FILE -`"),
        ("squeue", "`neuro ps` lists jobs."),
        ("revoke job:web anna", "There is `neuro acl revoke`."),
        ("browse web", "There is `neuro job browse`."),
        ("df", "There is `neuro storage df`."),
        ("run -q ubuntu ls", "'-q'. It goes before the command: `neuro -q run`."),
        ("job kill --trace web", "It goes before the command: `neuro --trace job kill`."),
        ("top --timeout 2s", "'--timeout': '2s' is not a number"),
        ("up --port abc", "'abc' is not a whole number from 0 to 65535."),
        ("up --port 99999", "99999 is not a whole number from 0 to 65535."),
        ("logs web --tail -3", "-3 is not a whole number, 0 or more."),
        ("lgos", "Did you mean 'logs'"),
    ],
)
def test_words_of_other_programs_are_told_what_to_write_here(
    home: Home, line: str, says: str
) -> None:
    done = home.run(*line.split())

    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


def test_every_hint_is_of_a_command_that_there_is_and_of_an_option_that_there_is_not() -> None:
    for name, options in habits.OPTIONS.items():
        known = {it for param in load(JOB[name]).params for it in param.opts}
        assert not known & set(options), name
    assert not set(habits.COMMANDS) & {*PLATFORM, *SHORTCUTS}
