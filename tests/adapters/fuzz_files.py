"""Valid adapter files of every algorithm in every key family, as drafts that can be changed before they are written."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lorablend.adapters.files.file import read_file
from lorablend.adapters.names.modules import TOPOLOGIES, unet_modules
from tests.adapter_files import Stored, encode

Shape = tuple[int, ...]


@dataclass
class Draft:
    """A file that is not written yet: (dtype, shape, bytes) by name, and the settings next to it."""

    tensors: dict[str, tuple[str, list[int], bytes]]
    metadata: dict[str, str] = field(default_factory=dict)
    config: bytes | None = None  # adapter_config.json; with it the file is called adapter_model.safetensors

    @property
    def file_name(self) -> str:
        return "x.safetensors" if self.config is None else "adapter_model.safetensors"

    def header(self) -> dict[str, Any]:
        entries: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        end = 0
        for name, (dtype, shape, content) in self.tensors.items():
            begin, end = end, end + len(content)
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        return entries

    def data(self) -> bytes:
        return b"".join(content for _, _, content in self.tensors.values())


def write_draft(folder: Path, draft: Draft, content: bytes | None = None) -> Path:
    """Write the file (or other content) and the settings next to it; older ones are removed."""
    if content is None:
        header = json.dumps(draft.header()).encode()
        content = len(header).to_bytes(8, "little") + header + draft.data()
    path, config = folder / draft.file_name, folder / "adapter_config.json"
    for old in (path, config):
        old.unlink(missing_ok=True)  # it may still be mapped, so it must not be overwritten
    path.write_bytes(content)
    if draft.config is not None:
        config.write_bytes(draft.config)
    return path


def draft_of(path: Path) -> Draft:
    """Read a file that a library wrote, with the settings that PEFT puts next to it."""
    file = read_file(path)
    config = path.with_name("adapter_config.json")
    tensors = {name: (t.dtype, list(t.shape), t.raw_bytes) for name, t in file.tensors.items()}
    return Draft(tensors, dict(file.metadata), config.read_bytes() if config.exists() else None)


ATTENTION = "mid_block.attentions.0.transformer_blocks.0"
LINEAR = f"{ATTENTION}.attn1.to_q", f"{ATTENTION}.attn2.to_out.0", "down_blocks.2.attentions.0.proj_in"
CONVOLUTION = "down_blocks.1.resnets.0.conv1", "up_blocks.0.upsamplers.0.conv"
NORM = (f"{ATTENTION}.norm1",)
TEXT = "text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.mlp.fc1"
TOKENS = ("text_model.embeddings.token_embedding",)

# algorithm -> (module paths, shapes by the end of the name). Linear weights are 4×6, convolutions 4×3×3×3.
ALGORITHMS: dict[str, tuple[tuple[str, ...], dict[str, Shape]]] = {
    "lora": (LINEAR, {".lora_down.weight": (2, 6), ".lora_up.weight": (4, 2), ".alpha": ()}),
    "lora peft": (LINEAR, {".lora_A.weight": (2, 6), ".lora_B.weight": (4, 2)}),
    "lora named": (LINEAR, {".lora_A.default.weight": (2, 6), ".lora_B.default.weight": (4, 2)}),
    "lora diffusers": (LINEAR, {".lora.down.weight": (2, 6), ".lora.up.weight": (4, 2)}),
    "lora layer": (LINEAR, {".lora_linear_layer.down.weight": (2, 6), ".lora_linear_layer.up.weight": (4, 2)}),
    "lora processor": (LINEAR[:2], {"_lora.down.weight": (2, 6), "_lora.up.weight": (4, 2)}),
    "lora 1×1": (LINEAR, {".lora_down.weight": (2, 6, 1, 1), ".lora_up.weight": (4, 2, 1, 1), ".scale": (1,)}),
    "lora bias": (LINEAR, {".lora_A.weight": (2, 6), ".lora_B.weight": (4, 2), ".lora_B.bias": (4,)}),
    "lora text": (TEXT, {".lora_down.weight": (2, 8), ".lora_up.weight": (8, 2), ".alpha": ()}),
    "lora tokens": (TOKENS, {".lora_down.weight": (2, 8), ".lora_up.weight": (10, 2)}),
    "locon": (CONVOLUTION, {".lora_down.weight": (2, 3, 3, 3), ".lora_up.weight": (4, 2, 1, 1), ".alpha": ()}),
    "tucker": (
        CONVOLUTION,
        {".lora_down.weight": (2, 3, 1, 1), ".lora_mid.weight": (2, 2, 3, 3), ".lora_up.weight": (4, 2, 1, 1)},
    ),
    "residual": (
        LINEAR,
        {
            ".lora_down.weight": (2, 6),
            ".lora_up.weight": (4, 2),
            ".bias_indices": (2, 3),
            ".bias_values": (3,),
            ".bias_size": (2,),
        },
    ),
    "loha": (
        LINEAR,
        {".hada_w1_a": (4, 2), ".hada_w1_b": (2, 6), ".hada_w2_a": (4, 3), ".hada_w2_b": (3, 6), ".alpha": ()},
    ),
    "loha flat": (
        CONVOLUTION,
        {".hada_w1_a": (4, 2), ".hada_w1_b": (2, 27), ".hada_w2_a": (4, 2), ".hada_w2_b": (2, 27)},
    ),
    "loha tucker": (
        CONVOLUTION,
        {
            ".hada_w1_a": (2, 4),
            ".hada_w1_b": (2, 3),
            ".hada_t1": (2, 2, 3, 3),
            ".hada_w2_a": (2, 4),
            ".hada_w2_b": (2, 3),
            ".hada_t2": (2, 2, 3, 3),
            ".alpha": (),
        },
    ),
    "lokr whole": (LINEAR, {".lokr_w1": (2, 3), ".lokr_w2": (2, 2), ".alpha": ()}),
    "lokr": (LINEAR, {".lokr_w1": (2, 3), ".lokr_w2_a": (2, 1), ".lokr_w2_b": (1, 2), ".alpha": ()}),
    "lokr both": (
        CONVOLUTION,
        {".lokr_w1_a": (2, 1), ".lokr_w1_b": (1, 1), ".lokr_w2_a": (2, 2), ".lokr_w2_b": (2, 27)},
    ),
    "lokr tucker": (
        CONVOLUTION,
        {".lokr_w1": (2, 1), ".lokr_w2_a": (2, 2), ".lokr_w2_b": (2, 3), ".lokr_t2": (2, 2, 3, 3), ".scalar": (1,)},
    ),
    "dora": (
        LINEAR,
        {".lora_down.weight": (2, 6), ".lora_up.weight": (4, 2), ".alpha": (), ".dora_scale": (4, 1)},
    ),
    "dora inputs": (CONVOLUTION, {".lokr_w1": (2, 1), ".lokr_w2": (2, 3, 3, 3), ".dora_scale": (1, 3, 1, 1)}),
    "dora peft": (
        CONVOLUTION,
        {".lora_A.weight": (2, 3, 3, 3), ".lora_B.weight": (4, 2, 1, 1), ".lora_magnitude_vector": (1, 4, 1, 1)},
    ),
    "dora loha": (
        LINEAR,
        {".hada_w1_a": (4, 2), ".hada_w1_b": (2, 6), ".hada_w2_a": (4, 2), ".hada_w2_b": (2, 6), ".dora_scale": (4,)},
    ),
    "glora": (
        LINEAR,
        {".a1.weight": (6, 2), ".a2.weight": (2, 6), ".b1.weight": (4, 2), ".b2.weight": (2, 6), ".alpha": ()},
    ),
    "glora old": (LINEAR, {".a1.weight": (2, 6), ".a2.weight": (6, 2), ".b1.weight": (2, 6), ".b2.weight": (4, 2)}),
    "glora tucker": (
        CONVOLUTION,
        {
            ".a1.weight": (3, 2, 1, 1),
            ".a2.weight": (2, 3, 1, 1),
            ".b1.weight": (4, 2, 1, 1),
            ".b2.weight": (2, 3, 1, 1),
            ".bm.weight": (2, 2, 3, 3),
        },
    ),
    "ia3": (LINEAR, {".weight": (4,), ".on_input": ()}),
    "ia3 peft": (LINEAR, {".ia3_l": (4, 1)}),
    "ia3 inputs": (LINEAR, {".ia3_l.default": (1, 6)}),
    "oft": (LINEAR, {".oft_blocks": (2, 2, 2), ".alpha": (), ".rescale": (4, 1)}),
    "oft ready": (LINEAR, {".oft_diag": (2, 2, 2)}),
    "oft peft": (LINEAR, {".oft_R.weight": (3, 1), ".oft_R.scaled_oft": ()}),
    "oft shared": (LINEAR, {".oft_R.default.weight": (1, 3)}),
    "boft": (CONVOLUTION, {".oft_blocks": (2, 2, 2, 2), ".rescale": (4, 1, 1, 1)}),
    "boft peft": (LINEAR, {".boft_R": (1, 3, 2, 2), ".boft_s": (4, 1)}),
    "full": (LINEAR, {".diff": (4, 6), ".diff_b": (4,)}),
    "full lone": (LINEAR, {".lora_down.weight": (4, 6)}),
    "full convolution": (CONVOLUTION, {".diff": (4, 3, 3, 3), ".diff_b": (4,), ".alpha": ()}),
    "replaced": (LINEAR, {".set_weight": (4, 6)}),
    "norm": (NORM, {".w_norm": (6,), ".b_norm": (6,)}),
    "bias": (LINEAR, {".diff_b": (4,)}),
    "tokens": (TOKENS, {".lora_embedding_A": (2, 10), ".lora_embedding_B": (8, 2)}),
}

_SGM = {path: sgm for topology in TOPOLOGIES.values() for path, sgm in unet_modules(topology)}


def _flat(path: str) -> str:
    return path.replace(".", "_")


# Key families: (of the UNet, of the first text encoder), each from a module path to a name.
FAMILIES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "kohya": (lambda p: f"lora_unet_{_flat(p)}", lambda p: f"lora_te1_{_flat(p)}"),
    "kohya, SGM": (lambda p: f"lora_unet_{_flat(_SGM[p])}", lambda p: f"lora_te2_{_flat(p)}"),
    "kohya, SD 1.5": (lambda p: f"lora_unet_{_flat(p)}", lambda p: f"lora_te_{_flat(p)}"),
    "LyCORIS": (lambda p: f"lycoris_{_flat(p)}", lambda p: f"lycoris_{_flat(p)}"),
    "kohya's OFT": (lambda p: f"oft_unet_{_flat(p)}", lambda p: f"oft_te1_{_flat(p)}"),
    "diffusers": (lambda p: f"unet.{p}", lambda p: f"text_encoder.{p}"),
    "diffusers, PEFT": (
        lambda p: f"unet.base_model.model.{p}",
        lambda p: f"text_encoder_2.base_model.model.{p.removeprefix('text_model.')}",
    ),
    "PEFT": (lambda p: f"base_model.model.{p}", lambda p: f"base_model.model.{p}"),
    "bare": (lambda p: p, lambda p: p),
    "ComfyUI": (lambda p: f"diffusion_model.{_SGM[p]}", lambda p: f"text_encoders.clip_l.transformer.{p}"),
    "OneTrainer": (lambda p: _SGM[p], lambda p: f"text_encoders.clip_g.transformer.{p}"),
    "OMI": (lambda p: f"unet.{_SGM[p]}", lambda p: f"clip_l.{p}"),
}

DTYPES = ("F16", "BF16", "F32", "F8_E4M3", "F8_E5M2")
_WHOLE_NUMBERS = {".bias_indices": [[0, 1, 3], [0, 5, 2]], ".bias_size": [4, 6]}

CONFIG = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha": 8, "use_rslora": False, "use_dora": False,
    "rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_q": 3, "attn2.*to_out.0": 5, "conv1": 2},
    "feedforward_modules": ["ff.net.2"], "use_cayley_neumann": True, "num_cayley_neumann_terms": 5, "coft": True,
    "eps": 1e-4, "init_lora_weights": True,
}  # fmt: skip


def stored_draft(tensors: Mapping[str, Stored], **more: Any) -> Draft:
    """A draft of arrays."""
    entries = {name: (dtype, list(array.shape), array.tobytes()) for name, (dtype, array) in tensors.items()}
    return Draft(entries, **more)


def module_tensors(algorithm: str, family: str, dtype: str, random: np.random.Generator) -> dict[str, Stored]:
    """The tensors of all modules that are listed for the algorithm."""
    paths, roles = ALGORITHMS[algorithm]
    tensors: dict[str, Stored] = {}
    for path in paths:
        of_unet, of_text = FAMILIES[family]
        name = (of_text if path.startswith("text_") else of_unet)(path)
        for role, shape in roles.items():
            if role in _WHOLE_NUMBERS:
                tensors[name + role] = "I64", np.array(_WHOLE_NUMBERS[role], "<i8")
            else:
                values = np.zeros(()) if role == ".on_input" else random.normal(0, 0.3, shape)
                tensors[name + role] = dtype, encode(np.asarray(values, np.float32), dtype)
    return tensors


def plain_drafts() -> Iterator[tuple[str, Draft]]:
    """Every algorithm in every family, written with numpy, and files with tensors that belong to no module."""
    random = np.random.default_rng(0)
    for number, algorithm in enumerate(ALGORITHMS):
        for family_number, family in enumerate(FAMILIES):
            dtype = DTYPES[(number + family_number) % len(DTYPES)]
            tensors = module_tensors(algorithm, family, dtype, random)
            settings: dict[str, Any] = {}
            if family == "PEFT":
                settings["config"] = json.dumps(CONFIG).encode()
            elif "diffusers" in family:
                named = {f"{part}.{key}": value for part in ("unet", "text_encoder") for key, value in CONFIG.items()}
                settings["metadata"] = {"lora_adapter_metadata": json.dumps(named)}
            else:
                settings["metadata"] = {
                    "ss_network_dim": "4", "ss_base_model_version": "sdxl_base_v1-0", "ss_output_name": "ink",
                    "ss_tag_frequency": '{"set": {"ink": 3}}', "modelspec.title": "Ink", "network_alpha": "2",
                }  # fmt: skip
            yield f"{algorithm}, {family}", stored_draft(tensors, **settings)
    embeddings: dict[str, Stored] = {
        f"bundle_emb.ink.{part}": ("F16", random.normal(0, 1, shape).astype("<f2"))
        for part, shape in (("clip_l", (1, 768)), ("clip_g", (1, 1280)))
    }
    lora = module_tensors("lora", "kohya", "F16", random)
    yield "embeddings", stored_draft(lora | embeddings)
    yield "embedding, SD 1.5", stored_draft({"bundle_emb.ink.string_to_param.*": ("F16", np.ones((1, 768), "<f2"))})
    whole: dict[str, Stored] = {
        "unet_conv_in.weight": ("F32", np.ones((8, 4, 3, 3), "<f4")),
        "unet_conv_in.bias": ("F32", np.ones(8, "<f4")),
        "_aux.step": ("F32", np.ones(1, "<f4")),
    }
    yield "whole layers", stored_draft(lora | whole)


def library_drafts(folder: Path) -> Iterator[tuple[str, Draft]]:
    """Files that LyCORIS and PEFT write."""
    import peft

    from tests.adapters.references import CONV, FF, SHORTCUT, TO_K, TO_Q, lycoris_file, peft_file, small_net

    lycoris: Iterable[dict[str, Any]] = (
        {"algo": "locon"}, {"algo": "locon", "use_tucker": True, "dora_wd": True}, {"algo": "loha"},
        {"algo": "loha", "use_tucker": True}, {"algo": "lokr", "factor": 4},
        {"algo": "lokr", "factor": 4, "use_tucker": True, "dora_wd": True, "wd_on_output": False},
        {"algo": "lokr", "full_matrix": True}, {"algo": "glora"}, {"algo": "ia3"}, {"algo": "full"},
        {"algo": "diag-oft", "rescaled": True}, {"algo": "boft"},
    )  # fmt: skip
    for number, options in enumerate(lycoris):
        path = folder / f"{number}.safetensors"
        lycoris_file(path, small_net(), linear_dim=2, linear_alpha=1, conv_dim=2, conv_alpha=1, **options)
        yield f"lycoris {options}", draft_of(path)
    endings = [path.split(".")[-1] for path in (TO_Q, TO_K, CONV, SHORTCUT)] + [".".join(FF.split(".")[-3:])]
    kinds: Iterable[tuple[str, str, dict[str, Any]]] = (
        ("Lora", "lora_", {"r": 2, "lora_alpha": 3}),
        ("Lora", "lora_", {"r": 2, "lora_alpha": 3, "use_dora": True, "use_rslora": True}),
        ("LoHa", "hada_", {"r": 2, "alpha": 3}),
        ("LoKr", "lokr_", {"r": 2, "alpha": 3}),
        ("OFT", "oft_", {"oft_block_size": 4}),
        ("BOFT", "boft_", {"boft_block_size": 4, "target_modules": ["to_q", "to_k"]}),
        ("IA3", "ia3_", {"feedforward_modules": [endings[-1]]}),
    )
    for number, (kind, only, options) in enumerate(kinds):
        config = getattr(peft, f"{kind}Config")(**{"target_modules": endings, **options})
        path, _, _ = peft_file(folder / f"peft{number}", small_net(), config, only=only)
        yield f"peft {kind} {options}", draft_of(path)
