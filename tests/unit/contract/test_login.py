"""What a login file contains: a user with a password, or a bearer token."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from contract import loopback
from contract.login import Login


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("ann:pass:word\n", "Basic YW5uOnBhc3M6d29yZA=="),
        ("eyJhbGciOi.J9_-~+/=\n", "Bearer eyJhbGciOi.J9_-~+/="),
    ],
)
def test_a_file_contains_a_user_with_a_password_or_a_token(tmp_path: Path, text: str, header: str) -> None:
    """A password may contain colons; a token contains none."""
    path = tmp_path / "login"
    path.write_text(text)
    assert Login(path).header() == header


def _absent(path: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["", ":secret", "ann:", "ann secret", "ann:secret\nx-other: 1"])
def test_an_invalid_login_file_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    """A second line would become a separate header."""
    path = tmp_path / "login"
    path.write_text(text)
    with pytest.raises(ValueError, match="neither") as raised:
        Login(path).header()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("spoil", [_absent, lambda path: path.write_text("")], ids=["absent", "empty"])
def test_a_login_that_cannot_be_read_is_a_request_error(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Callers report it like any other trouble with the service, and nothing is sent."""
    path = tmp_path / "login"
    spoil(path)
    with (
        loopback.client("http://127.0.0.1:9", timeout_s=1, login=Login(path)) as client,
        pytest.raises(httpx.RequestError, match="login"),
    ):
        client.get("/")
