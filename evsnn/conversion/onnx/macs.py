"""Multiply-adds of the model that was given, node by node, before anything is folded."""

from __future__ import annotations

import math

from .graph import Graph, Node
from .windows import transposed_windows, windows

__all__ = ["macs"]


def macs(graph: Graph) -> dict[str, int]:
    """Multiply-adds for one sample of each node that multiplies by a matrix or a kernel, by its name.

    Products with padding are left out.
    """
    return {node.name: _COUNTED[node.op](graph, node) for node in graph.nodes if node.op in _COUNTED}


def _conv(graph: Graph, node: Node) -> int:
    weight, shape = graph.constants[node.inputs[1]].shape, graph.shapes[node.inputs[0]]
    at = windows(
        shape[1:],
        weight[2:],
        strides=node.integers("strides"),
        pads=node.integers("pads"),
        dilations=node.integers("dilations"),
    )
    return weight[0] * weight[1] * at.window.fan_out((shape[1], shape[2]))


def _conv_transpose(graph: Graph, node: Node) -> int:
    weight, shape = graph.constants[node.inputs[1]].shape, graph.shapes[node.inputs[0]]
    pads = node.integers("pads")
    at = transposed_windows(
        shape[1:],
        weight[2:],
        strides=node.integers("strides"),
        pads=pads,
        dilations=node.integers("dilations"),
        output_padding=node.integers("output_padding"),
    )
    reached = 1
    for axis in (0, 1):
        places = (
            y * at.stride[axis] + k * at.dilation[axis] - pads[axis]
            for y in range(shape[1 + axis])
            for k in range(weight[2 + axis])
        )
        reached *= sum(0 <= place < at.shape[axis] for place in places)
    return weight[0] * weight[1] * reached


def _matrix(graph: Graph, node: Node) -> int:
    """The rows of the input, which a MatMul may have many of, times the weights."""
    rows = math.prod(graph.shapes[node.inputs[0]][:-1])
    return rows * math.prod(graph.constants[node.inputs[1]].shape)


_COUNTED = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _matrix, "MatMul": _matrix}
