"""Event queues and spike masks -> membranes -> spike masks: the loop where the time goes.

Output-stationary: for each tile of output channels and each output position, the membranes of the
tile stay in registers for all steps of a block while the weight rows of the events in the receptive
field are added. First the gathered events (kernel row after kernel row), then the taps (masks of one
position, one weight a channel), then the bias: the order of the specification, whatever the tile,
thread or block.

The runs of events that a position reads, one a kernel row, are first copied into one list a step, as
row numbers of the tile's weights: a few vector instructions a run, and the adding loop ends once a
step, not once a run, which spares mispredicted branches. Lists are padded to `UNROLL` with a row of zeros.
"""

from __future__ import annotations

from . import vector
from .jit import inner, kernel
from .jobs.integrate import (
    BUDGET,
    COUNTS,
    DELAY,
    DRIVE,
    FETCH_FIRST,
    HEIGHT,
    LEAKY,
    LINES_AHEAD,
    MEMBRANES,
    N_STEPS,
    N_SYNAPSES,
    N_TAPS,
    N_TILES,
    NEGATIVES,
    NEXT,
    NEXT_BYTES,
    P_DILATION_X,
    P_DILATION_Y,
    P_HEIGHT,
    P_KERNEL_HEIGHT,
    P_KERNEL_WIDTH,
    P_MASKS,
    P_PAD_LEFT,
    P_PAD_TOP,
    P_ROW_BYTES,
    P_STEP_BYTES,
    P_STRIDE_X,
    P_STRIDE_Y,
    P_WEIGHTS,
    P_WIDTH,
    P_WORD_BYTES,
    PARAMETERS,
    R_EVENTS,
    R_FIRST,
    R_LAST,
    R_STEP,
    R_WEIGHTS,
    RESUME,
    S_COLUMNS,
    S_DILATION,
    S_EVENTS,
    S_FIRST_ROW,
    S_KERNEL_ROW,
    S_PART_BYTES,
    S_POINTERS,
    S_ROW_BYTES,
    S_ROWS,
    S_STEP_BYTES,
    SPIKES,
    SYNAPSE_BYTES,
    SYNAPSES,
    TAP_BYTES,
    TAPS,
    TILE_BYTES,
    TILE_ROWS,
    WEIGHTS,
    WIDTH,
    WORD_BYTES,
)
from .layout import COPY_BYTES, LIST_STEPS, PARAMETER_ROWS, RUN_BYTES, UNROLL
from .memory import load_i32, load_i64, prefetch, store_i64

__all__ = ["integrate"]


@inner
def list_runs(job, tile, y, x, at):
    """Write the runs of an output position to `at`; return their number."""
    n = 0
    synapse = load_i64(job + SYNAPSES)
    for _ in range(load_i64(job + N_SYNAPSES)):
        column = load_i64(synapse + S_COLUMNS) + 12 * x
        first, last, origin = load_i32(column), load_i32(column + 4), load_i32(column + 8)
        row = load_i64(synapse + S_ROWS) + 12 * y
        ky, ky_end, top = load_i32(row), load_i32(row + 4), load_i32(row + 8)
        dilation = load_i64(synapse + S_DILATION)
        pointers = load_i64(synapse + S_POINTERS) + tile * load_i64(synapse + S_PART_BYTES)
        if first < last:
            for k in range(ky, ky_end):
                line = pointers + (top + k * dilation) * load_i64(synapse + S_ROW_BYTES)
                store_i64(at + R_FIRST, line + 4 * first)
                store_i64(at + R_LAST, line + 4 * last)
                store_i64(at + R_STEP, load_i64(synapse + S_STEP_BYTES))
                store_i64(
                    at + R_WEIGHTS,
                    load_i64(synapse + S_FIRST_ROW) + k * load_i64(synapse + S_KERNEL_ROW) - origin,
                )
                store_i64(at + R_EVENTS, load_i64(synapse + S_EVENTS))
                at += RUN_BYTES
                n += 1
        synapse += SYNAPSE_BYTES
    return n


