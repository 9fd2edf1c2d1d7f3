"""Weights in IR files: names, the three forms, NNCF's rounding, and constants that several layers share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from safetensors.numpy import load_file

from lorablend.adapters.errors import ModelError
from lorablend.engine.graph.ir import Ir, rewrite_weights
from lorablend.engine.graph.names import module_path

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
FC1 = "text_model.encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (f"__module.model.{TO_Q}/aten::linear/MatMul", TO_Q),
        (f"__module.{TO_Q}/aten::linear/MatMul", TO_Q),
        ("__module.model.conv_in/aten::_convolution/Convolution", "conv_in"),
        (
            "__module.down_blocks.0.attentions.0.proj_in/aten::_convolution/Convolution",
            "down_blocks.0.attentions.0.proj_in",
        ),
        (f"__module.{FC1}/aten::linear/MatMul", FC1),
        ("__module.encoder.layers.0.mlp.fc1/aten::linear/MatMul", FC1),
        ("__module.text_projection/aten::linear/MatMul", "text_projection"),
        (f"__module.model.{TO_Q}/aten::linear/MatMul/x", None),
        (f"x__module.model.{TO_Q}/aten::linear/MatMul", None),
        (f"__module.model.{TO_Q}/aten::linear/Add", None),
        (f"__module.model.{TO_Q}/aten::matmul/MatMul", None),
        (f"__module.model.{TO_Q}", None),
        ("MatMul_123", None),
        ("", None),
    ],
)
def test_module_path(name: str, path: str | None) -> None:
    assert module_path(name) == path


@pytest.mark.parametrize("component", ["unet", "text_encoder", "text_encoder_2"])
def test_every_parameter_is_found(sdxl_source: Path, sdxl_model: Path, component: str) -> None:
    ir = Ir(sdxl_model / component / "openvino_model.xml")
    tensors = load_file(next((sdxl_source / component).glob("*.safetensors")))
    if component != "unet":  # transformers 5 has dropped "text_model."
        tensors = {key if key.startswith("text_") else f"text_model.{key}": value for key, value in tensors.items()}
    assert ir.shapes.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(ir.read(name), tensor)
        assert ir.shapes[name] == tensor.shape


def test_no_ir(tmp_path: Path) -> None:
    xml = tmp_path / "a.xml"
    xml.write_text("<net>")
    with pytest.raises(ModelError) as caught:
        Ir(xml)
    assert (
        str(caught.value) == f"{xml} is not an OpenVINO IR: no element found: line 1, column 5; convert the model again"
    )


# --- hand-made graphs ---


def _linear(x: ov.Output, weight: ov.Node, path: str) -> ov.Node:
    node = op.matmul(x, weight, False, True)
    node.set_friendly_name(f"__module.{path}/aten::linear/MatMul")
    return node


def _save(xml: Path, layers: dict[str, Any], x: Any, *, form: str = "f32") -> Path:
    results = [op.result(_linear(x.output(0), weight, path)) for path, weight in layers.items()]
    model = ov.Model(results, [x], "model")  # pyright: ignore[reportGeneralTypeIssues]
    if form.startswith("int8"):
        import nncf

        model = nncf.compress_weights(model, mode=getattr(nncf.CompressWeightsMode, form.upper()))
    ov.save_model(model, xml, compress_to_fp16=form == "f16")
    return xml


def _input(width: int = 8) -> ov.Node:
    return op.parameter(ov.PartialShape([-1, width]), ov.Type.f32, name="x")


def _outputs(xml: Path, x: np.ndarray) -> list[np.ndarray]:
    compiled = ov.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled([x]).values()]


@pytest.mark.parametrize("form", ["int8_sym", "int8_asym"])
@pytest.mark.parametrize("offset", [0.0, 0.3, -5.0])
def test_as_nncf_would_store_it(tmp_path: Path, form: str, offset: float) -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(0, 1, (2, 32, 16)).astype(np.float32)
    new += np.float32(offset)
    new[3] = 0  # a row without a range
    expected = Ir(_save(tmp_path / "new.xml", {"a": op.constant(new)}, _input(16), form=form))
    source = _save(tmp_path / "old.xml", {"a": op.constant(old)}, _input(16), form=form)
    assert Ir(source).weight("a.weight").kind == form
    rewrite_weights(source, tmp_path / "out.xml", {"a.weight": lambda _: new})
    assert (tmp_path / "out.bin").read_bytes() == (tmp_path / "new.bin").read_bytes()
    assert np.abs(expected.read("a.weight") - new).max() < 0.06


def test_8_bits_unchanged_stay_the_same_bytes(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (64, 48)).astype(np.float32)
    for form in ("int8_sym", "int8_asym"):
        source = _save(tmp_path / f"{form}.xml", {"a": op.constant(weight)}, _input(48), form=form)
        rewrite_weights(source, tmp_path / "out.xml", {"a.weight": lambda old: old})
        assert (tmp_path / "out.bin").read_bytes() == source.with_suffix(".bin").read_bytes()


def test_bf16_rounds_to_nearest(tmp_path: Path) -> None:
    import torch

    stored = op.constant(np.zeros((4, 8), np.float32), ov.Type.bf16)
    source = _save(tmp_path / "a.xml", {"a": op.convert(stored, ov.Type.f32)}, _input())
    new = np.random.default_rng(0).normal(0, 1, (4, 8)).astype(np.float32)
    new[0, :2] = 1 + 2**-8, 1 + 3 * 2**-8  # ties, which round to even
    rewrite_weights(source, tmp_path / "out.xml", {"a.weight": lambda _: new})
    written = Ir(tmp_path / "out.xml")
    assert written.weight("a.weight").values.element_type == "bf16"
    np.testing.assert_array_equal(written.read("a.weight"), torch.from_numpy(new).to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("form", ["f32", "f16", "int8_sym", "int8_asym"])
def test_equal_constants_stored_once(tmp_path: Path, form: str) -> None:
    """Three layers whose weights share the same bytes: each can change alone."""
    weight = np.random.default_rng(0).normal(0, 1, (4, 8)).astype(np.float32)
    layers = {path: op.constant(weight) for path in ("a", "b", "c")}
    source = _save(tmp_path / "source.xml", layers, _input(), form=form)
    offsets = Counter(constant.offset for constant in Ir(source).constants())
    assert offsets[Ir(source).weight("a.weight").values.offset] == 3
    _change_a_and_b(source, tmp_path / "out.xml")


@pytest.mark.parametrize("form", ["f32", "f16", "int8_asym"])
def test_one_constant_of_many_layers(tmp_path: Path, form: str) -> None:
    shared = op.constant(np.random.default_rng(0).normal(0, 1, (4, 8)).astype(np.float32))
    source = _save(tmp_path / "source.xml", dict.fromkeys("abc", shared), _input(), form=form)
    _change_a_and_b(source, tmp_path / "out.xml")


def _change_a_and_b(source: Path, out: Path) -> None:
    before = {path: Ir(source).read(f"{path}.weight") for path in "abc"}
    rewrite_weights(source, out, {"a.weight": lambda w: w + 1, "b.weight": lambda w: w * 2})
    expected = [before["a"] + 1, before["b"] * 2, before["c"]]
    for path, weight in zip("abc", expected, strict=True):
        np.testing.assert_allclose(Ir(out).read(f"{path}.weight"), weight, atol=0.02)
    np.testing.assert_array_equal(Ir(out).read("c.weight"), before["c"])
    for output, path in zip(_outputs(out, np.eye(8, dtype=np.float32)), "abc", strict=True):
        np.testing.assert_allclose(output.T, Ir(out).read(f"{path}.weight"), atol=5e-3)
    size = source.with_suffix(".bin").stat().st_size
    old, new = source.with_suffix(".bin").read_bytes(), out.with_suffix(".bin").read_bytes()[:size]
    assert sum(a != b for a, b in zip(old, new, strict=True)) <= 4 * 8 * 4, (
        "only one weight's bytes may change in place"
    )


def test_too_large_for_f16(tmp_path: Path) -> None:
    source = _save(tmp_path / "a.xml", {"a": op.constant(np.ones((4, 8), np.float32))}, _input(), form="f16")
    with pytest.raises(ModelError) as caught:
        rewrite_weights(source, tmp_path / "out.xml", {"a.weight": lambda w: w * 1e5})
    assert str(caught.value) == (
        "the changed a.weight does not fit f16 (largest value 1e+05); lower the blend's weights"
    )


def test_a_form_that_is_not_known(tmp_path: Path) -> None:
    weight = op.constant(np.ones((4, 8), np.float32))
    source = _save(tmp_path / "a.xml", {"a": op.add(weight, weight)}, _input())
    with pytest.raises(ModelError) as caught:
        Ir(source).weight("a.weight")
    assert str(caught.value) == (
        f"{source}: a.weight is stored in a form that cannot be changed; "
        "convert the model with fp32, fp16 or int8 weights"
    )


def test_a_bin_file_that_ends_too_early(tmp_path: Path) -> None:
    source = _save(tmp_path / "a.xml", {"a": op.constant(np.arange(32, dtype=np.float32).reshape(4, 8))}, _input())
    (tmp_path / "a.bin").write_bytes(b"1234")
    with pytest.raises(ModelError) as caught:
        Ir(source).read("a.weight")
    assert str(caught.value) == (
        f"{tmp_path / 'a.bin'} ends at byte 4, inside a weight that ends at byte 128; convert the model again"
    )
