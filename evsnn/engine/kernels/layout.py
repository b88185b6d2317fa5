"""Sizes that plans and kernels share. Needs no numba."""

LIST_STEPS = 8
"""Steps whose events are listed at once for a position."""

UNROLL = 4
"""Lists are padded to a multiple of this many events."""

COPY_BYTES = 64
"""Bytes of events that are copied or padded at once; queues and lists have as much room behind them."""

LEAST_PLANES = 4
"""Bit planes of a pooling window's counters that always have room."""

PARAMETER_ROWS = 5
"""Vectors of parameters of a tile: bias, threshold, v_init, leak, v_negative."""

COUNTS_PER_MASK = 16
"""Bytes of a max pool's lasting counts, 16 bits each, for each byte of masks."""

RUN_BYTES = 8 * 5
"""A run or tap of one output position, in scratch memory."""


def scratch_bytes(runs: int, events: int, event_bytes: int) -> int:
    """Scratch memory of `integrate` for positions of at most `runs` runs and channelwise weights, and
    `events` events a step.
    """
    return (
        RUN_BYTES * runs
        + 8 * (LIST_STEPS + 1)
        + LIST_STEPS * (events + UNROLL) * event_bytes
        + 2 * COPY_BYTES
    )
