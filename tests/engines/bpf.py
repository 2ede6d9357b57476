"""Classic BPF as the kernel runs it on a system call: what a filter answers, and at what price."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ALLOWED, PRETENDED = 0, -1
_INSTRUCTION = struct.Struct("=HBBI")
_DATA = struct.Struct("=iIQ6Q")  # struct seccomp_data
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _EQUAL, _AT_LEAST = 0x05, 0x15, 0x35
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@dataclass(frozen=True)
class Answer:
    """An errno, ALLOWED, or PRETENDED (it succeeds, and is not made), after so many comparisons."""

    errno: int
    comparisons: int


def answer(
    program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()
) -> Answer:
    """Run the filter on one call; a malformed filter raises an exception."""
    filled = (arguments + (0,) * 6)[:6]
    number = struct.unpack("=i", struct.pack("=I", number & 0xFFFFFFFF))[0]
    data = _DATA.pack(number, architecture, 0, *(each & (1 << 64) - 1 for each in filled))
    code = list(_INSTRUCTION.iter_unpack(program))
    at, accumulator, comparisons = 0, 0, 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == _LOAD:
            assert operand % 4 == 0
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif operation == _AND:
            accumulator &= operand
        elif operation == _JUMP:
            at += operand
        elif operation in (_EQUAL, _AT_LEAST):
            comparisons += 1
            holds = accumulator == operand if operation == _EQUAL else accumulator >= operand
            at += if_true if holds else if_false
        elif operation == _RETURN:
            if operand == _RET_ALLOW:
                return Answer(ALLOWED, comparisons)
            assert operand & 0xFFFF0000 == _RET_ERRNO
            return Answer(operand & 0xFFFF or PRETENDED, comparisons)
        else:
            raise AssertionError(f"instruction {at - 1} has the unknown code {operation:#x}")


def jumps_stay_inside(program: bytes) -> bool:
    """Whether no instruction, reached or not, leads past the end: the kernel's own check."""
    code = list(_INSTRUCTION.iter_unpack(program))
    for at, (operation, if_true, if_false, operand) in enumerate(code):
        if operation == _JUMP:
            farthest = operand
        elif operation in (_EQUAL, _AT_LEAST):
            farthest = max(if_true, if_false)
        elif operation == _RETURN:
            continue
        else:
            farthest = 0
        if at + 1 + farthest >= len(code):
            return False
    return code[-1][0] == _RETURN
