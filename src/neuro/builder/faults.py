"""Why a build ends without an image."""

from __future__ import annotations


class BuildFault(Exception):
    """The text is one or more sentences for whoever started the build."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class StepFailed(BuildFault):
    """A step failed: ``line`` is its instruction's in the Dockerfile, ``output`` how it ended."""

    def __init__(
        self, sentence: str, line: int, hint: str = "", output: tuple[str, ...] = ()
    ) -> None:
        super().__init__(sentence, hint)
        self.line = line
        self.output = output
