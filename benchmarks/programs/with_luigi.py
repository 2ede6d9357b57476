"""luigi with its local scheduler; a file each says that a task is done."""

import subprocess
import sys

import luigi

shape, count = sys.argv[1], int(sys.argv[2])


class One(luigi.Task):
    number = luigi.IntParameter()

    def requires(self):
        return [One(self.number - 1)] if shape == "chain" and self.number else []

    def output(self):
        return luigi.LocalTarget(str(self.number))

    def run(self):
        subprocess.run(["true"], check=True)
        with self.output().open("w"):
            pass


tasks = [One(number) for number in range(count)]
done = luigi.build(tasks, local_scheduler=True, log_level="ERROR", workers=1)
sys.exit(not done)
