"""Sizes that plans and kernels share. Needs no numba."""

LIST_STEPS = 8
"""How many steps' events are listed at once for a position."""

UNROLL = 4
"""Lists are padded to a multiple of this many events."""

COPY_BYTES = 64
"""Bytes of events that are copied or padded at once; queues and lists have that much room at their end."""

LEAST_PLANES = 4
"""The least number of bit planes that counters of a pooling window have room for."""

PARAMETER_ROWS = 5
"""How many vectors of parameters a tile has: bias, threshold, v_init, leak, v_negative."""

COUNTS_PER_MASK = 16
"""Bytes of a max pool's kept counts, 16 bits each, per byte of masks."""

RUN_BYTES = 8 * 5
"""Bytes of a run or a channelwise weight of one output position, in scratch memory."""


def scratch_bytes(runs: int, events: int, event_bytes: int) -> int:
    """The bytes of scratch memory of `integrate`.

    Positions have at most `runs` runs and channelwise weights, and at most `events` events per step.
    """
    return (
        RUN_BYTES * runs
        + 8 * (LIST_STEPS + 1)
        + LIST_STEPS * (events + UNROLL) * event_bytes
        + 2 * COPY_BYTES
    )
