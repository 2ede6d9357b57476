"""``Client.from_config``: the login of the command line, for programs and notebooks."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from neuro.client import Client, NotConfigured
from neuro.client.accounts import Account, Accounts, save
from neuro.domain.errors import InvalidInput
from neuro.domain.server_config import ServerConfig

# A token's payload is {"identity": "anna"}; nobody here checks a signature.
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpZGVudGl0eSI6ImFubmEifQ.c2ln"


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, in which nobody is logged in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NEUROMATION_CONFIG", "NEURO_PASSED_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def log_in(folder: Path) -> None:
    account = Account(
        url="http://lab:8085/api/v1",
        token=TOKEN,
        user="anna",
        cluster="default",
        config=ServerConfig(
            auth_url="",
            token_url="",
            logout_url="",
            client_id="",
            audience="",
            headless_callback_url="",
            callback_urls=[],
        ),
    )
    save(folder, Accounts().with_account(account))


@pytest.mark.parametrize("blocking", [True, False])
def test_it_is_the_login_of_the_command_line(tmp_path: Path, blocking: bool) -> None:
    log_in(tmp_path / ".neuro")

    client = Client.from_config(blocking=blocking)

    assert (client.transport.url, client.user, client.cluster) == (
        "http://lab:8085/api/v1",
        "anna",
        "default",
    )
    assert str(client.storage.uri("storage:data")) == "storage://default/anna/data"


def test_the_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(tmp_path / "elsewhere")

    assert Client.from_config(tmp_path / "elsewhere").user == "anna"
    monkeypatch.setenv("NEUROMATION_CONFIG", str(tmp_path / "elsewhere"))
    assert Client.from_config(cluster="lab").cluster == "lab"


def test_a_job_is_logged_in_by_what_it_was_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = {"token": TOKEN, "cluster": "default", "url": "http://lab:8085/api/v1/"}
    monkeypatch.setenv(
        "NEURO_PASSED_CONFIG", base64.b64encode(msgspec.json.encode(passed)).decode()
    )

    client = Client.from_config()

    assert (client.transport.url, client.user) == ("http://lab:8085/api/v1", "anna")


def test_without_a_login_it_says_how_to_get_one() -> None:
    with pytest.raises(NotConfigured, match="neuro login URL"):
        Client.from_config()


@pytest.mark.parametrize("text", ["aGVsbG8=", "{"])
def test_what_was_passed_may_be_damaged(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURO_PASSED_CONFIG", text)

    with pytest.raises(NotConfigured, match="NEURO_PASSED_CONFIG cannot be read"):
        Client.from_config()


@pytest.mark.parametrize("make", [Client.connect, Client.blocking])
def test_an_address_may_be_short_and_a_token_names_its_user(make: type[Client]) -> None:
    client = make("lab:8085", TOKEN)

    assert (client.transport.url, client.user) == ("http://lab:8085/api/v1", "anna")


def test_what_is_not_an_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is not an address"):
        Client.connect("ftp://lab", TOKEN)
