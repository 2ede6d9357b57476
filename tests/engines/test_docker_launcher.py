"""The program that every command of a container begins with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuro.engines.base import EngineFault
from neuro.engines.docker import launcher_program
from neuro.engines.docker.door import NOT_EXECUTABLE, NOT_FOUND, Door, heard
from neuro.engines.docker.engine import DockerEngine
from neuro.engines.sandbox.loop import Loop


@pytest.mark.compiler
def test_its_bytes_are_what_an_assembler_makes_of_its_text(tmp_path: Path) -> None:
    text = [".intel_syntax noprefix", *(line for _, line in launcher_program.SOURCE_X86_64)]
    (tmp_path / "launcher.s").write_text("\n".join(text) + "\n")

    subprocess.run(["as", "--64", "-o", tmp_path / "o", tmp_path / "launcher.s"], check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", tmp_path / "o", tmp_path / "code"], check=True
    )

    written = "".join(instruction for instruction, _ in launcher_program.SOURCE_X86_64)
    assert (tmp_path / "code").read_bytes().hex() == written


@pytest.mark.root
async def test_an_engine_on_another_processor_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="riscv64"))

    with pytest.raises(EngineFault, match=r"kind riscv64, only on x86_64: use the sandbox engine"):
        await DockerEngine(tmp_path / "engine").open()


NOTHING: Mapping[str, str] = {}


class Launched:
    """A launcher at its door, which is where a container would have it."""

    def __init__(self, folder: Path, *words: str, env: Mapping[str, str] | None = None) -> None:
        self.door = Door(str(folder / "door"))
        # Its door has a fixed place: here in a mount namespace of its own.
        script = f"mount -t tmpfs none /mnt && mkdir -p {launcher_program.FOLDER}"
        script += f' && mount --bind {folder}/door {launcher_program.FOLDER} && exec "$@"'
        program = f"{launcher_program.FOLDER}/{launcher_program.NAME}"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", program, *words], env=env
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.door.listener.close()


def begun(
    launched: Launched, env: Mapping[str, str] = NOTHING
) -> tuple[int, bytes, tuple[int, str] | None]:
    """Let the command begin: its exit code, what it prints, and why it does not begin."""
    visitor = launched.door.admit("word")
    output, given = os.pipe()
    told, tell = os.pipe()
    stdin = os.open(os.devnull, os.O_RDONLY)
    process = visitor.give((stdin, given, given), tell, tty=False, env=env)
    assert process not in (visitor.process, 0)
    for fd in (stdin, given, tell):
        os.close(fd)
    refusal = heard(told, "command")
    os.close(told)
    with open(output, "rb") as file:
        said = file.read()
    loop = Loop()
    statuses: list[int | None] = []

    def ended(status: int | None) -> None:
        statuses.append(status)
        loop.running = False

    visitor.on_end(loop, ended)
    loop.run()
    code = launched.process.wait()
    assert statuses == [code << 8 if code < 128 else code - 128]
    return code, said, refusal


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Launched]]:
    made: list[Launched] = []
    yield made
    for one in made:
        one.end()


@pytest.mark.root
def test_it_executes_the_first_place_that_there_is(tmp_path: Path, places: list[Launched]) -> None:
    words = ("word", "/no/such/sh", "/bin/sh", "/bin/false", "")
    places.append(Launched(tmp_path, *words, "sh", "-c", "echo $0 $1; exit 7", "a", ""))

    assert begun(places[-1]) == (7, b"a\n", None)


@pytest.mark.root
def test_it_gives_its_command_values_in_the_place_of_those_that_are_there(
    tmp_path: Path, places: list[Launched]
) -> None:
    large = "x" * 100_000
    environment = {"PATH": os.environ["PATH"], "A": "", "AB": "stays", "B": "", "C": "seen"}
    script = "echo $A $AB $C ${#B} $D; tr '\\0' '\\n' < /proc/$PPID/environ | grep -c key"
    words = ("word", "/bin/sh", "", "sh", "-c", script)
    places.append(Launched(tmp_path, *words, env=environment))

    code, said, _ = begun(places[-1], {"B": large, "A": "a=key", "D": "not there"})

    assert (code, said) == (1, b"a=key stays seen 100000\n0\n")


@pytest.mark.root
def test_it_ends_as_its_command_by_a_signal(tmp_path: Path, places: list[Launched]) -> None:
    places.append(Launched(tmp_path, "word", "/bin/sh", "", "sh", "-c", "kill -TERM $$"))

    assert begun(places[-1]) == (143, b"", None)


@pytest.mark.root
@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], NOT_FOUND),
        (["/no/such", "/etc/passwd/x"], NOT_FOUND),
        (["/etc/passwd", "/no/such"], NOT_EXECUTABLE),
    ],
)
def test_it_says_why_nothing_can_be_executed(
    tmp_path: Path, places: list[Launched], names: list[str], code: int
) -> None:
    places.append(Launched(tmp_path, "word", *names, "", "command"))

    _, said, refusal = begun(places[-1])

    assert said == b""
    assert refusal is not None
    assert refusal[0] == code
    assert "command" in refusal[1]


@pytest.mark.root
def test_who_says_another_word_is_not_admitted(tmp_path: Path, places: list[Launched]) -> None:
    places.append(Launched(tmp_path, "guess", "/bin/true", "", "true"))

    with pytest.raises(OSError, match="does not answer"):
        places[-1].door.admit("word", 1)

    assert places[-1].process.wait() == 125
