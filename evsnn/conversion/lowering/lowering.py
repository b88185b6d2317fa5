"""From an imported graph to evsnn's own layers: linear operators are folded, and ReLUs become `IF` layers.

Every fold is exact in real numbers; it is computed in float64 and rounded to float32 once. What has no exact
counterpart is refused with the node's name: a network is never converted into one that computes something
else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush

import numpy as np

from ...errors import ModelError, NetworkError
from ...network.layers import IF, Input, Readout
from ...network.network import Network
from ...text import printable
from ..onnx.graph import Graph, Node
from ..onnx.macs import macs
from . import elementwise_rules, layout_rules, pooling_rules, weighted_rules
from .ann import Ann
from .expression import Expression
from .linear import AFFINE, as_matrix
from .phases import regular_phases
from .pruning import without_constants
from .scope import MAX_MATRIX, Scope, refusal
from .value import LayoutError, PositionError, Value

__all__ = ["MAX_POOLS", "OPERATORS", "lower_graph"]

MAX_POOLS = ("spiking", "average")

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ENDS = _WEIGHTED | {"Clip", "LeakyRelu", "Max", "Min", "PRelu", "Relu"}
_RULES = {**weighted_rules.RULES, **elementwise_rules.RULES, **pooling_rules.RULES, **layout_rules.RULES}

OPERATORS = tuple(sorted(_RULES))
"""The ONNX operators that can be lowered, each under its own conditions."""


def lower_graph(graph: Graph, *, max_pool: str = "spiking") -> Ann:
    """Lower a graph to layers.

    Parameters
    ----------
    graph : Graph
    max_pool : {"spiking", "average"}
        "spiking": `MaxPool2d` behind neurons, exact. "average": an average pool of the same window
        instead, which is another ANN; a note says so.

    Returns
    -------
    Ann
        Computes what the graph does, up to the tensors `Ann.outputs`.

    Raises
    ------
    ModelError
        If an operator has no exact counterpart; the message names the node.
    """
    if max_pool not in MAX_POOLS:
        raise ModelError(
            "unknown treatment of max pools", got=repr(max_pool), expected=" or ".join(MAX_POOLS)
        )
    with np.errstate(all="ignore"):  # layers refuse values that are not finite
        return _lower(graph, max_pool == "average")


def _lower(graph: Graph, average: bool) -> Ann:
    shape, positions = layout_rules.input_layout(graph)
    own = graph.shapes[graph.input]
    layout = layout_rules.axes_order(own, positions)
    source = Input(shape, name="input")
    if layout or own != shape:
        source = Input(shape, name="input", source_shape=own, source_axes=layout or None)
    scope = Scope(graph, source, average)
    index = np.empty(positions.size, np.int64)
    index[positions.ravel()] = np.arange(positions.size)
    scope.values[graph.input] = Value((Expression.of(scope.assembly.input),), own, index.reshape(own))
    if layout:
        scope.assembly.note(f"input: the model reads {own}; the network reads it channels first, {shape}")
    made: dict[str, list[str]] = {}
    readers = Readers(graph)
    for node in graph.nodes:
        before = len(scope.assembly.layers)
        value = _lowered(scope, node)
        if node.op in _WEIGHTED:
            value = value.with_parts([scope.assembly.shared(p, readers.copies(node)) for p in value.parts])
        scope.values[node.outputs[0]] = value
        made[node.name] = [x.name for x in scope.assembly.layers[before:] if isinstance(x, IF)]
        scope.forget(node)
    ends: dict[str, Expression] = {}
    tensors: list[str] = []
    windows: list[tuple[slice, slice] | None] = []
    for name, tensor in graph.outputs.items():
        for part, window, end in _ends(scope, name, tensor):
            ends[part] = end
            tensors.append(tensor)
            windows.append(window)
    try:
        network = scope.assembly.finish(ends)
    except NetworkError as error:
        raise ModelError(
            error.what, where=error.where, got=error.got, expected=error.expected, hint=error.hint
        ) from error
    ann = Ann(
        network,
        clips={name: clip for name, clip in scope.assembly.clips.items() if name in network.by_name},
        moments={
            name: moments for name, moments in scope.assembly.moments.items() if name in network.by_name
        },
        fixed=frozenset(scope.assembly.fixed & set(network.by_name)),
        macs=_macs(graph, made, network, tensors),
        notes=(*graph.notes, *scope.assembly.notes),
        outputs=tuple(scope.ends[tensor] for tensor in tensors),
        windows=tuple(windows),
    )
    return without_constants(ann)


def _nearly_whole(phase: Value) -> bool:
    """Whether a phase has most of the rows and columns of the maps that it comes from, in their order."""
    return all(
        window.step in (None, 1) and 2 * (window.stop - window.start) > size
        for block in phase.blocks() or ()
        for window, size in zip(block.window, phase.parts[block.part].shape[1:])
    )


def _ends(
    scope: Scope, name: str, tensor: str
) -> Iterator[tuple[str, tuple[slice, slice] | None, Expression]]:
    """What is read out of an output: all of it, or each of its phases, with the rows and columns of that.

    A map that ends in an upsampling or a transposed convolution has no layer of its size.
    """
    value = scope.values[tensor].explicit()
    try:
        yield name, None, scope.whole(value, tensor)
        return
    except LayoutError as error:
        found = regular_phases(value) if len(value.shape) == 3 else None
        if found is None or not all(map(_nearly_whole, found[1].values())):
            unmoved = _before_moves(scope.graph, tensor)
            raise ModelError(
                "its values are moved after they are computed, and are no map any more",
                where=f"output {name!r}"[:140],
                got=f"shape {('N', *scope.graph.shapes[tensor])}".replace("'", ""),
                hint=f"leave out the operators at the end that move them: --scores {printable(unmoved[:200])}"
                if unmoved not in (tensor, scope.graph.input)
                else "end with whole maps (N, channels, height, width), or with vectors",
            ) from error
    (down, right), phases = found
    missing = down * right - len(phases)
    scope.assembly.note(
        f"output {name!r}: given as {len(phases)} maps, because it is larger than the layers it comes from;"
        f" {name}.a.b has rows a, a + {down}, ... and columns b, b + {right}, ..."
        + (f"; {missing} more would be zeros" if missing else "")
    )
    for (a, b), phase in phases.items():
        window = slice(a, None, down), slice(b, None, right)
        yield f"{name}.{a}.{b}", window, scope.whole(phase, tensor)


def _before_moves(graph: Graph, tensor: str) -> str:
    """The tensor behind the operators at the end that move its values."""
    makers = {node.outputs[0]: node for node in graph.nodes}
    while tensor in makers and makers[tensor].op in layout_rules.RULES:
        tensor = makers[tensor].inputs[0]
    return tensor


class Readers:
    """Who reads what in a graph."""

    def __init__(self, graph: Graph):
        self.by_tensor: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.by_tensor.setdefault(name, []).append(node)

    def copies(self, node: Node, most: int = 64) -> int:
        """How many ReLUs and weighted layers read what a node computes, through linear operators alone.

        Each of them computes it anew, unless neurons carry it on.
        """
        waiting, seen, found = [node.outputs[0]], {node.outputs[0]}, 0
        while waiting and found < most:
            for reader in self.by_tensor.get(waiting.pop(), ()):
                if reader.outputs[0] in seen:
                    continue
                seen.add(reader.outputs[0])
                if reader.op in _ENDS:
                    found += 1
                else:
                    waiting.append(reader.outputs[0])
        return found


def _macs(
    graph: Graph, made: Mapping[str, Sequence[str]], network: Network, tensors: Sequence[str]
) -> dict[str, int]:
    """Multiply-adds of the graph by the neurons that integrate them first, or by readouts.

    Parameters
    ----------
    made : mapping of str to sequence of str
        The `IF` layers that were made for each node.
    tensors : sequence of str
        What each readout reads.
    """
    found = {x.name: 0 for x in network.layers if isinstance(x, (IF, Readout))}
    neurons = {name: [x for x in layers if x in found] for name, layers in made.items()}
    place = {node.name: at for at, node in enumerate(graph.nodes)}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    ends: dict[str, str] = {}
    for tensor, readout in zip(tensors, network.outputs):
        ends.setdefault(tensor, readout.name)
    by_name = {node.name: node for node in graph.nodes}
    for source, count in macs(graph).items():
        waiting, seen, last = [place[source]], {place[source]}, next(iter(ends.values()))
        while waiting:
            node = graph.nodes[heappop(waiting)]
            if node is not by_name[source] and neurons[node.name]:
                last = neurons[node.name][0]
                break
            if node.outputs[0] in ends:
                last = ends[node.outputs[0]]
                break
            for reader in readers.get(node.outputs[0], ()):
                if place[reader.name] not in seen:
                    seen.add(place[reader.name])
                    heappush(waiting, place[reader.name])
        found[last] += count
    return found


def _lowered(scope: Scope, node: Node) -> Value:
    """What a node computes; its shape has to be the one that the file says."""
    if node.op not in _RULES:
        hint = (
            "spiking networks are weighted layers, pools, sums and ReLU, Clip(0, y), LeakyRelu or PRelu;"
            " replace the operator, or end the model before it"
        )
        raise refusal(node, "this operator has no spiking counterpart", hint=hint)
    used = [name for name in node.outputs[1:] if name in scope.graph.shapes and scope.uses.get(name)]
    if used:
        raise refusal(node, "only its first output can be converted", got=f"{used[0]!r} is used too")
    try:
        value = _computed(scope, node)
        expected = scope.graph.shapes[node.outputs[0]]
        complete = value.index is not None or math.prod(value.shape) == value.size
        if not complete or (value.shape != expected and not any(value.padding)):
            raise refusal(
                node, "its output is not of the shape that the file says", got=value.shape, expected=expected
            )
    except (NetworkError, ModelError) as error:
        if isinstance(error, ModelError) and error.where:
            raise
        raise refusal(node, error.what, got=error.got, expected=error.expected, hint=error.hint) from error
    return value


def _computed(scope: Scope, node: Node) -> Value:
    """What a node computes, by its rule; as a matrix, if the layout of its input allows nothing smaller."""
    try:
        return _RULES[node.op](scope, node)
    except LayoutError as error:
        value = as_matrix(scope, node, str(error)) if node.op in AFFINE else None
        if value is not None:
            return value
        hint = "keep maps as (N, channels, height, width) between layers"
        if isinstance(error, PositionError) and node.op in AFFINE:
            hint = _without_positions(scope, node)
        elif node.op in AFFINE:
            hint += f"; a matrix in its place would have more than {MAX_MATRIX} weights"
        raise refusal(node, str(error), hint=hint) from error


def _without_positions(scope: Scope, node: Node) -> str:
    """What to do about a constant for each position, such as a mean image."""
    constants = [name for name in node.inputs if name in scope.graph.constants]
    (shape,) = {scope.graph.constants[name].shape for name in constants[-1:]} or {()}
    named = f"the constant {constants[-1]!r:.80} of shape {shape}" if constants else "its constant"
    if scope.graph.input in node.inputs:
        return (
            f"leave out {node.op} of {named}, do it to the samples instead, and export the rest; or use one"
            " number for each channel"
        )
    return f"use one number for each channel in place of {named}"
