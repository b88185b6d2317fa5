"""What each operator may do in a network that is converted, and the one form that it then has.

A rule reads a `Call`: an operator that depends on the network's input, with what is known of its tensors. It
refuses what cannot be converted or mixes the samples of a batch, and rewrites the rest, so that later code
needs to know one form only:

- paddings are explicit: no ``auto_pad``; ``ceil_mode`` only if no padding has the same effect;
- axes and permutations are complete and not negative;
- a `Reshape` keeps the batch: its shape starts with -1 and names all other sizes;
- limits of a `Clip` that limit nothing are absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ModelError
from .windows import transposed_windows, windows

__all__ = ["MAX_SAMPLE_BYTES", "RULES", "Call", "Tensor", "check_size"]

MAX_SAMPLE_BYTES = 256 << 20
"""Most bytes of one tensor of one sample, with the padding around it."""


class NotLinearError(ModelError):
    """An operator that is not linear in the tensors that it reads."""


def check_size(shape: Sequence[int]) -> None:
    """Refuse a tensor that is too large, before it is made.

    Parameters
    ----------
    shape : sequence of int
        The tensor's, without the batch axis.
    """
    n_bytes = 4 * math.prod(map(int, shape))
    if not 0 < n_bytes <= MAX_SAMPLE_BYTES:
        raise ModelError(
            "one sample's tensor is too large" if n_bytes else "a tensor is empty",
            got=f"shape {tuple(shape)}",
            expected=f"at most {MAX_SAMPLE_BYTES >> 20} MiB" if n_bytes else "sizes from 1",
        )


@dataclass(frozen=True, eq=False)
class Tensor:
    """What is known of an operator's input.

    Parameters
    ----------
    shape : tuple of int or None
        Without the batch axis; None if it does not depend on the network's input.
    values : tuple of array
        One array if it is constant; one for each size tried if it depends on the batch's size.
    """

    shape: tuple[int, ...] | None = None
    values: tuple[np.ndarray, ...] = ()


@dataclass(eq=False)
class Call:
    """An operator and its inputs; rules change `attributes` and put new constants into `replaced`.

    Parameters
    ----------
    op : str
    attributes : dict
    tensors : list of Tensor or None
        None if an optional input is absent.
    batches : tuple of int
        The batch sizes for which constants are known.
    replaced : dict of int to array or None
        New values of constant inputs, by position; None makes one absent.
    """

    op: str
    attributes: dict
    tensors: list[Tensor | None]
    batches: tuple[int, ...]
    replaced: dict[int, np.ndarray | None]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input, which depends on the network's input, without the batch axis."""
        first = self.tensors[0]
        if first is None or first.shape is None:
            raise ModelError("its first input must depend on the network's input")
        return first.shape

    @property
    def operands(self) -> list[Tensor]:
        """All inputs of an operator of which none may be absent."""
        given = [tensor for tensor in self.tensors if tensor is not None]
        if len(given) < len(self.tensors):
            raise ModelError("lacks an input", got=f"{len(given)} of {len(self.tensors)}")
        return given

    def needed(self, position: int) -> np.ndarray:
        """An input that must be constant and there."""
        value = self.constant(position)
        if value is None:
            raise ModelError("lacks an input", expected=f"input {position + 1}")
        return value

    @property
    def rank(self) -> int:
        """The number of axes of the first input, with the batch axis."""
        return 1 + len(self.shape)

    def constant(self, position: int) -> np.ndarray | None:
        """An input that must be constant; None if it is absent."""
        tensor = self.tensors[position] if position < len(self.tensors) else None
        if tensor is None:
            return None
        if len(tensor.values) != 1:
            got = (
                "one that depends on the batch's size"
                if tensor.values
                else "one that depends on the network's input"
            )
            raise ModelError(f"its input {position + 1} must be a constant", got=got)
        return tensor.values[0]

    def axis(self, axis: int) -> int:
        """`axis` as a number from 0, without the batch axis, which is refused."""
        if not -self.rank <= axis < self.rank:
            raise ModelError(
                "names an axis that is not there", got=axis, expected=f"-{self.rank} to {self.rank - 1}"
            )
        if axis % self.rank == 0:
            raise ModelError(
                "works across the samples of a batch",
                got="axis 0",
                hint="the first axis must stay the batch's",
            )
        return axis % self.rank


