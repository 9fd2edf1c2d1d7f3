"""The UNet with sockets, compiled for one picture size."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import openvino as ov
from openvino import opset13 as op

from lorablend.adapters import BlendItem
from lorablend.adapters.errors import ModelError
from lorablend.engine.graph.sockets import add_sockets
from lorablend.engine.graph.split_context import split_context
from lorablend.engine.graph.steering import Size, Steering
from lorablend.engine.live.compiler import Compiler
from lorablend.engine.live.plugs import Plugs
from lorablend.engine.live.text import Conditioning
from lorablend.engine.model_folder import ModelFolder

__all__ = ["GraphVariant", "Prompted", "Unet", "make_static"]

_MOST_REQUESTS = 16
_INPUTS = {"sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids"}


Prompted: TypeAlias = Mapping[str, ov.Tensor]
"""The UNet's inputs other than the latent and the timestep, made once per picture: tensor name -> tensor."""


@dataclass(frozen=True)
class GraphVariant:
    """The options that a graph is compiled with. Few blends need them, and each costs time in every step.

    Attributes:
        gates: Sockets have gates, for DoRA and IA3.
        steered: Adapters have weights for each place, for masks and ramps.
    """

    gates: bool = False
    steered: bool = False

    def covers(self, other: "GraphVariant") -> bool:
        return self.gates >= other.gates and self.steered >= other.steered

    def __or__(self, other: "GraphVariant") -> "GraphVariant":
        return GraphVariant(self.gates or other.gates, self.steered or other.steered)


class _Request:
    """An inference request for each of the UNet's two graphs, and the tensors bound to them."""

    def __init__(self, main: ov.InferRequest, context: ov.InferRequest) -> None:
        self.main, self.context = main, context
        self.bound: Mapping[str, ov.Tensor] = {}

    def another(self) -> "_Request":
        main, context = self.main.get_compiled_model(), self.context.get_compiled_model()
        return _Request(main.create_infer_request(), context.create_infer_request())


