"""Sockets of the SDXL-shaped UNet: a graph with deltas plugged in equals a graph with them in its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from lorablend.adapters import Blend, BlendItem, load_adapter
from lorablend.adapters.errors import ModelError
from lorablend.engine import Pipeline
from lorablend.engine.graph.operations import new_model
from lorablend.engine.graph.sockets import add_sockets
from lorablend.engine.graph.split_context import split_context
from lorablend.engine.graph.stacker import Stacker
from lorablend.engine.graph.steering import Steering
from lorablend.engine.live.compiler import Compiler
from lorablend.engine.live.runtime import LiveRuntime
from lorablend.engine.live.tensor_cache import TensorCache
from lorablend.engine.live.text import Conditioning
from lorablend.engine.live.unet import GraphVariant, Unet, make_static
from lorablend.engine.model_folder import ModelFolder


def _read(folder: Path) -> ov.Model:
    model = ModelFolder(folder)
    graph = ov.Core().read_model(model.component("unet"))
    make_static(graph, model, (64, 64))
    return graph


def test_every_linear_layer_and_convolution_has_one(sdxl_model: Path, sd15_model: Path) -> None:
    for folder in (sdxl_model, sd15_model):
        graph = _read(folder)
        nodes = [n for n in graph.get_ordered_ops() if n.get_type_name() in ("MatMul", "Convolution")]
        constant = [n for n in nodes if n.input_value(1).get_node().get_type_name() == "Constant"]
        sockets = add_sockets(graph, ov.Type.f32)
        assert len(sockets) == len(constant)
        assert "down_blocks.1.attentions.0.proj_in" in sockets  # linear in SDXL, a 1×1 convolution in SD 1.5
        assert sockets["down_blocks.0.downsamplers.0.conv"].taps == 9
        halves = [socket for socket in sockets.values() if len(socket.ups) == 2]
        assert all(socket.path.endswith("ff.net.0.proj") for socket in halves)
        assert len(halves) == sum(path.endswith("ff.net.0.proj") for path in sockets)


def test_8_bit_weights_have_them_too(sdxl_forms: Mapping[str, Path]) -> None:
    sockets = [add_sockets(_read(sdxl_forms[form]), ov.Type.f32) for form in ("fp32", "int8_sym", "int8_asym")]
    assert sockets[0] == sockets[1] == sockets[2]


SAMPLE = np.random.default_rng(0).standard_normal((1, 4, 8, 8), np.float32)


@pytest.fixture(scope="module")
def conditioning() -> Conditioning:
    rng = np.random.default_rng(1)
    return Conditioning(rng.standard_normal((1, 77, 96), np.float32), rng.standard_normal((1, 64), np.float32))


@pytest.fixture(scope="module")
def bare(sdxl_model: Path, conditioning: Conditioning) -> np.ndarray:
    """The prediction of the graph without sockets."""
    compiled = ov.Core().compile_model(_read(sdxl_model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = {
        "sample": SAMPLE,
        "timestep": np.array([500], np.float32),
        "encoder_hidden_states": conditioning.hidden,
        "text_embeds": conditioning.pooled,
        "time_ids": np.array([[64, 64, 0, 0, 64, 64]], np.float32),
    }
    return compiled(inputs)[0]


@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("steered", [False, True])
def test_rank_zero_changes_nothing(
    sdxl_model: Path, conditioning: Conditioning, bare: np.ndarray, gates: bool, steered: bool
) -> None:
    """An empty blend equals the bare graph, with all kinds of sockets."""
    unet = _unet(sdxl_model, GraphVariant(gates=gates, steered=steered))
    unet.plug([])
    actual = unet(SAMPLE, 500.0, unet.prompt(conditioning))
    assert np.abs(actual - bare).max() < 1e-5 * np.abs(bare).max()  # f32, fused in another order


def test_what_depends_on_the_prompt_alone_is_cut_out(sdxl_model: Path) -> None:
    graph = _read(sdxl_model)
    sockets = add_sockets(graph, ov.Type.f32)
    main, context, names = split_context(graph, ov.Type.f32)
    cross = [path for path in sockets if path.endswith(("attn2.to_k", "attn2.to_v"))]
    assert len(names) == len(cross)
    context_inputs = {port.get_any_name() for port in context.inputs}
    main_inputs = {port.get_any_name() for port in main.inputs}
    plugs = {name for path in cross for name in (sockets[path].down, *sockets[path].ups)}
    assert context_inputs == {"encoder_hidden_states"} | plugs
    assert "encoder_hidden_states" not in main_inputs
    assert not main_inputs & context_inputs


def test_an_attention_in_pieces_cannot_be_steered() -> None:
    latent, prompt = op.parameter([1, 4, 8], name="sample"), op.parameter([1, 77, 8], name="encoder_hidden_states")
    scores = op.matmul(latent, prompt, False, True, name="scores")
    with pytest.raises(ModelError) as caught:
        split_context(new_model([op.result(scores)], [latent, prompt], "unet"), ov.Type.f32, Steering({4: (2, 2)}))
    assert str(caught.value) == (
        "the UNet's scores is one step of an attention, but masks and ramps need an attention in one operation; "
        "export the model again with `lorablend convert`"
    )


@pytest.fixture(scope="module")
def unet(sdxl_model: Path) -> Unet:
    return _unet(sdxl_model, GraphVariant())


def _unet(folder: Path, variant: GraphVariant) -> Unet:
    model = ModelFolder(folder)
    compiler = Compiler(ov.Core(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}, ov.Type.f32, TensorCache(1 << 28))
    return Unet(compiler, model, (64, 64), lambda path: model.graphs["unet"].read(f"{path}.weight"), variant)


def _ask(unet: Unet, blend: Blend, request: int = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    unet.plug(blend.items, request=request)
    prompted = unet.prompt(
        Conditioning(rng.standard_normal((1, 77, 96), np.float32), rng.standard_normal((1, 64), np.float32))
    )
    return unet(rng.standard_normal((1, 4, 8, 8), np.float32), 500.0, prompted)


def test_undone_is_as_before(unet: Unet, lora_dir: Path) -> None:
    before = _ask(unet, Blend())
    adapter = load_adapter(lora_dir / "kohya.safetensors")
    changed = _ask(unet, Blend((BlendItem(adapter, 1.0),)))
    assert np.abs(changed - before).max() > 1e-2
    assert np.array_equal(_ask(unet, Blend()), before)
    assert np.array_equal(_ask(unet, Blend((BlendItem(adapter, 1.0),))), changed)


def test_requests_keep_what_is_plugged_into_them(unet: Unet, lora_dir: Path) -> None:
    one, other = (Blend((BlendItem(load_adapter(lora_dir / "kohya.safetensors"), weight),)) for weight in (1.0, -0.5))
    expected = [_ask(unet, one), _ask(unet, other)]
    unet.reserve(2)
    for request, blend in ((0, one), (1, other), (0, one), (1, other)):
        assert np.array_equal(_ask(unet, blend, request), expected[request])
    unet.reserve(1)
    assert np.array_equal(_ask(unet, other), expected[1])


@pytest.mark.parametrize("kind", [ov.Type.f32, ov.Type.f16])
def test_stacker_folds_weights_and_concatenates(kind: ov.Type) -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((6, 3), np.float32).astype(kind.to_dtype())
    other = rng.standard_normal((6, 2), np.float32).astype(kind.to_dtype())
    one.flags.writeable = False  # like a mapped file's
    stacker = Stacker(ov.Core(), ov.Type.f32)
    expected = np.concatenate([one.astype(np.float32) * np.float32(0.3), other.astype(np.float32) * -2], axis=1)
    assert np.array_equal(stacker([(one, 0.3), (other, -2.0)], 1).data, expected)


def test_stacker_rounds_to_the_nearest_bf16() -> None:
    """Compared with torch's rounding bit by bit; truncation would differ in half of the numbers."""
    import torch

    values = np.random.default_rng(0).standard_normal((5, 7000), np.float32)
    tensor = Stacker(ov.Core(), ov.Type.bf16)([(values, 1.0)], 0)
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
    assert np.array_equal(tensor.data.view(np.int16).reshape(values.shape), expected)


