"""Event queues and spike masks -> membranes -> spike masks: the loop that takes most of the time.

The loop is output-stationary: for each tile of output channels and each output position, the membranes of the
tile stay in registers for all steps of a block, while the weight rows of the events in the receptive field
are added. First come the gathered events (kernel row after kernel row), then the channelwise weights (masks
of one position, one weight per channel), then the bias. This is the specified order, whatever the tile,
thread or block.

A position reads one run of events per kernel row. These runs are first copied into one list per step, as row
numbers of the tile's weights, with a few vector instructions per run. So the adding loop ends once per step
instead of once per run, which avoids mispredicted branches. Lists are padded to `UNROLL` events with a row of
zeros.
"""

from __future__ import annotations

from . import vector
from .descriptors.integrate import (
    CHANNELWISE,
    CHANNELWISE_BYTES,
    COUNTS,
    CURRENT,
    FETCH_FIRST,
    HEIGHT,
    LEAKY,
    LINES_AHEAD,
    MAX_EVENTS,
    MEMBRANES,
    N_CHANNELWISE,
    N_PROJECTIONS,
    N_STEPS,
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
    PROJECTION_BYTES,
    PROJECTIONS,
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
    TILE_BYTES,
    TILE_ROWS,
    WARM_UP_STEPS,
    WEIGHTS,
    WIDTH,
    WORD_BYTES,
)
from .jit import inner, kernel
from .layout import COPY_BYTES, LIST_STEPS, PARAMETER_ROWS, RUN_BYTES, UNROLL
from .memory import load_i32, load_i64, prefetch, store_i64

__all__ = ["integrate"]


@inner
def list_runs(descriptor, tile, y, x, at):
    """Write the runs of an output position to `at`; return their number."""
    n = 0
    projection = load_i64(descriptor + PROJECTIONS)
    for _ in range(load_i64(descriptor + N_PROJECTIONS)):
        column = load_i64(projection + S_COLUMNS) + 12 * x
        first, last, origin = load_i32(column), load_i32(column + 4), load_i32(column + 8)
        row = load_i64(projection + S_ROWS) + 12 * y
        ky, ky_end, top = load_i32(row), load_i32(row + 4), load_i32(row + 8)
        dilation = load_i64(projection + S_DILATION)
        pointers = load_i64(projection + S_POINTERS) + tile * load_i64(projection + S_PART_BYTES)
        if first < last:
            for k in range(ky, ky_end):
                line = pointers + (top + k * dilation) * load_i64(projection + S_ROW_BYTES)
                store_i64(at + R_FIRST, line + 4 * first)
                store_i64(at + R_LAST, line + 4 * last)
                store_i64(at + R_STEP, load_i64(projection + S_STEP_BYTES))
                store_i64(
                    at + R_WEIGHTS,
                    load_i64(projection + S_FIRST_ROW) + k * load_i64(projection + S_KERNEL_ROW) - origin,
                )
                store_i64(at + R_EVENTS, load_i64(projection + S_EVENTS))
                at += RUN_BYTES
                n += 1
        projection += PROJECTION_BYTES
    return n


