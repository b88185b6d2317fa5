"""The source ANN's forward pass, batch after batch, within a given amount of memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ...errors import InputError, ModelError
from .graph import Graph
from .operators import OPERATORS

__all__ = ["MAX_BYTES", "batches", "evaluate", "sample_bytes"]

MAX_BYTES = 256 << 20
"""Memory for a batch's tensors, besides the weights, `dense.SCRATCH_BYTES` and what is returned."""


def evaluate(
    graph: Graph,
    images: np.ndarray,
    *,
    outputs: Sequence[str] | None = None,
    batch: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> np.ndarray | dict[str, np.ndarray]:
    """Run the network on many images.

    Parameters
    ----------
    images : (n, *graph.shapes[graph.input]) array of numbers
        It may be a memory map; one batch at a time is read.
    outputs : sequence of str, optional
        The tensors to return. None: the network's first output.
    batch : int, optional
        Images per batch. None: as many as `max_bytes` allow, at least one.
    max_bytes : int

    Returns
    -------
    (n, *shape) float32, or with `outputs` a dict of them by name

    Raises
    ------
    InputError
        If the images do not fit the network.
    ModelError
        If the graph has no such tensor.
    """
    names = [graph.output] if outputs is None else list(outputs)
    runs = batches(graph, images, names, batch=batch, max_bytes=max_bytes)
    results = {name: np.empty((len(images), *graph.shapes[name]), np.float32) for name in names}
    for start, tensors in runs:
        for name, values in tensors.items():
            results[name][start : start + len(values)] = values
    return results[graph.output] if outputs is None else results


def batches(
    graph: Graph,
    images: np.ndarray,
    outputs: Sequence[str],
    *,
    batch: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Run the network batch after batch.

    Parameters are those of `evaluate`.

    Yields
    ------
    start : int
        The index of the batch's first image.
    tensors : dict of str to (n, *shape) float32
    """
    shape = graph.shapes[graph.input]
    if images.shape[1:] != shape or images.dtype.kind not in "fiub":
        raise InputError(
            "do not fit the network",
            where="images",
            got=f"{images.dtype} {images.shape}",
            expected=f"numbers of shape (n, {', '.join(map(str, shape))})",
        )
    for name in outputs:
        if name not in graph.shapes:
            raise ModelError("has no such tensor", where=graph.name, got=repr(name)[:80])
    return _run(graph, images, outputs, batch or max(1, max_bytes // sample_bytes(graph, outputs)))


def _run(
    graph: Graph, images: np.ndarray, outputs: Sequence[str], batch: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    last = _last_reads(graph, outputs)
    for start in range(0, len(images), batch):
        tensors = {graph.input: np.asarray(images[start : start + batch], np.float32)}
        for i, node in enumerate(graph.nodes):
            operands = [
                (graph.constants[n] if n in graph.constants else tensors[n]) if n else None
                for n in node.inputs
            ]
            tensors[node.outputs[0]] = OPERATORS[node.op](*operands, **node.attributes)
            for name in {*node.inputs, *node.outputs}:
                if last.get(name, i) <= i:
                    tensors.pop(name, None)
        yield start, {name: tensors[name] for name in outputs}


def sample_bytes(graph: Graph, outputs: Sequence[str] = (), idle: Collection[str] = ()) -> int:
    """The most memory that one image takes.

    It is needed for tensors that are still read, an operator's result, as much again for the operator's work,
    and the outputs of the batch before, which the caller still holds. Operators in `idle` take nothing for
    their work, or it is counted elsewhere.
    """
    last = _last_reads(graph, outputs)
    size = {name: 4 * math.prod(shape) for name, shape in graph.shapes.items()}
    alive, most = size[graph.input], 0
    for i, node in enumerate(graph.nodes):
        result = size[node.outputs[0]]
        reads = max((size[n] for n in node.inputs if n in size), default=0)
        alive += result
        most = max(most, alive + (0 if node.op in idle else max(result, reads)))
        alive -= sum(size[n] for n in {*node.inputs, *node.outputs} if n in size and last.get(n, i) <= i)
    return most + sum(size[name] for name in outputs)


def _last_reads(graph: Graph, outputs: Sequence[str]) -> dict[str, int]:
    """By tensor, the number of the last node that reads it; tensors that are returned are read last."""
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    return last | {name: len(graph.nodes) for name in (*outputs, *graph.outputs.values())}