def _first_only(call: Call) -> None:
    """Check that the first input is a tensor and all others are constants."""
    if call.tensors[0] is None or call.tensors[0].shape is None:
        raise ModelError(
            "its first input must depend on the network's input",
            got="a constant",
            hint="let tensors come first and weights second",
        )
    for position in range(1, len(call.tensors)):
        call.constant(position)


def _broadcast(call: Call) -> None:
    """Check that constants and tensors broadcast without the batch axis."""
    tensors = call.operands
    ranks = {1 + len(t.shape) for t in tensors if t.shape is not None}
    for i, tensor in enumerate(tensors):
        value = None if tensor.shape is not None else call.constant(i)
        moves = value is not None and (
            value.ndim > max(ranks) or (value.ndim == max(ranks) and value.shape[0] != 1)
        )
        if len(ranks) > 1 or moves:
            got = [
                f"{('N', *t.shape)}" if t.shape is not None else f"a constant {t.values[0].shape}"
                for t in tensors
            ]
            expected = "tensors of as many axes, and constants that are the same for each sample"
            raise ModelError(
                "mixes the samples of a batch", got=" and ".join(got).replace("'", ""), expected=expected
            )
    check_size(np.broadcast_shapes(*(t.shape if t.shape is not None else t.values[0].shape for t in tensors)))


def _one_tensor(call: Call) -> None:
    _broadcast(call)
    if sum(t.shape is not None for t in call.operands) > 1:
        hint = {
            "Mul": "gates (squeeze-and-excitation) and activations that multiply (SiLU, HardSwish) are not"
            " converted: use a block without, or Relu",
            "Div": "norms of each sample are not converted: train with BatchNormalization in its place",
        }.get(call.op, "use Relu, or a MaxPool")
        raise NotLinearError(
            "combines two tensors in a way that is not linear", expected="one tensor and constants", hint=hint
        )


def _divide(call: Call) -> None:
    _one_tensor(call)
    if call.operands[0].shape is None:
        raise NotLinearError(
            "divides by a tensor that depends on the network's input",
            expected="a constant",
            hint="use a network that is linear between its ReLUs",
        )


def _conv(call: Call) -> None:
    _first_only(call)
    _check_map(call, "convolutions")
    weight = call.needed(1)
    at = _explicit(call, weight.shape[2:])
    check_size((len(weight), *at.shape))


def _check_map(call: Call, what: str) -> None:
    """Check that the first input is a map; signals have become maps of height 1 before."""
    if len(call.shape) != 3:
        raise ModelError(
            f"only 1-D and 2-D {what} are converted",
            got=f"an input of {call.rank} axes",
            expected="(N, channels, length) or (N, channels, height, width)",
            hint="let slices of a volume be channels, and train again"
            if call.rank > 4
            else "keep an axis of channels",
        )


def _explicit(call: Call, kernel: tuple[int, ...]):
    """Write strides, pads and dilations out."""
    names = ("strides", "pads", "dilations", "auto_pad", "ceil_mode")
    at = windows(
        call.shape[1:], kernel, **{name: call.attributes[name] for name in names if name in call.attributes}
    )
    call.attributes.pop("auto_pad", None)
    top, left, bottom, right = at.window.padding
    check_size(
        (
            call.shape[0],
            call.shape[1] + top + bottom + at.overhang[0],
            call.shape[2] + left + right + at.overhang[1],
        )
    )
    call.attributes.setdefault("kernel_shape", at.window.kernel)
    call.attributes |= {
        "strides": at.window.stride,
        "pads": at.window.padding,
        "dilations": at.window.dilation,
    }
    return at


