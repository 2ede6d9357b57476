"""What layers cost the machine is shared out between people, and ends before the machine does."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack

import pytest

from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import check_files
from neuro.engines.images.processes import Turns
from neuro.engines.images.stopping import Stop, Stopped


def test_one_persons_layers_leave_a_turn_to_others() -> None:
    turns = Turns(3, 2)
    with ExitStack() as mallorys:
        for _ in range(2):
            mallorys.enter_context(turns.take(Stop("mallory")))
        third = Stop("mallory")
        third.set()

        with pytest.raises(Stopped), turns.take(third):
            pass
        with turns.take(Stop("alice")):
            pass

    with turns.take(Stop("mallory")):
        pass


def test_who_waits_for_a_turn_gets_the_next() -> None:
    turns = Turns(1, 1)
    began, ended = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        with turns.take(Stop("alice")):
            ended.set()

    waiting = threading.Thread(target=wait)
    with turns.take(Stop("mallory")):
        waiting.start()
        assert began.wait(60)
        assert not ended.is_set()

    assert ended.wait(60)
    waiting.join()


def _disk(files: int, free: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 10**9, 10**9, 10**9, files, free, free, 0, 255))


@pytest.mark.parametrize(
    ("files", "free"), [(0, 0), (16_000_000, 100_000), (1000, 50), (16_000_000, 15_000_000)]
)
def test_a_disk_that_can_have_more_files_takes_layers(files: int, free: int) -> None:
    check_files(_disk(files, free))


@pytest.mark.parametrize(("files", "free"), [(16_000_000, 99_999), (1000, 49)])
def test_a_disk_that_can_have_few_files_more_takes_none(files: int, free: int) -> None:
    with pytest.raises(ImageFault, match=f"can have {free} files more") as refused:
        check_files(_disk(files, free))

    assert refused.value.kind is FaultKind.NO_ROOM
