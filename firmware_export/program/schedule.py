"""The order of the rows, and from when to when each row of a view is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .stages import Stage
from .views import Key, Read, View

__all__ = ["lives_of", "ring_of", "schedule_of"]


def schedule_of(stages: Sequence[Stage]) -> list[int]:
    """Which stage computes its next row: as late as possible, so that few rows are kept."""
    maker = {key: i for i, stage in enumerate(stages) for key in stage.writes}
    read = {read.key for stage in stages for read in stage.reads}
    done, order = [0] * len(stages), []
    for last, stage in enumerate(stages):
        if any(key in read for key in stage.writes):
            continue
        for row in range(stage.rows):
            pending = [(last, row)]
            while pending:
                i, wanted = pending[-1]
                if done[i] > wanted:
                    pending.pop()
                    continue
                missing = []
                for one in stages[i].reads:
                    if (source := maker.get(one.key)) is not None:
                        _, high = _rows_read(stages[i], one, done[i], stages[source].rows)
                        if high >= done[source]:
                            missing.append((source, high))
                if missing:
                    pending += missing
                else:
                    order.append(i)
                    done[i] += 1
    return order


def _rows_read(stage: Stage, read: Read, row: int, height: int) -> tuple[int, int]:
    """Rows of a view, first and last, that a row of a stage reads; last < first: none."""
    low, high = read.window.span(0, row * stage.window[0], (row + 1) * stage.window[0] - 1)
    return max(0, low), min(height - 1, high)


def lives_of(
    stages: Sequence[Stage], views: dict[Key, View], schedule: Sequence[int]
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """For each view, where in the schedule its rows are made, and used last."""
    order = np.asarray(schedule, np.int64)
    n_rows = np.bincount(order, minlength=len(stages))
    turns = np.split(np.argsort(order, kind="stable"), np.cumsum(n_rows)[:-1])
    made: dict[Key, np.ndarray] = {key: np.zeros(0, np.int64) for key in views}
    for turn, stage in zip(turns, stages):
        made |= dict.fromkeys(stage.writes, turn)
    used = {key: rows.copy() for key, rows in made.items()}
    for turn, stage in zip(turns, stages):
        for read in stage.reads:
            last = used[read.key]
            if not turn.size or not last.size:
                continue
            low, high = (
                end + np.arange(turn.size) * stage.window[0] * read.window.stride[0]
                for end in read.window.span(0, 0, stage.window[0] - 1)
            )
            rows = np.arange(last.size)
            reader = np.searchsorted(low, rows, "right") - 1  # the last whose rows begin there or before
            reads = (reader >= 0) & (high[reader] >= rows)
            last[reads] = np.maximum(last[reads], turn[reader[reads]])
    return made, used


def ring_of(made: np.ndarray, used: np.ndarray) -> int:
    """How many rows of a view must be kept, if row y lies at y modulo this number."""
    next_free = np.searchsorted(made, used, "right")  # the first row that is made after a row's last use
    return max(1, int((next_free - np.arange(len(made))).max()))
