"""Measure speed, as ratios within one run on one machine.

    python -m bench.run step FOLDER [--rounds 2] [--steps 6] [--write]

FOLDER was written by bench/build.py. Each variant runs in a process of its own, one after the other, and each once per
round, so that no two share the machine. The table shows the median of a variant's steps in all rounds, and the fastest
step: if neighbours on the host slow the machine down for minutes at a time, read the ratio of the fastest steps.
--write appends the table to bench/RESULTS.md.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.adapters import KOHYA, LCM, modules, write_adapter
from lorablend.engine import ModelFolder

PIXELS = 512
CELLS = PIXELS // 8
PRECISION = "bf16"
# name -> (targets, rank, seed)
ADAPTERS = {
    "r16": (KOHYA, 16, 1),
    **{f"r64{letter}": (KOHYA, 64, seed) for letter, seed in zip("abc", (2, 3, 4), strict=True)},
    "lcm": (LCM, 64, 5),
    **{f"r32{letter}": (KOHYA, 32, seed) for letter, seed in zip("abcde", range(6, 11), strict=True)},
}
FIVE = [(f"r32{letter}", weight) for letter, weight in zip("abcde", (0.7, -0.4, 0.3, 0.5, 0.2), strict=True)]
BLENDS: dict[str, list[tuple[str, float]]] = {
    "r16": [("r16", 0.8)],
    "r64": [("r64a", 0.7)],
    "3r64": [("r64a", 0.7), ("r64b", -0.4), ("r64c", 0.3)],
    "lcm": [("lcm", 1.0)],
    "5r32": FIVE,
    "5r32max64": FIVE,
    "gates": [("r16", 0.8)],
    "steered": [("r16", 0.8)],
    "ramp": [("r16", 0.8)],
    "switch": [("r64a", 0.7), ("r64b", -0.4), ("r64c", 0.3)],
}
VARIANTS = {
    "bare": "bare OpenVINO",
    "live-off": "live, no adapter",
    "live-r16": "live, one rank 16",
    "live-r64": "live, one rank 64 (340 MB)",
    "live-3r64": "live, three rank 64",
    "live-lcm": "live, LCM-LoRA's 788 modules, rank 64",
    "live-5r32": "live, five rank 32",
    "live-5r32max64": "live, five rank 32, max_rank 64",
    "live-gates": "live with gates, one rank 16",
    "live-steered": "live, steered, one rank 16",
    "program-ramp": "the same, its weight changed before every step",
    "program-switch": "live, one of three rank 64 in turn, a step each",
    "genai-r16": "GenAI AdapterConfig, one rank 16",
    "genai-3r64": "GenAI AdapterConfig, three rank 64",
    "torch-r16": "diffusers + PEFT, one rank 16",
    "torch-3r64": "diffusers + PEFT, three rank 64",
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def _inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "sample": rng.standard_normal((1, 4, CELLS, CELLS), np.float32),
        "encoder_hidden_states": rng.standard_normal((1, 77, 2048), np.float32),
        "text_embeds": rng.standard_normal((1, 1280), np.float32),
        "time_ids": np.array([[PIXELS, PIXELS, 0, 0, PIXELS, PIXELS]], np.float32),
    }


def bare(folder: Path, blend: str, steps: int) -> dict[str, Any]:
    """The exported UNet with static shapes and no changes."""
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(folder / "model" / "unet" / "openvino_model.xml")
    values = _inputs()
    graph.reshape({name: list(value.shape) for name, value in values.items()} | {"timestep": [1]})
    request = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": PRECISION}).create_infer_request()
    for name, value in values.items():
        request.set_tensor(name, ov.Tensor(value))
    request.set_tensor("timestep", ov.Tensor(np.array([500])))
    return {"steps": _timed(request.infer, steps)}


def live(folder: Path, blend: str, steps: int) -> dict[str, Any]:
    """The live runtime's UNet with sockets; also the cost of a change of blend."""
    from lorablend.adapters import BlendItem, load_adapter
    from lorablend.engine.live.text import Conditioning

    unet = _unet(folder, blend)
    values = _inputs()
    figures: dict[str, Any] = {}

    def plug(changed: list[BlendItem]) -> float:
        start = time.perf_counter()
        unet.plug(changed)
        return time.perf_counter() - start

    unet.plug([])
    start = time.perf_counter()
    items = [BlendItem(load_adapter(_file(folder, name)), weight) for name, weight in BLENDS.get(blend, [])]
    figures["read"] = time.perf_counter() - start
    figures["first plug"] = plug(items)
    if items:
        figures["plug, new weights"] = plug([BlendItem(item.adapter, item.weight / 2) for item in items])
        figures["plug, seen before"] = plug(items)
    start = time.perf_counter()
    prompted = unet.prompt(Conditioning(values["encoder_hidden_states"], values["text_embeds"]))
    figures["prompt"] = time.perf_counter() - start
    figures["steps"] = _timed(lambda: unet(values["sample"], 500.0, prompted), steps)
    return figures


