"""The program that a run's first process is: it follows the second one into its namespaces, waits.

As a fork of Python that process would cost each run milliseconds, and each sleeping run two
megabytes. This is a page. It is assembled here for the processors that are common; elsewhere Python
does the same (``init``).
"""

from __future__ import annotations

import struct

LIFELINE = 3  # the descriptor by which it is told what to do, and when to end

_BASE = 0x400000
_HEADERS = 64 + 2 * 56
_NAME = b"neuro-init\0"
_NO_CAPABILITIES = struct.pack("<Ii6I", 0x20080522, 0, 0, 0, 0, 0, 0, 0)

# What GNU as makes of the text beside it (tests/engines/test_sandbox_init.py).
SOURCE_X86_64 = (
    ("bf0f000000", "mov edi, 15"),  # PR_SET_NAME
    ("488d352f010000", "lea rsi, [rip+name]"),
    ("b89d000000", "mov eax, 157"),  # prctl
    ("0f05", "syscall"),
    ("31ff", "xor edi, edi"),
    ("be02000000", "mov esi, 2"),
    ("31d2", "xor edx, edx"),
    ("b8b4010000", "mov eax, 436"),  # close_range: the standard streams
    ("0f05", "syscall"),
    ("bf04000000", "mov edi, 4"),
    ("beffffffff", "mov esi, -1"),
    ("b8b4010000", "mov eax, 436"),  # and all above the lifeline
    ("0f05", "syscall"),
    ("6a00", "push 0"),
    ("6a00", "push 0"),
    ("6a00", "push 0"),
    ("6a01", "push 1"),  # SIG_IGN: the kernel buries the orphans of the run
    ("bf11000000", "mov edi, 17"),  # SIGCHLD
    ("4889e6", "mov rsi, rsp"),
    ("41ba08000000", "mov r10d, 8"),
    ("b80d000000", "mov eax, 13"),  # rt_sigaction
    ("0f05", "syscall"),
    ("6a00", "push 0"),
    ("6a00", "push 0"),
    ("6a00", "push 0"),
    ("4989e0", "mov r8, rsp"),  # room for a descriptor
    ("6a00", "push 0"),
    ("4989e1", "mov r9, rsp"),  # the kinds of namespaces, then what is read
    ("6a04", "push 4"),
    ("4151", "push r9"),
    ("4889e7", "mov rdi, rsp"),  # struct iovec
    ("6a00", "push 0"),
    ("6a18", "push 24"),
    ("4150", "push r8"),
    ("6a01", "push 1"),
    ("57", "push rdi"),
    ("6a00", "push 0"),
    ("6a00", "push 0"),
    ("4889e6", "mov rsi, rsp"),  # struct msghdr
    ("bf03000000", "mov edi, 3"),
    ("b82f000000", "mov eax, 47"),  # recvmsg
    ("0f05", "syscall"),
    ("4883f804", "cmp rax, 4"),
    ("0f85a3000000", "jne failed"),
    ("31ff", "xor edi, edi"),
    ("31f6", "xor esi, esi"),
    ("b874000000", "mov eax, 116"),  # setgroups, where that is allowed
    ("0f05", "syscall"),
    ("418b7810", "mov edi, [r8+16]"),
    ("418b31", "mov esi, [r9]"),
    ("b834010000", "mov eax, 308"),  # setns
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("0f8582000000", "jnz failed"),
    ("418b7810", "mov edi, [r8+16]"),
    ("b803000000", "mov eax, 3"),  # close
    ("0f05", "syscall"),
    ("31ff", "xor edi, edi"),
    ("31f6", "xor esi, esi"),
    ("31d2", "xor edx, edx"),
    ("b877000000", "mov eax, 119"),  # setresgid
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("7566", "jnz failed"),
    ("b875000000", "mov eax, 117"),  # setresuid
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("755b", "jnz failed"),
    ("488d3d6b000000", "lea rdi, [rip+none]"),
    ("488d356c000000", "lea rsi, [rip+none+8]"),
    ("b87e000000", "mov eax, 126"),  # capset
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("7542", "jnz failed"),
    ("bf04000000", "mov edi, 4"),  # PR_SET_DUMPABLE
    ("31f6", "xor esi, esi"),
    ("b89d000000", "mov eax, 157"),
    ("0f05", "syscall"),
    ("bf03000000", "mov edi, 3"),
    ("4c89ce", "mov rsi, r9"),
    ("ba01000000", "mov edx, 1"),
    ("b801000000", "mov eax, 1"),  # write
    ("0f05", "syscall"),
    ("bf03000000", "again: mov edi, 3"),
    ("4c89ce", "mov rsi, r9"),
    ("ba01000000", "mov edx, 1"),
    ("31c0", "xor eax, eax"),  # read
    ("0f05", "syscall"),
    ("4883f8fc", "cmp rax, -4"),  # EINTR
    ("74e9", "je again"),
    ("31ff", "xor edi, edi"),
    ("b8e7000000", "mov eax, 231"),  # exit_group
    ("0f05", "syscall"),
    ("bf01000000", "failed: mov edi, 1"),
    ("b8e7000000", "mov eax, 231"),
    ("0f05", "syscall"),
    (_NAME.hex(), 'name: .asciz "neuro-init"'),
    (_NO_CAPABILITIES.hex(), "none: .long 0x20080522, 0, 0, 0, 0, 0, 0, 0"),
)
_SOURCES = {"x86_64": (62, SOURCE_X86_64)}  # and the machine's number in an ELF header


def executable(machine: str) -> bytes | None:
    """The program as an ELF file; None for a processor that it was not written for."""
    if machine not in _SOURCES:
        return None
    number, source = _SOURCES[machine]
    return elf(number, b"".join(bytes.fromhex(instruction) for instruction, _ in source))


def elf(machine: int, code: bytes) -> bytes:
    """A file that executes ``code``; ``machine`` is the processor's number in such files."""
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    kind = identity, 2, machine, 1
    header = struct.pack("<16sHHIQQQIHHHHHH", *kind, _BASE + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code
