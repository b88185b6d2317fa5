"""What to do about the operators that are not converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...errors import ModelError
from .admission import RULES
from .postprocessing import PostProcessing

if TYPE_CHECKING:
    import onnx

__all__ = ["refusal", "worst"]

_QUANTISED = (
    "this is a quantised model that computes with integers: export the float model, or quantise in the QDQ"
    " format"
)
_GATES = "gates such as squeeze-and-excitation are not converted: use a block without, and train again"
_TREES = (
    "decision trees, nearest neighbours and support vectors have no neurons: train a network of linear layers"
    " and ReLUs, such as scikit-learn's MLPClassifier(activation='relu')"
)
_LINEAR = "a linear model alone has no neurons: there is nothing to convert"
_FOR_SAMPLES = (
    "do it to the samples before the network reads them, and export the network alone; Scaler is the one"
    " operator of ai.onnx.ml that is converted"
)
_CLASSICAL: Mapping[str, str] = MappingProxyType(  # operators of ai.onnx.ml
    {
        "LinearClassifier": _LINEAR,
        "LinearRegressor": _LINEAR,
        "SVMClassifier": _TREES,
        "SVMRegressor": _TREES,
        "TreeEnsemble": _TREES,
        "TreeEnsembleClassifier": _TREES,
        "TreeEnsembleRegressor": _TREES,
    }
)
_HINTS = {  # from what cannot be helped to what is easily left out
    "control flow is not converted: export the model with fixed shapes and without branches": (
        "If Loop Scan SequenceMap"
    ),
    "recurrent layers are not converted": "GRU LSTM RNN",
    "attention is not converted: use convolutions and linear layers": "Attention Einsum RotaryEmbedding",
    "it divides by statistics of the sample itself, which is not linear: use BatchNormalization in its place"
    " and train again": (
        """
        GroupNormalization InstanceNormalization LayerNormalization LpNormalization
        MeanVarianceNormalization RMSNormalization ReduceL1 ReduceL2"""
    ),
    _QUANTISED: (
        """
        ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul"""
    ),
    "use strided or ordinary convolutions instead": "DeformConv GridSample RoiAlign",
    "local response normalization (AlexNet, GoogLeNet) divides by neighbouring channels: leave it out and "
    "train again, or use BatchNormalization": "LRN",
    "only piecewise linear functions become spikes: where it is part of a norm, use BatchNormalization with"
    " stored statistics, as an activation Relu (or Clip from 0), and train again": (
        """
        Cos Exp Log Pow Reciprocal Sign Sin Sqrt Tan"""
    ),
    "it is left out at the end of a model alone: before other layers it is attention or a gate, which are not"
    " converted": "LogSoftmax Softmax",
    "use Relu (or Clip from 0) in its place and train again: only piecewise linear activations "
    "become spikes": (
        """
        Celu Elu Erf Gelu HardSwish Mish Selu Shrink Sigmoid Softplus Softsign Swish Tanh ThresholdedRelu"""
    ),
    "leave it out of the export, and end at the scores": (
        "ArgMax ArgMin Hardmax NonMaxSuppression OneHot TopK"
    ),
}


def _hint(op: str, domain: str) -> tuple[int, str]:
    """How well an operator can be helped, and how: 0 is the worst."""
    if domain == "ai.onnx.ml":
        return 0, _CLASSICAL.get(op, _FOR_SAMPLES)
    if domain not in ("", "ai.onnx"):
        if op.startswith(("Q", "DequantizeLinear")):
            return list(_HINTS).index(_QUANTISED), _QUANTISED
        return 0, "export without custom operators"
    for rank, (hint, ops) in enumerate(_HINTS.items()):
        if op in ops.split():
            return rank, hint
    return 0, "build that part of the model from " + ", ".join(RULES)


def refusal(op: str, domain: str) -> ModelError:
    """The error for an operator that is not importable."""
    _, hint = _hint(op, domain)
    if domain == "ai.onnx.ml":
        return ModelError("the operator of classical models is not converted", got=f"{op!r:.60}", hint=hint)
    if domain not in ("", "ai.onnx"):
        return ModelError(
            "is no operator of the ONNX standard", got=f"{op!r:.60} of domain {domain!r:.60}", hint=hint
        )
    return ModelError("the operator is not converted", got=f"{op!r:.60}", hint=hint)


def worst(
    found: Sequence[onnx.NodeProto], where: Callable[[onnx.NodeProto], str], post: PostProcessing
) -> ModelError | None:
    """The error for the operators of a model that are not importable; it names what can be helped least.

    What stands behind all layers can be helped by an end before it, and is named if there is nothing else.

    Parameters
    ----------
    found : sequence of onnx.NodeProto
        In the order of the nodes.
    where : callable
        How a node is called.
    post : PostProcessing
        Of the model.

    Returns
    -------
    ModelError or None
        None if there are none.
    """
    if not found:
        return None
    inner = [node for node in found if not post.holds(node)]
    node = min(inner or found, key=lambda node: _hint(node.op_type, node.domain)[0])
    error = refusal(node.op_type, node.domain)
    hint = (None if inner else post.hint(found)) or (_GATES if post.is_gate(node) else error.hint)
    others = list(dict.fromkeys(f"{n.op_type:.40}" for n in found if n.op_type != node.op_type))
    got = error.got
    if others:
        more = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
        got = f"{got}, and {more}"
    return ModelError(error.what, where=where(node), got=got, hint=hint)
