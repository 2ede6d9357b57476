"""Commands in the output of tasks."""

from __future__ import annotations

import random

import pytest

from neuro.flow.batch.commands import MAX_VALUE_BYTES, CommandReader


def read(*chunks: bytes) -> tuple[bytes, CommandReader]:
    reader = CommandReader()
    shown = b"".join(reader.feed(chunk) for chunk in chunks) + reader.close()
    return shown, reader


def test_worked_example() -> None:
    shown, reader = read(
        b"hello\n::set-output name=k::v::w\n  ::set-output name = k2 ::  spaced  \n"
        b"::set-output name=bad-name::x\n::unknown::x\n::set-output name=empty::\n"
        b":: set-output name=z::zz\n::save-state name=s::1\n"
    )
    assert shown == b"hello\n"
    assert reader.outputs == {"k": "v::w", "k2": "  spaced", "z": "zz"}
    assert reader.state == {"s": "1"}
    assert reader.warnings == [
        "Unknown command ::set-output name=bad-name::x",
        "Unknown command ::unknown::x",
        "A value needs at least one character: ::set-output name=empty:: has none",
    ]
    assert reader.problem is None


def test_last_value_wins_and_a_partial_line_counts() -> None:
    _, reader = read(b"::set-output name=a::1\n::set-output name=a::2")
    assert reader.outputs == {"a": "2"}


def test_stopped_commands_pass_through() -> None:
    shown, reader = read(
        b"::stop-commands::tok\n::set-output name=a::1\n ::tok:: \n::set-output name=b::2\nend"
    )
    assert shown == b"::set-output name=a::1\nend"
    assert reader.outputs == {"b": "2"}


@pytest.mark.parametrize("head", [b"name=x<<EOF", b"name=x << EOF", b" name = x  <<EOF"])
def test_value_of_several_lines(head: bytes) -> None:
    shown, reader = read(
        b"before\n::set-output " + head + b"\n{\n  ::unknown::\n}\n\nEOF\nafter\n"
        b"::save-state name=y<<END\r\none\r\nEND\r\n"
    )
    assert reader.outputs == {"x": "{\n  ::unknown::\n}\n"}
    assert reader.state == {"y": "one"}
    assert shown == b"before\nafter\n"
    assert not reader.warnings


def test_value_that_does_not_end_is_told() -> None:
    shown, reader = read(b"::set-output name=x<<EOF\n1\n2")
    assert reader.outputs == {}
    assert shown == b""
    assert "is not closed" in reader.warnings[0]


def test_what_is_no_text_is_replaced() -> None:
    _, reader = read(b"::set-output name=a::\xff\x00b\n")
    assert reader.outputs == {"a": "\ufffd\ufffdb"}


@pytest.mark.parametrize(
    "output",
    [
        b"::set-output name=big::" + b"x" * (MAX_VALUE_BYTES + 1) + b"\nrest\n",
        b"::set-output name=big::" + b"x" * (3 * MAX_VALUE_BYTES) + b"\nrest\n",
        b"::set-output name=big<<E\n" + b"x\n" * MAX_VALUE_BYTES + b"E\nrest\n",
        b"::set-output name=big<<E\n" + b"x" * 3 * MAX_VALUE_BYTES + b"\nE\nrest\n",
    ],
    ids=["little too long", "much too long", "many lines", "long line"],
)
@pytest.mark.parametrize("size", [1 << 16, 1 << 26])
def test_too_large_a_value_fails_the_task(output: bytes, size: int) -> None:
    chunks = [output[at : at + size] for at in range(0, len(output), size)]
    shown, reader = read(*chunks)
    assert reader.problem is not None
    assert "big is larger than 1 MiB" in reader.problem
    assert reader.outputs == {}
    assert shown == b"rest\n"


def test_largest_value_is_taken() -> None:
    _, reader = read(b"::set-output name=a::" + b"x" * MAX_VALUE_BYTES + b"\n")
    assert reader.problem is None
    assert len(reader.outputs["a"]) == MAX_VALUE_BYTES


def test_all_values_have_a_limit() -> None:
    line = b"::set-output name=a%d::" + b"x" * (MAX_VALUE_BYTES - 10) + b"\n"
    _, reader = read(*[line % number for number in range(5)])
    assert reader.problem is not None
    assert "4 MiB" in reader.problem
    assert sorted(reader.outputs) == ["a0", "a1", "a2", "a3"]
    _, reader = read(*[line.replace(b"a%d", b"a") for _ in range(50)])
    assert reader.problem is None


_PARTS = [
    b"::set-output name=a::1\n",
    b"plain\n",
    b"  ::",
    b" ",
    b":",
    b"\n",
    b"::set-output name=b<<EOF\n",
    b"EOF\n",
    b"::stop-commands::tok\n",
    b"::tok::\n",
    b"x::y\n",
    b"::save-state name=q::",
    b"\r\n",
]


@pytest.mark.parametrize("seed", range(200))
def test_pieces_make_no_difference(seed: int) -> None:
    chance = random.Random(seed)
    data = b"".join(chance.choice(_PARTS) for _ in range(chance.randint(1, 25)))
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(0, 8)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def all_of(*chunks: bytes) -> object:
        shown, reader = read(*chunks)
        return shown, reader.outputs, reader.state, reader.warnings, reader.problem

    assert all_of(*pieces) == all_of(data) == all_of(*[bytes([byte]) for byte in data])


def test_plain_output_is_passed_on_as_it_is() -> None:
    """Long output without commands is neither split nor kept."""
    chunk = b"epoch 1: std::vector loss 0.5\n" * 1000
    reader = CommandReader()
    assert reader.feed(chunk) is chunk
    chunk = b"no line end" * 100_000
    assert reader.feed(chunk) is chunk
    assert reader.feed(chunk) == chunk
    assert reader.close() == b""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_command_may_begin_behind_a_carriage_return(size: int) -> None:
    bar = b"\r 50%|##|\r100%|####|\r            \r"
    output = (
        bar + b"::set-output name=loss::0.25\n::set-output name=a::1\r::set-output name=b::2\r\nx"
    )
    shown, reader = read(*(output[at : at + size] for at in range(0, len(output), size)))

    assert reader.outputs == {"loss": "0.25", "a": "1", "b": "2"}
    assert shown == bar + b"x"
    assert not reader.warnings


def test_a_command_in_the_middle_of_a_line_is_told() -> None:
    shown, reader = read(b"100%|####|::set-output name=loss::0.25\n")

    assert shown == b"100%|####|::set-output name=loss::0.25\n"
    assert reader.outputs == {}
    assert reader.warnings == [
        "`::set-output` of loss stands in the middle of a line and sets nothing: print a line end"
        " before it"
    ]


def test_a_shells_trace_of_a_command_is_not_told() -> None:
    _, reader = read(b"+ echo '::set-output name=a::1'\n::set-output name=a::1\n")

    assert reader.outputs == {"a": "1"}
    assert not reader.warnings