def program(folder: Path, blend: str, steps: int) -> dict[str, Any]:
    """The live UNet in a run whose blend changes between steps; the change is part of the step's time."""
    from lorablend.adapters import Blend, BlendItem, Schedule, load_adapter
    from lorablend.engine.live.program import PluggedProgram, SteeredProgram
    from lorablend.engine.live.text import Conditioning

    unet, values = _unet(folder, blend), _inputs()
    schedule = Schedule(ramp=(0, 1)) if blend == "ramp" else None
    items = tuple(BlendItem(load_adapter(_file(folder, n)), weight, schedule=schedule) for n, weight in BLENDS[blend])
    make = SteeredProgram if blend == "ramp" else PluggedProgram
    conditioning = Conditioning(values["encoder_hidden_states"], values["text_embeds"])
    start = time.perf_counter()
    mode = "sum" if blend == "ramp" else "switch"
    run = make(Blend(items, mode), steps + 1, unet, lambda _items: [conditioning])
    figures: dict[str, Any] = {"first plug": time.perf_counter() - start}
    done = iter(range(steps + 1))

    def step() -> None:
        (only_pass,) = run.passes(next(done))
        only_pass.bind()
        unet(values["sample"], 500.0, only_pass.prompted[0])

    return figures | {"steps": _timed(step, steps)}


def _unet(folder: Path, blend: str) -> Any:
    import openvino as ov

    from lorablend.engine.live.compiler import Compiler
    from lorablend.engine.live.tensor_cache import TensorCache
    from lorablend.engine.live.unet import GraphVariant, Unet

    options = {"INFERENCE_PRECISION_HINT": PRECISION}
    max_rank = 64 if blend.endswith("max64") else None
    compiler = Compiler(ov.Core(), "CPU", options, ov.Type.bf16, TensorCache(3 << 30), max_rank)
    model = ModelFolder(folder / "model")
    variant = GraphVariant(gates=blend == "gates", steered=blend in ("steered", "ramp"))
    return Unet(compiler, model, (PIXELS, PIXELS), lambda path: model.graphs["unet"].read(f"{path}.weight"), variant)


def genai(folder: Path, blend: str, steps: int) -> dict[str, Any]:
    """Stock OpenVINO GenAI: a whole Text2ImagePipeline, but only the UNet's time counts."""
    import openvino_genai as genai

    config = genai.AdapterConfig()
    for name, weight in BLENDS[blend]:
        config.add(genai.Adapter(_file(folder, name)), weight)
    pipe = genai.Text2ImagePipeline(folder / "model")
    pipe.reshape(1, PIXELS, PIXELS, 1.0)
    pipe.compile("CPU", adapters=config, INFERENCE_PRECISION_HINT=PRECISION)
    pipe.generate("a fox", width=PIXELS, height=PIXELS, guidance_scale=1.0, num_inference_steps=steps + 1)
    durations = pipe.get_performance_metrics().raw_metrics.unet_inference_durations
    return {"steps": [microseconds / 1e6 for microseconds in durations[1:]]}


def torch(folder: Path, blend: str, steps: int) -> dict[str, Any]:
    """diffusers' UNet with PEFT's adapters, in bf16."""
    import torch as t
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "source" / "unet", torch_dtype=t.bfloat16)
    for name, _ in BLENDS[blend]:
        state, alphas = StableDiffusionXLPipeline.lora_state_dict(_file(folder, name), unet_config=unet.config)[:2]
        StableDiffusionXLPipeline.load_lora_into_unet(state, alphas, unet, adapter_name=name)
    unet.set_adapters([name for name, _ in BLENDS[blend]], [weight for _, weight in BLENDS[blend]])
    values = {name: t.from_numpy(value).to(t.bfloat16) for name, value in _inputs().items()}

    @t.no_grad()
    def step() -> None:
        added = {"text_embeds": values["text_embeds"], "time_ids": values["time_ids"]}
        unet(values["sample"], 500, values["encoder_hidden_states"], added_cond_kwargs=added)

    return {"steps": _timed(step, steps)}


