"""The help topics, as plain Markdown."""

from __future__ import annotations

ALIASES = """\
# Aliases

Commands of your own, in ~/.neuro/user.toml or in a project's .neuro.toml.
A command of neuro always wins over an alias with the same name.

An alias for a neuro command; what you type behind it is appended:

    [alias.lsl]
    cmd = "storage ls -l"
    help = "List files with their sizes."

An alias for any program, with arguments and options of its own. {name} is
replaced by what was given, {opts} by everything; with no braces at all,
everything is appended:

    [alias.du]
    exec = "du {opts}"
    args = "DIR..."
    options = [
        "-h, --human-readable  print sizes like 1K",
        "-d, --max-depth=N  only so deep",
    ]

In `args`, [NAME] is an optional argument, and NAME... takes several.
`neuro config aliases` lists what there is.
"""

_LANGUAGE = """\
Columns are separated by spaces or commas:

    id name status when

A slash stacks values in one cell:

    id/name status/when

Braces carry properties and, last, a title of your own:

    {image;max=30;align=right;PICTURE} {description;min=10}

Properties are align=left|right|center, min=N, max=N and width=N.
Names are not case-sensitive and may be abbreviated while they are clear.
"""

_JOB_COLUMNS = """\
id, name, tags, status, when, created, started, finished, image, owner,
cluster_name, org_name, description, command, life_span, workdir, preset,
reason"""

PS_FORMAT = f"""\
# The format of `neuro ps`

{_LANGUAGE}
Columns:

{_JOB_COLUMNS}

The default is:

    id name status when image owner cluster_name description

Change it for one call with --format, or for good in ~/.neuro/user.toml:

    [job]
    ps-format = "id/name status/when command"
"""

TOP_FORMAT = f"""\
# The format of `neuro top`

{_LANGUAGE}
Columns:

{_JOB_COLUMNS},
cpu, memory, gpu, gpu_memory

The default is:

    id name when cpu memory gpu gpu_memory

Change it for one call with --format, or for good in ~/.neuro/user.toml:

    [job]
    top-format = "name cpu memory"
"""

USER_CONFIG = """\
# Configuration files

~/.neuro/user.toml is yours; .neuro.toml in a project's folder (or above the
folder you are in) is the project's and wins, key by key. --neuromation-config
or $NEUROMATION_CONFIG name another folder than ~/.neuro.

    [job]
    ps-format = "id name status"      # see `neuro help ps-format`
    top-format = "name cpu memory"    # see `neuro help top-format`
    life-span = "2d3h20min"           # default of `neuro run --life-span`
    cluster-name = "default"          # only in .neuro.toml: the project's

    [storage]
    cp-exclude = ["*.tmp", "!keep.tmp"]          # what `neuro cp` leaves out
    cp-exclude-from-files = [".neuroignore"]     # files with such patterns

    [alias.NAME]                      # see `neuro help aliases`

A section, a key or a type that is not known is an error: nothing is ignored.
"""

SHARING = """\
# Sharing

What you make is yours, and nobody else sees it but administrators. A grant
lets somebody do something on a URI and on all below it:

    neuro share storage:data alice read       # her storage:/YOU/data
    neuro share job:my-job alice write        # logs, and also exec and kill
    neuro share job: alice read               # all your jobs, also later ones
    neuro share --expires 7d storage:data public read    # everybody, for a week

read sees, write changes, manage also shares it. Who something is shared with
uses its whole URI (storage://default/anna/data) or the form with a slash
(storage:/anna/data); `neuro ls storage:/` and `neuro ps --owner anna` show it.

    neuro acl revoke storage:data alice       # holds at once
    neuro acl ls                              # what you may do
    neuro acl ls --shared                     # what others may do with yours
    neuro acl explain storage:data alice      # and why

A role is a name for several people:

    neuro acl add-role anna/roles/team
    neuro acl grant role://anna/roles/team alice read    # she is in it now
    neuro share storage:data anna/roles/team write
"""

SECRETS = """\
# Secrets

A secret is a value that your jobs get and nobody is shown: a token, a key.

    neuro secret add wandb-token              # asks for the value
    neuro secret add deploy-key @key.pem      # the content of a file
    pass wandb | neuro secret add wandb-token -

A job gets it as a variable, or as a file that only its root can read:

    neuro run -e WANDB_API_KEY=secret:wandb-token IMAGE
    neuro run -v secret:deploy-key:/keys/deploy IMAGE

The same stands in env: and volumes: of flow files. A run gets the value that
the secret has when it begins. `neuro secret ls` lists yours and those shared
with you, with the jobs that use them; no command prints a value.

    neuro share secret:wandb-token alice read    # she may use it in her jobs
    neuro run -e KEY=secret:/anna/wandb-token IMAGE
    neuro secret restore wandb-token 3           # an earlier value again
"""

TEXTS = {
    "aliases": ALIASES,
    "secrets": SECRETS,
    "sharing": SHARING,
    "ps-format": PS_FORMAT,
    "top-format": TOP_FORMAT,
    "user-config": USER_CONFIG,
}
