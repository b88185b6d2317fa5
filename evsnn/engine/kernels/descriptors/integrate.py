"""Fields of the descriptors of `evsnn.engine.kernels.integrate` and `fire`: byte offsets of int64."""

from __future__ import annotations

from ..layout import RUN_BYTES

# Fields of a descriptor, int64 each. Addresses are of this process, strides in bytes.
(
    N_STEPS,
    HEIGHT,
    WIDTH,  # of the block; of the output map
    WEIGHTS,
    TILE_BYTES,  # [tile][projection][ky][kx][channel][lane] and a row of zeros; the bytes of a tile
    TILE_ROWS,  # without the zeros
    LINES_AHEAD,  # cache lines of the next tile to ask for in each step; 0: none
    FETCH_FIRST,  # 1: ask for the first tile before starting
    NEXT,
    NEXT_BYTES,  # what to ask for during the last tile: the next population's first
    PARAMETERS,  # [tile][bias, threshold, v_init, leak, v_negative][lane]
    CURRENT,  # [y][x][tile][lane] current that replaces the bias, or 0
    MEMBRANES,
    RESUME,  # [y][x][tile][lane] to keep membranes in, or 0; 1 to start from them
    COUNTS,  # likewise the net counts of neurons with negative spikes
    N_TILES,
    SPIKES,
    WORD_BYTES,  # output masks or 0; bytes of a position's masks
    NEGATIVES,  # masks of negative spikes, of neurons with negative spikes
    LEAKY,
    WARM_UP_STEPS,  # steps of input before the first that may fire
    MAX_EVENTS,  # events that an accumulator can take without leaving its range
    PROJECTIONS,
    N_PROJECTIONS,
    CHANNELWISE,
    N_CHANNELWISE,
) = range(0, 8 * 26, 8)
DESCRIPTOR_BYTES = 8 * 26

# A projection: events gathered through a kernel.
(
    S_EVENTS,
    S_POINTERS,  # the queue
    S_PART_BYTES,  # pointers of one tile's part of the queue; 0 when all tiles share one
    S_ROW_BYTES,
    S_STEP_BYTES,  # pointers of a map row; of a step
    S_COLUMNS,  # [x][first, last + 1, kernel's first column * channels] int32
    S_ROWS,  # [y][first ky, last ky + 1, kernel's first row] int32
    S_DILATION,  # rows between kernel rows
    S_KERNEL_ROW,  # weight rows of a kernel row
    S_FIRST_ROW,  # where the projection's weight rows start within a tile
) = range(0, 8 * 10, 8)
PROJECTION_BYTES = 8 * 10

# Channelwise weights: one per channel (depthwise, identity), whose spikes are read from masks.
(
    P_MASKS,
    P_STEP_BYTES,
    P_ROW_BYTES,
    P_WORD_BYTES,
    P_WEIGHTS,  # [tile][ky][kx][lane], membranes' element
    P_KERNEL_HEIGHT,
    P_KERNEL_WIDTH,
    P_STRIDE_Y,
    P_STRIDE_X,
    P_PAD_TOP,
    P_PAD_LEFT,
    P_DILATION_Y,
    P_DILATION_X,
    P_HEIGHT,
    P_WIDTH,  # of the source map
) = range(0, 8 * 15, 8)
CHANNELWISE_BYTES = 8 * 15

# A run or a channelwise weight of one output position, listed in scratch memory. The weights of a run are
# given by the row number that id 0 of its queue stands for, a channelwise weight by its address.
R_FIRST, R_LAST, R_STEP, R_WEIGHTS, R_EVENTS = range(0, RUN_BYTES, 8)