KINDS = {"bare": bare, "live": live, "program": program, "genai": genai, "torch": torch}


def _timed(step: Any, steps: int) -> list[float]:
    step()  # the first call allocates
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def _file(folder: Path, name: str) -> Path:
    return folder / "adapters" / f"{name}.safetensors"


def _child(folder: Path, variant: str, steps: int) -> None:
    kind, _, blend = variant.partition("-")
    figures = KINDS[kind](folder, blend, steps)
    figures["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # KB on Linux -> GB
    print(json.dumps(figures))


def step(folder: Path, rounds: int, steps: int, variants: list[str]) -> str:
    """Run all variants and return the tables as Markdown."""
    (folder / "adapters").mkdir(exist_ok=True)
    model = ModelFolder(folder / "model")
    for name, (targets, rank, seed) in ADAPTERS.items():
        if not _file(folder, name).exists():
            write_adapter(_file(folder, name), modules(model, targets), rank, seed)
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in variants if number % 2 == 0 else reversed(variants):
            command = [sys.executable, "-m", "bench.run", "child", str(folder), variant, str(steps)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs[variant].append(json.loads(output.splitlines()[-1]))
            print(variant, [round(s, 2) for s in runs[variant][-1]["steps"]], file=sys.stderr)
    return _tables(runs)


def _tables(runs: dict[str, list[dict[str, Any]]]) -> str:
    steps = {name: [s for run in of_variant for s in run["steps"]] for name, of_variant in runs.items()}
    median = {name: statistics.median(seconds) for name, seconds in steps.items()}
    fastest = {name: min(seconds) for name, seconds in steps.items()}
    lines = ["| | median s per step | fastest | median × bare | fastest × bare | peak GB |", "|---" * 6 + "|"]
    for name, of_variant in runs.items():
        peak = max(run["peak"] for run in of_variant)
        ratios = [f"{of[name] / of['bare']:.2f}" if "bare" in of else "" for of in (median, fastest)]
        cells = [VARIANTS[name], f"{median[name]:.2f}", f"{fastest[name]:.2f}", *ratios, f"{peak:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for blend, words in (("r16", "one rank 16"), ("3r64", "three rank 64")):
        genai, live = f"genai-{blend}", f"live-{blend}"
        if genai in steps and live in steps:
            ratios = [of[genai] / of[live] for of in (median, fastest)]
            lines += [
                "",
                f"GenAI takes {ratios[0]:.2f} × (fastest: {ratios[1]:.2f} ×) the live runtime's time, {words}.",
            ]
    names = ("read", "first plug", "plug, new weights", "plug, seen before", "prompt")
    lines += ["", "| seconds | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, of_variant in runs.items():
        if name.startswith("live"):
            first = of_variant[0]
            cells = [f"{statistics.median(run[n] for run in of_variant):.3f}" if n in first else "" for n in names]
            lines.append(f"| {VARIANTS[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _heading() -> str:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    level = "AMX bf16" if "amx_bf16" in flags else "AVX-512 bf16" if "avx512_bf16" in flags else "no bf16"
    packages = ("openvino", "openvino-genai", "diffusers", "peft", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{date.today()}, {cpu} ({level}), {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("step", help="measure one UNet step at full size, 512×512, batch 1, bf16")
    measure.add_argument("folder", type=Path)
    measure.add_argument("--rounds", type=int, default=2)
    measure.add_argument("--steps", type=int, default=6)
    measure.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    measure.add_argument("--write", action="store_true", help="append to bench/RESULTS.md")
    child = commands.add_parser("child")
    child.add_argument("folder", type=Path)
    child.add_argument("variant", choices=list(VARIANTS))
    child.add_argument("steps", type=int)
    options = parser.parse_args()
    if options.command == "child":
        _child(options.folder, options.variant, options.steps)
        return
    table = step(options.folder, options.rounds, options.steps, options.variants)
    command = f"python -m bench.run step FOLDER --rounds {options.rounds} --steps {options.steps}"
    text = f"## One UNet step\n\n{_heading()}; `{command}`\n\n{table}\n"
    print(text)
    if options.write:
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write("\n" + text)


if __name__ == "__main__":
    main()
