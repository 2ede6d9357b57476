"""What builds leave for later ones: whole or not there, shared, bounded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro.builder.cache import Cache, Draft, Packed


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(str(tmp_path / "cache"), boot="one")
    made.open()
    return made


def _file(content: str) -> Callable[[Draft], None]:
    def fill(draft: Draft) -> None:
        Path(draft.files, "file").write_text(content)

    return fill


def _boom(draft: Draft) -> None:
    Path(draft.files, "half").write_text("half")
    raise RuntimeError("killed")


def test_a_layer_is_made_once(cache: Cache) -> None:
    first, is_new = cache.make("key", _file("a"))
    again, is_again = cache.make("key", _boom)

    assert (is_new, is_again) == (True, False)
    assert first.identity == again.identity
    assert Path(again.folder.files, "file").read_text() == "a"
    assert (first.size, os.listdir(f"{cache.folder}/drafts")) == (1, [])


def test_what_fails_leaves_nothing(cache: Cache) -> None:
    with pytest.raises(RuntimeError):
        cache.make("key", _boom)

    assert cache.find("key") is None
    for shelf in ("drafts", "layers", "trash"):
        assert os.listdir(f"{cache.folder}/{shelf}") == []


def test_anew_means_another_layer(cache: Cache) -> None:
    first, _ = cache.make("key", _file("a"))

    second, is_new = cache.make("key", _file("b"), anew=True)

    assert is_new
    assert second.identity != first.identity
    found = cache.find("key")
    assert found is not None
    assert found.identity == second.identity
    assert Path(first.folder.files, "file").read_text() == "a"  # who has it goes on with it


def test_two_who_want_one_layer_make_it_once(cache: Cache) -> None:
    made: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(draft: Draft) -> None:
        made.append(draft.place)
        begun.set()
        assert go_on.wait(30)

    found: list[str] = []
    first = threading.Thread(target=lambda: found.append(cache.make("key", slow)[0].identity))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=lambda: found.append(cache.make("key", slow)[0].identity))
    second.start()
    go_on.set()
    first.join()
    second.join()

    assert len(made) == 1
    assert found[0] == found[1]


def test_the_oldest_go_first_and_what_is_used_stays(cache: Cache) -> None:
    layers = {}
    for number, name in enumerate("abc"):
        layers[name], _ = cache.make(name, _file("x" * 100))
        record = f"{cache.folder}/layers/{layers[name].identity}/record.json"
        os.utime(record, (number, number))
    layers["b"].close()
    layers["c"].close()

    gone = cache.sweep(150, now=10.0)

    assert gone == 2
    assert cache.find("a") is not None
    assert cache.find("b") is None
    assert sorted(os.listdir(f"{cache.folder}/keys")) == ["a"]


def test_a_cache_is_swept_where_that_was_long_ago_or_much_was_added(cache: Cache) -> None:
    assert cache.is_to_be_swept(0, now=10_000.0)  # nobody ever did

    cache.sweep(1 << 30, now=10_000.0)

    assert not cache.is_to_be_swept(1 << 30, now=10_500.0)
    assert cache.is_to_be_swept((1 << 30) + 1, now=10_000.0)
    assert cache.is_to_be_swept(0, now=10_601.0)
    assert cache.is_to_be_swept(0, now=9_000.0)  # the clock was set back


def test_a_layer_that_the_disk_may_not_have_is_made_anew_after_a_power_loss(cache: Cache) -> None:
    cache.make("lost", _file("a"))[0].close()
    cache.settle()
    cache.make("settled later", _file("b"))[0].close()

    after = Cache(cache.folder, boot="two")

    assert after.find("lost") is not None
    assert after.find("settled later") is None


def test_only_layers_that_are_fresh_are_looked_at_to_be_settled(cache: Cache) -> None:
    first, _ = cache.make("first", _file("a"))
    cache.settle()
    second, _ = cache.make("second", _file("b"))
    # What says so of the first one is gone, and only a look at all layers would miss it.
    settled = [Path(cache.folder, "layers", one.identity, "settled") for one in (first, second)]
    settled[0].unlink()

    cache.settle()

    assert [one.exists() for one in settled] == [False, True]


def test_a_layer_whose_build_was_killed_before_it_was_listed_is_not_believed_after_a_power_loss(
    cache: Cache,
) -> None:
    layer, _ = cache.make("key", _file("a"))
    Path(cache.folder, "fresh", layer.identity).unlink()
    layer.close()

    cache.settle()

    assert cache.find("key") is not None
    assert Cache(cache.folder, boot="two").find("key") is None


def test_a_layer_of_before_a_power_loss_is_never_settled(cache: Cache) -> None:
    cache.make("key", _file("a"))[0].close()
    after = Cache(cache.folder, boot="two")
    after.open()

    after.settle()

    assert after.find("key") is None
    assert os.listdir(f"{cache.folder}/fresh") == []


def test_a_cache_of_before_there_was_a_list_of_fresh_layers_has_one(cache: Cache) -> None:
    layer, _ = cache.make("key", _file("a"))
    layer.close()
    Path(cache.folder, "fresh", layer.identity).unlink()
    Path(cache.folder, "fresh").rmdir()

    for _ in range(2):
        cache.open()
    cache.settle()

    assert Cache(cache.folder, boot="two").find("key") is not None
    assert os.listdir(f"{cache.folder}/drafts") == []


def test_what_a_layer_is_as_an_archive_is_remembered(cache: Cache) -> None:
    layer, _ = cache.make("key", _file("a"))
    assert layer.packed() is None

    layer.remember(Packed("type", "sha256:1", 2, "sha256:3"))

    found = cache.find("key")
    assert found is not None
    assert found.packed() == Packed("type", "sha256:1", 2, "sha256:3")


def test_drafts_of_who_was_killed_are_swept(cache: Cache) -> None:
    left = Path(cache.folder, "drafts", "abc")
    left.mkdir()
    with cache.scratch() as held:
        cache.sweep(1 << 30)

        assert not left.exists()
        assert Path(held).exists()
    assert not Path(held).exists()


def test_a_private_mount_is_nobody_elses(cache: Cache) -> None:
    with cache.mount("id", "private") as (first, _), cache.mount("id", "private") as (second, _):
        assert first != second
    with cache.mount("id", "private") as (again, is_new):
        assert (again, is_new) == (first, False)


def test_shared_mounts_are_one(cache: Cache) -> None:
    with cache.mount("id", "shared") as (first, _), cache.mount("id", "shared") as (second, _):
        assert first == second
    with cache.mount("other", "shared") as (other, _):
        assert other != first


def test_a_locked_mount_is_waited_for(cache: Cache) -> None:
    order: list[str] = []

    def second() -> None:
        with cache.mount("id", "locked"):
            order.append("second")

    with cache.mount("id", "locked"):
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join()

    assert order == ["first", "second"]
