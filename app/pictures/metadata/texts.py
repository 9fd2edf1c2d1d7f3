"""The texts in a picture file, by name, wherever the format keeps them and however they are encoded.

    PNG           chunks tEXt, zTXt and iTXt, before or after the pixels; EXIF and XMP in chunks of their own; comf,
                  which has the texts of ComfyUI's animations
    JPEG, WebP    EXIF and XMP; JPEG's own comment, and IPTC
    any           hidden in the pixels, see `stealth`

Names are those of the chunks. In EXIF the user comment is `UserComment`, whether it is in the EXIF directory or, as
Fooocus writes it, in the first one; other texts have their tags' names. A text that begins with a name and a colon, as
ComfyUI's `prompt:{…}` in the tag of the camera's model, counts under that name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from PIL import ExifTags, Image, IptcImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

__all__ = ["Texts", "decode_comment", "texts_in"]

# EXIF 2.3, table 6: the first eight bytes of a user comment say how the others are encoded. Many programs' do not, and
# some fill them up with spaces, or copy what exiv2 prints in their place.
_MARKINGS = (b"ASCII", b"UNICODE", b"JIS", b"")
_EXIV2 = re.compile(rb'charset="?(Ascii|Unicode|Jis|Undefined)"? ')
_NAMED = re.compile(r"\s*(prompt|workflow|parameters|extra_metadata|extraMetadata)\s*:\s*(?=[{\[])", re.IGNORECASE)
_XP = {0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9E: "XPKeywords", 0x9C9F: "XPSubject"}  # Windows': UTF-16
_XMP_PARTS = ("xmpmeta", "RDF", "Description", "Alt", "Seq", "Bag", "li")
_IPTC = {5: "Title", 120: "Caption"}  # of IPTC's record 2; its other texts are called by their numbers
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ufffe\uffff]")


@dataclass(frozen=True)
class Texts:
    """The texts by name, in the order of the file; and the names of those that no known encoding makes sense of."""

    named: dict[str, str]
    unreadable: tuple[str, ...] = ()


def texts_in(picture: Image.Image) -> Texts:
    """Collect the texts of an opened picture. Those behind the pixels of a PNG are there once it is loaded."""
    named: dict[str, str] = {}
    unreadable: list[str] = []
    for name, found in (*_chunks(picture), *_exif(picture), *_xmp(picture), *_iptc(picture)):
        if found is None:
            unreadable.append(name)
            continue
        text = _repaired(found).strip("\0\ufeff")
        prefix = _NAMED.match(text)
        if prefix:
            name, text = prefix[1].lower(), text[prefix.end() :]
        if text.strip():
            named.setdefault(name, text)
    return Texts(named, tuple(unreadable))


def decode_comment(raw: bytes) -> str | None:
    """Decode EXIF's user comment, whatever its marking says; None if no known encoding makes sense of it."""
    marking = raw[:8].rstrip(b"\0").upper() if raw[7:8] == b"\0" else raw[:8].rstrip(b" ")
    is_marked = len(raw) >= 8 and marking in _MARKINGS
    body = _EXIV2.sub(b"", raw[8:] if is_marked else raw, count=1)
    if is_marked and marking == b"JIS":
        return _sensible(body.rstrip(b"\0"), "iso2022_jp") or _decode(body) or _shift_jis(body)
    return _decode(body)


def _shift_jis(body: bytes) -> str | None:
    """What piexif, with which A1111 reads, takes JIS for. Other encodings turn into half-width katakana."""
    text = _sensible(body.rstrip(b"\0"), "shift_jis")
    return None if text is None or re.search("[\uff61-\uff9f]", text) else text