@inner
def list_events(events, runs, runs_end, t, t_end, zero_row, lists, at):
    """Copy the events of a position's runs into one list per step; write the lists' bounds to `lists`."""
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
            vector.copy_events(events, event, at, row)  # most runs are that short: no branch is mispredicted
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
def list_channelwise(descriptor, tile, y, x, membrane_bytes, mask_bytes, at):
    """Write the channelwise weights of an output position to `at`; return their number."""
    n = 0
    item = load_i64(descriptor + CHANNELWISE)
    for _ in range(load_i64(descriptor + N_CHANNELWISE)):
        height, width = load_i64(item + P_KERNEL_HEIGHT), load_i64(item + P_KERNEL_WIDTH)
        for ky in range(height):
            source_y = (
                y * load_i64(item + P_STRIDE_Y)
                - load_i64(item + P_PAD_TOP)
                + ky * load_i64(item + P_DILATION_Y)
            )
            if source_y < 0 or source_y >= load_i64(item + P_HEIGHT):
                continue
            for kx in range(width):
                source_x = (
                    x * load_i64(item + P_STRIDE_X)
                    - load_i64(item + P_PAD_LEFT)
                    + kx * load_i64(item + P_DILATION_X)
                )
                if source_x < 0 or source_x >= load_i64(item + P_WIDTH):
                    continue
                masks = (
                    load_i64(item + P_MASKS)
                    + source_y * load_i64(item + P_ROW_BYTES)
                    + source_x * load_i64(item + P_WORD_BYTES)
                )
                store_i64(at + R_FIRST, masks + tile * mask_bytes)
                store_i64(at + R_STEP, load_i64(item + P_STEP_BYTES))
                store_i64(
                    at + R_WEIGHTS,
                    load_i64(item + P_WEIGHTS) + ((tile * height + ky) * width + kx) * membrane_bytes,
                )
                at += RUN_BYTES
                n += 1
        item += CHANNELWISE_BYTES
    return n


@inner
def fire_step(vectors, v, n, threshold, bound, out, plane_bytes):
    """Compare, write a step's masks to `out`, and reset; return membranes and net counts after it."""
    fired = vector.mask(vectors, v, threshold)
    vector.store_mask(vectors, out, fired)
    if vector.has_negative_spikes(vectors):
        below = vector.negative_mask(vectors, v, vector.load(vectors, bound), n)
        vector.store_mask(vectors, out + plane_bytes, below)
        n = vector.net_count(vectors, n, fired, below)
        v = vector.undo_reset(vectors, v, threshold, below)
    return vector.reset(vectors, v, threshold, fired), n


