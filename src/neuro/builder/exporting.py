"""The image of a build: its layers packed, its configuration, pushed to where it is to be."""

from __future__ import annotations


class Exporter:
    def __init__(self, *args: object) -> None: ...
    def run(self, *args: object) -> None: ...
