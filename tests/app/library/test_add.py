"""Adding adapters to a library, from files and from real HTTP servers that misbehave."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

from lorablend.adapters import load_adapter
from lorablend.adapters.errors import AdapterError, Cancelled, RequestError, ResourceError
from lorablend.app.library import download, watch
from lorablend.app.library.answer import first_byte, total_size
from lorablend.app.library.download import OFFLINE
from lorablend.app.library.library import Library
from lorablend.app.library.watch import Limits
from tests.adapter_files import SDXL_SHAPES, message_of, random_factors, write_kohya, write_peft
from tests.app.file_server import FileServer
from tests.app.library.library_files import adapters_in, parts_of

# from a file


def test_from_a_file(empty: Library, adapter: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    entry = empty.add(adapter, progress=lambda done, total: seen.append((done, total)))
    assert entry == empty.get("ink")
    assert entry.path.read_bytes() == adapter.read_bytes()
    assert entry.sha256 == hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert seen == [(adapter.stat().st_size,) * 2]
    assert empty.add(adapter) == entry
    assert empty.add(str(adapter), name="other") == entry  # the same content is here already
    assert adapters_in(empty) == ["ink.safetensors"]
    assert not parts_of(empty)


def test_a_name_of_ones_own(empty: Library, adapter: Path) -> None:
    assert empty.add(adapter, name="brush.safetensors").name == "brush"
    write_kohya(adapter, random_factors(SDXL_SHAPES, seed=1))
    assert message_of(RequestError, lambda: empty.add(adapter, name="brush")) == (
        "brush: the library has an adapter of that name; choose another name"
    )
    assert not parts_of(empty)


@pytest.mark.parametrize(
    "name", ["../ink", "a/b", "/ink", "..", "", "a\\b", "a:b", "a>b", ".hidden", "con", "x\n", "x "]
)
def test_a_name_that_is_none(name: str, empty: Library, adapter: Path) -> None:
    message = message_of(RequestError, lambda: empty.add(adapter, name=name))
    assert message.endswith(" cannot be an adapter's name; give one without any of / \\ : < > \" | ? *")
    assert not adapters_in(empty)


def test_files_that_are_refused(empty: Library, tmp_path: Path, adapter: Path) -> None:
    page = tmp_path / "page.safetensors"
    page.write_text("<html>")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(adapter.read_bytes()[:-1])
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04")
    pickle = tmp_path / "pickle.safetensors"
    pickle.write_bytes(b"\x80\x02}q\x00." * 9)
    messages = {
        page: "page: not a safetensors file: 6 bytes long, the header alone needs 8",
        pickle: "pickle: not a safetensors file: it is a pickle: convert it to safetensors",
        tmp_path / "model.ckpt": "model.ckpt is a .ckpt file; only .safetensors files are accepted",
        tmp_path / "nosuch": f"{tmp_path / 'nosuch'}: cannot be read (No such file or directory)",
        tmp_path: f"{tmp_path}: cannot be read (Is a directory)",
    }
    for path, message in messages.items():
        assert message_of(AdapterError, lambda path=path: empty.add(path)) == message
    assert message_of(AdapterError, lambda: empty.add(cut)).startswith("cut: truncated: ")
    entry = empty.add(adapter)
    assert message_of(RequestError, lambda: empty.add(entry.path)) == f"{entry.path} is in the library already"
    assert adapters_in(empty) == ["ink.safetensors"]
    assert not parts_of(empty)


def test_an_adapter_that_cannot_be_used_is_added_with_its_error(empty: Library, tmp_path: Path) -> None:
    """It is added all the same, because lenient loading may be able to use it."""
    from safetensors.numpy import save_file

    factors = next(iter(random_factors(SDXL_SHAPES).values()))
    save_file({"double_blocks.0.img_attn_qkv.lora_down.weight": factors.down}, tmp_path / "flux.safetensors")
    entry = empty.add(tmp_path / "flux.safetensors")
    assert entry.error
    assert "made for" in entry.error
    assert entry.sha256


def test_pefts_pair_stays_together(empty: Library, tmp_path: Path) -> None:
    """Without adapter_config.json, its scale would be wrong."""
    folder = tmp_path / "water"
    folder.mkdir()
    write_peft(folder / "adapter_model.safetensors", random_factors(SDXL_SHAPES, rank=4))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16}))
    entry = empty.add(folder / "adapter_model.safetensors")
    assert entry.name == "water/adapter_model"
    scales = {delta.scale for delta in load_adapter(entry.path).deltas.values()}
    assert scales == {4.0}
    assert empty.get("adapter_model") == entry
    moved = empty.remove("water/adapter_model")
    assert adapters_in(empty) == []
    assert (moved / "water" / "adapter_config.json.removed").is_file()
    assert not (empty.folder / "water").exists()


def test_sha256(empty: Library, adapter: Path) -> None:
    right = hashlib.sha256(adapter.read_bytes()).hexdigest()
    wrong = "0" * 64
    assert message_of(AdapterError, lambda: empty.add(adapter, sha256=wrong)) == (
        f"ink: sha256 is {right}, but {wrong} was expected; this is another file"
    )
    assert message_of(RequestError, lambda: empty.add(adapter, sha256="abc")) == ("sha256 is 'abc'; give 64 hex digits")
    assert not adapters_in(empty)
    entry = empty.add(adapter, sha256=f"0x{right.upper()}")
    assert empty.add("https://example.invalid/never-asked", sha256=right) == entry


def test_stopping_a_copy(empty: Library, adapter: Path) -> None:
    assert message_of(Cancelled, lambda: empty.add(adapter, progress=lambda done, total: False)) == (
        f"{adapter}: stopped"
    )
    assert not adapters_in(empty)
    assert not parts_of(empty)


# from an address


def test_from_an_address(empty: Library, server: FileServer, adapter: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    entry = empty.add(f"{server.url}/ink.safetensors", progress=lambda done, total: seen.append((done, total)))
    size = adapter.stat().st_size
    assert entry.name == "ink"
    assert entry.path.read_bytes() == adapter.read_bytes()
    assert seen[0] == (0, size)
    assert seen[-1] == (size, size)
    assert not parts_of(empty)
    assert not parts_of(empty, ".json")
    ((_, headers),) = server.asked
    assert headers["user-agent"].startswith("lorablend/")
    assert "authorization" not in headers


def test_a_cut_download_goes_on(empty: Library, server: FileServer, adapter: Path) -> None:
    server.drop_after, server.drops = 5000, 3
    entry = empty.add(f"{server.url}/ink.safetensors")
    assert entry.path.read_bytes() == adapter.read_bytes()
    assert server.ranges_asked == [None, "bytes=5000-", "bytes=10000-", "bytes=15000-"]
    assert [headers.get("if-range") for _, headers in server.asked] == [None, *['"first"'] * 3]


def test_it_goes_on_in_another_run(empty: Library, server: FileServer, adapter: Path) -> None:
    def stop(done: int, total: int | None) -> bool:
        return done < 1

    address = f"{server.url}/ink.safetensors?token=secret"
    assert message_of(Cancelled, lambda: empty.add(address, progress=stop)) == f"{server.url}/ink.safetensors: stopped"
    (part,) = parts_of(empty)
    part.write_bytes(part.read_bytes()[:7000])
    assert "secret" not in "".join(path.read_text() for path in parts_of(empty, ".json"))
    assert not adapters_in(empty)
    entry = Library(empty.folder).add(address)
    assert entry.path.read_bytes() == adapter.read_bytes()
    assert server.ranges_asked == [None, "bytes=7000-"]


def test_a_whole_part_is_not_asked_for_again(empty: Library, server: FileServer, adapter: Path) -> None:
    """The program was killed after the last byte, before the file got its name."""
    with pytest.raises(Cancelled):
        empty.add(f"{server.url}/ink.safetensors", progress=lambda done, total: done != total)
    entry = empty.add(f"{server.url}/ink.safetensors", name="ink")
    assert entry.path.read_bytes() == adapter.read_bytes()
    assert server.ranges_asked == [None, f"bytes={adapter.stat().st_size}-"]


@pytest.mark.parametrize("how", ["etag", "modified", "nothing", "weak etag", "no ranges", "shorter"])
def test_a_file_that_has_changed_meanwhile_is_fetched_anew(
    how: str, empty: Library, server: FileServer, adapter: Path
) -> None:
    """The result is never the beginning of one file and the end of another."""
    dates = ("Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT")
    before, after = {
        "etag": (('"first"', ""), ('"second"', "")),
        "modified": (("", dates[0]), ("", dates[1])),
        "nothing": (("", ""), ("", "")),
        "weak etag": (('W/"same"', ""), ('W/"same"', "")),
        "no ranges": (('"same"', ""), ('"same"', "")),
        "shorter": (('"first"', ""), ('"second"', "")),
    }[how]
    server.etag, server.modified = before
    server.ranges = how != "no ranges"
    with pytest.raises(Cancelled):
        empty.add(f"{server.url}/ink.safetensors", progress=lambda done, total: done < 1)
    server.etag, server.modified = after
    write_kohya(adapter, random_factors(SDXL_SHAPES, rank=2 if how == "shorter" else 16, alpha=2.0, seed=5))
    server.files["/ink.safetensors"] = adapter.read_bytes()
    entry = empty.add(f"{server.url}/ink.safetensors")
    assert entry.path.read_bytes() == adapter.read_bytes()
    assert entry.sha256 == hashlib.sha256(adapter.read_bytes()).hexdigest()


def test_a_server_that_says_no_length(empty: Library, server: FileServer, adapter: Path) -> None:
    """The connection may have been cut; the file's header tells."""
    server.lengths = False
    assert empty.add(f"{server.url}/ink.safetensors").path.read_bytes() == adapter.read_bytes()
    server.files["/cut.safetensors"] = adapter.read_bytes()[:-10]
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/cut.safetensors")).startswith("cut: truncated: ")
    assert not parts_of(empty)


