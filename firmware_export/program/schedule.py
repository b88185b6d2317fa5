"""The order of the rows, and from when to when each row of a view is needed."""

from __future__ import annotations

from collections.abc import Sequence

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
) -> tuple[dict[Key, list[int]], dict[Key, list[int]]]:
    """For each view, where in the schedule its rows are made, and used last."""
    made: dict[Key, list[int]] = {key: [] for key in views}
    used: dict[Key, list[int]] = {key: [] for key in views}
    row = [0] * len(stages)
    for at, i in enumerate(schedule):
        for key in stages[i].writes:
            made[key].append(at)
            used[key].append(at)
        for read in stages[i].reads:
            low, high = _rows_read(stages[i], read, row[i], views[read.key].shape[1])
            for y in range(low, high + 1):
                if made[read.key]:
                    used[read.key][y] = at
        row[i] += 1
    return made, used


def ring_of(made: Sequence[int], used: Sequence[int]) -> int:
    """How many rows of a view must be kept, if row y lies at y modulo this number."""
    rows = len(made)
    return next(r for r in range(1, rows + 1) if all(used[y] < made[y + r] for y in range(rows - r)))
