"""Effects of the functions of expressions: `upload()` copies, `inspect_job()` asks."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from neuro.flow.cli.context import FlowContext
from neuro.flow.command_line import upload_lines

if TYPE_CHECKING:
    from neuro.domain.jobs import Job
    from neuro.flow.evaluate.contexts import VolumeRecord


class NoUpload:
    """For looking at a job without running it: nothing is sent."""

    def __init__(self, context: FlowContext) -> None:
        self._context = context

    def upload(self, volume: VolumeRecord) -> None:
        pass

    def inspect_job(self, tags: tuple[str, ...]) -> Job | None:
        return next(iter(self._context.run(self._context.live.active(tags))), None)


class DryRun(NoUpload):
    """Prints the commands that would send a volume."""

    def upload(self, volume: VolumeRecord) -> None:
        for words in upload_lines(volume):
            self._context.out.print(f"neuro {shlex.join(words)}")


class RealRun(NoUpload):
    """Sends volumes."""

    def upload(self, volume: VolumeRecord) -> None:
        from neuro.flow.cli.failures import Failed
        from neuro.flow.cli.volumes import send

        if code := send(self._context, volume):
            raise Failed(f"Volume {volume.id} was not uploaded, so the job is not run", code)