class Unet:
    """A UNet with static shapes and batch 1.

    Guidance takes two calls. So turning it on or off, or drawing more pictures, needs no compilation, and a picture
    does not depend on its neighbours in the batch.

    Attributes:
        size: (width, height) in pixels.
        variant: The options that it was compiled with.
        sockets: Its sockets, by module path.
        passed: The names of the tensors that pass from the prompt's graph to the main one.
        steer_sizes: Steering input -> the feature map's size (height, width), or None; see `steer`.
        region_sizes: Region input -> the feature map's size; see `steer`.
        placeless: In a steered graph, the module paths of layers that act everywhere.
    """

    def __init__(
        self,
        compiler: Compiler,
        model: ModelFolder,
        size: tuple[int, int],
        read_weight: Callable[[str], np.ndarray],
        variant: GraphVariant,
        baked: Collection[str] = (),
    ) -> None:
        """Compile the UNet of a model folder.

        Args:
            compiler: The device.
            model: The folder, which may have baked weights.
            size: (width, height) in pixels.
            read_weight: Module path -> the base weight in f32, see `Plugs`.
            variant: The options to compile it with.
            baked: The modules whose changes are all baked, see `Plugs`.

        Raises:
            ModelError: the UNet is of another kind.
        """
        self.size = size
        self.variant = variant
        graph = compiler.core.read_model(model.component("unet"))
        _check(graph, model)
        make_static(graph, model, size)
        steering = Steering.of(graph) if variant.steered else None
        self.sockets = add_sockets(graph, compiler.socket_type, gates=variant.gates, steering=steering)
        main, context, self.passed = split_context(graph, compiler.socket_type, steering)
        _open_length(main, context, self.passed, model)
        self.steer_sizes: dict[str, Size | None] = {} if steering is None else dict(steering.inputs)
        self.region_sizes: dict[str, Size] = {} if steering is None else dict(steering.regions)
        self.placeless = frozenset[str]() if steering is None else frozenset(steering.placeless)
        self._plugs = Plugs(compiler, "unet", self.sockets, read_weight, baked)
        self._request = _Request(compiler.compile(main), compiler.compile(context))
        self._requests = [self._request]
        self._main_inputs = {port.get_any_name() for port in self._request.main.get_compiled_model().inputs}
        self.steer({})

    @property
    def errors(self) -> Mapping[str, float]:
        """What `max_rank` cost in the blend that is plugged in, see `Plugs.tensors`."""
        return self._plugs.errors

    def reserve(self, count: int) -> None:
        """Have `count` requests for blends that take turns, but not more than the limit, and drop all others."""
        del self._requests[count:]
        self._request = self._requests[0]
        while len(self._requests) < min(count, _MOST_REQUESTS):
            self._requests.append(self._request.another())

    def plug(self, items: Sequence[BlendItem], columns: Sequence[int] | None = None, request: int = 0) -> None:
        """Bind the items' tensors. Nothing is compiled, and inputs whose tensor stays the same are left alone.

        Args:
            items: The adapters that act, with their weights.
            columns: In a steered graph, the column of each item, see `steer`; 0 for all if not given.
            request: The reserved request to use from now on. Binding some 2,000 tensors takes 2 % of a step at full
                size; going back to a request that has them bound takes no time.
        """
        self._request = self._requests[request % len(self._requests)]
        tensors = self._plugs.tensors(items, columns)
        for name, tensor in tensors.items():
            if self._request.bound.get(name) is not tensor:
                part = self._request.main if name in self._main_inputs else self._request.context
                part.set_tensor(name, tensor)
        self._request.bound = tensors

    def steer(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Set the weight of each column at each place, and of each region in cross-attention, in the current request.

        Args:
            inputs: f32 arrays: [columns, height or 1, width or 1] for the names in `steer_sizes`, and
                [regions, places or 1] for those in `region_sizes`. A missing name is 1 everywhere, for one column or
                region.
        """
        for name in self.steer_sizes:
            self._request.main.set_tensor(name, self._as_socket(inputs.get(name, np.ones((1, 1, 1), np.float32))))
        for name in self.region_sizes:
            self._request.main.set_tensor(name, self._as_socket(inputs.get(name, np.ones((1, 1), np.float32))))

    def _as_socket(self, array: np.ndarray) -> ov.Tensor:
        return self._plugs.rounded(array)

    def prompt(self, conditioning: Conditioning) -> dict[str, ov.Tensor]:
        """Run the graph that depends only on the prompt. The result is for the blend that is plugged in now."""
        self._request.context.set_tensor("encoder_hidden_states", ov.Tensor(conditioning.hidden))
        outputs = {}
        for name in self.passed:
            port = self._request.context.get_compiled_model().output(name)
            shape = [d.get_length() if d.is_static else conditioning.hidden.shape[1] for d in port.get_partial_shape()]
            outputs[name] = ov.Tensor(port.get_element_type(), ov.Shape(shape))
            self._request.context.set_tensor(name, outputs[name])
        self._request.context.infer()
        if conditioning.pooled is not None:
            width, height = self.size
            # SDXL's micro-conditioning (arXiv:2307.01952, section 2.2): original size, crop corner and target size,
            # each as (height, width).
            outputs["text_embeds"] = ov.Tensor(conditioning.pooled)
            outputs["time_ids"] = ov.Tensor(np.array([[height, width, 0, 0, height, width]], np.float32))
        return outputs

    def __call__(self, sample: np.ndarray, timestep: float, prompted: Prompted) -> np.ndarray:
        """Predict from a latent of unit variance, f32 [1, 4, height/8, width/8]; the prediction has the same shape."""
        for name, tensor in prompted.items():
            self._request.main.set_tensor(name, tensor)
        self._request.main.set_tensor("sample", ov.Tensor(sample))
        self._request.main.set_tensor("timestep", ov.Tensor(np.array([timestep], np.float32)))
        self._request.main.infer()
        return np.array(self._request.main.get_output_tensor(0).data, np.float32)


def _check(graph: ov.Model, model: ModelFolder) -> None:
    names = {port.get_any_name() for port in graph.inputs}
    if unknown := sorted(names - _INPUTS):
        raise ModelError(
            f"the UNet of {model.path} has the input {unknown[0]}, which the live runtime does not know; "
            "use runtime=genai"
        )
    if model.in_channels != model.latent_channels:
        raise ModelError(
            f"the UNet of {model.path} takes {model.in_channels} channels, but its VAE has {model.latent_channels}, as "
            "in an inpainting model; use the plain model, which takes masks too, or runtime=genai"
        )


def make_static(graph: ov.Model, model: ModelFolder, size: tuple[int, int]) -> None:
    """Make every shape static, and let timesteps be fractions, as the karras and exponential spacings need them."""
    cell = model.vae_scale_factor
    shapes: dict[str, list[int]] = {}
    for port in graph.inputs:
        name, shape = port.get_any_name(), port.get_partial_shape()
        if name == "timestep":
            port.get_node().set_element_type(ov.Type.f32)
            shapes[name] = [1] if shape.rank.get_length() else []
        elif name == "sample":
            shapes[name] = [1, model.in_channels, size[1] // cell, size[0] // cell]
        else:
            shapes[name] = [1, *(_length(model, name, i, d) for i, d in enumerate(shape) if i)]
    graph.reshape(shapes)
    # Shapes computed in the graph become constants, so that cross-attention's reshapes can move with to_k and to_v.
    # (OpenVINO's ConstantFolding would do this too, but would also unpack all fp16 weights to f32.)
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "ShapeOf" and node.input_value(0).get_partial_shape().is_static:
            shape = np.array(list(node.input_value(0).get_shape()), node.get_output_element_type(0).to_dtype())
            ov.utils.replace_node(node, op.constant(shape))
    graph.validate_nodes_and_infer_types()


def _open_length(main: ov.Model, context: ov.Model, passed: Sequence[str], model: ModelFolder) -> None:
    """Let keys and values, and the prompt that they are made of, have any number of chunks of 77 places.

    It costs nothing per step that can be measured (demo, 10 steps: 1.014 of a static graph's time in f32, 0.988 in
    bf16), and with one graph for all prompts, a picture does not depend on the length of those before it.
    """
    length = model.tokenizers["tokenizer"].max_length
    for graph, names in ((main, passed), (context, ("encoder_hidden_states",))):
        shapes = {name: graph.input(name).get_partial_shape() for name in names}
        graph.reshape(
            {
                name: ov.PartialShape([-1 if d.is_dynamic or d.get_length() == length else d for d in shape])
                for name, shape in shapes.items()
            }
        )


def _length(model: ModelFolder, name: str, axis: int, dimension: ov.Dimension) -> int:
    if dimension.is_static:
        return dimension.get_length()
    if name == "encoder_hidden_states" and axis == 1:
        return model.tokenizers["tokenizer"].max_length
    raise ModelError(
        f"the UNet of {model.path} has a dynamic axis {axis} in its input {name}; "
        "export it again with `lorablend convert`"
    )