@inner
def list_events(events, runs, runs_end, t, t_end, zero_row, lists, at):
    """Copy the events of a position's runs, a list a step; write the lists' bounds to `lists`."""
    event_bytes = vector.event_bytes(events)
    while t < t_end:
        store_i64(lists, at)
        run = runs
        while run < runs_end:
            ahead, queue, row = (
                t * load_i64(run + R_STEP),
                load_i64(run + R_EVENTS),
                load_i64(run + R_WEIGHTS),
            )
            event = queue + event_bytes * load_i32(load_i64(run + R_FIRST) + ahead)
            end = queue + event_bytes * load_i32(load_i64(run + R_LAST) + ahead)
            vector.copy_events(events, event, at, row)  # most runs are that short: no branch to mispredict
            for more in range(COPY_BYTES, end - event, COPY_BYTES):
                vector.copy_events(events, event + more, at + more, row)
            at += end - event
            run += RUN_BYTES
        vector.pad_events(events, at, zero_row)
        n = (at - load_i64(lists)) // event_bytes
        at += (-n % UNROLL) * event_bytes
        lists += 8
        t += 1
    store_i64(lists, at)


@inner
def list_taps(job, tile, y, x, membrane_bytes, mask_bytes, at):
    """Write the taps of an output position to `at`; return their number."""
    n = 0
    tap = load_i64(job + TAPS)
    for _ in range(load_i64(job + N_TAPS)):
        height, width = load_i64(tap + P_KERNEL_HEIGHT), load_i64(tap + P_KERNEL_WIDTH)
        for ky in range(height):
            source_y = (
                y * load_i64(tap + P_STRIDE_Y) - load_i64(tap + P_PAD_TOP) + ky * load_i64(tap + P_DILATION_Y)
            )
            if source_y < 0 or source_y >= load_i64(tap + P_HEIGHT):
                continue
            for kx in range(width):
                source_x = (
                    x * load_i64(tap + P_STRIDE_X)
                    - load_i64(tap + P_PAD_LEFT)
                    + kx * load_i64(tap + P_DILATION_X)
                )
                if source_x < 0 or source_x >= load_i64(tap + P_WIDTH):
                    continue
                masks = (
                    load_i64(tap + P_MASKS)
                    + source_y * load_i64(tap + P_ROW_BYTES)
                    + source_x * load_i64(tap + P_WORD_BYTES)
                )
                store_i64(at + R_FIRST, masks + tile * mask_bytes)
                store_i64(at + R_STEP, load_i64(tap + P_STEP_BYTES))
                store_i64(
                    at + R_WEIGHTS,
                    load_i64(tap + P_WEIGHTS) + ((tile * height + ky) * width + kx) * membrane_bytes,
                )
                at += RUN_BYTES
                n += 1
        tap += TAP_BYTES
    return n


@inner
def fire_step(fmt, v, n, threshold, bound, out, plane_bytes):
    """Compare, write a step's masks to `out`, reset; the membranes and net counts after it."""
    fired = vector.mask(fmt, v, threshold)
    vector.store_mask(fmt, out, fired)
    if vector.signed(fmt):
        below = vector.below(fmt, v, vector.load(fmt, bound), n)
        vector.store_mask(fmt, out + plane_bytes, below)
        n = vector.tally(fmt, n, fired, below)
        v = vector.lift(fmt, v, threshold, below)
    return vector.reset(fmt, v, threshold, fired), n


