"""Spiking networks converted from trained ReLU networks, run event-driven on a CPU.

>>> import evsnn
>>> net = evsnn.convert("model.onnx", calibration=images, n_steps=32)
>>> evsnn.save("weights.h5", net)
>>> net = evsnn.load("weights.h5")
>>> result = evsnn.simulate(net, images, n_steps=32)
>>> result.predictions.shape == (len(images),)
True

``import evsnn`` imports no other package, not even numpy. A public name is imported when it is first used.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "convert": ("convert",),
    "errors": (
        "EvsnnError",
        "InputError",
        "MissingExtraError",
        "ModelError",
        "NetworkError",
        "RunError",
        "WeightsError",
    ),
    "network.layers": (
        "Add",
        "AvgPool2d",
        "Concat",
        "Conv2d",
        "Flatten",
        "IF",
        "Input",
        "Layer",
        "Linear",
        "MaxPool2d",
        "Readout",
    ),
    "network.network": ("Network", "Samples"),
    "circuit.quantized": ("QuantizedNetwork", "quantize"),
    "result": ("LayerResult", "Result"),
    "simulation": ("Simulator", "simulate"),
    "network.step_parameters": ("StepParameters",),
    "state": ("State",),
    "files.weights": ("load", "save"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'evsnn' has no attribute {name!r}")
    module = importlib.import_module(f".{_WHERE[name]}", __name__)
    value = (
        module if name == _WHERE[name] else getattr(module, name)
    )  # a module that is called: docs/decisions/0007
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
