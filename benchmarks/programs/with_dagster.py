"""Dagster: a job of ops, all in one process, recorded by an instance that is kept in SQLite."""

import os
import subprocess
import sys
from pathlib import Path

from dagster import DagsterInstance, In, Nothing, Out, in_process_executor, job, op

shape, count = sys.argv[1], int(sys.argv[2])


def one(number):
    @op(name=f"task_{number}", ins={"before": In(Nothing)}, out=Out(Nothing))
    def run():
        subprocess.run(["true"], check=True)

    return run


@job(executor_def=in_process_executor)
def everything():
    last = None
    for number in range(count):
        run = one(number)
        last = run(last) if shape == "chain" and number else run()


home = Path.home() / "dagster"
home.mkdir(exist_ok=True)
(home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
os.environ["DAGSTER_HOME"] = str(home)
quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
with DagsterInstance.get() as instance:
    done = everything.execute_in_process(run_config=quiet, instance=instance).success
sys.exit(not done)
