from __future__ import annotations

import click
import pytest

from neuro.cli.failures import Failure, exit_code
from neuro.client.accounts import NotConfigured
from neuro.client.transport import ServerUnreachable, error_of
from neuro.domain import errors


def server_answer(status: int, content: bytes = b'{"error": "x"}') -> BaseException:
    """An error as it comes out of a transport."""
    return error_of(status, content, {})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (server_answer(400), 65),
        (server_answer(409), 65),
        (server_answer(422), 65),
        (server_answer(429), 65),
        (server_answer(500), 65),
        (server_answer(401), 77),
        (server_answer(403), 77),
        (server_answer(404), 72),
        (server_answer(501), 70),
        (server_answer(502), 125),
        (server_answer(503), 125),
        (server_answer(400, b'{"error": "x", "errno": "ENOENT"}'), 72),
        (server_answer(400, b'{"error": "x", "errno": "EACCES"}'), 77),
        (server_answer(400, b'{"error": "x", "errno": "EISDIR"}'), 74),
        (ServerUnreachable("x"), 74),
        (NotConfigured("x"), 70),
        (errors.InvalidInput("a name, refused on this side"), 127),
        (errors.NoSuchJob("x"), 65),
        (ValueError("x"), 127),
        (FileNotFoundError(2, "x"), 72),
        (PermissionError(13, "x"), 77),
        (OSError(28, "x"), 74),
        (TimeoutError(), 124),
        (Failure("x", 70), 70),
        (RuntimeError("x"), 1),
    ],
)
def test_every_error_has_its_documented_exit_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_a_usage_error_is_click_s_own_code() -> None:
    assert click.UsageError("x").exit_code == 2
