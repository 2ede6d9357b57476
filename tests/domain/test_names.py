from __future__ import annotations

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.domain.errors import InvalidInput
from neuro.domain.names import (
    check_cluster_name,
    check_job_name,
    check_tags,
    check_user_name,
    is_job_id,
    new_job_id,
    user_name_from,
)


@pytest.mark.parametrize("name", ["abc", "a-1", "train-2", "x" * 40])
def test_names_of_jobs(name: str) -> None:
    assert check_job_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "ab", "x" * 41, "1abc", "a--b", "-ab", "ab-", "Abc", "a_b", "job-1", "abc\n"]
)
def test_what_is_no_name_of_a_job(name: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid job name"):
        check_job_name(name)


@pytest.mark.parametrize("name", ["abc", "1ab", "a-b", "x" * 21])
def test_names_of_users_and_clusters(name: str) -> None:
    assert check_user_name(name) == check_cluster_name(name) == name


@pytest.mark.parametrize("name", ["ab", "a--b", "A", "x" * 256, "a b"])
def test_what_is_no_name_of_a_user_or_a_cluster(name: str) -> None:
    for check in (check_user_name, check_cluster_name):
        with pytest.raises(InvalidInput):
            check(name)


@given(st.text(max_size=60))
def test_every_login_of_a_machine_gives_a_name_that_is_allowed(login: str) -> None:
    name = user_name_from(login)

    assert check_user_name(name) == name


def test_an_id_is_never_a_name() -> None:
    job_id = new_job_id()

    assert is_job_id(job_id)
    assert not is_job_id("train")
    with pytest.raises(InvalidInput):
        check_job_name(job_id)


def test_ids_are_of_a_kind_and_each_is_given_once_though_the_kernel_is_asked_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    ask = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or ask(size))

    ids = {new_job_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(uuid.UUID(job_id.removeprefix("job-")).version == 4 for job_id in ids)
    assert len(asked) <= 10


def test_a_forked_process_gives_out_other_ids() -> None:
    new_job_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, new_job_id().encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)

    with os.fdopen(reader) as told:
        assert told.read() not in {new_job_id() for _ in range(200)}


@pytest.mark.parametrize("tags", [["a b"], [""], ["x" * 257], ["t"] * 17])
def test_tags_that_are_refused(tags: list[str]) -> None:
    with pytest.raises(InvalidInput):
        check_tags(tags)


def test_sixteen_tags_are_the_most() -> None:
    assert check_tags(["x" * 256] * 16) == ["x" * 256] * 16
