"""Wrong logins: counted for each address, forgotten after a while, and no burden to others."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from lorablend.app import auth
from lorablend.app.auth import hash_password, read_users
from lorablend.app.rest import attempts

TOKEN = "a token of many letters"


def test_wrong_logins_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(attempts, "_DELAY", 0.0)

    async def check() -> None:
        known = attempts.Attempts(auth.Credentials(TOKEN), lambda: now[0])
        for number in range(10):
            assert await known.check(f"2001:db8::{number}", "", str(number)) is None  # one network
            now[0] += 1
        with pytest.raises(attempts.TooManyError) as caught:
            await known.check("2001:db8::a:b:c:d", "", TOKEN)
        assert caught.value.retry_after == 290
        assert str(caught.value) == "too many wrong logins from this address; try again in 290 seconds"
        assert await known.check("2001:db8:0:1::1", "", TOKEN) == ""
        now[0] += 290.5
        assert await known.check("2001:db8::1", "", TOKEN) == ""

    anyio.run(check)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "127.0.0.1", False),
    ],
)
def test_what_is_one_address(one: str, other: str, same: bool) -> None:
    assert (attempts._network(one) == attempts._network(other)) == same


def test_wrong_logins_hold_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are hashed one after another, which takes a while; but of each address only one at a time."""
    hashed: list[str] = []
    real = auth._scrypt
    monkeypatch.setattr(auth, "_scrypt", lambda password, salt: hashed.append(password) or real(password, salt))
    monkeypatch.setattr(attempts, "_DELAY", 0.0)
    (tmp_path / "users").write_text(hash_password("ann", "Ann's own"))
    known = attempts.Attempts(auth.Credentials(users=read_users(tmp_path / "users")))
    hashed.clear()

    async def wrong(number: int) -> None:
        with suppress(attempts.TooManyError):
            await known.check("192.0.2.1", "ann", f"wrong {number}")

    async def check() -> None:
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(wrong, number)
            await anyio.sleep(0)
            assert await known.check("192.0.2.2", "ann", "Ann's own") == "ann"
            assert hashed.index("Ann's own") <= 2

    anyio.run(check)
    assert len(hashed) == 11  # ten wrong ones, and no more of that address
