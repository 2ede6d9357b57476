"""Metaflow on local files: a process of its own for every task, which reads this flow anew."""

import os
import sys
from pathlib import Path

shape, count = sys.argv[1], int(sys.argv[2])

HEAD = """\
import subprocess
from metaflow import FlowSpec, step

class Everything(FlowSpec):
"""
FLAT = """
    @step
    def start(self):
        self.numbers = list(range({count}))
        self.next(self.one, foreach="numbers")

    @step
    def one(self):
        subprocess.run(["true"], check=True)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)
"""
# It draws the graph from the text of the steps, so a chain must have them all in it.
LINK = """
    @step
    def {name}(self):
        subprocess.run(["true"], check=True)
        self.next(self.{after})
"""
END = """
    @step
    def end(self):
        pass

if __name__ == "__main__":
    Everything()
"""

if shape == "flat":
    steps = FLAT.format(count=count)
else:
    names = ["start", *(f"task_{number}" for number in range(1, count)), "end"]
    steps = "".join(
        LINK.format(name=name, after=names[number + 1]) for number, name in enumerate(names[:-1])
    )
Path("everything.py").write_text(HEAD + steps + END)
limits = ["--max-workers", "2", "--max-num-splits", str(count)]
os.execv(sys.executable, [sys.executable, "everything.py", "--no-pylint", "run", *limits])
