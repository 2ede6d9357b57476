"""The system calls of Linux by name and number, and which of them a job may make.

Deny by default: a call is allowed because it is named here. A call that these tables do not know
fails with ENOSYS, as on an older kernel, so that a C library falls back to what it used before.
``docs/guide/seccomp.md`` sets the policy beside Docker's.
"""

from __future__ import annotations

import errno

# By number, from 0; "-" is a number that the architecture does not use.
_X86_64 = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select
    sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep
    getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg
    recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone
    fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv
    msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename
    mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask
    gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid
    geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups
    setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset
    rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib
    personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt pivot_root
    _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2
    swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module
    delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall
    tuxcall security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex
    sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents
    io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old
    remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
    clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes
    vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive
    mq_notify mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get
    inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat
    fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat
    faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range
    vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate
    timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2
    inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init
    fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg
    setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr
    sched_getattr renameat2 seccomp getrandom memfd_create kexec_file_load bpf execveat
    userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc
    pkey_free statx io_pgetevents rseq uretprobe uprobe
"""

_AARCH64 = """
    io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr
    lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
    getcwd lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl
    inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat
    mkdirat unlinkat symlinkat linkat renameat umount2 mount pivot_root nfsservctl statfs
    fstatfs truncate ftruncate fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat
    fchown openat close vhangup pipe2 quotactl getdents64 lseek read write readv writev pread64
    pwrite64 preadv pwritev sendfile pselect6 ppoll signalfd4 vmsplice splice tee readlinkat
    newfstatat fstat sync fsync fdatasync sync_file_range timerfd_create timerfd_settime
    timerfd_gettime utimensat acct capget capset personality exit exit_group waitid
    set_tid_address unshare futex set_robust_list get_robust_list nanosleep getitimer setitimer
    kexec_load init_module delete_module timer_create timer_gettime timer_getoverrun
    timer_settime timer_delete clock_settime clock_gettime clock_getres clock_nanosleep syslog
    ptrace sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity
    sched_getaffinity sched_yield sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval restart_syscall kill tkill tgkill sigaltstack rt_sigsuspend
    rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn
    setpriority getpriority reboot setregid setgid setreuid setuid setresuid getresuid setresgid
    getresgid setfsuid setfsgid times setpgid getpgid getsid setsid getgroups setgroups uname
    sethostname setdomainname getrlimit setrlimit getrusage umask prctl getcpu gettimeofday
    settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open
    mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd
    semget semctl semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen
    accept connect getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown
    sendmsg recvmsg readahead brk munmap mremap add_key request_key keyctl clone execve mmap
    fadvise64 swapon swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise
    remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages
    rt_tgsigqueueinfo perf_event_open accept4 recvmmsg - - - - - - - - - - - - - - - - wait4
    prlimit64 fanotify_init fanotify_mark name_to_handle_at open_by_handle_at clock_adjtime
    syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module sched_setattr
    sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd membarrier
    mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx
    io_pgetevents rseq kexec_file_load
"""

# From 424 a call has the same number on every architecture.
_FIRST_COMMON = 424
_COMMON = """
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount
    fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
    process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset
    landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
    set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait
    futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
