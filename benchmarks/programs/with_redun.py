"""redun, which records every call in SQLite; its tasks are threads that start the process."""

import subprocess
import sys
from pathlib import Path

from redun import Scheduler, task
from redun.config import Config

shape, count = sys.argv[1], int(sys.argv[2])
# A chain is one expression, as deep as the chain is long, which redun pickles.
sys.setrecursionlimit(100 * count + 1000)


@task(namespace="bench", cache=False)
def one(number, before=None):
    subprocess.run(["true"], check=True)
    return number


@task(namespace="bench", cache=False)
def everything():
    if shape == "flat":
        return [one(number) for number in range(count)]
    last = None
    for number in range(count):
        last = one(number, last)
    return last


scheduler = Scheduler(
    config=Config(
        {
            "backend": {"db_uri": f"sqlite:///{Path.home()}/redun.db"},
            "executors.default": {"type": "local", "mode": "thread", "max_workers": "2"},
        }
    )
)
scheduler.load()
scheduler.run(everything())
