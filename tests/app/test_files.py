"""Moving a file into a library takes one step, even if the program is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lorablend.adapters.files.atomic import part_of
from lorablend.app import files
from lorablend.app.files import CONFIG, drop_parts, move_in, place_of, private_folder

# Killed just before the file gets its name.
_KILLED = """
import os, signal, sys
from pathlib import Path
from lorablend.app import files
files.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.Path.unlink = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
part, target = map(Path, sys.argv[1:3])
files.move_in(part, target, b"{}" if target.name == files.PEFT_NAME else None)
"""


def part(folder: Path, content: bytes = b"whole") -> Path:
    path = folder / "a.part"
    path.write_bytes(content)
    return path


@pytest.fixture(params=[False, True], ids=["alone", "with PEFT's settings"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / place_of("ink", with_config=request.param)


def config_of(target: Path) -> bytes | None:
    return b"{}" if target.name == files.PEFT_NAME else None


def test_a_name_is_given_once(target: Path, tmp_path: Path) -> None:
    assert move_in(part(tmp_path, b"first"), target, config_of(target))
    assert not move_in(part(tmp_path, b"second"), target, config_of(target))
    assert target.read_bytes() == b"first"
    assert (tmp_path / "a.part").read_bytes() == b"second"
    assert target.with_name(CONFIG).is_file() == (config_of(target) is not None)
    assert not list(tmp_path.glob(".*"))


def test_a_kill_leaves_no_half(target: Path, tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(part(tmp_path)), str(target)], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    if not target.exists():
        assert not target.parent.exists()
        assert move_in(part(tmp_path), target, config_of(target))
    assert target.read_bytes() == b"whole"


def test_an_error_leaves_nothing(target: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        move_in(tmp_path / "no.part", target, config_of(target))
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(files.os, "link", refused)
    target = tmp_path / "ink.safetensors"
    assert [move_in(part(tmp_path), target) for _ in range(2)] == [True, False]
    assert target.read_bytes() == b"whole"


def test_old_parts_are_deleted(tmp_path: Path) -> None:
    old, folder, new = (part_of(tmp_path / name) for name in ("a.safetensors", "b", "c.safetensors"))
    folder.mkdir()
    for path in (old, new, folder / CONFIG, tmp_path / ".mine.part"):
        path.write_bytes(b"{}")
    for path in (old, folder, tmp_path / ".mine.part"):
        os.utime(path, (0, 0))
    drop_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {new.name, ".mine.part"}


def test_a_private_folder(tmp_path: Path) -> None:
    """One that was made before is closed too, whatever others could read in it."""
    (tmp_path / "old").mkdir(mode=0o755)
    (tmp_path / "old" / "jobs.sqlite").write_text("prompts")
    for folder in (tmp_path / "old", tmp_path / "new" / "data"):
        private_folder(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "old" / "jobs.sqlite").read_text() == "prompts"
