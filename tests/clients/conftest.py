"""A server, and each reference client logged into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.environments import VERSIONS, NoSuchPython, install
from tests.clients.reference_client import ReferenceClient
from tests.clients.warm import Programs
from tests.server_process import ServerProcess, running_server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.clients)
            # Whoever comes first makes an environment; the commands have limits of their own.
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A running server, one for all tests of this folder."""
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="session", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each reference client's version in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def environment(version: str) -> Path:
    """The folder of the virtual environment with the clients in it."""
    try:
        return install(version)
    except NoSuchPython as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def programs(
    version: str, environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Programs]:
    """The clients' programs; what is imported of them ends with the tests of this version."""
    programs = Programs(environment, tmp_path_factory.mktemp(f"programs-{version}-"))
    yield programs
    programs.close()


@pytest.fixture(scope="session")
def make_client(
    version: str,
    programs: Programs,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], ReferenceClient]:
    """Makes a client with a home folder of its own that is not logged in yet."""

    def make(user: str = server.user) -> ReferenceClient:
        home = tmp_path_factory.mktemp(f"{user}-{version}-")
        return ReferenceClient(version, programs, home, server.url, user)

    return make


@pytest.fixture(scope="session")
def client(make_client: Callable[..., ReferenceClient], server: ServerProcess) -> ReferenceClient:
    """The machine's owner, logged in."""
    client = make_client()
    client.run("config", "login-with-token", server.token, server.url)
    return client


@pytest.fixture(scope="session")
def named(version: str) -> Callable[[str], str]:
    """Makes names that the two versions do not take from each other."""
    return lambda name: f"{name}-{version.replace('.', '-')}"


@pytest.fixture(scope="session")
def sleeper(client: ReferenceClient, named: Callable[[str], str]) -> Iterator[str]:
    """The name of a job that runs all the time and does nothing; its id is no secret to it."""
    name = named("sleeper")
    client.submit("--name", name, "--tag", name, "ubuntu", "--", "sleep", "1000")
    yield name
    client.run("kill", name)  # one of the same name follows where the versions take turns
