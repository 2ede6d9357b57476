"""The seccomp filter of jobs: which system calls reach the kernel.

``program`` assembles it, once in the server; ``install`` puts it on the process that becomes the
job. The filter is classic BPF: 32-bit instructions that only jump forward, by at most 255 unless
they jump always.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

TYPE_CHECKING = False  # typing itself costs every job memory
if TYPE_CHECKING:
    from neuro.engines.sandbox.syscalls import Rule, Verdict

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
# Kernels before 5.16 otherwise make every process with a filter pay for a mitigation of
# speculative stores. runc asks for the same.
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# struct sock_filter: code, offsets if true and if false, operand
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_FARTHEST = 255

_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; both architectures are little-endian.
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_ALL_BITS = 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    """struct sock_fprog: a count of instructions, and where they are."""

    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


# Looked up once, here: each first look-up in a forked process would copy pages of its parent's.
_libc = ctypes.CDLL(None, use_errno=True)
_prctl, _syscall = _libc.prctl, _libc.syscall
_MACHINE = os.uname().machine


def program(
    *,
    io_uring: bool = False,
    perf: bool = False,
    nesting: bool = False,
    pretending: bool = False,
    machine: str | None = None,
) -> bytes:
    """The filter as an array of ``struct sock_filter``, for ``machine`` or the one we run on.

    ``io_uring`` allows io_uring and its older brother, AIO, ``perf`` allows perf_event_open.
    ``nesting`` allows what makes a fence within the job's (``syscalls.NESTING``), ``pretending``
    answers what only a root of many users may do as if it were done (``syscalls.PRETENDED``).
    Raises ValueError for a machine whose system calls are not known.
    """
    # The process that installs a filter does not need the tables.
    from neuro.engines.sandbox import syscalls

    machine = _MACHINE if machine is None else machine
    numbers = syscalls.numbers(machine)
    verdicts = syscalls.verdicts(
        io_uring=io_uring, perf=perf, nesting=nesting, pretending=pretending
    )
    return assemble(
        {number: verdicts.get(name, errno.EPERM) for name, number in numbers.items()},
        _AUDIT_ARCH[machine],
    )


def assemble(verdicts: dict[int, Verdict], architecture: int) -> bytes:
    """A filter that answers each number with its verdict, and all others with ENOSYS.

    A verdict is 0 (allow), an errno, -1 (nothing is done, and the call succeeds), or a rule on the
    arguments (``syscalls.Rule``). Numbers beyond the last known one
    include those of the x32 ABI, which have bit 30 set.
    """
    # Calls of a foreign architecture (int 0x80) have other numbers: none of them is looked up.
    head = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        _answer(errno.ENOSYS),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    code = head + _search(_ranges(verdicts))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def install(program: bytes) -> None:
    """Put the filter on the calling thread, for good, and on all that it starts from now on.

    Raises OSError. Whoever calls this has no other threads, and has done its own mounts: the
    filter holds for what is left to do before ``execve`` too.
    """
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise _error("prctl(PR_SET_NO_NEW_PRIVS)")
    number = _SECCOMP.get(_MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, f"no system call filter for {_MACHINE}")
    described = _Program(len(program) // _INSTRUCTION.size, program)
    flags = _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    if _syscall(number, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(described)) != 0:
        raise _error("seccomp")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _ranges(verdicts: dict[int, Verdict]) -> list[tuple[int, Verdict]]:
    """Where each run of numbers with one verdict begins, from 0 to the end of all numbers."""
    found: list[tuple[int, Verdict]] = []
    for number in range(max(verdicts, default=-1) + 2):
        verdict = verdicts.get(number, errno.ENOSYS)
        if not found or found[-1][1] != verdict:
            found.append((number, verdict))
    return found


def _search(ranges: list[tuple[int, Verdict]]) -> list[_Instruction]:
    """A binary search over ``ranges`` with the answers at its leaves.

    Answers are repeated rather than shared, so that only the tree's top jumps far. Since Linux
    5.11 the kernel evaluates this part once per filter and then remembers which numbers are always
    allowed: those calls do not run the filter at all.
    """
    if len(ranges) == 1:
        verdict = ranges[0][1]
        return [_answer(verdict)] if isinstance(verdict, int) else _decide(verdict)
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    first = ranges[middle][0]
    if len(below) <= _FARTHEST:
        return [(_JUMP_AT_LEAST, len(below), 0, first), *below, *above]
    return [(_JUMP_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _decide(rule: Rule) -> list[_Instruction]:
    """The first clause of ``rule`` whose conditions all hold gives the answer."""
    code: list[_Instruction] = []
    for conditions, verdict in rule:
        tests = [_test(*condition) for condition in conditions]
        left = sum(len(test) for test in tests) + 1  # what a failing test jumps over, then
        for test in tests:
            left -= len(test)
            operation, _, _, value = test[-1]
            code += [*test[:-1], (operation, 0, left, value)]
        code.append(_answer(verdict))
    return code


def _test(argument: int, half: int, mask: int, value: int) -> list[_Instruction]:
    code = [(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument + 4 * half)]
    if mask != _ALL_BITS:
        code.append((_AND, 0, 0, mask))
    return [*code, (_JUMP_EQUAL, 0, 0, value)]


def _answer(verdict: int) -> _Instruction:
    if verdict < 0:  # an errno of 0 is success
        return (_RETURN, 0, 0, _RET_ERRNO)
    return (_RETURN, 0, 0, _RET_ERRNO | verdict if verdict else _RET_ALLOW)
