"""The program that every command of a container begins with: it asks the keeper for its streams.

A container engine gives a process two pipes for its output, so the order of what comes through them
is lost, and its own process copies them. This program is started in the command's place, connects
to the run's keeper through the one door that the container has to it (``door``), and says a word
that it was given. The keeper answers with descriptors: standard input, output, errors, and one to
tell through why the command cannot begin, and with variables whose values the daemon must not have:
of these the environment has the names already, with nothing behind them. Then it forks: the child
says that it is there, so that the keeper knows its number, and becomes the command; the parent
buries whatever ends, tells how the command ended, waits until that was heard, and ends likewise. In
a run's first process, so ends all that the run has.

``launcher WORD PLACE... '' ARGUMENT...`` executes the first place that there is.
"""

from __future__ import annotations

import os

from neuro.engines.base import EngineFault
from neuro.engines.sandbox.init_program import elf

FOLDER = "/.neuro"  # where a container finds the program and the door
NAME, DOOR = "launcher", "door"
WITH_TERMINAL = 1

# What GNU as makes of the text beside it (tests/engines/test_docker_launcher.py).
SOURCE_X86_64 = (
    ("488b0424", "mov rax, [rsp]"),  # argc
    ("4c8d6cc410", "lea r13, [rsp+rax*8+16]"),  # envp
    ("488b6c2410", "mov rbp, [rsp+16]"),  # the word
    ("4c8d742418", "lea r14, [rsp+24]"),  # where the command may be
    ("4d89f7", "mov r15, r14"),
    ("498b3f", "skip: mov rdi, [r15]"),
    ("4983c708", "add r15, 8"),
    ("803f00", "cmp byte ptr [rdi], 0"),
    ("75f4", "jne skip"),
    ("bf01000000", "mov edi, 1"),
    ("be05000800", "mov esi, 0x80005"),  # SOCK_SEQPACKET | SOCK_CLOEXEC
    ("31d2", "xor edx, edx"),
    ("b829000000", "mov eax, 41"),  # socket
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("0f886c010000", "js failed"),
    ("89c3", "mov ebx, eax"),
    ("89df", "mov edi, ebx"),
    ("488d3545020000", "lea rsi, [rip+door]"),
    ("ba0f000000", "mov edx, 15"),
    ("b82a000000", "mov eax, 42"),  # connect
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("0f854d010000", "jnz failed"),
    ("31d2", "xor edx, edx"),
    ("807c150000", "count: cmp byte ptr [rbp+rdx], 0"),
    ("7404", "je counted"),
    ("ffc2", "inc edx"),
    ("ebf5", "jmp count"),
    ("89df", "counted: mov edi, ebx"),
    ("4889ee", "mov rsi, rbp"),
    ("b801000000", "mov eax, 1"),
    ("0f05", "syscall"),
    ("4881ec80000000", "sub rsp, 128"),
    ("31ff", "xor edi, edi"),
    ("be00000400", "mov esi, 0x40000"),
    ("ba03000000", "mov edx, 3"),  # readable and writable
    ("41ba22000000", "mov r10d, 0x22"),  # private, of no file
    ("41b8ffffffff", "mov r8d, -1"),
    ("4531c9", "xor r9d, r9d"),
    ("b809000000", "mov eax, 9"),  # mmap: room for what the keeper says
    ("0f05", "syscall"),
    ("483d00f0ffff", "cmp rax, -4096"),
    ("0f87ff000000", "ja failed"),
    ("4889442478", "mov [rsp+120], rax"),
    ("4889442420", "mov [rsp+32], rax"),
    ("48c7442428ffff0300", "mov qword ptr [rsp+40], 0x3ffff"),  # so a zero is behind it
    ("488d442420", "lea rax, [rsp+32]"),
    ("4889442450", "mov [rsp+80], rax"),
    ("48c744245801000000", "mov qword ptr [rsp+88], 1"),
    ("4889642460", "mov [rsp+96], rsp"),
    ("48c744246820000000", "mov qword ptr [rsp+104], 32"),
    ("31c0", "xor eax, eax"),
    ("4889442440", "mov [rsp+64], rax"),
    ("4889442448", "mov [rsp+72], rax"),
    ("4889442470", "mov [rsp+112], rax"),
    ("89df", "mov edi, ebx"),
    ("488d742440", "lea rsi, [rsp+64]"),
    ("ba00000040", "mov edx, 0x40000000"),  # MSG_CMSG_CLOEXEC
    ("b82f000000", "mov eax, 47"),  # recvmsg: a byte, variables, four descriptors
    ("0f05", "syscall"),
    ("83f801", "cmp eax, 1"),
    ("0f8c9e000000", "jl failed"),
    ("48837c246820", "cmp qword ptr [rsp+104], 32"),
    ("0f8592000000", "jne failed"),
    ("b839000000", "mov eax, 57"),  # fork
    ("0f05", "syscall"),
    ("85c0", "test eax, eax"),
    ("0f8883000000", "js failed"),
    ("0f8484000000", "jz command"),
    ("4189c4", "mov r12d, eax"),
    ("bd03000000", "mov ebp, 3"),
    ("8b7cac10", "drop: mov edi, [rsp+16+rbp*4]"),  # what is the command's alone
    ("b803000000", "mov eax, 3"),
    ("0f05", "syscall"),
    ("ffcd", "dec ebp"),
    ("79f1", "jns drop"),
    ("bfffffffff", "again: mov edi, -1"),
    ("488d742430", "lea rsi, [rsp+48]"),
    ("31d2", "xor edx, edx"),
    ("4531d2", "xor r10d, r10d"),
    ("b83d000000", "mov eax, 61"),  # wait4
    ("0f05", "syscall"),
    ("83f8f6", "cmp eax, -10"),  # ECHILD
    ("744b", "je failed"),
    ("4439e0", "cmp eax, r12d"),
    ("75e0", "jne again"),
    ("89df", "mov edi, ebx"),
    ("488d742430", "lea rsi, [rsp+48]"),
    ("ba04000000", "mov edx, 4"),
    ("b801000000", "mov eax, 1"),
    ("0f05", "syscall"),
    ("89df", "mov edi, ebx"),
    ("488d742438", "lea rsi, [rsp+56]"),
    ("ba01000000", "mov edx, 1"),
    ("31c0", "xor eax, eax"),
    ("0f05", "syscall"),
    ("8b7c2430", "mov edi, [rsp+48]"),
    ("89f8", "mov eax, edi"),
    ("83e07f", "and eax, 127"),
    ("750b", "jnz killed"),
    ("c1ef08", "shr edi, 8"),
    ("81e7ff000000", "and edi, 255"),
    ("eb06", "jmp leave"),
    ("8db880000000", "killed: lea edi, [rax+128]"),
    ("b8e7000000", "leave: mov eax, 231"),
    ("0f05", "syscall"),
    ("bf7d000000", "failed: mov edi, 125"),
    ("ebf2", "jmp leave"),
    ("89df", "command: mov edi, ebx"),
    ("488d35d4000000", "lea rsi, [rip+door]"),
    ("ba01000000", "mov edx, 1"),
    ("b801000000", "mov eax, 1"),
    ("0f05", "syscall"),
    ("b870000000", "mov eax, 112"),  # setsid
    ("0f05", "syscall"),
    ("31ed", "xor ebp, ebp"),
    ("8b7cac10", "stream: mov edi, [rsp+16+rbp*4]"),
    ("89ee", "mov esi, ebp"),
    ("b821000000", "mov eax, 33"),  # dup2
    ("0f05", "syscall"),
    ("ffc5", "inc ebp"),
    ("83fd03", "cmp ebp, 3"),
    ("75ec", "jne stream"),
    ("488b442478", "mov rax, [rsp+120]"),
    ("f60001", "test byte ptr [rax], 1"),
    ("7413", "jz variables"),
    ("bf01000000", "mov edi, 1"),
    ("be0e540000", "mov esi, 0x540e"),  # TIOCSCTTY: the input need not be one
    ("31d2", "xor edx, edx"),
    ("b810000000", "mov eax, 16"),  # ioctl
    ("0f05", "syscall"),
    ("488b742478", "variables: mov rsi, [rsp+120]"),
    ("48ffc6", "inc rsi"),
    ("803e00", "variable: cmp byte ptr [rsi], 0"),
    ("742e", "je start"),
    ("4c89ef", "mov rdi, r13"),
    ("488b17", "entry: mov rdx, [rdi]"),  # put each in the place of the one with its name
    ("4883c708", "add rdi, 8"),
    ("4885d2", "test rdx, rdx"),
    ("7414", "jz behind"),
    ("31c9", "xor ecx, ecx"),
    ("8a040e", "letter: mov al, [rsi+rcx]"),
    ("3a040a", "cmp al, [rdx+rcx]"),
    ("75ea", "jne entry"),
    ("ffc1", "inc ecx"),
    ("3c3d", "cmp al, '='"),
    ("75f2", "jne letter"),
    ("488977f8", "mov [rdi-8], rsi"),
    ("48ffc6", "behind: inc rsi"),
    ("807eff00", "cmp byte ptr [rsi-1], 0"),
    ("75f7", "jne behind"),
    ("ebcd", "jmp variable"),
    ("bdfeffffff", "start: mov ebp, -2"),
    ("498b3e", "next: mov rdi, [r14]"),
    ("4983c608", "add r14, 8"),
    ("803f00", "cmp byte ptr [rdi], 0"),
    ("741f", "je refuse"),
    ("4c89fe", "mov rsi, r15"),
    ("4c89ea", "mov rdx, r13"),
    ("b83b000000", "mov eax, 59"),  # execve
    ("0f05", "syscall"),
    ("83f8fe", "cmp eax, -2"),
    ("74e2", "je next"),
    ("83f8ec", "cmp eax, -20"),  # ENOTDIR
    ("74dd", "je next"),
    ("83fdfe", "cmp ebp, -2"),
    ("0f44e8", "cmove ebp, eax"),  # of other reasons the first one counts
    ("ebd5", "jmp next"),
    ("896c2430", "refuse: mov [rsp+48], ebp"),
    ("8b7c241c", "mov edi, [rsp+28]"),  # who hears why it does not begin
    ("488d742430", "lea rsi, [rsp+48]"),
    ("ba04000000", "mov edx, 4"),
    ("b801000000", "mov eax, 1"),
    ("0f05", "syscall"),
    ("bf7f000000", "mov edi, 127"),
    ("e915ffffff", "jmp leave"),
    ("0100", "door: .short 1"),
    ("2f2e6e6575726f2f646f6f7200", '.asciz "/.neuro/door"'),
)
_SOURCES = {"x86_64": (62, SOURCE_X86_64)}  # and the machine's number in an ELF header


def check_processor() -> None:
    """Raise EngineFault on a machine that no container could be kept on."""
    machine = os.uname().machine
    if machine not in _SOURCES:
        raise EngineFault(
            f"the docker engine cannot keep containers on a processor of the kind {machine}, only"
            f" on {', '.join(_SOURCES)}: use the sandbox engine here"
        )


def executable() -> bytes:
    """The program as an ELF file for this machine's processor: see ``check_processor``."""
    number, source = _SOURCES[os.uname().machine]
    return elf(number, b"".join(bytes.fromhex(instruction) for instruction, _ in source))
