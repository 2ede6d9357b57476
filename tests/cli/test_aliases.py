from __future__ import annotations

import pytest

from neuro.cli.aliases import command_line
from neuro.cli.user_config import Alias
from tests.cli.platform import Home


def configure(home: Home, text: str) -> Home:
    home.config_dir.mkdir(mode=0o700)
    (home.config_dir / "user.toml").write_text(text)
    return home


def test_an_alias_of_a_command_gets_what_is_typed_behind_it(home: Home) -> None:
    configure(home, '[alias.h]\ncmd = "help config"\n')

    assert "Usage: neuro config token" in home.ok("h", "token")


def test_an_alias_of_a_program_runs_it_and_gives_its_exit_code(home: Home) -> None:
    configure(home, """[alias.fail]\nexec = "sh -c 'echo $0; exit 5'"\n""")

    done = home.run("fail", "word")

    assert (done.stdout, done.returncode) == ("word\n", 5)


def test_an_alias_has_arguments_and_options_of_its_own(home: Home) -> None:
    configure(
        home,
        '[alias.show]\nexec = "echo {depth} in {dir} all {opts}"\nargs = "DIR [MORE]..."\n'
        'options = ["-d, --depth=N  how deep", "-h, --human  readable"]\n',
    )

    said = home.ok("show", "-d", "3", "-h", "here", "there")

    assert said == "--depth 3 in here all --depth 3 --human here there\n"
    assert "how deep" in home.ok("show", "--help")


def test_a_command_of_neuro_wins_over_an_alias(home: Home) -> None:
    configure(home, '[alias.help]\nexec = "false"\n')

    assert home.run("help").returncode == 0


def test_an_alias_of_an_alias_is_refused(home: Home) -> None:
    configure(home, '[alias.a]\ncmd = "b"\n[alias.b]\ncmd = "a"\n')

    done = home.run("a")

    assert done.returncode == 70
    assert "does not begin with a command of neuro" in done.stderr


def test_aliases_are_listed(home: Home) -> None:
    configure(home, '[alias.lsl]\ncmd = "ls -l"\nhelp = "Long list."\n[alias.d]\nexec = "du -h"\n')

    assert home.ok("config", "aliases").splitlines() == [
        "Alias  Description",
        "d      du -h",
        "lsl    Long list.",
    ]


def test_a_program_that_is_not_there_is_named(home: Home) -> None:
    configure(home, '[alias.x]\nexec = "no-such-program-here"\n')

    done = home.run("x")

    assert done.returncode == 72
    assert "no-such-program-here" in done.stderr


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("du", ["du", "-h", "a", "b"]),
        ("du {opts}", ["du", "-h", "a", "b"]),
        ("du {human} -- {dirs}", ["du", "-h", "--", "a", "b"]),
        ("echo dirs={dirs}", ["echo", "dirs=a b"]),
    ],
)
def test_what_is_given_replaces_braces_or_is_appended(template: str, line: list[str]) -> None:
    alias = Alias(name="x", exec=template)

    assert command_line(alias, {"human": ["-h"], "dirs": ["a", "b"]}) == line
