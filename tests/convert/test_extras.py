"""Where a missing extra is to be installed from: records of pip's, by PEP 610."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorablend.convert.extras import hint_for, install_hint

ELSEWHERE = 'run pip install "FOLDER[train]" with the folder or wheel that you installed lorablend from as FOLDER'


def test_the_hint_of_this_installation() -> None:
    target = install_hint("train").removeprefix("run: pip install ").removeprefix("-e ").strip('"')
    folder = Path(target.removesuffix("[train]"))
    assert (folder / "pyproject.toml").is_file() or folder.suffix == ".whl"


@pytest.mark.parametrize(
    ("more", "command"),
    [
        ({"dir_info": {}}, 'run: pip install "{path}[train]"'),
        ({"dir_info": {"editable": True}}, 'run: pip install -e "{path}[train]"'),
        ({"dir_info": {"editable": False}}, 'run: pip install "{path}[train]"'),
        ({"archive_info": {"hash": "sha256=0"}}, 'run: pip install "{path}[train]"'),
    ],
)
def test_folders_and_wheels(tmp_path: Path, more: dict[str, object], command: str) -> None:
    path = tmp_path / "a folder"
    path.mkdir()
    assert hint_for(json.dumps({"url": path.as_uri(), **more}), "train") == command.format(path=path)
    path.rmdir()
    assert hint_for(json.dumps({"url": path.as_uri(), **more}), "train") == ELSEWHERE


def test_elsewhere() -> None:
    assert hint_for(None, "train") == ELSEWHERE  # from an index of one's own, or no installation at all
    git = {"url": "https://example.org/lorablend.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    assert (
        hint_for(json.dumps(git), "train")
        == 'run: pip install "lorablend[train] @ git+https://example.org/lorablend.git@abc"'
    )
    archive = {"url": "https://example.org/lorablend-0.1.0-py3-none-any.whl", "archive_info": {}}
    assert hint_for(json.dumps(archive), "train") == (
        'run: pip install "lorablend[train] @ https://example.org/lorablend-0.1.0-py3-none-any.whl"'
    )