@kernel
def integrate(fmt, events, job, tile_from, tile_to, y_from, y_to, scratch):
    """Run a block of steps for the tiles and rows of one population.

    Parameters
    ----------
    fmt : Vectors
    events : Events
    job : int64
        Address of the job; see the slots above.
    tile_from, tile_to, y_from, y_to : int64
        What this call computes of the output.
    scratch : int64
        Address of `layout.scratch_bytes` bytes, private to the caller.
    """
    n_steps, height, width = load_i64(job + N_STEPS), load_i64(job + HEIGHT), load_i64(job + WIDTH)
    n_tiles, word_bytes, spikes = load_i64(job + N_TILES), load_i64(job + WORD_BYTES), load_i64(job + SPIKES)
    drive, membranes, resume = load_i64(job + DRIVE), load_i64(job + MEMBRANES), load_i64(job + RESUME)
    counts, plane_bytes = load_i64(job + COUNTS), load_i64(job + NEGATIVES) - spikes
    delay = load_i64(job + DELAY) if vector.delayed(fmt) else 0
    leaky, budget = load_i64(job + LEAKY), load_i64(job + BUDGET) * vector.event_bytes(events)
    tile_bytes, zero_row, lines_ahead = (
        load_i64(job + TILE_BYTES),
        load_i64(job + TILE_ROWS),
        load_i64(job + LINES_AHEAD),
    )
    vector_bytes, mask_bytes, event_bytes = (
        vector.membrane_bytes(fmt),
        vector.mask_bytes(fmt),
        vector.event_bytes(events),
    )
    if load_i64(job + FETCH_FIRST):
        first = load_i64(job + WEIGHTS) + tile_from * tile_bytes
        for line in range(first, first + tile_bytes, 64):
            prefetch(line)
    for tile in range(tile_from, tile_to):
        weights = load_i64(job + WEIGHTS) + tile * tile_bytes
        ahead = weights + tile_bytes if tile + 1 < tile_to else load_i64(job + NEXT)
        ahead_end = ahead + (tile_bytes if tile + 1 < tile_to else load_i64(job + NEXT_BYTES))
        parameters = load_i64(job + PARAMETERS) + PARAMETER_ROWS * tile * vector_bytes
        threshold = vector.load(fmt, parameters + vector_bytes)
        for y in range(y_from, y_to):
            for x in range(width):
                position = y * width + x
                taps = scratch + RUN_BYTES * list_runs(job, tile, y, x, scratch)
                taps_end = taps + RUN_BYTES * list_taps(job, tile, y, x, vector_bytes, mask_bytes, taps)
                here = (position * n_tiles + tile) * vector_bytes
                v = vector.load(fmt, membranes + here if resume else parameters + 2 * vector_bytes)
                n = vector.load(fmt, counts + here) if resume and vector.signed(fmt) else vector.zero(fmt)
                bias = vector.load(fmt, drive + here if drive else parameters)
                out = spikes + position * word_bytes + tile * mask_bytes
                for t in range(n_steps):
                    listed = t % LIST_STEPS
                    if listed == 0 and scratch < taps:
                        list_events(
                            events,
                            scratch,
                            taps,
                            t,
                            min(t + LIST_STEPS, n_steps),
                            zero_row,
                            taps_end,
                            taps_end + 8 * LIST_STEPS + 8,
                        )
                    for line in range(ahead, min(ahead + 64 * lines_ahead, ahead_end), 64):
                        prefetch(line)
                    ahead += 64 * lines_ahead
                    if leaky:
                        v = vector.leak(fmt, v, vector.load(fmt, parameters + 3 * vector_bytes))
                    if scratch < taps:
                        s = vector.begin(fmt, events, v)
                        event, end = load_i64(taps_end + 8 * listed), load_i64(taps_end + 8 * listed + 8)
                        while end - event > budget:  # a partial sum could leave its range: bring it home
                            stop = event + budget
                            while event < stop:
                                s = vector.add_event(fmt, events, s, weights, event)
                                event += event_bytes
                            v = vector.merge(fmt, v, s)
                            s = vector.begin(fmt, events, v)
                        while event < end:
                            for _ in range(UNROLL):
                                s = vector.add_event(fmt, events, s, weights, event)
                                event += event_bytes
                        v = vector.merge(fmt, v, s)
                    tap = taps
                    while tap < taps_end:
                        v = vector.add_masked(
                            fmt,
                            v,
                            load_i64(tap + R_FIRST) + t * load_i64(tap + R_STEP),
                            load_i64(tap + R_WEIGHTS),
                        )
                        tap += RUN_BYTES
                    v = vector.add(fmt, v, bias)
                    if spikes and (not vector.delayed(fmt) or t >= delay):
                        v, n = fire_step(
                            fmt,
                            v,
                            n,
                            threshold,
                            parameters + 4 * vector_bytes,
                            out + (t - delay) * height * width * word_bytes,
                            plane_bytes,
                        )
                if vector.delayed(fmt):  # the input is over
                    for t in range(n_steps - delay, n_steps):
                        v, n = fire_step(
                            fmt,
                            v,
                            n,
                            threshold,
                            parameters + 4 * vector_bytes,
                            out + t * height * width * word_bytes,
                            plane_bytes,
                        )
                if membranes:
                    vector.store(fmt, membranes + here, v)
                if counts and vector.signed(fmt):
                    vector.store(fmt, counts + here, n)
