"""The memory of a program: which buffers it needs, when, and where they lie."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from evsnn.circuit.populations import INPUT

from ..program.fast import fast_kind
from ..program.packing import tile_pairs
from ..program.program import Program, groups_of
from ..program.stages import Stage
from ..program.views import TILE, Key
from .placement import Buffer, Placed, place

__all__ = ["Arena", "NO_VIEW", "buffer_name"]

NO_VIEW = {
    "offset": 0,
    "row_bytes": 0,
    "step_bytes": 0,
    "ring": 1,
    "height": 0,
    "width": 0,
    "left": 0,
    "words": 0,
    "word_bits": 32,
    "field_bits": 1,
}


class Arena:
    """Buffers in one array of words.

    Parameters
    ----------
    program : Program
    """

    def __init__(self, program: Program):
        self.program = program

    @cached_property
    def placed(self) -> Placed:
        """The buffers and where they lie."""
        return place(self._buffers())

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where a buffer lies, by name."""
        return dict(zip((b.name for b in self.placed.buffers), self.placed.offsets))

    def _buffers(self) -> list[Buffer]:
        program, lives, end = self.program, self.program.view_lives(), len(self.program.schedule)
        buffers = [
            Buffer(buffer_name(key), view.n_bytes(program.view_steps), lives[key])
            for key, view in program.views.items()
        ]
        order = np.array(program.schedule)
        for i, stage in enumerate(program.stages):
            if stage.kind == "maxpool":
                pool = program.max_pool(stage)
                at = np.flatnonzero(order == i)
                if program.by_step:
                    life, n_counts = (0, end), pool.n_inputs
                elif at.size:
                    life, n_counts = (int(at[0]), int(at[-1])), pool.window.area
                else:  # nobody reads a row of it
                    continue
                buffers.append(Buffer(f"counts {stage.population}", 4 * n_counts, life))
            elif stage.kind == "population" and program.by_step:
                buffers += [
                    Buffer(f"{what} {stage.population}", n_bytes, (0, end))
                    for what, n_bytes in self._state_bytes(stage).items()
                ]
        return buffers

    def _state_bytes(self, stage: Stage) -> dict[str, int]:
        """What neurons keep from step to step."""
        p = self.program.population(stage)
        kind, places = fast_kind(stage, self.program), p.shape[1] * p.shape[2]
        if kind in ("pairs", "wide"):
            row = tile_pairs(p.shape[0])
            n_bytes = 4 * places * -(-p.shape[0] // (2 * row)) * row * (2 if kind == "wide" else 1)
        else:
            groups = 1 if kind else groups_of(p)
            n_bytes = 4 * places * groups * -(-p.shape[0] // groups // TILE) * TILE
        return (
            {"membranes": n_bytes}
            | ({"net counts": n_bytes} if p.has_negative_spikes else {})
            | ({"currents": n_bytes} if p.analog_projections else {})
        )

    def view(self, key: Key | None) -> dict[str, int]:
        """A view as an evsnn_view_t; None, or one that nobody keeps: an empty one."""
        if key is None or key not in self.program.views:
            return NO_VIEW
        view, steps = self.program.views[key], self.program.view_steps
        _, height, width = view.shape
        return {
            "offset": self.offsets[buffer_name(key)],
            "row_bytes": view.row_bytes(steps),
            "step_bytes": view.step_bytes,
            "ring": view.ring,
            "height": height,
            "width": width,
            "left": view.left,
            "words": view.words,
            "word_bits": view.word_bits,
            "field_bits": view.field_bits,
        }

    def state(self, what: str, population: int) -> int:
        """Where a population's state begins; 0 if it has none."""
        return self.offsets.get(f"{what} {population}", 0)


def buffer_name(key: Key) -> str:
    """A view's name in the planner's table."""
    pool = key.pool
    text = "input" if key.population == INPUT else f"layer {key.population}"
    text += " negative" if key.negative else ""
    if pool is not None:
        text += " pooled {}x{}".format(*pool.kernel) + (
            "" if pool.stride == pool.kernel else " by {}x{}".format(*pool.stride)
        )
        text += " padded {},{},{},{}".format(*pool.padding) if any(pool.padding) else ""
    return text
