"""Older forms of ONNX operators, rewritten into the newest, in which some attributes are inputs.

After this there is one form of each operator, whatever the file's opset.
"""

from __future__ import annotations

import numpy as np

from ...errors import ModelError

__all__ = ["upgrade"]

# operator: the opset from which these attributes are inputs, their input positions
_MOVED = {
    "Clip": (11, {"min": 1, "max": 2}),
    "Dropout": (12, {"ratio": 1}),
    "Pad": (11, {"pads": 1, "value": 2}),
    "ReduceMax": (18, {"axes": 1}),
    "ReduceMean": (18, {"axes": 1}),
    "ReduceMin": (18, {"axes": 1}),
    "ReduceProd": (18, {"axes": 1}),
    "ReduceSum": (13, {"axes": 1}),
    "Slice": (10, {"starts": 1, "ends": 2, "axes": 3}),
    "Split": (13, {"split": 1}),
    "Squeeze": (13, {"axes": 1}),
    "Unsqueeze": (13, {"axes": 1}),
    "Upsample": (9, {"scales": 1}),
}


def upgrade(
    op: str,
    attributes: dict,
    opset: int,
    rank: int | None,
    shape: tuple[int, ...] | None,
    n_outputs: int = 1,
) -> tuple[dict, dict[int, np.ndarray]]:
    """The newest form of an operator of `opset`.

    Parameters
    ----------
    rank, shape : int, tuple of int
        Of the first input with its batch axis; the size of the batch in `shape` has no meaning.
    n_outputs : int
        How many outputs the node names; older operators tell their mode by it.

    Returns
    -------
    attributes : dict
    constants : dict of int to array
        New inputs, by position.

    Raises
    ------
    ModelError
        If the old form has no new one.
    """
    constants: dict[int, np.ndarray] = {}
    since, moved = _MOVED.get(op, (0, {}))
    if opset < since:
        for name, position in moved.items():
            if name in attributes:
                value = attributes[name]
                constants[position] = np.array(value, np.int64 if isinstance(value, tuple) else np.float32)
        attributes = {name: value for name, value in attributes.items() if name not in moved}
    if op in ("Softmax", "LogSoftmax") and opset < 13 and rank is not None and shape is not None:
        attributes = attributes | {"axis": _softmax_axis(attributes.get("axis", 1), rank, shape)}
    if op == "BatchNormalization":
        if attributes.get("spatial", 1) != 1:
            raise ModelError("a batch norm per element is not converted", expected="spatial = 1")
        attributes = {name: value for name, value in attributes.items() if name != "spatial"}
        if opset < 14 and n_outputs > 1:
            raise ModelError(
                "is a batch norm in training mode",
                got=f"{n_outputs} outputs, which say so before opset 14",
                expected="1 output: inference with the stored mean and variance",
                hint="call model.eval() before the export",
            )
    return attributes, constants


def _softmax_axis(axis: int, rank: int, shape: tuple[int, ...]) -> int:
    """Before opset 13 all axes from `axis` on were one; here only one of them may be longer than 1."""
    axis = axis + rank if axis < 0 else axis
    longer = [i for i in range(axis, rank) if shape[i] != 1]
    if len(longer) > 1:
        raise ModelError(
            "softmax over several axes at once is not converted",
            got=f"axes {longer}",
            hint="flatten before it, or export with opset 13 or later",
        )
    return longer[0] if longer else rank - 1
