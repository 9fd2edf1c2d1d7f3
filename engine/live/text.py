"""Tokenizers and text encoders: from prompts to what the UNet is conditioned on."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.adapters import BlendItem
from lorablend.adapters.errors import BlendError
from lorablend.adapters.wording import shown
from lorablend.engine.graph.clip_tokenizer import ClipTokenizer
from lorablend.engine.graph.operations import new_model, replace_after
from lorablend.engine.graph.sockets import add_sockets
from lorablend.engine.live.compiler import Compiler
from lorablend.engine.live.plugs import Plugs
from lorablend.engine.model_folder import ModelFolder
from lorablend.engine.prompt.chunks import Chunk, Group, Token, make_chunks
from lorablend.engine.prompt.weights import read_weights

__all__ = ["Conditioning", "TextEncoders", "changes_text", "split_at_names"]

_T = TypeVar("_T")

_EMBEDDING_PATH = "text_model.embeddings.token_embedding"
_TOKEN_EMBEDDING = "token_embedding/aten::embedding/Gather"
_PLACEHOLDER = 0  # any token that does not end a prompt; a vector replaces it


@dataclass(frozen=True)
class Conditioning:
    """An encoded prompt.

    Attributes:
        hidden: f32 [1, 77 · chunks, width].
        pooled: f32 [1, 1280] in SDXL, otherwise None.
    """

    hidden: np.ndarray
    pooled: np.ndarray | None


class TextEncoders:
    """The tokenizers and text encoders of a model folder, with sockets."""

    def __init__(
        self,
        compiler: Compiler,
        model: ModelFolder,
        graphs: Mapping[str, Path],
        read_weight: Callable[[str, str], np.ndarray],
        gates: bool,
        baked: Collection[tuple[str, str]],
    ) -> None:
        """Compile the text encoders.

        Args:
            compiler: The device.
            model: The model folder.
            graphs: Component -> the .xml to compile, which may have baked weights.
            read_weight: (component, module path) -> the base weight, see `Plugs`.
            gates: Whether sockets have gates.
            baked: The (component, module path) of each module whose changes are all baked, see `Plugs`.
        """
        self.gates = gates
        self._force_zeros = model.force_zeros_for_empty_prompt
        self._xl = model.family == "sdxl"
        self._encoders = [
            _Encoder(
                compiler,
                model,
                name,
                xml,
                partial(read_weight, name),
                gates=gates,
                baked=[path for component, path in baked if component == name],
            )
            for name, xml in graphs.items()
        ]

    def encode(self, prompt: str | None, items: Sequence[BlendItem], rule: str) -> Conditioning:
        """Encode a prompt with the adapters plugged into all text encoders.

        An absent negative prompt, None, gives zeros if the model's settings say so (diffusers'
        `force_zeros_for_empty_prompt`), and otherwise the same as an empty string.

        Args:
            prompt: The prompt, see `prompt.weights`.
            items: The adapters.
            rule: How weights of words are read and act, see `_weighted`.
        """
        chunks = self.chunks(prompt, items, rule)
        encoded = [encoder.encode(own, items, rule) for encoder, own in zip(self._encoders, chunks, strict=True)]
        hidden = np.concatenate([hidden for hidden, _ in encoded], axis=-1)
        pooled = encoded[-1][1] if self._xl else None
        if prompt is None and self._force_zeros and pooled is not None:
            return Conditioning(np.zeros_like(hidden), np.zeros_like(pooled))
        return Conditioning(hidden, pooled)

    def chunks(self, prompt: str | None, items: Sequence[BlendItem], rule: str) -> list[list[Chunk]]:
        """The chunks for each encoder, as many for one as for the other.

        Vectors of textual inversions may fill a chunk of one encoder only; the other gets an empty one.
        """
        chunks = [encoder.chunks(prompt or "", items, rule) for encoder in self._encoders]
        most = max(map(len, chunks))
        return [own + [[]] * (most - len(own)) for own in chunks]


class _Encoder:
    """One tokenizer and its text encoder.

    SDXL conditions on the last hidden state but one (before the final layer norm), SD 1.5 on the last one.
    """

    def __init__(
        self,
        compiler: Compiler,
        model: ModelFolder,
        component: str,
        xml: Path,
        read_weight: Callable[[str], np.ndarray],
        *,
        gates: bool,
        baked: Collection[str],
    ) -> None:
        self.component = component
        core = compiler.core
        tokenizer = model.tokenizers[component.replace("text_encoder", "tokenizer")]
        self._length = tokenizer.max_length
        self._pad = tokenizer.pad_token_id
        self._tokenizer = ClipTokenizer(tokenizer.xml)
        self._begin, self._comma, self._end = self._tokenizer.ids(",").tolist()

        graph = core.read_model(xml)
        graph.reshape([1, self._length])
        layers = sum(1 for output in graph.outputs if any(n.startswith("hidden_states.") for n in output.get_names()))
        hidden = graph.output(f"hidden_states.{layers - 2}" if model.family == "sdxl" else "last_hidden_state")
        results = [_named_result(hidden, "hidden")]
        if any("text_embeds" in output.get_names() for output in graph.outputs):
            results.append(_named_result(graph.output("text_embeds"), "pooled"))
        graph = new_model(results, graph.get_parameters(), component)
        self._width = _take_embeddings(graph)
        self.sockets = add_sockets(graph, compiler.socket_type, gates=gates)
        self._plugs = Plugs(compiler, component, self.sockets, read_weight, baked)
        self._request = compiler.compile(graph)
        self._pooled = len(results) == 2

    def chunks(self, prompt: str, items: Sequence[BlendItem], rule: str) -> list[Chunk]:
        """The tokens of a prompt; the names of textual inversions (arXiv:2208.01618) become their vectors."""
        names = _words(items, self.component)
        sections = [
            [group for part in section for group in self._groups(part.text, part.weight, names)]
            for section in read_weights(prompt, rule)
        ]
        return make_chunks(sections, self._length - 2, self._comma, rule)

    def _groups(self, text: str, weight: float, names: Mapping[str, np.ndarray]) -> Iterator[Group]:
        for part in split_at_names(text, names):
            if isinstance(part, str):
                yield [Token(int(number), weight) for number in self._tokenizer.ids(part)[1:-1]]
            else:
                yield [Token(_PLACEHOLDER, weight, vector) for vector in part]

    def encode(
        self, chunks: Sequence[Chunk], items: Sequence[BlendItem], rule: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The hidden states of all chunks, f32 [1, 77 · chunks, width], and the pooled output of the first.

        SDXL's pooled output has no weights of words, in A1111 and ComfyUI alike.
        """
        for name, tensor in self._plugs.tensors(items).items():
            self._request.set_tensor(name, tensor)
        encoded = [self._encode(chunk) for chunk in chunks]
        weights = [np.ones((1, self._length, 1), np.float32) for _ in chunks]
        for chunk, of_chunk in zip(chunks, weights, strict=True):
            of_chunk[0, 1 : 1 + len(chunk), 0] = [token.weight for token in chunk]
        hidden = [states for states, _ in encoded]
        if any((of_chunk != 1).any() for of_chunk in weights):
            empty = self._encode([])[0] if rule == "comfy" else None
            hidden = [_weighted(states, of_chunk, empty) for states, of_chunk in zip(hidden, weights, strict=True)]
        return np.concatenate(hidden, axis=1), encoded[0][1]

    def _encode(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None]:
        ids = np.full((1, self._length), self._pad, np.int64)
        ids[0, : len(chunk) + 2] = [self._begin, *(token.number for token in chunk), self._end]
        own = np.zeros((1, self._length, 1), bool)
        given = np.zeros((1, self._length, self._width), np.float32)
        for place, token in enumerate(chunk, start=1):
            if token.vector is not None:
                own[0, place], given[0, place] = True, token.vector
        for name, array in (("input_ids", ids), ("embedded", own), ("embeddings", given)):
            self._request.set_tensor(name, ov.Tensor(array))
        self._request.infer()
        hidden = np.array(self._request.get_tensor("hidden").data, np.float32)
        pooled = np.array(self._request.get_tensor("pooled").data, np.float32) if self._pooled else None
        return hidden, pooled


