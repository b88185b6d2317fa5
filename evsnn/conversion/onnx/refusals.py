"""What to do about the operators that are not converted."""

from __future__ import annotations

from ...errors import ModelError
from .admission import RULES

__all__ = ["refusal"]

_QUANTISED = "quantised models are not read: export the float model"
_HINTS = {
    "use Relu (or Clip from 0) in its place and train again: only piecewise linear activations "
    "become spikes": (
        """
        Celu Cos Elu Erf Exp Gelu HardSwish Log Mish Pow Reciprocal Selu Shrink Sign
        Sin Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
    ),
    "use Relu in its place and train again; at the end of the model leave it out, by --scores "
    "and the name of its input": ("Sigmoid"),
    "attention and its norms are not converted: use convolutions, linear layers and BatchNormalization": (
        """
        Attention Einsum GroupNormalization InstanceNormalization LRN LayerNormalization
        LpNormalization MeanVarianceNormalization RMSNormalization RotaryEmbedding"""
    ),
    _QUANTISED: (
        """
        ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul"""
    ),
    "control flow is not converted: export the model with fixed shapes and without branches": (
        "If Loop Scan SequenceMap"
    ),
    "leave it out of the export, and end at the scores": (
        "ArgMax ArgMin Hardmax NonMaxSuppression OneHot TopK"
    ),
    "recurrent layers are not converted": "GRU LSTM RNN",
    "use strided or ordinary convolutions instead": "DeformConv GridSample RoiAlign",
}


def refusal(op: str, domain: str) -> ModelError:
    """The error for an operator that is not importable."""
    if domain not in ("", "ai.onnx"):
        hint = _QUANTISED if op.startswith(("Q", "DequantizeLinear")) else "export without custom operators"
        return ModelError(
            "is no operator of the ONNX standard", got=f"{op!r:.60} of domain {domain!r:.60}", hint=hint
        )
    hint = next(
        (hint for hint, ops in _HINTS.items() if op in ops.split()),
        "build that part of the model from " + ", ".join(RULES),
    )
    return ModelError("the operator is not converted", got=f"{op!r:.60}", hint=hint)
