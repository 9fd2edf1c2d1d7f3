"""Passwords and cookies, without a server."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from lorablend.app import auth
from lorablend.app.auth import hash_password, read_users

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