def _weighted(hidden: np.ndarray, weights: np.ndarray, empty: np.ndarray | None) -> np.ndarray:
    """Hidden states of one chunk, f32 [1, 77, width], with weights of words, f32 [1, 77, 1].

    A1111 multiplies, and restores the mean of all (modules/sd_emphasis.py, EmphasisOriginal). ComfyUI moves away from
    the hidden states of an empty prompt, `empty` (comfy/sd1_clip.py, encode_token_weights).
    """
    if empty is not None:
        return np.where(weights == 1, hidden, empty + (hidden - empty) * weights)
    changed = hidden * weights
    return changed * (hidden.mean() / changed.mean())


def changes_text(item: BlendItem) -> bool:
    """Whether an item changes how the text encoders encode a prompt."""
    adapter = item.adapter
    words = ((component, _EMBEDDING_PATH) for vectors in adapter.embeddings.values() for component in vectors)
    modules = (key for key in (*adapter.deltas, *adapter.biases) if key[0] != "unet")
    return any(item.weight_of(*key) for key in (*words, *modules))


def _words(items: Sequence[BlendItem], component: str) -> dict[str, np.ndarray]:
    """The vectors of the items' own words for one text encoder.

    Raises:
        BlendError: two items bring the same word with different vectors.
    """
    words: dict[str, np.ndarray] = {}
    first: dict[str, tuple[str, np.ndarray]] = {}
    for item in items:
        if not item.weight_of(component, _EMBEDDING_PATH):
            continue
        for word, of_component in item.adapter.embeddings.items():
            if component in of_component:
                words[word] = vectors = of_component[component]
                name, others = first.setdefault(word.casefold(), (item.adapter.name, vectors))
                if not np.array_equal(vectors, others):
                    raise BlendError(
                        f'{name} and {item.adapter.name} both bring the word "{shown(word)}"; leave one of them out, '
                        "or set its weight for the text encoders to 0"
                    )
    return words


