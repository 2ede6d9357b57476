"""Snakemake: a rule whose shell command is the task; a file each says that it is done."""

import os
import sys
from pathlib import Path

shape, count = sys.argv[1], int(sys.argv[2])
before = (
    "    input: lambda w: [str(int(w.n) - 1) + '.done'] if int(w.n) else []\n"
    if shape == "chain"
    else ""
)
Path("Snakefile").write_text(
    f"rule all:\n    input: expand('{{n}}.done', n=range({count}))\n"
    # The shell has a `true` of its own, which would start no process.
    f"rule one:\n    output: touch('{{n}}.done')\n{before}    shell: 'exec true'\n"
)
snakemake = str(Path(sys.executable).with_name("snakemake"))
os.execv(snakemake, [snakemake, "--quiet", "all", "--cores", "2"])
