"""The child process that exports a model: the only place that imports torch, diffusers, Optimum Intel and NNCF.

A separate process returns all its memory, can be stopped in the middle of a long call, and leaves the caller's settings
alone. It reads one ConversionJob as a line of JSON from stdin and writes one JSON object per line to stdout:
{"start": stage} before each stage, then {"done": versions} or {"error": message}.

Only one network's weights are in memory at any time. Optimum's functions take a whole pipeline, so the other networks
are on torch's "meta" device: shapes without numbers.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorablend.adapters.wording import listed
from lorablend.convert.compress import compress_network
from lorablend.convert.networks import load_network

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["ConversionJob", "main"]

_LIBRARIES = ("lorablend", "openvino", "optimum-intel", "nncf", "torch", "diffusers", "transformers")

# Width and height of the traced example: latent cells for the UNet, pixels for the VAE (natively 128 and 1024).
_TRACE_SIZES = {"unet": 32, "vae": 256}


@dataclass(frozen=True)
class ConversionJob:
    """What the child process converts.

    Attributes:
        folder: As in `Source`, like checkpoint, variants and scheduler.
        networks: The networks to export.
        out: An existing folder.
        weights: "fp16", "int8" or "fp32".
    """

    folder: str
    checkpoint: str | None
    networks: list[str]
    variants: dict[str, str]
    scheduler: dict[str, Any]
    out: str
    weights: str

    def to_json(self) -> str:
        """One line of JSON, which `ConversionJob(**json.loads(line))` reads back."""
        return json.dumps(asdict(self))


def main() -> None:
    """Run the job that stdin describes; the exit status is 1 if it failed."""
    # Libraries print to stdout, so the messages get their own stream.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    job = ConversionJob(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def say(**message: Any) -> None:
        messages.write(json.dumps(message) + "\n")

    try:
        for network in job.networks:
            say(start=network)
            _export(job, network)
            gc.collect()
        say(start="tokenizer")
        _save_the_rest(job)
    except Exception as error:
        traceback.print_exc()
        say(error=" ".join(str(error).split()) or type(error).__name__)
        sys.exit(1)
    say(done={library: version(library) for library in _LIBRARIES})


def _exit_with_parent() -> None:
    sys.stdin.read()  # returns when the parent has ended
    os._exit(1)


def _export(job: ConversionJob, network: str) -> None:
    """Write the OpenVINO models of one network: itself, or the two halves of the VAE."""
    names = ("vae_encoder", "vae_decoder") if network == "vae" else (network,)
    _trace(job, network, names)
    gc.collect()  # the torch model and its patched methods are in reference cycles
    for name in names:
        xml = Path(job.out, name, "openvino_model.xml")
        # Layers that were loaded in fp16 get other names in the trace; names must not depend on the weights' type.
        text = xml.read_text("utf-8").replace("/ov_ext::", "/aten::").replace("._openvino_orig_", ".")
        xml.write_text(text, "utf-8")
        if job.weights == "int8":
            compress_network(xml)


def _trace(job: ConversionJob, network: str, names: tuple[str, ...]) -> None:
    from optimum.exporters.openvino.convert import export_models, get_diffusion_models_for_export_ext
    from optimum.intel import OVConfig

    pipeline = _load_pipeline(job, network)
    config: dict[str, Any] = dict(pipeline.components[network].config) if network in _TRACE_SIZES else {}
    if config:  # the graph is the same for all sizes, but smaller ones take less memory and time to trace
        pipeline.components[network].register_to_config(sample_size=_TRACE_SIZES[network])
    every: dict[str, Any] = get_diffusion_models_for_export_ext(pipeline)[1]
    models = {name: every[name] for name in names}
    out = Path(job.out)
    for name, (model, _) in models.items():
        if config:
            model.register_to_config(sample_size=config["sample_size"])
            model.save_config(out / name)
        else:
            model.config.save_pretrained(out / name)
    export_models(
        models,
        out,
        output_names=[f"{name}/openvino_model.xml" for name in models],
        # Without a dtype, Optimum compresses anything of more than 1e9 parameters to 8 bits.
        ov_config=OVConfig(dtype="fp32" if job.weights == "fp32" else "fp16"),
        stateful=False,
        patch_16bit_model=job.weights != "fp32",
        library_name="diffusers",
    )


def _load_pipeline(job: ConversionJob, network: str | None) -> DiffusionPipeline:
    """Load the source's pipeline with the weights of `network`; the other networks are shapes only."""
    import torch
    from diffusers import DiffusionPipeline

    index: dict[str, Any] = DiffusionPipeline.load_config(job.folder)  # pyright: ignore[reportAssignmentType]
    parts: dict[str, Any] = {
        name: None for name in ("safety_checker", "feature_extractor", "image_encoder") if name in index
    }
    for name in job.networks:
        library, class_name = index[name]
        cls = getattr(import_module(library), class_name)
        if name == network:
            parts[name] = _load_network(job, name, cls)
            continue
        with torch.device("meta"):
            if library == "transformers":
                parts[name] = cls(cls.config_class.from_pretrained(job.folder, subfolder=name))
            else:
                parts[name] = cls.from_config(cls.load_config(job.folder, subfolder=name))
    pipeline = DiffusionPipeline.from_pretrained(job.folder, **parts)
    pipeline.scheduler.register_to_config(**job.scheduler)
    return pipeline


def _load_network(job: ConversionJob, name: str, cls: Any) -> Any:
    """Load a network. ValueError if a tensor is missing, which diffusers and transformers would fill at random."""
    import torch

    dtype = torch.float32 if job.weights == "fp32" else torch.float16
    model, missing = load_network(cls, name, job.folder, job.checkpoint, job.variants.get(name), dtype)
    if missing:
        raise ValueError(f"its file lacks {listed(missing)}")
    return model


def _save_the_rest(job: ConversionJob) -> None:
    """Write the tokenizers as they are and as OpenVINO models, the scheduler and model_index.json."""
    from optimum.exporters.openvino.convert import export_tokenizer

    from lorablend.engine.graph.clip_tokenizer import write_exact

    pipeline = _load_pipeline(job, None)
    out = Path(job.out)
    pipeline.scheduler.save_pretrained(out / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        if tokenizer := getattr(pipeline, name, None):
            tokenizer.save_pretrained(out / name)
            export_tokenizer(tokenizer, out / name)
            graph = out / name / "openvino_tokenizer.xml"
            write_exact(graph, graph)
    pipeline.save_config(out)
