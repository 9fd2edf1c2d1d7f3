"""Pictures as other programs write them: their texts, in the places and encodings that they choose."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

__all__ = ["A1111", "comfy_graph", "exif_file", "png_file", "xmp"]

A1111 = (
    "a red boat <lora:ink:0.8>\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 6, Seed: 12, Size: 512x768, Model: foo"
)


def png_file(chunks: dict[str, str], *, late: bool = False, raw: dict[str, bytes] | None = None) -> bytes:
    """A PNG with texts; late: behind the pixels. raw: tEXt chunks by their bytes."""
    info = PngInfo()
    for key, text in chunks.items():
        if all(ord(letter) < 256 for letter in text):
            info.add_text(key, text)
        else:
            info.add_itxt(key, text)
    for key, text in (raw or {}).items():
        info.add(b"tEXt", key.encode() + b"\0" + text)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 96), "red").save(buffer, "PNG", pnginfo=info)
    data = buffer.getvalue()
    if not late:
        return data
    start, end = data.index(b"tEXt") - 4, data.index(b"IDAT") - 4
    return data[:start] + data[end : data.index(b"IEND") - 4] + data[start:end] + data[data.index(b"IEND") - 4 :]


def exif_file(
    kind: str,
    comment: bytes | str | None = None,
    *,
    first: bool = False,
    tags: dict[int, Any] | None = None,
    **more: Any,
) -> bytes:
    """A JPEG or WebP with a user comment in EXIF; first: in the first directory, as Fooocus writes it."""
    exif = Image.Exif()
    if comment is not None:
        directory = exif if first else exif.get_ifd(ExifTags.IFD.Exif)
        directory[ExifTags.Base.UserComment] = comment
    for tag, value in (tags or {}).items():
        exif[tag] = value
    buffer = io.BytesIO()
    Image.new("RGB", (64, 96), "red").save(buffer, kind, exif=exif.tobytes(), **more)
    return buffer.getvalue()


def xmp(comment: str, *, as_attribute: bool = False) -> str:
    """An XMP packet with exif:UserComment, as Draw Things writes it; or as XMP's short form has it."""
    escaped = comment.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    attribute = f' exif:UserComment="{escaped}"' if as_attribute else ""
    inner = f'<rdf:Alt><rdf:li xml:lang="x-default">{escaped}</rdf:li></rdf:Alt>'
    element = "" if as_attribute else f"<exif:UserComment>{inner}</exif:UserComment>"
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:exif="http://ns.adobe.com/exif/1.0/"{attribute}>{element}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    )


def comfy_graph(**nodes: Any) -> dict[str, Any]:
    """The graph of one picture; nodes: n7={…} replaces or adds node 7, None removes it."""
    graph: dict[str, Any] = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "foo.safetensors"}},
        "2": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "styles\\ink.safetensors",
                "strength_model": 0.8,
                "strength_clip": 0.8,
                "model": ["1", 0],
                "clip": ["1", 1],
            },
        },
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red boat", "clip": ["2", 1]}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["2", 1]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["2", 0],
                "positive": ["3", 0],
                "negative": ["4", 0],
                "latent_image": ["5", 0],
                "seed": 12,
                "steps": 20,
                "cfg": 6.0,
                "sampler_name": "euler_ancestral",
                "scheduler": "karras",
                "denoise": 1.0,
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["1", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }
    graph |= {key.removeprefix("n"): node for key, node in nodes.items()}
    return json.loads(json.dumps({key: node for key, node in graph.items() if node is not None}))
