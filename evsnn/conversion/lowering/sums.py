"""Sums of two tensors that depend on the input: residual sums, and the parts of what is linear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..onnx.graph import Node
from .expression import Expression, Pending
from .phases import in_phases, interleaved, regular_phases
from .scope import Scope
from .value import ZERO, LayoutError, Value

__all__ = ["added"]


def added(scope: Scope, node: Node, a: Value, b: Value) -> Value:
    """a + b; channels keep their places if they have the same in both.

    Raises
    ------
    LayoutError
        If their shapes differ, or their elements are moved in a way that no convolution follows.
    """
    a, b = a.explicit(), b.explicit()
    if a.shape != b.shape:
        raise LayoutError(f"its operands differ in shape: {a.shape} and {b.shape}")
    if not _same_layout(a, b):
        pieces = _pieces(scope, node, a, b)
        if pieces is not None:
            return Value(tuple(pieces), a.shape)
        if len(a.shape) == 3 and (a.blocks() is None or b.blocks() is None):
            return _in_phases(scope, node, a, b)
        shape = a.shape
        a, b = (
            replace(v, shape=shape) if len(shape) != 3 and v.index is None else _natural(scope, node, v)
            for v in (a, b)
        )
    if [p.shape for p in a.parts] == [p.shape for p in b.parts]:
        return a.with_parts(
            [
                scope.assembly.sum(p, q, node.name)
                for p, q in zip(scope.expressions(a, node.name), scope.expressions(b, node.name))
            ]
        )
    return a.with_parts([scope.assembly.sum(scope.whole(a, node.name), scope.whole(b, node.name), node.name)])


def _in_phases(scope: Scope, node: Node, a: Value, b: Value) -> Value:
    """The sum of two maps of which one is larger than the layers it comes from."""
    regular = regular_phases(a if a.blocks() is None else b)
    steps = (1, 1) if regular is None else regular[0]
    both = [in_phases(value, steps) for value in (a, b)]
    if regular is None or both[0] is None or both[1] is None:
        raise LayoutError("its operands differ in layout")
    sums: dict[tuple[int, int], Value] = {}
    for at, first in both[0].items():
        terms = [value for value in (first, both[1][at]) if value.blocks()]
        if not terms:
            raise LayoutError("its operands have places at which both are 0")
        maps = [scope.whole(value, node.name) for value in terms]
        total = maps[0] if len(maps) == 1 else scope.assembly.sum(maps[0], maps[1], node.name)
        sums[at] = Value((total,), first.shape)
    return interleaved(sums, steps)


def _same_layout(a: Value, b: Value) -> bool:
    if a.index is None and b.index is None:
        return a.is_map() == b.is_map()
    return (
        a.index is not None
        and b.index is not None
        and np.array_equal(a.index, b.index)
        and [p.shape for p in a.parts] == [p.shape for p in b.parts]
    )


def _natural(scope: Scope, node: Node, value: Value) -> Value:
    """A tensor whose elements are those of its parts, in their order."""
    if len(value.shape) == 3 and not (value.index is None and value.channels[-1] == value.size):
        return scope.mapped(value, node.name)
    return replace(scope.vector(value, node.name), shape=value.shape)


def _pieces(scope: Scope, node: Node, a: Value, b: Value) -> list[Expression] | None:
    """The sum of two maps, cut along the channels where one of them begins anew or is 0.

    So the zeros that are put beside the channels of a shortcut cost nothing. None if a piece is not free.
    """
    of_a, of_b = a.sources(), b.sources()
    if of_a is None or of_b is None:
        return None
    cuts = {0, a.shape[0]}
    for value, of in ((a, of_a), (b, of_b)):
        number = np.where(of == ZERO, -1, np.searchsorted(value.channels, of, "right"))
        goes_on = (np.diff(number) == 0) & ((np.diff(of) == 1) | (of[1:] == ZERO))
        cuts |= set((np.flatnonzero(~goes_on) + 1).tolist())
    pieces, edges = [], sorted(cuts)
    for start, stop in zip(edges, edges[1:]):
        piece: Expression | None = None
        for value, of in ((a, of_a), (b, of_b)):
            if of[start] == ZERO:
                continue
            seen = int(np.searchsorted(value.channels, of[start], "right")) - 1
            part, first = value.parts[seen], int(of[start]) - value.channels[seen]
            if isinstance(part, Pending):
                return None
            if part.shape[0] != stop - start:
                if not part.rows_are_free:
                    return None
                part = part.rows(np.arange(first, first + stop - start))
            piece = part if piece is None else scope.assembly.sum(piece, part, node.name)
        if piece is None:
            return None
        pieces.append(piece)
    return pieces