def _pool(call: Call) -> None:
    _first_only(call)
    _check_map(call, "pools")
    at = _explicit(call, call.attributes.get("kernel_shape", ()))
    call.attributes.pop("storage_order", None)  # of the indices, which are not read
    if not any(at.overhang) or call.op == "MaxPool" or not call.attributes.get("count_include_pad", 0):
        # Overhangs count as little as padding does, so they can be written as padding.
        top, left, bottom, right = at.window.padding
        call.attributes["pads"] = (top, left, bottom + at.overhang[0], right + at.overhang[1])
        call.attributes.pop("ceil_mode", None)


def _gemm(call: Call) -> None:
    _first_only(call)
    if call.attributes.get("transA", 0) or call.rank != 2:
        raise ModelError(
            "works across the samples of a batch",
            got=f"{call.rank} axes, transA = {call.attributes.get('transA', 0)}",
            expected="2 axes and transA = 0",
        )
    c = call.constant(2)
    if c is not None and (c.ndim > 2 or (c.ndim == 2 and c.shape[0] != 1)):
        raise ModelError(
            "adds different numbers to the samples of a batch",
            got=f"C of shape {c.shape}",
            expected="(1, n_out) or (n_out,)",
        )
    _matrix(call, bool(call.attributes.get("transB", 0)))


def _matrix(call: Call, transposed: bool = False) -> None:
    """Check that the weights are a matrix that fits the input's last axis."""
    shape = call.needed(1).shape
    n_in, n_out = (shape[::-1] if transposed else shape) if len(shape) == 2 else (-1, -1)
    if n_in != call.shape[-1]:
        raise ModelError(
            "its weights do not fit its input",
            got=f"weights {shape}",
            expected=f"a matrix for {call.shape[-1]} inputs",
        )
    check_size((*call.shape[:-1], n_out))


def _matmul(call: Call) -> None:
    if all(t.shape is not None for t in call.operands):
        raise ModelError(
            "multiplies two tensors that both depend on the network's input",
            hint="attention is not converted: only weights that are constants",
        )
    _first_only(call)
    _matrix(call)


def _batch_norm(call: Call) -> None:
    _first_only(call)
    if call.attributes.get("training_mode", 0):
        raise ModelError("is a batch norm in training mode", hint="call model.eval() before the export")
    shapes = [call.needed(i).shape for i in range(1, 5)]
    if any(shape != call.shape[:1] for shape in shapes):
        raise ModelError("its parameters do not fit its input", got=shapes, expected=f"{call.shape[:1]} each")
    call.attributes.pop("training_mode", None)
    call.attributes.pop("momentum", None)


def _clip(call: Call) -> None:
    _first_only(call)
    for position, nothing in ((1, -np.inf), (2, np.inf)):
        limit = call.constant(position)
        if limit is not None and limit.size != 1:
            raise ModelError("its limits must be single numbers", got=f"shape {limit.shape}")
        if limit is not None and abs(limit.item()) >= np.finfo(np.float32).max and limit.item() * nothing > 0:
            call.replaced[position] = None
        elif limit is not None and limit.ndim:
            call.replaced[position] = limit.reshape(())


def _p_relu(call: Call) -> None:
    _first_only(call)
    _broadcast(call)
    if np.broadcast_shapes((1, *call.shape), call.needed(1).shape) != (1, *call.shape):
        raise ModelError(
            "its slopes do not fit its input",
            got=f"slopes {call.needed(1).shape}",
            expected=f"those of {call.shape}",
        )


def _reduce(call: Call) -> None:
    _first_only(call)
    axes = call.constant(1)
    if axes is None or axes.size == 0:
        if not call.attributes.get("noop_with_empty_axes", 0):
            raise ModelError("averages over all axes, the batch's too", hint="name the axes to average over")
        axes = np.zeros(0, np.int64)
    call.attributes = {"keepdims": int(bool(call.attributes.get("keepdims", 1))), "noop_with_empty_axes": 1}
    call.replaced[1] = np.array(sorted(call.axis(a) for a in axes.tolist()), np.int64)