def _decode(body: bytes) -> str | None:
    """Tell UTF-8, and UTF-16 and UTF-32 in either byte order apart; then Latin-1, if its letters look like it."""
    if body.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) or body.rstrip(b"\0").count(0) > len(body) // 2:
        is_big_endian = body[0::4].count(0) >= body[3::4].count(0)
        return _sensible(body[: len(body) // 4 * 4], "utf-32-be" if is_big_endian else "utf-32-le")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _sensible(body[: len(body) // 2 * 2], "utf-16")
    body = body.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in body.rstrip(b"\0"):
        # All settings have ASCII in them, whose bytes in UTF-16 are zero in the first or in the second place.
        is_big_endian = body[0::2].count(0) >= body[1::2].count(0)
        return _sensible(body[: len(body) // 2 * 2], "utf-16-be" if is_big_endian else "utf-16-le")
    body = body.rstrip(b"\0")
    text = _sensible(body, "utf-8")
    if text is None and not re.search(rb"[\x80-\x9f]|[\xa0-\xff]{2}", body):
        text = _sensible(body, "latin-1")
    return text


def _sensible(body: bytes, encoding: str) -> str | None:
    try:
        text = body.decode(encoding).strip("\0\ufeff")
    except UnicodeError:
        return None
    return None if _CONTROL.search(text) else text


def _repaired(text: str) -> str:
    """Text that is UTF-8, but was taken for Latin-1, by its writer or because Latin-1 belongs in that place."""
    for _ in range(3):
        try:
            text = text.encode("latin-1").decode("utf-8")
        except UnicodeError:
            break
    return text


def _chunks(picture: Image.Image) -> Iterator[tuple[str, str | None]]:
    for name, value in picture.info.items():
        is_other = name in ("XML:com.adobe.xmp", "Raw profile type exif")  # which is EXIF in hexadecimal
        if isinstance(value, str) and isinstance(name, str) and not is_other:
            yield name, str(value)
    for kind, content, *_ in getattr(picture, "private_chunks", ()):
        name, zero, value = content.partition(b"\0")
        if kind == b"comf" and zero:
            yield name.decode("latin-1"), value.decode("latin-1")
    comment = picture.info.get("comment")
    if isinstance(comment, bytes) and comment.strip(b"\0 "):
        text = _decode(comment)
        if text is not None:  # any program writes there: one that is unreadable is no setting
            yield "comment", text


def _exif(picture: Image.Image) -> Iterator[tuple[str, str | None]]:
    try:
        exif = picture.getexif()
        directories = (exif.get_ifd(ExifTags.IFD.Exif), dict(exif))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, AttributeError):  # from Pillow: damaged EXIF
        return
    for directory in directories:
        for tag, value in directory.items():
            if tag in (ExifTags.Base.UserComment, ExifTags.Base.MakerNote):
                raw = value.encode("latin-1", "replace") if isinstance(value, str) else value
                if not isinstance(raw, bytes) or not raw.strip(b"\0 "):
                    continue
                text = decode_comment(raw)
                if tag == ExifTags.Base.UserComment:
                    yield "UserComment", text
                elif text is not None:  # cameras have binary data there
                    yield "MakerNote", text
            elif tag in _XP and isinstance(value, bytes | tuple):
                text = _sensible(bytes(value), "utf-16-le")
                if text is not None:
                    yield _XP[tag], text
            elif isinstance(value, str) and tag in ExifTags.TAGS:
                yield ExifTags.TAGS[tag], value


def _xmp(picture: Image.Image) -> Iterator[tuple[str, str]]:
    """The texts of an XMP packet, by their local names, also those that are written as attributes."""
    packet = picture.info.get("XML:com.adobe.xmp") or picture.info.get("xmp")
    text = packet if isinstance(packet, str) else _decode(packet) if isinstance(packet, bytes) else None
    if text is None or "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow without bounds
        return
    start, end = text.find("<x:xmpmeta"), text.rfind("</x:xmpmeta>")
    try:
        root = ElementTree.fromstring(text[start : end + len("</x:xmpmeta>")] if 0 <= start < end else text)
    except (ElementTree.ParseError, ValueError):
        return
    inner: dict[ElementTree.Element, list[str]] = {}  # by the nearest element that is a setting
    waiting = [(root, root)]
    while waiting:
        element, setting = waiting.pop()
        for name, value in element.attrib.items():
            if value.strip() and _local(name) != "lang":
                yield _local(name), value
        if _local(element.tag) not in _XMP_PARTS:
            setting = element
        inner.setdefault(setting, []).append(element.text or "")
        waiting += [(child, setting) for child in reversed(element)]
    for setting, texts in inner.items():
        text = "".join(texts).strip()
        if text and _local(setting.tag) not in _XMP_PARTS:
            yield _local(setting.tag), text


def _iptc(picture: Image.Image) -> Iterator[tuple[str, str]]:
    try:
        values = (IptcImagePlugin.getiptcinfo(picture) if isinstance(picture, JpegImageFile) else None) or {}
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError):  # from Pillow: damaged IPTC
        return
    for (record, number), value in values.items():
        for part in value if isinstance(value, list) else [value]:
            text = _decode(part) if record == 2 else None
            if text is not None and number:  # 0 is a version
                yield _IPTC.get(number, f"IPTC {number}"), text


def _local(name: object) -> str:
    return str(name).rpartition("}")[2]
