"""The modules of the Stable Diffusion models, and every name that a file may use for each of them.

Flattened names are never split, because `to_out_0`, `time_emb_proj` and `proj_in` make that ambiguous. Instead, all
names of all modules are generated from the topology of each model, flattened, and a file's name is looked up among
them.
The models agree on the name of every module that they share, so one table is enough for all of them. It also covers
smaller models of the same topology (fewer transformer blocks, narrower layers).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

__all__ = [
    "TOPOLOGIES",
    "Topology",
    "bases_of",
    "find_module",
    "is_table",
    "kernel_of",
    "text_encoder_modules",
    "unet_modules",
]


@dataclass(frozen=True)
class Topology:
    """What distinguishes the UNets: the transformer blocks per attention (0: no attention) and width of each block."""

    down: tuple[int, ...]
    mid: int
    up: tuple[int, ...]
    widths: tuple[int, ...]  # of the down blocks, as multiples of the first
    size_embedding: bool  # SDXL's add_embedding, for the picture's size and the pooled prompt

    @property
    def blocks(self) -> int:
        """The number of down blocks, which is the number of up blocks."""
        return len(self.down)


_SD = Topology(down=(1, 1, 1, 0), mid=1, up=(0, 1, 1, 1), widths=(1, 2, 4, 4), size_embedding=False)

# SD 1.5 and SD 2 have the same modules; only the width of their cross-attention differs.
TOPOLOGIES = {
    "sd15": _SD,
    "sd2": _SD,
    "sdxl": Topology(down=(0, 2, 10), mid=10, up=(10, 2, 0), widths=(1, 2, 4), size_embedding=True),
    "sdxl-refiner": Topology(down=(0, 4, 4, 0), mid=4, up=(0, 4, 4, 0), widths=(1, 2, 4, 4), size_embedding=True),
}

# (diffusers name, SGM name). SGM's are the names in the original checkpoints and in kohya's SDXL files.
NamePair = tuple[str, str]

_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
)
_SHORTCUT = ("conv_shortcut", "skip_connection")
_ATTENTION = ("norm", "proj_in", "proj_out")
_TRANSFORMER = (
    "norm1", "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0",
    "norm2", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
    "norm3", "ff.net.0.proj", "ff.net.2",
)  # fmt: skip
_ENDS = (
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)
_SIZE_EMBEDDING = (("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"))
_TEXT_LAYER = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
    "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2",
)  # fmt: skip
_TEXT_ENDS = (
    "text_model.embeddings.token_embedding",
    "text_model.embeddings.position_embedding",
    "text_model.final_layer_norm",
    "text_projection",
)
_CONVOLUTIONS = ("conv_in", "conv_out", ".conv1", ".conv2", "samplers.0.conv")  # 3×3 in every model
_TABLES = ("token_embedding", "position_embedding")
_TEXT_LAYERS = 32  # as many as OpenCLIP bigG has, the deepest

# Names that diffusers used before it adopted PEFT: (end of today's name, end of the old one).
_OLD_ENDINGS = (
    (".to_q", ".processor.to_q"),
    (".to_k", ".processor.to_k"),
    (".to_v", ".processor.to_v"),
    (".to_out.0", ".to_out"),
    (".to_out.0", ".processor.to_out"),
    (".to_out.0", ".processor.to_out.0"),
    (".self_attn.q_proj", ".self_attn.to_q"),
    (".self_attn.k_proj", ".self_attn.to_k"),
    (".self_attn.v_proj", ".self_attn.to_v"),
    (".self_attn.out_proj", ".self_attn.to_out"),
)


def unet_modules(topology: Topology) -> Iterator[NamePair]:
    """Yield every module of a UNet that has a weight, as (diffusers path, SGM path), two layers per down block."""
    yield from _ENDS
    if topology.size_embedding:
        yield from _SIZE_EMBEDDING
    last = topology.blocks - 1
    for block, depth in enumerate(topology.down):
        for layer in range(2):
            down, sgm = f"down_blocks.{block}", f"input_blocks.{3 * block + layer + 1}"
            wider = layer == 0 and block > 0 and topology.widths[block] != topology.widths[block - 1]
            yield from _resnet(f"{down}.resnets.{layer}", f"{sgm}.0", shortcut=wider)
            yield from _attention(f"{down}.attentions.{layer}", f"{sgm}.1", depth)
        if block < last:
            yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{3 * block + 3}.0.op"
    yield from _resnet("mid_block.resnets.0", "middle_block.0", shortcut=False)
    yield from _attention("mid_block.attentions.0", "middle_block.1", topology.mid)
    yield from _resnet("mid_block.resnets.1", "middle_block.2", shortcut=False)
    for block, depth in enumerate(topology.up):
        for layer in range(3):
            up, sgm = f"up_blocks.{block}", f"output_blocks.{3 * block + layer}"
            yield from _resnet(f"{up}.resnets.{layer}", f"{sgm}.0", shortcut=True)  # the skip widens its input
            yield from _attention(f"{up}.attentions.{layer}", f"{sgm}.1", depth)
        if block < last:
            slot = 2 if depth else 1  # the upsampler comes after the attention, if there is any
            yield f"up_blocks.{block}.upsamplers.0.conv", f"output_blocks.{3 * block + 2}.{slot}.conv"


def _resnet(path: str, sgm: str, shortcut: bool) -> Iterator[NamePair]:
    for child, sgm_child in (*_RESNET, _SHORTCUT) if shortcut else _RESNET:
        yield f"{path}.{child}", f"{sgm}.{sgm_child}"


def _attention(path: str, sgm: str, depth: int) -> Iterator[NamePair]:
    if not depth:
        return
    blocks = (f"transformer_blocks.{index}.{child}" for index in range(depth) for child in _TRANSFORMER)
    for child in (*_ATTENTION, *blocks):
        yield f"{path}.{child}", f"{sgm}.{child}"


def text_encoder_modules() -> Iterator[str]:
    """Yield every module of a CLIP text encoder that has a weight, as its transformers path with `text_model.`."""
    yield from _TEXT_ENDS
    for layer in range(_TEXT_LAYERS):
        for child in _TEXT_LAYER:
            yield f"text_model.encoder.layers.{layer}.{child}"


def find_module(component: str, name: str) -> str | None:
    """Return the module path for a name in any spelling, or None: any of its dots may be underscores.

    `component` is "unet", "text_encoder" or "text_encoder_2".
    """
    names = _unet_names() if component == "unet" else _text_encoder_names()
    return names.get(name.replace(".", "_"))


def kernel_of(path: str) -> tuple[int, ...]:
    """Return the kernel of a module that is a convolution larger than 1×1; () for any other module."""
    return (3, 3) if path.endswith(_CONVOLUTIONS) else ()


def is_table(path: str) -> bool:
    """Return whether a module is an embedding, whose rows are looked up, so that it has no socket."""
    return path.endswith(_TABLES)


def bases_of(path: str) -> frozenset[str]:
    """Return the base models (keys of TOPOLOGIES) whose UNet has this module."""
    return _bases()[path]


@cache
def _bases() -> dict[str, frozenset[str]]:
    having: dict[str, set[str]] = {}
    for base, topology in TOPOLOGIES.items():
        for path, _ in unet_modules(topology):
            having.setdefault(path, set()).add(base)
    return {path: frozenset(bases) for path, bases in having.items()}


@cache
def _unet_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for topology in TOPOLOGIES.values():
        for path, sgm in unet_modules(topology):
            _add(names, path, path, sgm)
            if sgm.endswith(".1.conv"):  # LyCORIS counts the attention even if there is none
                _add(names, path, sgm.replace(".1.conv", ".2.conv"))
    return names


@cache
def _text_encoder_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for path in text_encoder_modules():
        _add(names, path, path, path.removeprefix("text_model."))  # transformers 5 has dropped text_model.
    return names


def _add(names: dict[str, str], path: str, *spellings: str) -> None:
    for spelling in spellings:
        old = [spelling.removesuffix(new) + old for new, old in _OLD_ENDINGS if spelling.endswith(new)]
        for name in (spelling, *old):
            names[name.replace(".", "_")] = path