@pytest.mark.parametrize("precision", [None, "f32", "bf16"])
def test_sockets_take_what_the_graph_computes_in(sdxl_model: Path, tmp_path: Path, precision: str | None) -> None:
    """Otherwise the plugin would convert every factor in every step."""
    pipeline = Pipeline(sdxl_model, precision=precision, cache_dir=tmp_path)
    pipeline.generate("", steps=1)
    runtime = pipeline._runtime  # pyright: ignore[reportPrivateUsage]
    assert isinstance(runtime, LiveRuntime)
    assert runtime._unet is not None  # pyright: ignore[reportPrivateUsage]
    unet = runtime._unet[1]  # pyright: ignore[reportPrivateUsage]
    compiled = unet._request.main.get_compiled_model()  # pyright: ignore[reportPrivateUsage]
    computed = compiled.get_property("INFERENCE_PRECISION_HINT")
    assert precision != "f32" or computed == ov.Type.f32
    assert {port.get_element_type() for port in compiled.inputs if port.get_any_name().endswith(".down")} == {computed}


def test_tensor_cache_keeps_within_its_budget() -> None:
    cache = TensorCache(100)
    tensors = [{"x": ov.Tensor(ov.Type.f32, ov.Shape([15]))} for _ in range(3)]  # 60 bytes each
    for i, tensor in enumerate(tensors):
        cache.put(i, tensor, 60, alive=None)
    assert [cache.get(i) is not None for i in range(3)] == [False, False, True]