@kernel
def integrate(vectors, events, descriptor, tile_from, tile_to, y_from, y_to, scratch):
    """Run a block of steps for the tiles and rows of one population.

    Parameters
    ----------
    vectors : Vectors
    events : Events
    descriptor : int64
        The address of the descriptor.
    tile_from, tile_to, y_from, y_to : int64
        The tiles and rows of the output that this call computes.
    scratch : int64
        The address of `layout.scratch_bytes` bytes that no other thread uses.
    """
    n_steps, height, width = (
        load_i64(descriptor + N_STEPS),
        load_i64(descriptor + HEIGHT),
        load_i64(descriptor + WIDTH),
    )
    n_tiles, word_bytes, spikes = (
        load_i64(descriptor + N_TILES),
        load_i64(descriptor + WORD_BYTES),
        load_i64(descriptor + SPIKES),
    )
    current, membranes, resume = (
        load_i64(descriptor + CURRENT),
        load_i64(descriptor + MEMBRANES),
        load_i64(descriptor + RESUME),
    )
    counts, plane_bytes = load_i64(descriptor + COUNTS), load_i64(descriptor + NEGATIVES) - spikes
    warm_up_steps = load_i64(descriptor + WARM_UP_STEPS) if vector.has_warm_up(vectors) else 0
    leaky, max_events = (
        load_i64(descriptor + LEAKY),
        load_i64(descriptor + MAX_EVENTS) * vector.event_bytes(events),
    )
    tile_bytes, zero_row, lines_ahead = (
        load_i64(descriptor + TILE_BYTES),
        load_i64(descriptor + TILE_ROWS),
        load_i64(descriptor + LINES_AHEAD),
    )
    vector_bytes, mask_bytes, event_bytes = (
        vector.membrane_bytes(vectors),
        vector.mask_bytes(vectors),
        vector.event_bytes(events),
    )
    if load_i64(descriptor + FETCH_FIRST):
        first = load_i64(descriptor + WEIGHTS) + tile_from * tile_bytes
        for line in range(first, first + tile_bytes, 64):
            prefetch(line)
    for tile in range(tile_from, tile_to):
        weights = load_i64(descriptor + WEIGHTS) + tile * tile_bytes
        ahead = weights + tile_bytes if tile + 1 < tile_to else load_i64(descriptor + NEXT)
        ahead_end = ahead + (tile_bytes if tile + 1 < tile_to else load_i64(descriptor + NEXT_BYTES))
        parameters = load_i64(descriptor + PARAMETERS) + PARAMETER_ROWS * tile * vector_bytes
        threshold = vector.load(vectors, parameters + vector_bytes)
        for y in range(y_from, y_to):
            for x in range(width):
                position = y * width + x
                channelwise = scratch + RUN_BYTES * list_runs(descriptor, tile, y, x, scratch)
                channelwise_end = channelwise + RUN_BYTES * list_channelwise(
                    descriptor, tile, y, x, vector_bytes, mask_bytes, channelwise
                )
                here = (position * n_tiles + tile) * vector_bytes
                v = vector.load(vectors, membranes + here if resume else parameters + 2 * vector_bytes)
                n = (
                    vector.load(vectors, counts + here)
                    if resume and vector.has_negative_spikes(vectors)
                    else vector.zero(vectors)
                )
                bias = vector.load(vectors, current + here if current else parameters)
                out = spikes + position * word_bytes + tile * mask_bytes
                for t in range(n_steps):
                    listed = t % LIST_STEPS
                    if listed == 0 and scratch < channelwise:
                        list_events(
                            events,
                            scratch,
                            channelwise,
                            t,
                            min(t + LIST_STEPS, n_steps),
                            zero_row,
                            channelwise_end,
                            channelwise_end + 8 * LIST_STEPS + 8,
                        )
                    for line in range(ahead, min(ahead + 64 * lines_ahead, ahead_end), 64):
                        prefetch(line)
                    ahead += 64 * lines_ahead
                    if leaky:
                        v = vector.leak(vectors, v, vector.load(vectors, parameters + 3 * vector_bytes))
                    if scratch < channelwise:
                        s = vector.begin(vectors, events, v)
                        event, end = (
                            load_i64(channelwise_end + 8 * listed),
                            load_i64(channelwise_end + 8 * listed + 8),
                        )
                        while end - event > max_events:  # before the accumulator could leave its range
                            stop = event + max_events
                            while event < stop:
                                s = vector.add_event(vectors, events, s, weights, event)
                                event += event_bytes
                            v = vector.merge(vectors, v, s)
                            s = vector.begin(vectors, events, v)
                        while event < end:
                            for _ in range(UNROLL):
                                s = vector.add_event(vectors, events, s, weights, event)
                                event += event_bytes
                        v = vector.merge(vectors, v, s)
                    item = channelwise
                    while item < channelwise_end:
                        v = vector.add_masked(
                            vectors,
                            v,
                            load_i64(item + R_FIRST) + t * load_i64(item + R_STEP),
                            load_i64(item + R_WEIGHTS),
                        )
                        item += RUN_BYTES
                    v = vector.add(vectors, v, bias)
                    if spikes and (not vector.has_warm_up(vectors) or t >= warm_up_steps):
                        v, n = fire_step(
                            vectors,
                            v,
                            n,
                            threshold,
                            parameters + 4 * vector_bytes,
                            out + (t - warm_up_steps) * height * width * word_bytes,
                            plane_bytes,
                        )
                if vector.has_warm_up(vectors):  # the input is over
                    for t in range(n_steps - warm_up_steps, n_steps):
                        v, n = fire_step(
                            vectors,
                            v,
                            n,
                            threshold,
                            parameters + 4 * vector_bytes,
                            out + t * height * width * word_bytes,
                            plane_bytes,
                        )
                if membranes:
                    vector.store(vectors, membranes + here, v)
                if counts and vector.has_negative_spikes(vectors):
                    vector.store(vectors, counts + here, n)
