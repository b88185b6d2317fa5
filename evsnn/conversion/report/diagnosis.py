"""What is wrong with a converted layer, in one line: the number that shows it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .comparison import LayerExplanation

__all__ = ["diagnose"]

LARGE_ERROR = 0.35
"""The relative error of a layer's output from which on the layer is called bad."""

_MANY_DEAD = 0.5  # share of a layer's channels
_INHERITED = 0.7  # share of a layer's error that a source's large error has to reach to be called its cause
_LOW = 0.8  # of the ANN's mean
_MUCH = 0.4  # share of the squared error that makes a part of it the cause


def diagnose(layers: Sequence[LayerExplanation]) -> list[str]:
    """A line for each layer; empty if nothing is wrong with it."""
    by_name = {layer.name: layer for layer in layers}
    return [_diagnosis(layer, by_name) for layer in layers]


def _diagnosis(layer: LayerExplanation, by_name: Mapping[str, LayerExplanation]) -> str:
    channels = 0 if layer.v_threshold is None else len(layer.v_threshold)
    if layer.fires and layer.dead == channels:
        return "no channel is ever active: the layer sends nothing; check the scale of the calibration inputs"
    if layer.fires and not layer.n_spikes and layer.ann_mean > 0:
        return (
            f"it never fires, though the ANN's activations are {layer.ann_mean:.3g} in the mean: raise"
            " --steps, or use --shift initial"
        )
    if layer.error > LARGE_ERROR:
        return f"off by {_percent(layer.error)}: " + _cause(layer, by_name)
    if layer.fires and layer.dead > _MANY_DEAD * channels:
        return (
            f"{layer.dead} of {channels} channels are never active on the calibration inputs:"
            " use more of them, or prune the channels"
        )
    return ""


def _cause(layer: LayerExplanation, by_name: Mapping[str, LayerExplanation]) -> str:
    parts = {"clipping": layer.clipping, "quantization": layer.quantization, "unevenness": layer.unevenness}
    cause, share = max(
        ((name, value) for name, value in parts.items() if value is not None),
        key=lambda part: part[1],
        default=("unevenness", 1.0),
    )
    if cause == "clipping" and share >= _MUCH:
        return (
            f"{_percent(layer.saturated or 0.0)} of activations pass the threshold; use --threshold max or a"
            " higher percentile, or with mse raise --steps"
        )
    if cause == "quantization" and share >= _MUCH:
        least = f"{min(layer.v_threshold) / layer.n_steps:.3g}" if layer.v_threshold is not None else ""
        return (
            f"outputs are multiples of V_th/T (at least {least}), too coarse for activations of"
            f" {layer.ann_rms:.3g} rms; raise --steps, or lower thresholds with --threshold mse"
        )
    sources = [by_name[name] for name in layer.sources if name in by_name]
    worst = max(sources, key=lambda source: source.error, default=None)
    if worst is not None and worst.error >= max(LARGE_ERROR, _INHERITED * layer.error):
        return f"layer {worst.name!r} before it is off by {_percent(worst.error)} already"
    if layer.ann_mean > 0 and layer.snn_mean < _LOW * layer.ann_mean:
        return (
            f"outputs are {_percent(1 - layer.snn_mean / layer.ann_mean)} too low in the mean; use --shift"
            " initial, raise --steps, or use --threshold auto"
        )
    if layer.coding == "graded":
        return "the errors of the layers before it add up; raise --steps, or use --threshold auto"
    return "spikes arrive too unevenly; raise --steps, or use --threshold auto"


def _percent(share: float) -> str:
    """``12 %``, ``0.4 %``."""
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"
