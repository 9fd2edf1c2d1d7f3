"""One text in every encoding, byte order, marking and container: the same settings, or refused, never other letters."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lorablend.adapters.errors import RequestError
from lorablend.app.pictures.metadata.programs import read_metadata
from lorablend.app.pictures.metadata.texts import decode_comment
from tests.app.pictures.metadata.written import A1111, exif_file, png_file, xmp

TEXT = A1111.replace("a red boat", "a réd böat, 赤い船 ⛵")
LATIN = A1111.replace("a red boat", "a réd böat")
ASCII, UNICODE, JIS, NONE = b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", b"\0" * 8

COMMENTS = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with its mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "UTF-8 called ASCII": ASCII + TEXT.encode(),
    "UTF-8 called Unicode": UNICODE + TEXT.encode(),
    "UTF-8 of no marking": NONE + TEXT.encode(),
    "UTF-8 called JIS": JIS + TEXT.encode(),
    "UTF-8 with a zero at the end": ASCII + TEXT.encode() + b"\0",
    "UTF-16 BE": UNICODE + TEXT.encode("utf-16-be"),
    "UTF-16 LE": UNICODE + TEXT.encode("utf-16-le"),
    "UTF-16 BE with its mark": UNICODE + b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 LE with its mark": UNICODE + b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16 LE with a zero at the end": UNICODE + TEXT.encode("utf-16-le") + b"\0\0",
    "UTF-16 LE of no marking": TEXT.encode("utf-16-le"),
    "UTF-16 BE called ASCII": ASCII + TEXT.encode("utf-16-be"),
    "UTF-16 BE called Unicode": b"Unicode\0" + TEXT.encode("utf-16-be"),
    "UTF-16 LE of an odd length": UNICODE + TEXT.encode("utf-16-le") + b"\0",
    "UTF-16 LE, hardly any ASCII": UNICODE + TEXT.replace("赤い船", "赤い船" * 99 + "赤い船").encode("utf-16-le"),
    "UTF-32 LE": UNICODE + TEXT.encode("utf-32-le"),
    "UTF-32 BE with its mark": b"\0\0\xfe\xff" + TEXT.encode("utf-32-be"),
    "UTF-8 after ASCII and spaces": b"ASCII   " + TEXT.encode(),
    "UTF-8 after exiv2's word": b"charset=Unicode " + TEXT.encode(),
    "UTF-8 after a marking and exiv2's word": ASCII + b'charset="Ascii" ' + TEXT.encode(),
    "UTF-8 taken for Latin-1": UNICODE + TEXT.encode().decode("latin-1").encode("utf-16-be"),
}


@pytest.mark.parametrize("comment", COMMENTS.values(), ids=COMMENTS)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("first", [False, True], ids=["EXIF directory", "first directory"])
def test_comments(comment: bytes, kind: str, first: bool) -> None:
    found = read_metadata(exif_file(kind, comment, first=first), "a")
    prompt = found.settings["prompt"].replace("赤い船" * 99, "")
    assert (prompt, found.settings["seed"], found.missing) == ("a réd böat, 赤い船 ⛵", 12, [])


def test_older_encodings() -> None:
    japanese = A1111.replace("a red boat", "赤い船")
    assert decode_comment(JIS + japanese.encode("iso2022_jp")) == japanese
    assert decode_comment(JIS + japanese.encode("shift_jis")) == japanese
    assert decode_comment(JIS + japanese.encode("euc_jp")) is None
    assert decode_comment(ASCII + LATIN.encode("latin-1")) == LATIN


@pytest.mark.parametrize(
    "body",
    [
        TEXT.replace("⛵", "").replace("é", "e").replace("ö", "o").encode("shift_jis"),
        "红船红船".encode("gbk"),
        b"\x01\x02",
    ],
    ids=["Shift JIS", "GBK", "binary"],
)
@pytest.mark.parametrize("marking", [ASCII, UNICODE, NONE, b""])
def test_what_makes_no_sense_is_refused(body: bytes, marking: bytes) -> None:
    assert decode_comment(marking + body) is None


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG with one more segment behind its beginning."""
    data = exif_file("JPEG", quality=90)
    return data[:2] + bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content + data[2:]