def test_a_server_that_gives_up(empty: Library, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.drop_after, server.drops = 0, 99
    message = message_of(AdapterError, lambda: empty.add(f"{server.url}/ink.safetensors"))
    assert message.startswith(f"{server.url}/ink.safetensors: the download failed (peer closed connection")
    assert message.endswith("); try again to continue from there")
    assert len(server.asked) == 3
    server.drops, server.status = 0, 503
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/ink.safetensors")) == (
        f"{server.url}/ink.safetensors: the download failed (status 503); try again to continue from there"
    )
    assert waits == [1, 2, 1, 2]
    assert message_of(AdapterError, lambda: empty.add("http://127.0.0.1:9/x.safetensors")).startswith(
        "http://127.0.0.1:9/x.safetensors: the download failed ("
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the server answers with status 401: a login is needed"),
        (403, "the server answers with status 403: access is denied"),
        (404, "the server answers with status 404: it does not exist"),
        (418, "the server answers with status 418"),
    ],
)
def test_a_server_that_refuses(status: int, message: str, empty: Library, server: FileServer) -> None:
    server.status = status
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/ink.safetensors?token=secret")) == (
        f"{server.url}/ink.safetensors: {message}"
    )


def test_offline_nothing_is_asked_for(empty: Library, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(RequestError, match="without --offline"):
        empty.add(f"{server.url}/ink.safetensors")
    assert not server.asked


def test_redirects(empty: Library, server: FileServer, adapter: Path) -> None:
    server.redirects = {
        "/download": f"{server.url}/ink.safetensors?signature=abc",
        "/file": "file:///etc/passwd",
        "/ftp": "ftp://example.invalid/x.safetensors",
        "/circle": "/circle",
    }
    for path in ("/file", "/ftp", "/circle"):
        message = message_of(AdapterError, lambda path=path: empty.add(server.url + path))
        assert message.startswith(f"{server.url}{path}: redirects to an address that cannot be used (")
    server.drop_after, server.drops = 5000, 1
    entry = empty.add(f"{server.url}/download")
    assert (entry.name, entry.path.read_bytes()) == ("ink", adapter.read_bytes())


@pytest.mark.parametrize(
    "address",
    [
        "ftp://example.invalid/x.safetensors",
        "file:///etc/passwd",
        "http://",
        "https://[::1/x",
        "://x",
        "http://a:b:c/",
        "http://a/\udcff",
    ],
)
def test_addresses_that_are_none(address: str, empty: Library) -> None:
    address_shown = address.replace("\udcff", "\\udcff")
    assert message_of(RequestError, lambda: empty.add(address)) == (
        f"{address_shown} is not a web address; give one that starts with https://"
    )


def test_a_web_page_in_place_of_the_file(empty: Library, server: FileServer) -> None:
    server.files["/login"] = b"<!DOCTYPE html><html>log in</html>"
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/login")) == (
        "login: not a safetensors file: it is a web page, so the download failed"
    )
    assert not parts_of(empty)


