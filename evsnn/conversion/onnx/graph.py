"""The source network as its file describes it: ONNX operators on named tensors.

Shapes are known and constants are folded. A `Graph` says what the ANN computes and nothing about spikes.
Shapes are without the batch, which is the first axis of every tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from ...errors import ModelError

__all__ = ["Graph", "Node"]

Attribute: TypeAlias = "int | float | str | tuple[int, ...] | tuple[float, ...]"


@dataclass(frozen=True, eq=False)
class Node:
    """One operator.

    Parameters
    ----------
    name : str
        The file's name for it, or one made from the operator and its number; unique. For people.
    op : str
        ONNX operator type: "Conv", "Gemm", "Relu", ...
    inputs : tuple of str
        Tensor names; "" if an optional input is absent.
    outputs : tuple of str
    attributes : mapping of str to int, float, str or tuple
        As in the file, by ONNX's names; absent ones have the operator's default.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute that is one integer."""
        return int(self.number(name, default))

    def number(self, name: str, default: float = 0.0) -> float:
        """An attribute that is one number."""
        value = self.attributes.get(name, default)
        if isinstance(value, (str, tuple, list)):
            raise ModelError(f"attribute {name} is not a number", got=repr(value)[:40])
        return value

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        value = self.attributes.get(name, default)
        if isinstance(value, (str, int, float)):
            raise ModelError(f"attribute {name} is not a list", got=repr(value)[:40])
        listed = tuple(int(v) for v in value)
        if listed != tuple(value):
            raise ModelError(f"attribute {name} is not a list of integers", got=repr(value)[:40])
        return listed


@dataclass(frozen=True, eq=False)
class Graph:
    """An ANN of one input, and one or several outputs.

    Parameters
    ----------
    name : str
        For people; the file's stem.
    opset : int
        The version of the default ONNX domain.
    input : str
        A tensor's name.
    outputs : mapping of str to str
        By the name of each output, for people: the tensor that it is. There is at least one.
    nodes : tuple of Node
        In an order in which each comes after its inputs; all lead to an output, none is constant.
    constants : mapping of str to array
        Tensors that do not depend on the input, computed once. float32, or int64 for shapes and axes.
    shapes : mapping of str to tuple of int
        The shape of every tensor that depends on the input, without the batch axis.
    notes : tuple of str
        What reading the file did, for people.
    left : frozenset of str
        The types of the operators at the file's end that the graph leaves out: "Sigmoid", "Transpose", ...
    """

    name: str
    opset: int
    input: str
    outputs: Mapping[str, str]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    left: frozenset[str] = frozenset()

    def __post_init__(self):
        object.__setattr__(self, "outputs", MappingProxyType(dict(self.outputs)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))
        object.__setattr__(self, "shapes", MappingProxyType(dict(self.shapes)))

    @property
    def output(self) -> str:
        """The tensor of the first output."""
        return next(iter(self.outputs.values()))
