"""Prompts to what the UNet is conditioned on: tokenizers and text encoders."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import openvino as ov
import openvino_tokenizers  # noqa: F401 - registers the operations that tokenizer graphs are made of
from openvino import opset13 as op

from lorablend.adapters import Blend
from lorablend.engine.graphs import new_model
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.plugs import Plugs, TensorCache
from lorablend.engine.sockets import add_sockets

__all__ = ["Conditioning", "TextEncoders"]


@dataclass(frozen=True)
class Conditioning:
    """hidden: f32 [1, 77, width]; pooled: f32 [1, 1280] (SDXL, else None); cut: the words that did not fit."""

    hidden: np.ndarray
    pooled: np.ndarray | None
    cut: str = ""


class TextEncoders:
    """The tokenizers and text encoders of a model folder, with sockets."""

    def __init__(
        self,
        core: ov.Core,
        model: ModelFolder,
        device: str,
        options: Mapping[str, str],
        socket_type: ov.Type,
        cache: TensorCache,
    ) -> None:
        self._force_zeros = model.force_zeros_for_empty_prompt
        self._xl = model.family == "sdxl"
        names = ["text_encoder", "text_encoder_2"] if self._xl else ["text_encoder"]
        self._encoders = [
            _Encoder(core, model, name, device, options, socket_type, cache, last_layer=not self._xl) for name in names
        ]

    def encode(self, prompt: str | None, blend: Blend) -> Conditioning:
        """The prompt as both encoders see it with the blend plugged in.

        None, an absent negative prompt, gives zeros where the model asks for it (diffusers'
        `force_zeros_for_empty_prompt`), and else the same as an empty string.
        """
        encoded = [encoder.encode(prompt or "", blend) for encoder in self._encoders]
        hidden = np.concatenate([hidden for hidden, _, _ in encoded], axis=-1)
        pooled = encoded[-1][1] if self._xl else None
        if prompt is None and self._force_zeros and pooled is not None:
            return Conditioning(np.zeros_like(hidden), np.zeros_like(pooled))
        return Conditioning(hidden, pooled, max((cut for _, _, cut in encoded), key=len))


class _Encoder:
    """One tokenizer and its text encoder.

    SDXL conditions on the last but one hidden state (before the final layer norm), SD 1.5 on the last one.
    """

    def __init__(
        self,
        core: ov.Core,
        model: ModelFolder,
        component: str,
        device: str,
        options: Mapping[str, str],
        socket_type: ov.Type,
        cache: TensorCache,
        *,
        last_layer: bool,
    ) -> None:
        self.component = component
        tokenizer = model.tokenizers[component.replace("text_encoder", "tokenizer")]
        self._length = tokenizer.max_length
        self._pad = tokenizer.pad_token_id
        self._tokenizer = core.compile_model(tokenizer.xml, "CPU").create_infer_request()
        self._detokenizer_path = tokenizer.xml.with_name("openvino_detokenizer.xml")
        self._core = core

        graph = core.read_model(model.component(component))
        graph.reshape([1, self._length])
        layers = sum(1 for output in graph.outputs if any(n.startswith("hidden_states.") for n in output.get_names()))
        hidden = graph.output("last_hidden_state" if last_layer else f"hidden_states.{layers - 2}")
        results = [_named_result(hidden, "hidden")]
        if any("text_embeds" in output.get_names() for output in graph.outputs):
            results.append(_named_result(graph.output("text_embeds"), "pooled"))
        graph = new_model(results, graph.get_parameters(), component)
        self.sockets = add_sockets(graph, socket_type)
        self._plugs = Plugs(core, component, self.sockets, socket_type, cache)
        self._request = core.compile_model(graph, device, dict(options)).create_infer_request()
        self._pooled = len(results) == 2

    def encode(self, prompt: str, blend: Blend) -> tuple[np.ndarray, np.ndarray | None, str]:
        ids, cut = self._tokenize(prompt)
        for name, tensor in self._plugs.tensors(blend).items():
            self._request.set_tensor(name, tensor)
        self._request.set_tensor("input_ids", ov.Tensor(ids))
        self._request.infer()
        hidden = np.array(self._request.get_tensor("hidden").data, np.float32)
        pooled = np.array(self._request.get_tensor("pooled").data, np.float32) if self._pooled else None
        return hidden, pooled, cut

    def _tokenize(self, prompt: str) -> tuple[np.ndarray, str]:
        """int64 [1, 77], cut as diffusers cuts it: the last place keeps the end token."""
        self._tokenizer.infer({0: np.array([prompt])})
        ids = np.array(self._tokenizer.get_tensor("input_ids").data[0], np.int64)
        cut = ""
        if len(ids) > self._length:
            cut = self._detokenize(ids[self._length - 1 : -1])
            ids = np.append(ids[: self._length - 1], ids[-1])
        padded = np.full((1, self._length), self._pad, np.int64)
        padded[0, : len(ids)] = ids
        return padded, cut

    def _detokenize(self, ids: np.ndarray) -> str:
        if not self._detokenizer_path.exists():
            return f"the last {len(ids)} tokens"
        detokenizer = self._core.compile_model(self._detokenizer_path, "CPU")
        return str(detokenizer([ids[None]])[0][0]).strip()


def _named_result(output: ov.Output, name: str) -> ov.Node:
    # The old result stands between the value and its name.
    source = output.get_node().input_value(0)
    result = op.result(source)
    result.output(0).set_names({name})
    return result