def test_a_name_that_is_taken_is_said_before_the_download(empty: Library, server: FileServer, adapter: Path) -> None:
    empty.add(adapter)
    server.files["/ink.safetensors"] = b"x" * 10_000_000
    assert message_of(RequestError, lambda: empty.add(f"{server.url}/ink.safetensors")) == (
        "ink: the library has an adapter of that name; choose another name"
    )
    assert not parts_of(empty)


def test_a_wrong_hash_after_a_download(empty: Library, server: FileServer) -> None:
    with pytest.raises(AdapterError, match=f"{'0' * 64} was expected"):
        empty.add(f"{server.url}/ink.safetensors", sha256="0" * 64)
    assert not adapters_in(empty)
    assert not parts_of(empty)


def test_a_packed_answer_is_refused(empty: Library, server: FileServer) -> None:
    server.encoding = "gzip"
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/ink.safetensors")) == (
        f"{server.url}/ink.safetensors: the server sends the file compressed (gzip), which was not requested"
    )


def test_a_full_disk(empty: Library, server: FileServer, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(empty.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5))
    parts = empty.folder / ".lorablend" / "parts"
    assert message_of(ResourceError, lambda: empty.add(f"{server.url}/ink.safetensors")) == (
        f"{server.url}/ink.safetensors: 0.0 GB are needed, {parts} has 0.0 GB free; make room"
    )
    assert message_of(ResourceError, lambda: empty.add(adapter)) == (
        f"{adapter}: the copy needs 0.0 GB, {parts} has 0.0 GB free; make room"
    )
    server.lengths = False
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/ink.safetensors")) == (
        f"{server.url}/ink.safetensors: the server sends more than the 2 bytes that it announced, or that fit here"
    )


def test_one_download_at_a_time(empty: Library, server: FileServer) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(done: int, total: int | None) -> None:
        inside.set()
        go_on.wait(20)

    first = threading.Thread(target=lambda: empty.add(f"{server.url}/ink.safetensors", progress=wait))
    first.start()
    assert inside.wait(20)
    assert message_of(AdapterError, lambda: empty.add(f"{server.url}/ink.safetensors")) == (
        f"{server.url}/ink.safetensors: another program is downloading it; wait until it is done"
    )
    go_on.set()
    first.join()
    assert adapters_in(empty) == ["ink.safetensors"]


# limits of a download, as servers have them


def left(library: Library) -> list[str]:
    """What is left in the folder of parts, by suffix."""
    return sorted(path.suffix for path in (library.folder / ".lorablend" / "parts").iterdir())


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_that_is_too_large(empty: Library, server: FileServer, with_length: bool) -> None:
    server.lengths = with_length
    size, address = len(server.files["/ink.safetensors"]), f"{server.url}/ink.safetensors"
    message = message_of(AdapterError, lambda: empty.add(address, limits=Limits(size=size - 1)))
    assert message == address + (
        ": the file has 0.0 GB, but at most 0.0 GB are downloaded here; give the file itself"
        if with_length
        else f": the server sends more than the {size - 1} bytes that it announced, or that fit here"
    )
    assert left(empty) == []
    assert empty.add(address, limits=Limits(size=size)).name == "ink"


FAST, SHORT = Limits(speed=1e6), Limits(seconds=0.3)


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("reason", ["stopped", "slow", "long"])
def test_a_server_that_stalls(
    empty: Library,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    silent: bool,
    with_length: bool,
    reason: str,
) -> None:
    """Before its answer or within it; the download ends while the server still waits, and goes on the next time."""
    for name, seconds in (("_LOOK", 0.05), ("_WINDOW", 0.3), ("_QUIET", 0.1)):
        monkeypatch.setattr(watch, name, seconds)
    server.held, server.silent, server.drop_after, server.lengths = threading.Event(), silent, 5000, with_length
    address = f"{server.url}/ink.safetensors"
    calls: list[int] = []
    error, text, limits = {
        "stopped": (Cancelled, "stopped", Limits()),
        "slow": (AdapterError, "less than 1000 kB arrive in a second; try again later, or give the file itself", FAST),
        "long": (AdapterError, "not complete after 0.005 minutes; try again to continue from there", SHORT),
    }[reason]

    def stop(done: int, total: int | None) -> bool:
        calls.append(done)
        return not (reason == "stopped" and (silent or done) and calls.count(done) > 1)

    message = message_of(error, lambda: empty.add(address, limits=limits, progress=stop))
    assert message == f"{address}: {text}"
    assert not server.held.is_set()
    begun = max(calls, default=0)  # on a machine that is busy, the first bytes may come too late
    assert begun == 0 if silent else begun in (0, 5000)
    assert left(empty) == ([".json", ".part"] if begun else [])
    server.held.set()
    assert empty.add(address).name == "ink"
    again = [None] if not begun else ["bytes=5000-"] if with_length else ["bytes=5000-", None]
    assert server.ranges_asked[1:] == again
    assert left(empty) == []