def _concat(call: Call) -> None:
    shapes = [tensor.shape for tensor in call.operands if tensor.shape is not None]
    if len(shapes) < len(call.tensors):
        raise ModelError(
            "joins a constant to a tensor",
            expected="inputs that all depend on the network's input",
            hint="give it as channels of the samples, or leave it out and train again",
        )
    call.attributes["axis"] = axis = call.axis(call.attributes["axis"])
    check_size(
        [sum(shape[i] for shape in shapes) if i == axis - 1 else size for i, size in enumerate(call.shape)]
    )


def _flatten(call: Call) -> None:
    axis = call.attributes.get("axis", 1)
    if not -call.rank <= axis <= call.rank:
        raise ModelError("names an axis that is not there", got=axis)
    axis = axis + call.rank if axis < 0 else axis
    if axis == 0 or np.prod(call.shape[: axis - 1]) != 1:
        raise ModelError(
            "mixes the samples of a batch with what is in them", got=f"axis {axis}", expected="axis 1"
        )
    call.attributes["axis"] = 1


def _reshape(call: Call) -> None:
    first, target = call.operands[:2]
    if first.shape is None:
        raise ModelError("its first input must depend on the network's input")
    targets = target.values or (call.needed(1),)
    keep_zeros = call.attributes.pop("allowzero", 0)
    rests = {
        _reshaped(sizes.tolist(), (n, *call.shape), keep_zeros)
        for n, sizes in zip(call.batches, targets * (len(call.batches) // max(1, len(targets))))
    }
    rest = rests.pop() if len(rests) == 1 else None
    if rest is None:
        got = (
            f"{('N', *call.shape)} into"
            f" {targets[0].tolist() if len(targets) == 1 else 'a shape computed from the batch'}".replace(
                "'", ""
            )
        )
        size, given = math.prod(call.shape), targets[0].tolist()
        if len(targets) == 1 and given[:1] in ([0], [-1]) and len(given) > 1:
            raise ModelError(
                "its new shape does not hold what its input holds",
                got=got,
                expected=f"the batch, and axes of {size} numbers together, at most one of them -1",
            )
        raise ModelError(
            "mixes the samples of a batch",
            got=got,
            hint="keep the first axis: x.flatten(1) or x.reshape(len(x), ...), and export again",
        )
    call.replaced[1] = np.array((-1, *rest), np.int64)


def _reshaped(target: list[int], shape: tuple[int, ...], keep_zeros: int) -> tuple[int, ...] | None:
    """The sizes without the batch axis, if a reshape of `shape` to `target` keeps the batch, else None."""
    sizes = [
        shape[i] if size == 0 and not keep_zeros and i < len(shape) else size for i, size in enumerate(target)
    ]
    total = int(np.prod(shape, dtype=object))
    if sizes.count(-1) == 1:
        others = int(np.prod([s for s in sizes if s != -1], dtype=object))
        sizes[sizes.index(-1)] = total // others if others else 0
    if not sizes or min(sizes) < 1 or np.prod(sizes, dtype=object) != total or sizes[0] != shape[0]:
        return None
    return tuple(sizes[1:])


def _squeeze(call: Call) -> None:
    _first_only(call)
    axes = call.constant(1)
    if axes is None and call.batches == (1,):
        raise ModelError(
            "removes the batch's axis if that is 1", hint="name the axes to squeeze, and export again"
        )
    at = (
        [1 + i for i, size in enumerate(call.shape) if size == 1]
        if axes is None
        else sorted(call.axis(a) for a in axes.tolist())
    )
    _set_input(call, 1, np.array(at, np.int64))


def _unsqueeze(call: Call) -> None:
    _first_only(call)
    axes = call.needed(1).tolist()
    rank = call.rank + len(axes)
    if any(not -rank <= a < rank or a % rank == 0 for a in axes):
        raise ModelError(
            "moves the batch's axis", got=f"axes {axes}", expected="the first axis to stay the batch's"
        )
    call.replaced[1] = np.array(sorted(a % rank for a in axes), np.int64)


def _set_input(call: Call, position: int, value: np.ndarray) -> None:
    """Set a constant input that may have been absent."""
    call.tensors += [None] * (position + 1 - len(call.tensors))
    call.replaced[position] = value


def _transpose(call: Call) -> None:
    perm = tuple(call.attributes.get("perm", range(call.rank)[::-1]))
    if sorted(perm) != list(range(call.rank)):
        raise ModelError("is no permutation of its input's axes", got=perm, expected=f"{call.rank} axes")
    if perm[0] != 0:
        raise ModelError("moves the batch's axis", got=f"perm {perm}", expected="0 first")
    call.attributes["perm"] = perm


def _pad(call: Call) -> None:
    _first_only(call)
    pads, chosen = call.needed(1), call.constant(3)
    axes = (
        list(range(call.rank))
        if chosen is None
        else [a % call.rank if -call.rank <= a < call.rank else call.axis(a) for a in chosen.tolist()]
    )
    if pads.shape != (2 * len(axes),):
        raise ModelError("its pads do not fit its axes", got=f"{pads.size} numbers", expected=2 * len(axes))
    around = np.zeros((2, call.rank), np.int64)
    around[:, axes] = pads.reshape(2, -1)
    if around[:, 0].any():
        raise ModelError("pads the batch", got=f"pads {pads.tolist()}")
    check_size(
        [
            size + max(0, before) + max(0, after)
            for size, (before, after) in zip(call.shape, around.T[1:].tolist())
        ]
    )
    call.replaced[1] = around.ravel()
    if len(call.tensors) > 3:
        call.replaced[3] = None


def _slice(call: Call) -> None:
    _first_only(call)
    starts, ends = call.needed(1).ravel().tolist(), call.needed(2).ravel().tolist()
    axes, steps = (call.constant(i) for i in (3, 4))
    named = list(range(len(starts))) if axes is None else axes.ravel().tolist()
    by = [1] * len(starts) if steps is None else steps.ravel().tolist()
    if not len(starts) == len(ends) == len(named) == len(by) or 0 in by:
        raise ModelError(
            "its starts, ends, axes and steps do not fit",
            got=f"{len(starts)}, {len(ends)}, {len(named)} and {len(by)} numbers"
            if 0 not in by
            else "a step of 0",
            expected="as many of each, and no step of 0",
        )
    cuts = {}
    for start, end, axis, step in zip(starts, ends, named, by):
        if axis % call.rank == 0 and -call.rank <= axis < call.rank:
            if (start, step) == (0, 1) and end >= call.batches[0] and len(call.batches) == 1:
                continue  # the whole batch, whose size the file fixes
            if (start, step) == (0, 1) and end >= (1 << 31) - 1:
                continue
        at = call.axis(axis)
        if at in cuts:
            raise ModelError("names an axis twice", got=f"axis {at}", expected="each axis once")
        kept = range(call.shape[at - 1])[
            slice(start, end if step > 0 or end >= -call.shape[at - 1] else None, step)
        ]
        if not kept:
            raise ModelError(
                "cuts everything off", got=f"{start}:{end}:{step} of {call.shape[at - 1]} along axis {at}"
            )
        cuts[at] = kept
    cut = sorted(cuts)
    ends_at = [cuts[a][-1] + (1 if cuts[a].step > 0 else -1) for a in cut]
    # A last element of 0 that is reached backwards has no end that is a number from 0.
    ends_at = [end if end >= 0 else -(1 << 31) for end in ends_at]
    for position, values in enumerate(([cuts[a][0] for a in cut], ends_at, cut, [cuts[a].step for a in cut])):
        _set_input(call, position + 1, np.array(values, np.int64))


def _gather(call: Call) -> None:
    _first_only(call)
    axis, indices = call.axis(call.attributes.get("axis", 0)), call.needed(1)
    size = call.shape[axis - 1]
    if indices.dtype.kind != "i" or not ((-size <= indices) & (indices < size)).all():
        raise ModelError(
            "takes elements that are not there",
            got=f"{indices.min()} to {indices.max()}" if indices.size else "none",
            expected=f"integers from -{size} to {size - 1} along axis {axis}",
        )
    check_size((*call.shape[: axis - 1], *indices.shape, *call.shape[axis:]))
    call.attributes["axis"] = axis
    call.replaced[1] = np.where(indices < 0, indices + size, indices)


def _blocks(call: Call) -> None:
    _first_only(call)
    size = call.attributes.get("blocksize", 0)
    many = call.op == "DepthToSpace"
    mode = call.attributes.get("mode", "DCR")
    if len(call.shape) != 3 or size < 1 or mode not in ("DCR", "CRD"):
        raise ModelError(
            "moves no blocks of a map",
            got=f"{call.rank} axes, blocksize {size}, mode {mode!r:.20}",
            expected="(N, channels, height, width), a size from 1, and DCR or CRD",
        )
    divided = call.shape[:1] if many else call.shape[1:]
    if any(n % (size * size if many else size) for n in divided):
        raise ModelError("its blocks do not divide its input", got=f"{call.shape} by {size}")


def _conv_transpose(call: Call) -> None:
    _first_only(call)
    _check_map(call, "transposed convolutions")
    weight, given = call.needed(1), call.attributes
    group = given.get("group", 1)
    if weight.ndim != 4 or group < 1 or weight.shape[0] != call.shape[0] or weight.shape[0] % group:
        raise ModelError(
            "its weights do not fit its input",
            got=f"weights {weight.shape}, {group} groups, on {call.shape[0]} channels",
            expected=f"({call.shape[0]}, n_out / groups, height, width)",
        )
    if min(given.get("pads", (0,)), default=0) < 0:
        raise ModelError("pads is not usable", got=given["pads"][:8], expected="integers from 0")
    bias = call.constant(2)
    if bias is not None and bias.shape != (weight.shape[1] * group,):
        raise ModelError("its bias does not fit", got=bias.shape, expected=(weight.shape[1] * group,))
    at = transposed_windows(
        call.shape[1:],
        weight.shape[2:],
        **{
            name: given[name]
            for name in ("strides", "pads", "dilations", "auto_pad", "output_padding", "output_shape")
            if name in given
        },
    )
    check_size((weight.shape[1] * group, *at.shape))
    call.attributes = {
        "group": group,
        "strides": at.stride,
        "dilations": at.dilation,
        "pads": at.pads,
        "output_padding": at.output_padding,
    }


def _softmax(call: Call) -> None:
    call.attributes["axis"] = call.axis(call.attributes.get("axis", -1))


def _map(call: Call) -> None:
    if len(call.shape) < 2:
        raise ModelError(
            "pools over space, and its input has none", got=f"{call.rank} axes", expected="at least 3"
        )


RULES: Mapping[str, Callable[[Call], None]] = {
    "Add": _broadcast,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _blocks,
    "Div": _divide,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _map,
    "GlobalMaxPool": _map,
    "LeakyRelu": _first_only,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Max": _one_tensor,
    "MaxPool": _pool,
    "Min": _one_tensor,
    "Mul": _one_tensor,
    "PRelu": _p_relu,
    "Pad": _pad,
    "ReduceMean": _reduce,
    "Relu": _first_only,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _blocks,
    "Squeeze": _squeeze,
    "Sub": _broadcast,
    "Sum": _broadcast,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""The rule of every operator that can be imported."""