def iptc(text: bytes) -> bytes:
    """Photoshop's resources, with a caption in IPTC's record 2."""
    record = b"\x1c\x02\x78" + len(text).to_bytes(2, "big") + text
    return b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record


def described(text: str) -> bytes:
    return xmp(text).replace("exif:UserComment", "dc:description").replace("xmlns:exif", "xmlns:dc").encode()


CONTAINERS = {
    "PNG": png_file({"parameters": LATIN}),
    "PNG behind the pixels": png_file({"parameters": LATIN}, late=True),
    "PNG with UTF-8 where Latin-1 belongs": png_file({}, raw={"parameters": LATIN.encode()}),
    "PNG iTXt": png_file({"parameters": LATIN.replace("böat", "böat ⛵")}),
    "PNG XMP": png_file({"XML:com.adobe.xmp": xmp(LATIN)}),
    "JPEG XMP": exif_file("JPEG", xmp=xmp(LATIN).encode()),
    "WebP XMP": exif_file("WEBP", xmp=xmp(LATIN).encode()),
    "PNG XMP, Dublin Core": png_file({"XML:com.adobe.xmp": described(LATIN).decode()}),
    "JPEG comment": segment(0xFE, LATIN.encode()),
    "JPEG comment in Latin-1": segment(0xFE, LATIN.replace("böat", "boat").encode("latin-1")),
    "JPEG IPTC": segment(0xED, iptc(LATIN.encode())),
    "PNG, another name": png_file({"exif:UserComment": LATIN}),
    "PNG with UTF-8 taken for Latin-1 twice": png_file(
        {}, raw={"parameters": LATIN.encode().decode("latin-1").encode()}
    ),
    "PNG with zeros": png_file({}, raw={"parameters": LATIN.encode() + b"\0\0"}),
    "PNG with a mark": png_file({"parameters": "\ufeff" + LATIN}),
    "EXIF description": exif_file("JPEG", tags={0x010E: LATIN.replace("é", "e").replace("ö", "o")}),
    "Windows' comment": exif_file("JPEG", tags={0x9C9C: LATIN.encode("utf-16-le") + b"\0\0"}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str) -> None:
    found = read_metadata(CONTAINERS[name], "a")
    prompt = found.settings["prompt"].replace("red", "réd").replace("boat", "böat")
    assert prompt.removesuffix(" ⛵") == "a réd böat"
    assert (found.settings["negative_prompt"], found.settings["seed"]) == ("blurry", 12)


def test_an_unreadable_comment_beside_a_text_is_named() -> None:
    found = read_metadata(exif_file("JPEG", b"\x81\x82\x83", tags={0x010E: A1111}), "a")
    assert found.settings["seed"] == 12
    assert found.missing == ["the text UserComment is in no encoding that is known; it is left out"]


def test_entities_in_xmp_are_not_expanded() -> None:
    packet = xmp(A1111).replace("<x:xmpmeta", '<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta')
    with pytest.raises(Exception, match="says nothing"):
        read_metadata(png_file({"XML:com.adobe.xmp": packet}), "a")


def test_xmp_of_many_elements_in_one_another() -> None:
    """Each text belongs to the nearest setting, not to all around it."""
    text = "a boat\nSteps: 4, Seed: 3, Size: 64x64"
    inner = f"<exif:UserComment><rdf:Alt><rdf:li>{text}</rdf:li></rdf:Alt></exif:UserComment>"
    names = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
    deep = "<a>" * 2_000 + inner + "</a>" * 2_000
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" {names}><rdf:RDF>{deep}</rdf:RDF></x:xmpmeta>'
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "WEBP", xmp=packet.encode())
    found = read_metadata(buffer.getvalue(), "a")
    assert (found.settings["prompt"], found.settings["seed"]) == ("a boat", 3)


def test_far_too_much_text() -> None:
    """Compressed, it is a file of a few kilobytes; read as JSON, gigabytes of memory."""
    info = PngInfo()
    for number in range(9):
        info.add_text(f"text {number}", "{" + " " * 1_000_000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    assert len(buffer.getvalue()) < 20_000
    with pytest.raises(RequestError) as caught:
        read_metadata(buffer.getvalue(), "a.png")
    assert str(caught.value) == "a.png has more than 8,388,608 characters of text in it, which are not read"
