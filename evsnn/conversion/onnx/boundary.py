"""Where the network in a model file begins and ends: its input, its outputs, and the nodes between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from ...errors import ModelError
from .admission import check_size
from .model_file import FLOATS, ModelFile

if TYPE_CHECKING:
    import onnx

__all__ = ["find_input", "find_outputs", "nodes_to"]

_MOVES = ("Cast", "Concat", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that only move values."""
_READINGS = ("HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax", "Tanh")
"""Operators that bring values to a range and keep their order."""
_CHOICES = ("ArgMax", "ZipMap")
_MOST_LEFT = 256  # operators at the end of one output
_UNFIXED = (1_000_003, 999_983)  # primes: no other size is theirs by chance


def find_outputs(
    file: ModelFile, wanted: str | Sequence[str] | None, notes: list[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """The tensors to end at.

    Operators at the end that only move values (Transpose, Reshape, Concat of maps), bring them to a range
    (Sigmoid, Tanh, Softmax behind them) or choose one of them (ArgMax, ZipMap) are left to the reader of the
    values, with a note.

    Parameters
    ----------
    wanted : str or sequence of str, optional
        Names of any tensors, at which the network then ends. None: all outputs of floats.
    notes : list of str
        A line is added for all that is left out.

    Returns
    -------
    outputs : dict of str to str
        By the name of each output: the tensor that it is read from.
    left : frozenset of str
        The types of the operators at the end that are left out.

    Raises
    ------
    ModelError
        If there is no such tensor, one is named twice, or no name is given and there is no output of floats.
    """
    makers = {name: node for node in file.graph.node for name in node.output if name}
    if wanted is not None:
        names = (
            [wanted]
            if isinstance(wanted, str)
            else list(wanted)
            if isinstance(wanted, Iterable)
            else [wanted]
        )
        if not all(isinstance(name, str) for name in names):
            raise ModelError(
                "the outputs to convert are not names", where=file.name, got=_listed(names), expected="str"
            )
        if not names or len(set(names)) < len(names):
            raise ModelError(
                "the outputs to convert are named twice, or none is", where=file.name, got=_listed(names)
            )
        for name in names:
            if name not in makers:
                raise _unknown(name, file, makers)
        return {name: name for name in names}, frozenset()
    ends, left = _ends(makers, _float_outputs(file, makers, notes), notes)
    return _distinct(ends, notes), left


def _unknown(name: str, file: ModelFile, makers: Mapping[str, onnx.NodeProto]) -> ModelError:
    """The error for a name that no tensor has at which a network could end."""
    given = {value.name: "an input" for value in file.graph.input}
    given |= {stored.name: "a weight" for stored in file.graph.initializer}
    close = [other for other in makers if name and name.lower() in other.lower()]
    return ModelError(
        "has no such tensor" if name not in given else "the tensor is not computed",
        where=file.name,
        got=f"{name!r:.80}" + (f", which is {given[name]}" if name in given else ""),
        expected=f"the output of a node: {_listed(close or (v.name for v in file.graph.output))}",
    )


def _float_outputs(file: ModelFile, makers: Mapping[str, onnx.NodeProto], notes: list[str]) -> dict[str, str]:
    """The outputs of floats, and the tensors that hold them."""
    values = file.graph.output
    found = {
        v.name: v.name
        for v in values
        if v.type.WhichOneof("value") == "tensor_type" and v.type.tensor_type.elem_type in FLOATS
    }
    if not found:
        behind = {v.name: _scores_behind(v.name, makers) for v in values}
        found = dict([(name, tensor) for name, tensor in behind.items() if tensor][:1])
        for name, tensor in found.items():
            notes.append(
                f"output {name!r:.60}: the choice of a class is left out, its scores are {tensor!r:.60}"
            )
    if not found:
        raise ModelError(
            "has no output of floats",
            where=file.name,
            got=_listed(v.name for v in values) or "none",
            expected="scores or values",
            hint="name the tensor that holds them: --scores NAME, output=NAME",
        )
    others = [v.name for v in values if v.name not in found]
    if others:
        notes.append(f"left out the outputs that are not scores: {_listed(others)}")
    for name, tensor in found.items():
        if tensor not in makers:
            others = [other for other, made in found.items() if made in makers]
            raise ModelError(
                "no node makes its output",
                where=file.name,
                got=repr(name)[:80],
                hint=f"name the others: --scores {','.join(others):.100} (output= in Python)"
                if others
                else None,
            )
    return found


def _scores_behind(name: str, makers: Mapping[str, onnx.NodeProto]) -> str | None:
    """The scores among which an ArgMax or ZipMap at the end of a model chooses."""
    chosen = False
    for _ in range(_MOST_LEFT):
        node = makers.get(name)
        if node is None or node.op_type not in (*_CHOICES, *_MOVES) or not node.input:
            break
        chosen |= node.op_type in _CHOICES
        name = node.input[0]
    return name if chosen and name in makers else None


def _ends(
    makers: Mapping[str, onnx.NodeProto], outputs: Mapping[str, str], notes: list[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """The outputs without the operators at the end that are left to the reader, and these operators."""
    ends: dict[str, str] = {}
    left: set[str] = set()
    for name, tensor in outputs.items():
        sources, operators = _before(tensor, makers)
        if not _left(operators) or not all(source in makers for source in sources):
            ends[name] = tensor
            continue
        several = len(sources) > 1
        named = {f"{name}.{i}" if several else name: source for i, source in enumerate(sources)}
        ends |= named
        left |= set(operators)
        what = ", ".join(dict.fromkeys(operators))
        notes.append(
            f"output {name!r:.60}: {what} at the end {'are' if ',' in what else 'is'} left to its reader"
            + (f"; it is given as {_listed(named)}" if several else "")
        )
    return ends, frozenset(left)


def _before(tensor: str, makers: Mapping[str, onnx.NodeProto]) -> tuple[list[str], list[str]]:
    """The tensors behind the operators at the end that could be left out, and these operators in order."""
    sources: list[str] = []
    operators: list[str] = []
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        known = node is not None and node.domain in ("", "ai.onnx") and node.op_type in (*_MOVES, *_READINGS)
        if node is None or not known or _moves_the_batch(node):
            sources.append(name)
        else:
            operators.append(node.op_type)
            waiting += reversed(node.input if node.op_type == "Concat" else node.input[:1])
        if len(operators) > _MOST_LEFT or len(sources) + len(waiting) > _MOST_LEFT:
            return [tensor], []
    return sources, operators[::-1]


def _moves_the_batch(node: onnx.NodeProto) -> bool:
    """Whether a Transpose moves the first axis."""
    perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
    return node.op_type == "Transpose" and perm[:1] != [0]


def _left(operators: Sequence[str]) -> bool:
    """Whether operators at the end are left out; those that lowering reads itself stay."""
    some = set(operators)
    joined = "Concat" in some and bool(some & {"Reshape", "Softmax", "LogSoftmax"})
    return joined or bool(some & {"Transpose", "Sigmoid", "HardSigmoid", "Tanh"})


def _distinct(outputs: dict[str, str], notes: list[str]) -> dict[str, str]:
    """Without the outputs that are another output once more."""
    kept: dict[str, str] = {}
    for name, tensor in outputs.items():
        if tensor in kept.values():
            same = next(other for other, read in kept.items() if read == tensor)
            notes.append(f"left out output {name!r:.60}: it is read from the same values as {same!r:.60}")
        else:
            kept[name] = tensor
    return kept


def nodes_to(file: ModelFile, outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that lead to some tensors, each behind those that it reads; else in the file's order.

    Raises
    ------
    ModelError
        If a tensor is made twice, or depends on itself.
    """
    makers: dict = {}
    taken = {t.name for t in file.graph.initializer} | {v.name for v in file.graph.input}
    for place, node in enumerate(file.graph.node):
        for name in filter(None, node.output):
            if name in makers or name in taken:
                raise ModelError("is damaged: a tensor is made twice", where=file.name, got=repr(name)[:80])
            makers[name] = place, node
    wanted, waiting = {}, list(outputs)
    while waiting:
        place, node = makers.get(waiting.pop(), (None, None))
        if node is not None and place not in wanted:
            wanted[place] = node
            waiting.extend(node.input)
    return _in_order(file, wanted, {name: place for name, (place, _) in makers.items()})


def _in_order(file: ModelFile, nodes: dict[int, onnx.NodeProto], makers: dict[str, int]) -> list:
    """Nodes, by their places in the file, so that each comes behind those that make its inputs."""
    missing = {
        place: {makers[name] for name in node.input if name in makers} for place, node in nodes.items()
    }
    readers: dict[int, list[int]] = {place: [] for place in nodes}
    for place, sources in missing.items():
        for source in sources:
            readers[source].append(place)
    ready, ordered = sorted(place for place, sources in missing.items() if not sources), []
    while ready:
        place = heappop(ready)
        ordered.append(nodes[place])
        for reader in readers[place]:
            missing[reader].discard(place)
            if not missing[reader]:
                heappush(ready, reader)
    if len(ordered) < len(nodes):
        place = min(place for place, sources in missing.items() if sources)
        raise ModelError(
            "is damaged: a tensor depends on itself",
            where=file.name,
            got=repr(nodes[place].output[0])[:80],
            hint="export it again",
        )
    return ordered


def find_input(
    file: ModelFile, read: Set[str], notes: list[str]
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """The network's input, which is the only one among the tensors that are `read`.

    Returns
    -------
    name : str
    shape : tuple of int
        Without the batch axis.
    batches : tuple of int
        The size of the batch if the file fixes it, else two sizes to try; empty if the input has no batch.

    Raises
    ------
    ModelError
        If there is no input or more than one, or it is not a batch of float tensors of a fixed shape.
    """
    stored = {proto.name for proto in file.graph.initializer}
    inputs = [value for value in file.graph.input if value.name not in stored and value.name in read]
    if len(inputs) != 1:
        hint = (
            "export a model with one input; make the others constants"
            if inputs
            else "the output must depend on an input"
        )
        raise ModelError(
            "needs one input",
            where=file.name,
            got=f"{len(inputs)}: {_listed(v.name for v in inputs)}" if inputs else "none",
            hint=hint,
        )
    (value,) = inputs
    where = f"{file.name}: input {value.name!r:.60}"
    kind, data_type = value.type.WhichOneof("value"), value.type.tensor_type.elem_type
    if kind != "tensor_type" or data_type not in FLOATS:
        got = f"data type {data_type}" if kind == "tensor_type" else kind
        raise ModelError(
            "must be a tensor of floats",
            where=where,
            got=got,
            expected="float32",
            hint="export the float model, with the input's scaling outside",
        )
    if FLOATS[data_type] != "float32":
        notes.append(f"the input of {FLOATS[data_type]} is read as float32")
    batch, *dims = value.type.tensor_type.shape.dim or [None]
    if not dims and batch is not None and batch.dim_value > 0:
        notes.append("the input has no axis for a batch; the network takes one before it")
        return value.name, (batch.dim_value,), ()
    if not dims:
        raise ModelError(
            "has no axes but the batch's",
            where=where,
            expected="(N, ...): the batch, then one sample's axes",
            hint="export with one axis more, (N, features), or with a fixed number of features",
        )
    for axis, dim in enumerate(dims, start=1):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value < 1:
            got = f"size {dim.dim_value} of axis {axis}"
            raise ModelError("has an axis without elements", where=where, got=got, expected="1 or more")
        if dim.dim_value < 1:
            got = f"axis {axis}{f' named {dim.dim_param!r:.40}' if dim.dim_param else ''}"
            raise ModelError(
                "has a dynamic axis beside the batch's",
                where=where,
                got=got,
                hint="export with that size fixed",
            )
    shape = tuple(dim.dim_value for dim in dims)
    try:
        check_size(shape)
    except ModelError as error:
        raise error.at(where) from None
    if batch.dim_value > 0:
        notes.append(f"the file fixes the batch to {batch.dim_value}; the network takes any")
    return value.name, shape, (batch.dim_value,) if batch.dim_value > 0 else _UNFIXED


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(repr(name)[:60] for name in names[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )
