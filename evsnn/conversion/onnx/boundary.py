"""Where the network in a model file begins and ends: its input, its output, and the nodes between them."""

from __future__ import annotations

from collections.abc import Iterable, Set
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from ...errors import ModelError
from .admission import check_size
from .model_file import FLOATS, ModelFile

if TYPE_CHECKING:
    import onnx

__all__ = ["find_input", "find_output", "nodes_to"]

_UNFIXED = (1_000_003, 999_983)  # primes: no other size is theirs by chance


def find_output(file: ModelFile, output: str | None, notes: list[str]) -> str:
    """The tensor to end at: the one that is named, else the only output of floats.

    Parameters
    ----------
    output : str, optional
        The name of any tensor.
    notes : list of str
        A line is added if outputs are left out.

    Raises
    ------
    ModelError
        If there is no such tensor, or no name is given and there is more than one output of floats, or none.
    """
    values = file.graph.output
    made = {name for node in file.graph.node for name in node.output}
    if output is not None:
        if output not in made:
            raise ModelError(
                "has no such tensor",
                where=file.name,
                got=repr(output)[:80],
                expected=f"one of {_listed(v.name for v in values)}",
            )
        return output
    scores = [
        v.name
        for v in values
        if v.type.WhichOneof("value") == "tensor_type" and v.type.tensor_type.elem_type in FLOATS
    ]
    if len(scores) != 1:
        what = "has several outputs" if len(values) > 1 else "has no output of floats"
        hint = "export one output of float scores" + (
            ", or name one: --scores NAME, output=NAME"
            if scores
            else "; from scikit-learn, with options={'zipmap': False}"
        )
        raise ModelError(
            what, where=file.name, got=_listed(v.name for v in values) or "none", expected="one", hint=hint
        )
    if scores[0] not in made:
        raise ModelError("no node makes its output", where=file.name, got=repr(scores[0])[:80])
    if len(values) > 1:
        notes.append(
            "left out the outputs that are not scores:"
            f" {_listed(v.name for v in values if v.name != scores[0])}"
        )
    return scores[0]


def nodes_to(file: ModelFile, output: str) -> list[onnx.NodeProto]:
    """The nodes that lead to a tensor, each behind those that it reads; else in the file's order.

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
    wanted, waiting = {}, [output]
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
        The size of the batch if the file fixes it, else two sizes to try.

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
    if not dims:
        raise ModelError(
            "has no axes but the batch's", where=where, expected="(N, ...): the batch, then one sample's axes"
        )
    for axis, dim in enumerate(dims, start=1):
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
