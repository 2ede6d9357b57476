"""Prefect with the server that it starts for a flow where none is set up, kept in SQLite."""

import subprocess
import sys

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

shape, count = sys.argv[1], int(sys.argv[2])


@task
def one(number):
    subprocess.run(["true"], check=True)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def everything():
    futures = []
    for number in range(count):
        before = futures[-1:] if shape == "chain" else []
        futures.append(one.submit(number, wait_for=before))
    for future in futures:
        future.result()


everything()
