"""Passwords and cookies, without a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from lorablend.adapters.errors import RequestError
from lorablend.app import auth
from lorablend.app.auth import hash_password, is_loopback, read_users
from lorablend.app.server import check_login

TOKEN = "a token of many letters"


def test_an_unknown_user_is_as_slow_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hashed: list[str] = []
    real = auth._scrypt
    monkeypatch.setattr(auth, "_scrypt", lambda password, salt: hashed.append(password) or real(password, salt))
    (tmp_path / "users").write_text(hash_password("ann", "Ann's own"))
    credentials = auth.Credentials(users=read_users(tmp_path / "users"))
    hashed.clear()
    for name in ("ann", "nobody"):
        assert anyio.run(credentials.check, name, "wrong") is None
    assert hashed == ["wrong", "wrong"]


def test_cookies_end_and_cannot_be_tried_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = auth.cookie_secret(tmp_path / "cookie.key")
    assert auth.cookie_secret(tmp_path / "cookie.key") == secret  # after a restart
    assert (tmp_path / "cookie.key").stat().st_mode & 0o777 == 0o600
    users = {"a.b": auth._User(b"", b"1" * 32)}
    known = auth.Credentials(TOKEN, users, secret=secret)
    now = auth.time.time()
    for user in ("", "a.b"):
        cookie = known.cookie(user, 80, secure=True)
        assert cookie.endswith("; Secure")
        value = cookie.partition(";")[0]
        assert known.of_cookie(value, 80) == user
        assert known.of_cookie(value, 81) is None
        assert auth.Credentials(TOKEN, users, secret=secret).of_cookie(value, 80) == user
        assert auth.Credentials(TOKEN, users).of_cookie(value, 80) is None  # the token alone signs nothing
        assert auth.Credentials("another", users, secret=secret).of_cookie(value, 80) is None
        with monkeypatch.context() as later:
            later.setattr(auth.time, "time", lambda: now + 31 * 86_400)
            assert known.of_cookie(value, 80) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'users names no user; add one with "python -m lorablend.app.auth NAME >> users"'),
        ("ann", 'users, line 1: not name:salt:hash; write it with "python -m lorablend.app.auth NAME"'),
        ("ann:00:zz", 'users, line 1: not name:salt:hash; write it with "python -m lorablend.app.auth NAME"'),
        ("#\nann:00:00", 'users, line 2: no hash; write it with "python -m lorablend.app.auth NAME"'),
    ],
)
def test_broken_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("users").write_text(text)
    with pytest.raises(RequestError) as caught:
        read_users(Path("users"))
    assert str(caught.value) == message


def test_names_and_passwords_that_cannot_be_used() -> None:
    for name, password in (
        ("a:b", "x" * 8),
        ("", "x" * 8),
        ("a\nb", "x" * 8),
        ("ann", ""),
        ("ann", "x" * 7),
        ("ann", "x" * 1001),
    ):
        with pytest.raises(RequestError):
            hash_password(name, password)
    command = [sys.executable, "-m", "lorablend.app.auth", "a:b"]  # in a session without a terminal to ask at
    ended = subprocess.run(command, input="x\n", capture_output=True, text=True, start_new_session=True)
    assert ended.returncode == 1
    assert ended.stderr.endswith("error: the name 'a:b' cannot be used; give one without a colon\n")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_network_is_let_in_only_with_a_login(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(RequestError) as caught:
        check_login(host, None, None)
    assert str(caught.value) == f"{host} lets in the whole network; give --token, or --users with a file of passwords"
    check_login(host, "a token of 16 ch", None)
    for listened in ("127.0.0.1", "localhost", "::1"):
        check_login(listened, "t", None)
    with pytest.raises(RequestError) as caught:
        check_login(host, "a token of 15 c", None)
    assert str(caught.value) == (
        f"the token has 15 characters, and {host} lets in the whole network; give one of at least 16, such as 32 "
        "random letters"
    )
    with pytest.raises(RequestError) as caught:
        check_login(host, "", None)
    assert str(caught.value) == "the token is empty; give one, such as 32 random letters"
