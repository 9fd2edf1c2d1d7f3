"""The names that added adapters get, from servers and files."""

from __future__ import annotations

import pytest

from lorablend.adapters.errors import AdapterError, RequestError
from lorablend.app.files import clean_name
from lorablend.app.library.library import Library
from tests.adapter_files import message_of
from tests.app.file_server import FileServer
from tests.app.library.library_files import adapters_in, parts_of

NAMES = {
    'attachment; filename="ink.safetensors"': "ink",
    "attachment; filename=ink.safetensors": "ink",
    "attachment; filename*=UTF-8''t%C3%ACnta%20fina.safetensors": "tìnta fina",
    'attachment; filename="../../../etc/cron.d/ink.safetensors"': "ink",
    'attachment; filename="..\\\\..\\\\evil.safetensors"': "evil",
    'attachment; filename="/etc/passwd"': "passwd",
    'attachment; filename="..."': None,
    'attachment; filename=".hidden.safetensors"': "hidden",
    'attachment; filename="a<b>:c|d?.safetensors"': "a_b__c_d_",
    'attachment; filename="CON.safetensors"': "_CON",
    f'attachment; filename="{"x" * 500}.safetensors"': "x" * 180,
    f'attachment; filename="{";" * 2_000}.safetensors"': "file",  # too long to be looked at
    "attachment": "file",
    "": "file",
}


@pytest.mark.parametrize("disposition", NAMES)
def test_the_name_that_a_server_gives(disposition: str, empty: Library, server: FileServer) -> None:
    server.files["/some/file"] = server.files["/ink.safetensors"]
    server.disposition = disposition
    name = NAMES[disposition]
    if name is None:
        message = message_of(RequestError, lambda: empty.add(f"{server.url}/some/file"))
        assert message == "the source does not name the adapter; choose a name"
        return
    entry = empty.add(f"{server.url}/some/file")
    assert entry.name == name
    assert entry.path.parent == empty.folder
    assert adapters_in(empty) == [f"{name}.safetensors"]


@pytest.mark.parametrize("name", ["model.ckpt", "lora.pt", "x.bin", "x.zip", "page.html"])
def test_other_files_are_refused_before_they_are_read(name: str, empty: Library, server: FileServer) -> None:
    server.files["/x"] = b"x" * 10_000_000
    server.disposition = f'attachment; filename="{name}"'
    message = message_of(AdapterError, lambda: empty.add(f"{server.url}/x"))
    assert message == f"{name} is a .{name.partition('.')[2]} file; only .safetensors files are accepted"
    assert not parts_of(empty)


@pytest.mark.parametrize("name", ["ink", "Tìnta fina", "a.b-c_1", "x" * 180])
def test_a_good_name_stays(name: str) -> None:
    assert clean_name(f"{name}.safetensors") == name