"""

_OWN = {"x86_64": _X86_64, "aarch64": _AARCH64}


def numbers(machine: str) -> dict[str, int]:
    """The number of each system call of ``machine`` (as ``os.uname`` spells it), by name.

    Raises ValueError for a machine without a table.
    """
    if machine not in _OWN:
        raise ValueError(
            f"{machine} has no table of system calls: the sandbox engine runs on x86_64 and aarch64"
        )
    found = {name: number for number, name in enumerate(_OWN[machine].split())}
    found.update({name: _FIRST_COMMON + at for at, name in enumerate(_COMMON.split())})
    found.pop("-", None)
    return found


# A verdict is ALLOW or the errno with which the call fails. PRETEND: it succeeds, and nothing is
# done.
ALLOW, PRETEND = 0, -1

# One half of an argument (arguments have 64 bits, a filter loads 32), compared with a value under
# a mask: (argument, half, mask, value). A clause holds when all its conditions do.
#
# Only the low half is looked at where the kernel declares the parameter as int or unsigned int, or
# cuts it down itself: it ignores the high half, so a filter that compared it could be passed by
# setting a bit there.
LOW, HIGH = 0, 1
ALL_BITS = 0xFFFFFFFF
Condition = tuple[int, int, int, int]
Clause = tuple[tuple[Condition, ...], int]
# The first clause that holds decides; the last one has no condition.
Rule = tuple[Clause, ...]
Verdict = int | Rule


def _is(argument: int, value: int, mask: int = ALL_BITS) -> Condition:
    return (argument, LOW, mask, value)


_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE_MASK, _SOCK_PACKET = 0xF, 10
_NETLINK_ROUTE = 0
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_F_SETLEASE, _F_SETDELEG = 1024, 1040
_INIT = 1
# mount, cgroup, uts, ipc, user, pid and network namespaces. The bit of time namespaces lies among
# those of the signal here, so clone() cannot make one.
_CLONE_NAMESPACES = 0x7E020000
# A child of the caller's parent, which for the command is its supervisor.
_CLONE_PARENT = 0x00008000
# CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_THREAD, CLONE_SYSVSEM: what a process may
# stop sharing without a namespace. All else is refused, also what later kernels may add.
_UNSHARE_HARMLESS = 0x00000100 | 0x00000200 | 0x00000400 | 0x00000800 | 0x00010000 | 0x00040000

# The job's init belongs to the platform: it holds the job together.
_NOT_INIT_FIRST: Rule = (((_is(0, _INIT),), errno.EPERM), ((), ALLOW))
_NOT_INIT_SECOND: Rule = (((_is(1, _INIT),), errno.EPERM), ((), ALLOW))

_PRIO_PROCESS, _PRIO_USER = 0, 2
_IOPRIO_WHO_PROCESS, _IOPRIO_WHO_USER = 1, 3


def _not_init_of_any(process: int, user: int) -> Rule:
    """Not for init alone, and not for all processes of a user, of whom it is one."""
    return (
        ((_is(0, process), _is(1, _INIT)), errno.EPERM),
        ((_is(0, user),), errno.EPERM),
        ((), ALLOW),
    )


CHECKED: dict[str, Rule] = {
    # clone() cuts its flags to 32 bits; what has more bits is clone3() only.
    "clone": (
        ((_is(0, 0, _CLONE_NAMESPACES | _CLONE_PARENT),), ALLOW),
        ((), errno.EPERM),
    ),
    # An unsigned long that the kernel takes whole.
    "unshare": (
        ((_is(0, 0, ALL_BITS & ~_UNSHARE_HARMLESS), (0, HIGH, ALL_BITS, 0)), ALLOW),
        ((), errno.EPERM),
    ),
    "socket": (
        ((_is(0, _AF_UNIX),), ALLOW),
        ((_is(0, _AF_INET6),), ALLOW),
        # The kernel makes an AF_PACKET socket of this pair, for programs from before Linux 2.2.
        ((_is(0, _AF_INET), _is(1, _SOCK_PACKET, _SOCK_TYPE_MASK)), errno.EAFNOSUPPORT),
        ((_is(0, _AF_INET),), ALLOW),
        ((_is(0, _AF_NETLINK), _is(2, _NETLINK_ROUTE)), ALLOW),
        # libaudit and PAM take this errno for a kernel without the family, and go on.
        ((), errno.EAFNOSUPPORT),
    ),
    "socketpair": (((_is(0, _AF_UNIX),), ALLOW), ((), errno.EAFNOSUPPORT)),
    # Both put input into a terminal in the name of whoever sits at it. CVE-2019-10063 was this
    # check on all 64 bits.
    "ioctl": (
        ((_is(1, _TIOCSTI),), errno.EPERM),
        ((_is(1, _TIOCLINUX),), errno.EPERM),
        ((), ALLOW),
    ),
    # Who opens a file with a lease on it waits up to 45 seconds for the lease's holder: the server,
    # whose storage jobs share. The kernel's parameter is an unsigned int.
    "fcntl": (
        ((_is(1, _F_SETLEASE),), errno.EINVAL),
        ((_is(1, _F_SETDELEG),), errno.EINVAL),
        ((), ALLOW),
    ),
    # Docker's: Linux, Linux in 32 bits, each with the 2.6 version's number, and asking. gdb warns
    # that it could not switch the randomization of addresses off, and goes on.
    "personality": (
        *(((_is(0, value),), ALLOW) for value in (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)),
        ((), errno.EPERM),
    ),
    # The kernel's pid_t is an int. Tracing cannot change a call after this filter has seen it:
    # since Linux 4.8 the filter runs after the tracer.
    "ptrace": _NOT_INIT_SECOND,
    "process_vm_readv": _NOT_INIT_FIRST,
    "process_vm_writev": _NOT_INIT_FIRST,
    # Without a descriptor of it there is no pidfd_getfd() and process_madvise() on init either.
    "pidfd_open": _NOT_INIT_FIRST,
    "prlimit64": _NOT_INIT_FIRST,
    # It is of the job's user, so the kernel would let the job starve it.
    "sched_setaffinity": _NOT_INIT_FIRST,
    "sched_setattr": _NOT_INIT_FIRST,
    "sched_setparam": _NOT_INIT_FIRST,
    "sched_setscheduler": _NOT_INIT_FIRST,
    "setpriority": _not_init_of_any(_PRIO_PROCESS, _PRIO_USER),
    "ioprio_set": _not_init_of_any(_IOPRIO_WHO_PROCESS, _IOPRIO_WHO_USER),
}

# Operations on a ring are not system calls: with io_uring a job may open sockets of every family.
IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
AIO = ("io_setup", "io_destroy", "io_getevents", "io_pgetevents", "io_submit", "io_cancel")
PERF = ("perf_event_open",)

# What only the platform's own program may, which builds images (``neuro.builder``): to make a fence
# within the job's. Who runs inside that has none of it.
NESTING: dict[str, Verdict] = {
    "clone": (((_is(0, 0, _CLONE_PARENT),), ALLOW), ((), errno.EPERM)),
    **dict.fromkeys(("mount", "umount2", "pivot_root", "sethostname"), ALLOW),
    **dict.fromkeys(("open_tree", "move_mount", "mount_setattr"), ALLOW),
}

_FILE_TYPE, _CHARACTER_DEVICE, _BLOCK_DEVICE = 0xF000, 0x2000, 0x6000


def _no_device(mode: int) -> Rule:
    return (
        ((_is(mode, _CHARACTER_DEVICE, _FILE_TYPE),), PRETEND),
        ((_is(mode, _BLOCK_DEVICE, _FILE_TYPE),), PRETEND),
        ((), ALLOW),
    )


# What root of a build expects to be able to do, where there is one user alone: package managers
# give files away, and become others. They are told that they did.
PRETENDED: dict[str, Verdict] = {
    **dict.fromkeys(("chown", "fchown", "lchown", "fchownat"), PRETEND),
    **dict.fromkeys(("setuid", "setgid", "setreuid", "setregid", "setresuid"), PRETEND),
    **dict.fromkeys(("setresgid", "setfsuid", "setfsgid", "setgroups"), PRETEND),
    "mknod": _no_device(1),
    "mknodat": _no_device(2),
}

# Most of these need capabilities that no job has. The filter refuses them too, as Docker's does:
# one mistake with capabilities must not open the kernel.
_DENIED = (
    # namespaces, mounts
    "setns mount umount2 pivot_root open_tree open_tree_attr move_mount fsopen fsconfig "
    "fsmount fspick mount_setattr sethostname setdomainname "
    # keyrings: the kernel keeps them by uid, not by job
    "add_key request_key keyctl "
    # large or subtle parts of the kernel, where most exploits of late years begin
    "bpf userfaultfd perf_event_open "
    # files by handle reach past every mount; watching whole file systems
    "open_by_handle_at fanotify_init "
    # the machine: its modules, kernel, clock, swap, accounting, quotas, log, console, ports
    "init_module finit_module delete_module kexec_load kexec_file_load reboot settimeofday "
    "clock_settime swapon swapoff acct quotactl quotactl_fd syslog vhangup iopl ioperm "
    # labels of security modules
    "lsm_set_self_attr "
    # memory of other processes to other nodes; the other calls of NUMA are allowed
    "migrate_pages "
    # obsolete: no C library has them any more
    "lookup_dcookie sysfs uselib ustat"
)

# These fail as on a kernel without them, because who calls them expects that and has another way.
_ABSENT = (
    # Its flags lie in memory, where no filter sees them; C libraries fall back to clone().
    "clone3 "
    # libuv, tokio and liburing's users fall back to epoll and threads.
    "io_uring_setup io_uring_enter io_uring_register "
    # The machine has 65,536 places for all that use these, and one job may take them all.
    "io_setup io_destroy io_getevents io_pgetevents io_submit io_cancel "
    # libmount falls back to /proc/self/mountinfo.
    "statmount listmount "
    # Docker allows it. Local descriptor tables serve 16-bit programs and Wine's 32-bit ones, not
    # machine learning; many kernels are built without the call, and it has had holes.
    "modify_ldt "
    # No kernel that runs this platform has these.
    "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms "
    "get_thread_area getpmsg nfsservctl putpmsg query_module security set_thread_area tuxcall "
    "vserver"
)

_ALLOWED = (
    # files: contents
    "open openat openat2 creat close close_range read write readv writev pread64 pwrite64 "
    "preadv pwritev preadv2 pwritev2 lseek sendfile splice tee vmsplice copy_file_range "
    "truncate ftruncate fallocate fadvise64 readahead sync syncfs fsync fdatasync "
    "sync_file_range dup dup2 dup3 flock pipe pipe2 memfd_create memfd_secret cachestat "
    # files: names, modes, attributes. Setuid modes are not looked at (apt, dpkg and tar set
    # them): such files have no effect on a job, which has the no_new_privs flag.
    "stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 chmod fchmod "
    "fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat umask "
    "mkdir mkdirat rmdir rename renameat renameat2 link linkat unlink unlinkat symlink "
    "symlinkat readlink readlinkat mknod mknodat getdents getdents64 getcwd chdir fchdir "
    "chroot setxattr lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat "
    "listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr "
    "removexattrat file_getattr file_setattr name_to_handle_at "
    # waiting for files and descriptors
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait "
    "epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime "
    "timerfd_gettime inotify_init inotify_init1 inotify_add_watch inotify_rm_watch "
    "fanotify_mark "
    # memory
    "brk mmap munmap mremap mprotect msync mincore madvise process_madvise process_mrelease "
    "mlock mlock2 mlockall munlock munlockall mseal remap_file_pages membarrier "
    "map_shadow_stack pkey_alloc pkey_free pkey_mprotect "
    # memory's nodes: PyTorch, OpenBLAS and jemalloc place memory. Docker wants CAP_SYS_NICE.
    "mbind set_mempolicy set_mempolicy_home_node get_mempolicy move_pages "
    # processes and threads
    "fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill pidfd_getfd "
    "pidfd_send_signal kcmp getpid getppid gettid getpgid getpgrp setpgid getsid setsid "
    "set_tid_address set_robust_list get_robust_list futex futex_wait futex_waitv futex_wake "
    "futex_requeue rseq prctl arch_prctl getcpu restart_syscall uretprobe uprobe "
    # who one is
    "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid "
    "setregid setresuid setresgid setfsuid setfsgid setgroups capget capset "
    # signals
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
    "rt_sigtimedwait rt_tgsigqueueinfo sigaltstack pause alarm "
    # scheduling, limits, usage
    "sched_yield sched_getaffinity sched_getattr sched_getparam sched_getscheduler "
    "sched_get_priority_max sched_get_priority_min sched_rr_get_interval getpriority "
    "ioprio_get getrlimit setrlimit getrusage times sysinfo uname "
    # time. adjtimex() and clock_adjtime() also read; the kernel refuses the rest.
    "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep adjtimex "
    "clock_adjtime getitimer setitimer timer_create timer_settime timer_gettime "
    "timer_getoverrun timer_delete "
    # sockets that exist
    "bind connect listen accept accept4 shutdown getsockname getpeername getsockopt "
    "setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg "
    # System V's and POSIX' messages, semaphores, shared memory
    "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl "
    "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr "
    # fences of one's own
    "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self "
    "lsm_get_self_attr lsm_list_modules "
    # the rest
    "getrandom"
)

ALLOWED = frozenset(_ALLOWED.split())
DENIED = frozenset(_DENIED.split())
ABSENT = frozenset(_ABSENT.split())


def verdicts(
    *, io_uring: bool = False, perf: bool = False, nesting: bool = False, pretending: bool = False
) -> dict[str, Verdict]:
    """What happens to each system call, by name: ALLOW, an errno, or a rule on its arguments."""
    found: dict[str, Verdict] = dict.fromkeys(ALLOWED, ALLOW)
    found.update(dict.fromkeys(DENIED, errno.EPERM))
    found.update(dict.fromkeys(ABSENT, errno.ENOSYS))
    found.update(CHECKED)
    for names, wanted in ((IO_URING, io_uring), (AIO, io_uring), (PERF, perf)):
        if wanted:
            found.update(dict.fromkeys(names, ALLOW))
    for more, wanted in ((NESTING, nesting), (PRETENDED, pretending)):
        if wanted:
            found.update(more)
    return found
