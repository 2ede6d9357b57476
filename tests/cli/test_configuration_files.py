from __future__ import annotations

import stat
from pathlib import Path

import pytest

from neuro.cli.failures import Failure, exit_code
from neuro.cli.user_config import UserConfig
from neuro.cli.user_config import load as load_user_config
from neuro.client.accounts import Account, Accounts, NotConfigured, api_url, load, save, user_in
from neuro.domain.errors import InvalidInput
from neuro.domain.server_config import ServerConfig

# A token's payload is {"identity": "anna"}; nobody here checks a signature.
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpZGVudGl0eSI6ImFubmEifQ.c2ln"
OLD_TOKEN = (
    "eyJhbGciOiJIUzI1NiJ9.eyJodHRwczovL3BsYXRmb3JtLm5ldXJvbWF0aW9uLmlvL3VzZXIiOiJib3JpcyJ9.x"
)


def configure(tmp_path: Path, *, person: str = "", project: str = "") -> UserConfig:
    (tmp_path / "config").mkdir()
    inner = tmp_path / "project" / "src" / "deep"
    inner.mkdir(parents=True)
    if person:
        (tmp_path / "config" / "user.toml").write_text(person)
    if project:
        (tmp_path / "project" / ".neuro.toml").write_text(project)
    return load_user_config(tmp_path / "config", inner)


def test_without_files_everything_is_as_built_in(tmp_path: Path) -> None:
    assert configure(tmp_path) == UserConfig()


def test_the_projects_file_is_found_above_and_wins_key_by_key(tmp_path: Path) -> None:
    config = configure(
        tmp_path,
        person='[job]\nps-format = "id"\nlife-span = "2d"\n',
        project='[job]\nps-format = "name"\ncluster-name = "lab"\n',
    )

    assert (config.ps_format, config.life_span, config.cluster_name) == ("name", "2d", "lab")


def test_files_of_windows_editors_are_read(tmp_path: Path) -> None:
    config = configure(
        tmp_path,
        person='\ufeff[job]\r\nps-format = "id"\r\n',
        project='\ufeff[job]\r\ncluster-name = "lab"\r\n',
    )

    assert (config.ps_format, config.cluster_name) == ("id", "lab")


def test_aliases_and_storage_filters_are_read(tmp_path: Path) -> None:
    config = configure(
        tmp_path,
        person='[storage]\ncp-exclude = ["*.tmp", "!keep.tmp"]\n[alias.lsl]\ncmd = "ls -l"\n',
    )

    assert config.cp_exclude == ("*.tmp", "!keep.tmp")
    assert config.aliases["lsl"].cmd == "ls -l"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[jobs]\n", "no section 'jobs'"),
        ("[job]\nformat = 'x'\n", "no parameter 'format'"),
        ("[job]\nps-format = 3\n", "'job.ps-format' must be a string"),
        ("[storage]\ncp-exclude = 'x'\n", "must be a list of strings"),
        ("[storage]\ncp-exclude = [1]\n", r"cp-exclude\[0\]' must be a string"),
        ("[alias.x]\ncmd = 'a'\nname = 'b'\n", "has no parameter 'name'"),
        ("[job]\ncluster-name = 'x'\n", "belongs in a project's .neuro.toml"),
        ("top = 1\n", "no section 'top'"),
        ("job = 1\n", "'job' must be a section"),
        ("[alias]\nx = 1\n", "'alias.x' must be a section"),
        ("[job\n", "user.toml"),
        ("[alias.x]\n", "either cmd or exec"),
        ("[alias.x]\ncmd = 'a'\nexec = 'b'\n", "either cmd or exec"),
        ("[alias.'3x']\ncmd = 'a'\n", "letters, digits and hyphens"),
        ("[alias.x]\ncmd = 'a'\nargs = 'B'\n", "go with exec"),
        ("[alias.x]\ncmd = 'a'\nfoo = 'B'\n", r"\[alias.x\] has no parameter 'foo'"),
        ("[alias.x]\ncmd = 1\n", "'alias.x.cmd' must be a string"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_exit_code_70(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(Failure, match=message) as caught:
        configure(tmp_path, person=text)

    assert caught.value.exit_code == 70


def account(url: str = "http://one/api/v1") -> Account:
    config = ServerConfig(
        auth_url="",
        token_url="",
        logout_url="",
        client_id="",
        audience="",
        headless_callback_url="",
        callback_urls=[],
    )
    return Account(url=url, token=TOKEN, user="anna", cluster="default", config=config)


def test_accounts_come_back_as_they_were_written_and_only_their_owner_can_read_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "new" / ".neuro"
    accounts = Accounts().with_account(account())

    save(folder, accounts)

    assert load(folder) == accounts
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "servers.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["servers.json"]


def test_accounts_that_are_a_link_stay_one(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / ".neuro", tmp_path / "dotfiles"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "servers.json").symlink_to(elsewhere / "mine.json")

    save(folder, Accounts().with_account(account()))

    assert (folder / "servers.json").is_symlink()
    assert load(folder) == Accounts().with_account(account())
    assert stat.S_IMODE((elsewhere / "mine.json").stat().st_mode) == 0o600


def test_the_reference_clients_own_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"theirs")

    save(tmp_path, Accounts().with_account(account()))
    save(tmp_path, load(tmp_path).without("http://one/api/v1"))

    assert (tmp_path / "db").read_bytes() == b"theirs"


def test_the_newest_login_is_current_and_logging_out_goes_back_to_another() -> None:
    accounts = Accounts().with_account(account()).with_account(account("http://two/api/v1"))
    assert accounts.current == "http://two/api/v1"

    left = accounts.without("http://two/api/v1")

    assert left.current == "http://one/api/v1"
    assert left.without("http://one/api/v1") == Accounts()


def test_a_damaged_file_of_accounts_is_named_with_exit_code_70(tmp_path: Path) -> None:
    (tmp_path / "servers.json").write_text("{")

    with pytest.raises(NotConfigured, match=r"servers\.json is damaged") as caught:
        load(tmp_path)

    assert exit_code(caught.value) == 70


@pytest.mark.parametrize(("token", "user"), [(TOKEN, "anna"), (OLD_TOKEN, "boris")])
def test_a_token_names_its_user(token: str, user: str) -> None:
    assert user_in(token) == user


@pytest.mark.parametrize("token", ["", "abc", "a.b.c", "a.bnVsbA.c", "é.é.é", "a.e30.c"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="valid JWT structure"):
        user_in(token)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("myhost:8085", "http://myhost:8085/api/v1"),
        ("http://myhost:8085/", "http://myhost:8085/api/v1"),
        ("https://lab.example.org/neuro/api/v1", "https://lab.example.org/neuro/api/v1"),
    ],
)
def test_an_address_may_be_short(text: str, url: str) -> None:
    assert api_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not an address"):
        api_url(text)
