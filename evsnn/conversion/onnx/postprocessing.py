"""What a model computes from its scores: operators behind its last layers, before which a network can end."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING

from ...text import printable

if TYPE_CHECKING:
    import onnx

__all__ = ["PostProcessing"]

_LAYERS = """
    Attention AveragePool BatchNormalization Conv ConvInteger ConvTranspose DeformConv DynamicQuantizeLinear
    Einsum GRU Gemm GlobalAveragePool GlobalMaxPool GroupNormalization If InstanceNormalization LRN LSTM
    LayerNormalization LeakyRelu Loop MatMul MatMulInteger MaxPool MeanVarianceNormalization PRelu
    QLinearConv QLinearMatMul RMSNormalization RNN Relu RotaryEmbedding Scan"""
"""Operators that belong to the network itself: nothing before one of them is post-processing."""
_AFTER_SOFTMAX = """
    Cast Concat Dropout Flatten Identity LogSoftmax Reshape Softmax Squeeze Transpose Unsqueeze"""
"""What a softmax at the end of a model may be read by."""
_BIASES = ("Add", "Sub")
_LISTED = 300  # characters of the names of tensors in a message


class PostProcessing:
    """The operators behind the last layers of a model.

    Parameters
    ----------
    nodes : sequence of onnx.NodeProto
        Each behind those that it reads.
    inputs : set of str
        The tensors that are given to the model.
    outputs : iterable of str
        The tensors at which it ends.
    """

    def __init__(self, nodes: Sequence[onnx.NodeProto], inputs: Set[str], outputs: Iterable[str]):
        self.nodes, self.outputs = list(nodes), list(outputs)
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.moving = set(inputs)
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            if self.moving.intersection(node.input) and node.op_type not in ("Shape", "Size"):
                self.moving.update(filter(None, node.output))
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._led: set[str] = set()  # tensors that lead to a layer
        self._computed: set[str] = set()  # tensors that are read for more than to be moved
        for node in reversed(self.nodes):
            read = [name for name in node.input if name]
            if self._is_layer(node) or self._led.intersection(node.output):
                self._led.update(read)
            if node.op_type not in _AFTER_SOFTMAX.split() or self._computed.intersection(node.output):
                self._computed.update(read)

    def holds(self, node: onnx.NodeProto) -> bool:
        """Whether the node stands behind all layers."""
        return not self._is_layer(node) and not self._led.intersection(node.output)

    def before(self, refused: Iterable[onnx.NodeProto]) -> list[str]:
        """The tensors at which a network can end so that nodes behind its layers are left out.

        Returns
        -------
        list of str
            In the order of the outputs; empty if a node stands before a layer, or if none stands before it.
        """
        refused = list(refused)
        if not all(self.holds(node) for node in refused):
            return []
        spoiled = {name for node in refused for name in node.output}
        for node in self.nodes:
            if spoiled.intersection(node.input):
                spoiled.update(node.output)
        found: dict[str, None] = {}
        seen: set[str] = set()
        for output in self.outputs:
            waiting = [output]
            if output not in spoiled:
                found[output] = None
                continue
            while waiting:
                name = waiting.pop()
                if name in seen or name not in self.moving:
                    continue
                seen.add(name)
                if name not in self.makers:  # the model's input
                    return []
                if self.holds(self.makers[name]):
                    waiting += reversed(self.makers[name].input)
                else:
                    found[self._with_bias(name, spoiled)] = None
        return list(found)

    def hint(self, refused: Iterable[onnx.NodeProto]) -> str | None:
        """What to do about nodes behind the layers; None if there are no tensors to end at."""
        names = self.before(refused)
        if not names:
            return None
        text = printable(shlex.quote(",".join(names)))
        if len(text) > _LISTED:
            text = f"with the {len(names)} tensors behind the last layers, the first {names[0]!r:.100}"
        return (
            f"end before it, --scores {text} (output=[...] in Python), and compute the rest from these values"
        )

    def computes_with_softmax(self, node: onnx.NodeProto) -> bool:
        """Whether it is a softmax whose values are computed with: only those at the end are left out."""
        return (
            node.op_type in ("Softmax", "LogSoftmax")
            and bool(self.moving.intersection(node.input))
            and bool(self._computed.intersection(node.output))
        )

    def is_gate(self, node: onnx.NodeProto) -> bool:
        """Whether what it computes multiplies another tensor than the one that it reads."""
        return any(
            reader.op_type == "Mul"
            and any(name in self.moving for name in reader.input if name not in (*node.input, *node.output))
            for output in node.output
            for reader in self.readers.get(output, ())
        )

    def is_norm_of_the_batch(self, node: onnx.NodeProto) -> bool:
        """Whether it is a batch norm whose mean or variance depends on what it normalises."""
        return node.op_type == "BatchNormalization" and bool(self.moving.intersection(node.input[3:5]))

    def _is_layer(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _LAYERS.split() and bool(self.moving.intersection(node.input))

    def _with_bias(self, name: str, spoiled: Set[str]) -> str:
        """A layer's values with the bias that is added to them."""
        readers = self.readers.get(name, [])
        if len(readers) == 1 and name not in self.outputs and readers[0].op_type in _BIASES:
            (node,) = readers
            if node.output[0] not in spoiled and sum(n in self.moving for n in node.input) == 1:
                return node.output[0]
        return name
