"""What to do about the operators that are not converted."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ModelError
from .admission import RULES

__all__ = ["refusal", "worst"]

_QUANTISED = (
    "this is a quantised model that computes with integers: export the float model, or quantise in the QDQ"
    " format"
)
_HINTS = {  # from what cannot be helped to what is easily left out
    "control flow is not converted: export the model with fixed shapes and without branches": (
        "If Loop Scan SequenceMap"
    ),
    "recurrent layers are not converted": "GRU LSTM RNN",
    "attention and its norms are not converted: use convolutions, linear layers and BatchNormalization": (
        """
        Attention Einsum GroupNormalization InstanceNormalization LayerNormalization LpNormalization
        MeanVarianceNormalization RMSNormalization RotaryEmbedding"""
    ),
    _QUANTISED: (
        """
        ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul"""
    ),
    "use strided or ordinary convolutions instead": "DeformConv GridSample RoiAlign",
    "local response normalization (AlexNet, GoogLeNet) divides by neighbouring channels: leave it out and "
    "train again, or use BatchNormalization": "LRN",
    "use Relu (or Clip from 0) in its place and train again: only piecewise linear activations "
    "become spikes": (
        """
        Celu Cos Elu Erf Exp Gelu HardSwish Log Mish Pow Reciprocal Selu Shrink Sign
        Sin Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
    ),
    "use Relu in its place and train again; at the end of the model leave it out, by --scores "
    "and the name of its input": ("Sigmoid"),
    "leave it out of the export, and end at the scores": (
        "ArgMax ArgMin Hardmax NonMaxSuppression OneHot TopK"
    ),
}


def _hint(op: str, domain: str) -> tuple[int, str]:
    """How well an operator can be helped, and how: 0 is the worst."""
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
    if domain not in ("", "ai.onnx"):
        return ModelError(
            "is no operator of the ONNX standard", got=f"{op!r:.60} of domain {domain!r:.60}", hint=hint
        )
    return ModelError("the operator is not converted", got=f"{op!r:.60}", hint=hint)


def worst(found: Iterable[tuple[str, str, str]]) -> ModelError | None:
    """The error for the operators of a model that are not importable; it names what can be helped least.

    Parameters
    ----------
    found : iterable of (where, operator, domain)
        In the order of the nodes.

    Returns
    -------
    ModelError or None
        None if there are none.
    """
    listed = list(found)
    if not listed:
        return None
    where, op, domain = min(listed, key=lambda at: _hint(*at[1:])[0])
    error = refusal(op, domain)
    others = list(dict.fromkeys(f"{other:.40}" for _, other, _ in listed if other != op))
    if not others:
        return ModelError(error.what, where=where, got=error.got, hint=error.hint)
    more = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
    return ModelError(error.what, where=where, got=f"{error.got}, and {more}", hint=error.hint)