def _named_result(output: ov.Output, name: str) -> ov.Node:
    # The value is behind the old result, which has its name.
    source = output.get_node().input_value(0)
    result = op.result(source)
    result.output(0).set_names({name})
    return result


def _take_embeddings(graph: ov.Model) -> int:
    """Let vectors replace the tokens' own wherever the new input "embedded" is true; return their width."""
    gather = next(n for n in graph.get_ordered_ops() if _TOKEN_EMBEDDING in n.get_friendly_name())
    out = gather.output(0)
    length, width = (d.get_length() for d in list(out.get_partial_shape())[1:])
    embedded = op.parameter([1, length, 1], ov.Type.boolean, name="embedded")
    embeddings = op.parameter([1, length, width], ov.Type.f32, name="embeddings")
    for parameter in (embedded, embeddings):
        parameter.output(0).set_names({parameter.get_friendly_name()})
    replace_after(out, lambda: op.select(embedded, embeddings, out).output(0))
    graph.add_parameters([embedded, embeddings])
    return width


def split_at_names(text: str, names: Mapping[str, _T]) -> list[str | _T]:
    """Split a text at every name, and replace the names by their values.

    A name is a whole word in any letter case, plain or written <name> (diffusers) or embedding:name (ComfyUI).
    """
    if not names:
        return [text]

    def value_of(word: str) -> _T:  # the rule that matched the word: to it "ı" is "i", unlike to str.casefold
        return next(value for name, value in names.items() if re.fullmatch(re.escape(name), word, re.IGNORECASE))

    any_name = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    parts = re.split(rf"<({any_name})>|(?:\bembedding:)?(?<!\w)({any_name})(?!\w)", text, flags=re.IGNORECASE)
    pieces: list[str | _T] = []
    for i in range(0, len(parts), 3):
        pieces.append(parts[i])
        if i + 1 < len(parts):
            pieces.append(value_of(parts[i + 1] or parts[i + 2]))
    return [piece for piece in pieces if not isinstance(piece, str) or piece] or [""]
