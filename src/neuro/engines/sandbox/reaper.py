"""The program that a run's first process ends as: it waits, and tells how the command ended.

As a fork of Python that process would hold two megabytes for each sleeping run. This is a page. It
is assembled here for the processors that are common; elsewhere Python does the same (``init``).
It makes three kinds of calls: its name, ``wait4`` until process 2 has ended, and one ``write``.
"""

from __future__ import annotations

import fcntl
import os
import struct

TELL = 3  # the descriptor to which the command's wait status is written
COMMAND = 2  # the number of the command's process: the first one that the first process started

_BASE = 0x400000
_HEADERS = 64 + 2 * 56
_NAME = b"neuro-init\0"

# What GNU as makes of the text beside it (tests/engines/test_sandbox_reaper.py).
SOURCE_X86_64 = (
    ("bf0f000000", "mov edi, 15"),  # PR_SET_NAME
    ("488d355b000000", "lea rsi, [rip+name]"),
    ("b89d000000", "mov eax, 157"),  # prctl
    ("0f05", "syscall"),
    ("4883ec10", "sub rsp, 16"),
    ("48c7c7ffffffff", "again: mov rdi, -1"),
    ("4889e6", "mov rsi, rsp"),
    ("31d2", "xor edx, edx"),
    ("4531d2", "xor r10d, r10d"),
    ("b83d000000", "mov eax, 61"),  # wait4
    ("0f05", "syscall"),
    ("4883f802", "cmp rax, 2"),
    ("7417", "je over"),
    ("4883f8fc", "cmp rax, -4"),  # EINTR
    ("74de", "je again"),
    ("4885c0", "test rax, rax"),
    ("79d9", "jns again"),
    ("bf01000000", "mov edi, 1"),
    ("b8e7000000", "mov eax, 231"),  # exit_group
    ("0f05", "syscall"),
    ("bf03000000", "over: mov edi, 3"),
    ("4889e6", "mov rsi, rsp"),
    ("ba04000000", "mov edx, 4"),
    ("b801000000", "mov eax, 1"),  # write
    ("0f05", "syscall"),
    ("31ff", "xor edi, edi"),
    ("b8e7000000", "mov eax, 231"),
    ("0f05", "syscall"),
    (_NAME.hex(), 'name: .asciz "neuro-init"'),
)
_SOURCES = {"x86_64": (62, SOURCE_X86_64)}  # and the machine's number in an ELF header

_file: int | None = None


def prepare() -> None:
    """Make the program, for ``become`` in all processes that are forked from here on."""
    global _file
    program = executable(os.uname().machine)
    if program is None or _file is not None:
        return
    file = os.memfd_create("neuro-init", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(file, program)
    # Who may not read what it executes may not look into the process either.
    os.fchmod(file, 0o111)
    everything = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, everything)
    _file = file


def descriptor() -> int | None:
    """The descriptor that ``become`` needs; None where Python has to do."""
    return _file


def become(program: int | None) -> None:
    """Turn this process into the program that is open. Returns where that cannot be."""
    if program is not None:
        try:
            os.execve(program, ["neuro-init"], {})
        except OSError:
            pass  # a machine may forbid to execute files without a name (vm.memfd_noexec)


def executable(machine: str) -> bytes | None:
    """The program as an ELF file; None for a processor that it was not written for."""
    if machine not in _SOURCES:
        return None
    number, source = _SOURCES[machine]
    code = b"".join(bytes.fromhex(instruction) for instruction, _ in source)
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code
