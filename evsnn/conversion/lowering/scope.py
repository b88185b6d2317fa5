"""What lowering knows while it visits the nodes of a graph, and what its rules share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from ...errors import ModelError
from ...network.layers import Input
from ..onnx.graph import Graph, Node
from ..onnx.windows import Windows, windows
from .assembly import Assembly
from .convolution import Convolution
from .expression import Expression, Pending
from .value import ZERO, Block, LayoutError, Value

__all__ = ["MAX_MATRIX", "Scope", "refusal", "windows_of"]

MAX_MATRIX = 1 << 22
"""Most weights of an operator that becomes a matrix because its layout allows nothing smaller."""


def refusal(node: Node, what: str, **details) -> ModelError:
    """An error about a node."""
    return ModelError(what, where=f"node {node.name!r} ({node.op})"[:200], **details)


class Scope:
    """What one lowering knows: the graph, and the value of each name so far.

    Parameters
    ----------
    graph : Graph
    source : Input
        The network's first layer.
    average : bool
        Whether max pools become average pools.
    """

    def __init__(self, graph: Graph, source: Input, average: bool):
        self.graph = graph
        self.assembly = Assembly(source, average)
        self.values: dict[str, Value] = {}
        self.uses: dict[str, int] = dict.fromkeys(graph.outputs.values(), 1)
        for node in graph.nodes:
            for name in node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1
        self._left = dict(self.uses)
        self.ends = {
            tensor: tensor for tensor in graph.outputs.values()
        }  # without operators that are left out

    def value(self, node: Node, at: int = 0) -> Value:
        """An input that depends on the network's input."""
        name = node.inputs[at]
        if name not in self.values:
            raise refusal(
                node, f"its input {at} is constant", expected="a tensor that depends on the model's input"
            )
        return self.values[name]

    def constant(self, node: Node, at: int, what: str) -> np.ndarray | None:
        """A constant input; None if an optional one is absent."""
        if at >= len(node.inputs) or not node.inputs[at]:
            return None
        if node.inputs[at] not in self.graph.constants:
            raise refusal(
                node,
                f"its {what} depends on the model's input",
                expected="a constant",
                hint="attention, gates and dynamic weights cannot be converted",
            )
        return self.graph.constants[node.inputs[at]]

    def needed(self, node: Node, at: int, what: str) -> np.ndarray:
        """A constant input that is not optional."""
        value = self.constant(node, at, what)
        if value is None:
            raise refusal(node, f"its {what} is missing")
        return value

    def forget(self, node: Node) -> None:
        """Drop values that no later node reads."""
        for name in node.inputs:
            if name in self.values:
                self._left[name] -= 1
                if not self._left[name]:
                    del self.values[name]

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of the node's output, without the batch, as the file says."""
        return self.graph.shapes[node.outputs[0]]

    def expressions(self, value: Value, name: str) -> list[Expression]:
        """The parts of a value as expressions that a linear operator can read."""
        return [self.assembly.expression(part, name) for part in value.parts]

    def mapped(self, value: Value, name: str) -> Value:
        """A map whose channels are those of its parts, in their order.

        Raises
        ------
        LayoutError
            If it is none of regular windows.
        """
        value = value.explicit()
        if value.is_map():
            return value
        blocks = value.blocks()
        if not blocks:
            raise LayoutError(
                f"it reads a tensor of shape {value.shape} whose elements are not those of maps"
            )
        terms = []
        for block, part in zip(blocks, self.cropped(value, blocks, name)):
            chosen = Convolution.selection(part.shape[0], block.sources, block.channels, value.shape[0])
            terms.append(self.assembly.convolved(part, chosen, name=name))
        return Value((reduce(lambda a, b: self.assembly.sum(a, b, name), terms),), value.shape)

    def separated(self, value: Value) -> Value:
        """A map of whole channels, each as a channel of its own, also if a max pool waits for its ReLU.

        Raises
        ------
        LayoutError
            If it is no such map, or has channels of zeros.
        """
        sources = value.sources()
        if sources is None or (sources == ZERO).any():
            raise LayoutError(f"it reads a tensor of shape {value.shape} whose channels are moved")
        number = np.searchsorted(value.channels, sources, "right") - 1
        edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sources)]
        parts = [
            value.parts[number[start]].rows(sources[start:stop] - value.channels[number[start]])
            for start, stop in zip(edges, edges[1:])
        ]
        return Value(tuple(parts), value.shape)

    def vector(self, value: Value, name: str, most: int = MAX_MATRIX) -> Value:
        """A vector whose elements are those of its parts, in their order."""
        n = int(np.prod(value.shape))
        if n * value.size > most:
            raise LayoutError(f"it reads {n} elements in another order than that of the layers before it")
        kernels = [Convolution(k, product=True) for k in value.columns(np.eye(n, dtype=np.float32))]
        return Value((self.convolved(value, kernels, None, name),), (n,))

    def cropped(self, value: Value, blocks: Sequence[Block], name: str) -> list[Expression]:
        """What each block sees of its part: all channels of the part in the block's window."""
        parts, found = self.expressions(value, name), []
        least = tuple(max(block.window[axis].start for block in blocks) + 1 for axis in (0, 1))
        for block in blocks:
            part = parts[block.part]
            if part.shape[1:] != value.shape[1:]:
                size = (part.shape[1], part.shape[2])
                kernel = Convolution.cropping(part.shape[0], size, block.window, (least[0], least[1]))
                part = self.assembly.convolved(part, kernel, name=name)
            found.append(part)
        return found

    def compacted(self, value: Value) -> Value:
        """The same tensor without channels of its parts that it does not see, if that makes neurons fewer."""
        if value.index is None:
            return value
        seen = np.zeros(value.size, bool)
        seen[value.index[value.index != ZERO]] = True
        numbers, parts, count = np.full(value.size, ZERO), [], 0
        for part, start, stop in zip(value.parts, value.starts, value.starts[1:]):
            rows = np.asarray(seen[start:stop].reshape(part.shape[0], -1).any(axis=1))
            inner = part.inner if isinstance(part, Pending) else part
            if not rows.any():
                continue
            if rows.all() or inner.spikes is not None or not inner.rows_are_free:
                rows = np.full(len(rows), True)
            parts.append(part if rows.all() else part.rows(np.flatnonzero(rows)))
            kept = np.repeat(rows, (stop - start) // len(rows))
            numbers[start:stop][kept] = count + np.arange(kept.sum())
            count += int(kept.sum())
        index = np.where(value.index == ZERO, ZERO, numbers[value.index])
        return Value(tuple(parts), value.shape, index, value.padding)

    def whole(self, value: Value, name: str) -> Expression:
        """All parts as one map."""
        if value.index is not None:
            value = self.mapped(value, name) if len(value.shape) == 3 else self.vector(value, name)
        parts = self.expressions(value, name)
        return self.assembly.joined(parts) or self.assembly.stacked(parts, name)

    def convolved(
        self, value: Value, kernels: Sequence[Convolution], bias: np.ndarray | None, name: str
    ) -> Expression:
        """The sum of a convolution of each part."""
        return self.summed(self.expressions(value, name), kernels, bias, name)

    def summed(
        self,
        parts: Sequence[Expression],
        kernels: Sequence[Convolution],
        bias: np.ndarray | None,
        name: str,
    ) -> Expression:
        """The sum of a convolution of each expression."""
        total = self.assembly.convolved(parts[0], kernels[0], bias, name)
        for part, kernel in zip(parts[1:], kernels[1:]):
            total = self.assembly.sum(total, self.assembly.convolved(part, kernel, None, name), name)
        return total


def windows_of(node: Node, size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of an operator over a map of `size` (height, width), as its attributes say."""
    return windows(
        size,
        kernel,
        strides=node.integers("strides"),
        pads=node.integers("pads"),
        dilations=node.integers("dilations"),
        auto_pad=str(node.attributes.get("auto_pad", "NOTSET")),
        ceil_mode=node.integer("ceil_mode"),
    )
