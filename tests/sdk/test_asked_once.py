"""What one request answers is not asked by two."""

from __future__ import annotations

import msgspec

from neuro.cli.one_command import CommandClient
from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.images import OwnImage
from neuro.domain.server_config import ServerConfig
from tests.sdk.conftest import ToldServer

ADDRESSES = [
    "auth_url",
    "token_url",
    "logout_url",
    "client_id",
    "audience",
    "headless_callback_url",
]
CONFIG = ServerConfig(**dict.fromkeys(ADDRESSES, ""), callback_urls=[])  # type: ignore[arg-type]
LAYERS = (
    b'{"config": {"digest": "sha256:c", "size": 2}, "layers": [{"digest": "sha256:l", "size": 40}]}'
)


def test_a_command_asks_for_the_configuration_once_and_a_program_each_time(
    told: ToldServer,
) -> None:
    told.tell(200, msgspec.json.encode(CONFIG))
    command, program = CommandClient.blocking(told.url, None), Client.blocking(told.url, None)

    for client in (command, command, program, program):
        assert run(client.config()) == CONFIG

    assert told.asked == ["GET /api/v1/config"] * 3


def test_the_digest_and_the_size_of_an_image_are_one_question(told: ToldServer) -> None:
    told.tell(200, LAYERS, docker_content_digest="sha256:m")
    image = OwnImage("default", "me/made", ":v1")

    found = run(Client.blocking(told.url, None).images.look(image))

    assert found == ("sha256:m", 42)
    assert told.asked == ["GET /v2/me/made/manifests/v1?look=1"]
