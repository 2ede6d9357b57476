"""What is tried against the fence around jobs, and what stops it: the table of docs/security.md.

Each row is tried for real by the tests beside this file, or by those named in ``TRIED_BY``.
"""

from __future__ import annotations

# (what is tried, what stops it)
ESCAPES: tuple[tuple[str, str], ...] = (
    # Words that a person writes.
    (
        "A NUL or a newline in any text of a request, to add an option or a line",
        "Refused where the request is read, and once more where a text becomes the kernel's",
    ),
    (
        "A working folder that is a descriptor (`/proc/self/fd/N`, `/dev/fd/N`), `/proc/self/root`"
        " or `/proc/1/root`",
        "Looked up below the job's root, through no magic link, by a process with nothing open",
    ),
    (
        "The same for a volume's place",
        "Nothing is mounted below `/proc`, `/sys` and `/dev`, wherever a link leads",
    ),
    (
        "A working folder or a volume's place with `..`, or below the root that was before",
        "`..` is refused; the old root is gone before the path is looked at",
    ),
    (
        "A link in a volume, planted before, on the way to a working folder or another volume",
        "Links, absolute ones too, lead below the job's own root",
    ),
    (
        "The same, exchanged all the time by a job that runs meanwhile",
        "Looked up by descriptor, by a process that has no way to the host",
    ),
    (
        "A link in the place of a volume's own folder in the storage",
        "A volume's source is opened through no link at all",
    ),
    (
        "`exec` after the job put a link in the place of its working folder",
        "The command enters it with the job's rights, when all else is closed",
    ),
    (
        "A command that is a script for `/proc/self/exe`, to write to the host's interpreter",
        "That interpreter is on a read-only mount",
    ),
    # What the kernel offers.
    (
        "A user namespace, and with it mounts and control groups",
        "The system call filter; no capabilities; the control groups are not there",
    ),
    ("Reading or changing the kernel's keyrings", "The system call filter; keyrings of its own"),
    (
        "Mounting, unmounting, making a device, `chroot`, loading a module, setting the clock",
        "No capabilities; the system call filter; nodes of devices have no effect",
    ),
    ("Writing to `/proc/sys`, `/sys` or `/proc/sysrq-trigger`", "Read-only mounts"),
    (
        "Reading what the kernel shows to root (`/proc/kcore`, `slabinfo`, `kpageflags`)",
        "User 0 of a job is an unprivileged user of the host; empty files over the rest",
    ),
    (
        "Sockets that reach the kernel or the hypervisor: AF_VSOCK, AF_ALG, AF_PACKET, netlink",
        "The system call filter",
    ),
    (
        "Tracing, stopping or starving the job's first process",
        "The system call filter; its memory is closed; the kernel keeps signals from it",
    ),
    ("Pushing characters into a terminal (TIOCSTI)", "The system call filter"),
    ("A core dump that starts a program of the host", "A limit of one byte, taken as none"),
    # Files.
    (
        "Reading files of the host that not everybody may read, made so before or after the start",
        "The kernel asks at each opening whether a user who is nobody may read them",
    ),
    (
        "Leaving a setuid program, a program with capabilities or a device node on the host",
        "Files of jobs belong to unprivileged users; mounts without devices and setuid",
    ),
    (
        "Writing to a read-only volume, or by way of a volume around it",
        "The mount itself is read-only, with all mounts below it",
    ),
    (
        "Seeing what the host mounts later inside a volume that a job has",
        "Volumes are private mounts",
    ),
    (
        "Links, folders without end and closed folders in what is deleted after the job",
        "Removal goes by descriptors, through no link and into no mount, without recursion",
    ),
    (
        "Reading the server's data folder, its environment or its memory",
        "Not in the job's root; a process namespace of its own",
    ),
    # Neighbours.
    (
        "Seeing, tracing or signalling another job's processes",
        "A process namespace and host users of its own",
    ),
    (
        "Reading another job's private files, also by a volume that both have",
        "Private files are in no other job's root",
    ),
    (
        "Another job's ports, abstract sockets, shared memory and message queues",
        "Network and IPC namespaces of its own; rules between networks",
    ),
    (
        "Links, pipes, files and closed folders of an image in the places of `/proc`,"
        " `/etc/passwd` and the like; links of an image to the host",
        "Looked up below the job's root, by a process without rights over the host; read as plain"
        " files alone",
    ),
    # Secrets: ``tests/server/test_job_secrets.py`` and ``test_secrets.py`` beside it.
    (
        "The value of a secret in the database, the data folder, logs, answers, `docker"
        " inspect`, or the command line and environment of other processes",
        "Encrypted at rest; passed in memory alone, to the job's own processes; the tests"
        " look for it by its bytes",
    ),
    (
        "The encrypted value of one secret in the place of another, of an earlier version,"
        " or of another owner",
        "Each is bound to its owner, name and version",
    ),
    # Taking too much.
    (
        "All memory, also by filling `/dev`, `/dev/shm` and `/run`, or in files and segments that"
        " nobody maps",
        "Control groups; sized mounts; without groups, watching and limits of System V memory",
    ),
    # Builds: ``tests/engines/test_build_attacks.py``.
    (
        "A RUN of a Dockerfile that looks for the credentials of its build, its cache or its"
        " builder, or traces and signals that",
        "A fence of its own within the job's, without the job's root; a process that cannot be"
        " looked into",
    ),
    (
        "A RUN that makes namespaces, mounts, or sets what the kernel lets root set",
        "The system call filter of every job, and capabilities over the step alone",
    ),
    (
        "A RUN that is a script for `/proc/self/exe`, to change the interpreter of the next one",
        "The machine's programs are read-only in a job that builds",
    ),
    (
        "Links of a base image, or of a build's context, in the places of a step's mounts",
        "Looked up below the step's root; sources through no link at all",
    ),
    ("All processes", "A limit for each job, a share of what the machine has"),
    ("All terminals of the machine", "A limit for each job"),
    (
        "More cores than were given, by choosing others where there are no control groups",
        "The job's supervisor brings the processes back",
    ),
)