@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<!DOCTYPE html>" + b" " * 60_000, "not a safetensors file: it is a web page, so the download failed"),
        (
            b"PK\x03\x04" + b" " * 60_000,
            "not a safetensors file: it is a torch pickle or a zip: convert it to safetensors",
        ),
        (b"\x80\x02" + b" " * 60_000, "not a safetensors file: it is a pickle: convert it to safetensors"),
        ((100).to_bytes(8, "little") + b"{" + b" " * 60_000, "not a safetensors file: the header is not valid JSON"),
        ((2).to_bytes(8, "little") + b"{}" + b" " * 60_000, None),
    ],
)
def test_a_wrong_file_is_refused_as_soon_as_its_header_is_there(
    empty: Library, server: FileServer, content: bytes, text: str | None, with_length: bool
) -> None:
    """The server holds the rest back. A file without tensors may still get some, unless its length is known."""
    if text is None and not with_length:
        return
    server.held, server.drop_after, server.lengths = threading.Event(), 300, with_length
    server.files["/wrong.safetensors"] = content
    message = message_of(AdapterError, lambda: empty.add(f"{server.url}/wrong.safetensors"))
    assert message == f"wrong: {text or 'the file has no tensors'}"
    assert not server.held.is_set()
    assert left(empty) == []
    server.held.set()


def test_the_header_of_a_cut_file_is_read_when_it_is_complete(empty: Library, server: FileServer) -> None:
    """In the second answer, after the first one ended within it."""
    server.drop_after, server.drops = 100, 1
    assert empty.add(f"{server.url}/ink.safetensors").name == "ink"
    assert server.ranges_asked == [None, "bytes=100-"]


def test_many_at_once_and_one_name(empty: Library, tmp_path: Path) -> None:
    """If several files want the same name, one gets it, and none is overwritten."""
    results: list[object] = []

    def add(seed: int) -> None:
        source = tmp_path / f"{seed}" / "same.safetensors"
        source.parent.mkdir()
        write_kohya(source, random_factors(SDXL_SHAPES, seed=seed))
        try:
            results.append(empty.add(source).sha256)
        except RequestError as error:
            results.append(error)

    threads = [threading.Thread(target=add, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kept,) = [result for result in results if isinstance(result, str)]
    assert hashlib.sha256((empty.folder / "same.safetensors").read_bytes()).hexdigest() == kept
    assert len(results) == 6
    assert not parts_of(empty)


def test_forgotten_parts_go_away(empty: Library, adapter: Path) -> None:
    """Old ones; and on a server the oldest, so that interrupted downloads do not fill the disk."""
    empty.add(adapter)
    parts = empty.folder / ".lorablend" / "parts"
    for name, days in (("old.part", 8), ("old.lock", 8), ("first.part", 2), ("second.part", 1)):
        (parts / name).write_bytes(b"12345")
        os.utime(parts / name, (time.time() - days * 86_400,) * 2)
    empty.add(adapter)
    assert sorted(path.name for path in parts.iterdir()) == ["first.part", "second.part"]
    empty.add(adapter, limits=Limits(size=9))
    assert [path.name for path in parts.iterdir()] == ["second.part"]


def test_numbers_of_thousands_of_digits() -> None:
    """Python refuses to read them; a server that says such a size says none."""
    response = httpx.Response(206, headers={"Content-Range": f"bytes {'9' * 5000}-1/{'9' * 5000}"})
    assert (first_byte(response), total_size(response)) == (None, None)
