"""What lowering knows while it visits the nodes of a graph, and what its rules share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ModelError
from ..onnx.graph import Graph, Node
from ..onnx.windows import Windows, windows
from .assembly import Assembly
from .convolution import Convolution
from .expression import Expression
from .value import Value

__all__ = ["Scope", "refusal", "windows_of"]


def refusal(node: Node, what: str, **details) -> ModelError:
    """An error about a node."""
    return ModelError(what, where=f"node {node.name!r} ({node.op})"[:200], **details)


class Scope:
    """What one lowering knows: the graph, and the value of each name so far.

    Parameters
    ----------
    graph : Graph
    input_shape : tuple of int
        Of the network.
    average : bool
        Whether max pools become average pools.
    """

    def __init__(self, graph: Graph, input_shape: tuple[int, ...], average: bool):
        self.graph = graph
        self.assembly = Assembly(input_shape, average)
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

    def whole(self, value: Value, name: str) -> Expression:
        """All parts as one map."""
        parts = self.expressions(value, name)
        return self.assembly.joined(parts) or self.assembly.stacked(parts, name)

    def convolved(
        self, value: Value, kernels: Sequence[Convolution], bias: np.ndarray | None, name: str
    ) -> Expression:
        """The sum of a convolution of each part."""
        first, *parts = self.expressions(value, name)
        total = self.assembly.convolved(first, kernels[0], bias, name)
        for part, kernel in zip(parts, kernels[1:]):
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
