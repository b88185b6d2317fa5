"""The threshold ReLU of Deng & Gu (ICLR 2021, section 3.1) for PyTorch: what makes a network convert well.

A spiking neuron sends at most one spike per step, so its rate is limited; a network trained with
activations limited to y_th loses nothing when its thresholds are set to y_th. Use it in place of
`torch.nn.ReLU`, train a while without a limit, then call `set_limit`::

    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), ThresholdReLU(), nn.AvgPool2d(2), ...)
    for epoch in range(n_epochs):
        if epoch == n_epochs // 15:
            set_limit(model, 1.0)
        ...

`torch.onnx.export` writes it as Clip, from which `python -m evsnn.convert` reads y_th.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["ThresholdReLU", "set_limit"]


class ThresholdReLU(nn.Module):
    """min(max(x, 0), limit); a plain ReLU while the limit is infinite.

    Parameters
    ----------
    limit : float
        y_th, > 0. It travels in the state dict.
    """

    def __init__(self, limit: float = math.inf):
        super().__init__()
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) if math.isinf(self.limit) else torch.clamp(x, 0.0, self.limit)

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.limit)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.limit = float(state)

    def extra_repr(self) -> str:
        return f"limit={self.limit}"


def set_limit(model: nn.Module, limit: float) -> None:
    """Set y_th of every `ThresholdReLU` in a model."""
    for module in model.modules():
        if isinstance(module, ThresholdReLU):
            module.limit = limit
