/* ------------------------------------------------------------------ any layer: a row of neurons at a time
 * Defines: EVSNN_NO_LEAK; evsnn_population_t, evsnn_add_input, evsnn_bias_and_input, evsnn_population_start, evsnn_population_row.
 * Needs: core.h, views.h, any_projections.h.
 */

#define EVSNN_NO_LEAK 255

typedef struct {
    const evsnn_part_t *parts;
    const evsnn_channelwise_t *channelwise;
    const evsnn_analog_t *analog;
    const int32_t *bias;        /* (channels) added at every step; here and below padded to whole tiles of each group */
    const int8_t *analog_shift; /* (channels) bits by which the analog input's sum is shifted to the right, rounded, or if below 0 to the left; NULL: none */
    const int32_t *v_init;
    const int32_t *v_threshold;
    const int32_t *v_negative;  /* below it a neuron whose net count is above 0 sends a negative spike; NULL: none does */
    const int8_t *readout;      /* [y][x][channel][output]: the readout integrates spikes at once, and none is kept; NULL: they are kept */
    evsnn_view_t view;          /* of the spikes, pooled over the window */
    evsnn_view_t view_negative;
    uint32_t state;             /* step by step: where in the arena membranes lie, [y][x][padded channel] of 4 bytes, */
    uint32_t state_net;         /* net counts, if neurons have negative spikes, */
    uint32_t state_current;     /* and currents, if it has analog input */
    uint16_t n_parts, n_channelwise, n_analog;
    uint16_t channels, groups;
    uint16_t width;             /* windows in a row */
    uint16_t window[2];         /* neurons whose spikes are counted together, vertically and horizontally */
    uint16_t warm_up;           /* steps of input before the first that may fire */
    uint16_t outputs;
    uint8_t leak;               /* k of 1 - 2^-k, or EVSNN_NO_LEAK */
    uint8_t input_bits;         /* 8: the input is uint8_t, 16: int16_t */
    uint8_t kept;               /* 1: spikes are kept in `view` (and `view_negative`) */
    uint8_t fires;
    uint8_t by_step;            /* 1: a call computes one step, and membranes are kept */
    uint16_t neurons[2];        /* rows and columns of neurons */
} evsnn_population_t;

/* a += the analog input's current, which is shifted if the layer's analog_shift says so. */
static EVSNN_NOINLINE void evsnn_add_input(uint32_t a[EVSNN_TILE], const evsnn_population_t *s, const void *input, uint32_t tile, uint32_t group, uint32_t y, uint32_t x) {
    uint32_t i;
    for (i = 0; i < s->n_analog; i++) {
        EVSNN_GET(evsnn_analog_t, projection, s->analog + i);
        if (s->input_bits == 8) {
            evsnn_analog_u8(a, projection, (const uint8_t *)input, tile, group, y, x);
        } else {
            evsnn_analog_i16(a, projection, (const int16_t *)input, tile, group, y, x);
        }
    }
    for (i = 0; s->analog_shift && i < EVSNN_TILE; i++) {
        uint32_t bias = evsnn_u(EVSNN_I32(s->bias + tile * EVSNN_TILE + i)), sum = a[i] - bias;
        int right = EVSNN_I8(s->analog_shift + tile * EVSNN_TILE + i);
        if (right > 0) {
            sum = evsnn_u(evsnn_signed(sum + ((uint32_t)1 << (right - 1))) >> right);
        } else {
            sum <<= -right;
        }
        a[i] = bias + sum;
    }
}

EVSNN_INLINE void evsnn_bias_and_input(uint32_t a[EVSNN_TILE], const evsnn_population_t *s, const void *input, uint32_t tile, uint32_t group, uint32_t y, uint32_t x) {
    evsnn_load(a, s->bias + tile * EVSNN_TILE, EVSNN_TILE);
    if (s->n_analog) { evsnn_add_input(a, s, input, tile, group, y, x); }
}

/* Step by step: membranes before the first step, and the currents of an input. */
static EVSNN_NOINLINE void evsnn_population_start(const evsnn_population_t *s, uint8_t *arena, const void *input) {
    uint32_t tiles = ((uint32_t)s->channels / s->groups + EVSNN_TILE - 1u) / EVSNN_TILE, at = 0, y, x, group, tile;
    for (y = 0; y < s->neurons[0]; y++) {
        for (x = 0; x < s->neurons[1]; x++) {
            for (group = 0; group < s->groups; group++) {
                for (tile = group * tiles; tile < (group + 1u) * tiles; tile++, at += EVSNN_TILE) {
                    evsnn_load((uint32_t *)(void *)(arena + s->state) + at, s->v_init + tile * EVSNN_TILE, EVSNN_TILE);
                    if (s->v_negative) { evsnn_clear(arena + s->state_net + at * 4u, EVSNN_TILE * 4u); }
                    if (s->n_analog) { evsnn_bias_and_input((uint32_t *)(void *)(arena + s->state_current) + at, s, input, tile, group, y, x); }
                }
            }
        }
    }
}

/* All steps of a row of windows, or one. `out` are the readout's outputs; of a map [y][x][channel], from this row on. */
static EVSNN_NOINLINE void evsnn_population_row(const evsnn_population_t *s, uint8_t *arena, const void *input, uint32_t *out, uint32_t oy, uint32_t n_steps) {
    uint32_t per_group = (uint32_t)s->channels / s->groups, tiles = (per_group + EVSNN_TILE - 1u) / EVSNN_TILE, ox, group, tile, i, j;
    if (s->kept) {
        evsnn_clear(evsnn_row(arena, &s->view, oy), s->view.row_bytes);
        if (s->v_negative) { evsnn_clear(evsnn_row(arena, &s->view_negative, oy), s->view_negative.row_bytes); }
    }
    for (ox = 0; ox < s->width; ox++) {
        for (group = 0; group < s->groups; group++) {
            for (tile = 0; tile < tiles; tile++) {
                uint32_t first = group * per_group + tile * EVSNN_TILE, padded = (group * tiles + tile) * EVSNN_TILE, py, px;
                uint32_t n = per_group - tile * EVSNN_TILE < EVSNN_TILE ? per_group - tile * EVSNN_TILE : (uint32_t)EVSNN_TILE;
                int32_t total[EVSNN_TILE] = {0};
                for (py = 0; py < s->window[0]; py++) {
                    for (px = 0; px < s->window[1]; px++) {
                        uint32_t v[EVSNN_TILE], a[EVSNN_TILE], y = oy * s->window[0] + py, x = ox * s->window[1] + px, u;
                        uint32_t at = ((y * s->neurons[1] + x) * s->groups * tiles * EVSNN_TILE) + padded;
                        uint32_t net[EVSNN_TILE] = {0};
                        if (s->by_step) {
                            evsnn_copy(v, (const uint32_t *)(const void *)(arena + s->state) + at, EVSNN_TILE);
                            if (s->v_negative) { evsnn_copy(net, (const uint32_t *)(const void *)(arena + s->state_net) + at, EVSNN_TILE); }
                        } else {
                            evsnn_load(v, s->v_init + padded, EVSNN_TILE);
                        }
                        if (s->by_step && s->n_analog) {
                            evsnn_copy(a, (const uint32_t *)(const void *)(arena + s->state_current) + at, EVSNN_TILE);
                        } else {
                            evsnn_bias_and_input(a, s, input, group * tiles + tile, group, y, x);
                        }
                        for (u = 0; u < n_steps + s->warm_up; u++) {
                            if (u < n_steps) {
                                if (s->leak != EVSNN_NO_LEAK) {
                                    for (j = 0; j < EVSNN_TILE; j++) { v[j] -= evsnn_u(evsnn_signed(v[j]) >> s->leak); }
                                }
                                for (i = 0; i < s->n_parts; i++) {
                                    EVSNN_GET(evsnn_part_t, part, s->parts + i);
                                    if (part->group == group) { evsnn_gather(v, part, arena, tile, y, x, u); }
                                }
                                for (i = 0; i < s->n_channelwise; i++) {
                                    EVSNN_GET(evsnn_channelwise_t, projection, s->channelwise + i);
                                    evsnn_gather_channelwise(v, projection, arena, first, n, y, x, u);
                                }
                                for (j = 0; j < EVSNN_TILE; j++) { v[j] += a[j]; }
                            }
                            if (u < s->warm_up || !s->fires) { continue; }
                            for (j = 0; j < n; j++) {
                                int32_t threshold = EVSNN_I32(s->v_threshold + padded + j), spike = 0;
                                if (evsnn_signed(v[j]) >= threshold) {
                                    spike = 1;
                                    v[j] -= evsnn_u(threshold);
                                } else if (s->v_negative && evsnn_signed(net[j]) > 0 && evsnn_signed(v[j]) < EVSNN_I32(s->v_negative + padded + j)) {
                                    spike = -1;
                                    v[j] += evsnn_u(threshold);
                                }
                                if (spike) {
                                    net[j] += evsnn_u(spike);
                                    total[j] += spike;
                                    if (s->kept) {
                                        const evsnn_view_t *view = spike > 0 ? &s->view : &s->view_negative;
                                        uint8_t *p = evsnn_row(arena, view, oy) + (u - s->warm_up) * view->step_bytes;
                                        evsnn_count(p + (ox + view->left) * view->words * (view->word_bits / 8u), first + j, view->word_bits, view->field_bits);
                                    }
                                }
                            }
                        }
                        if (s->by_step) {
                            evsnn_copy((uint32_t *)(void *)(arena + s->state) + at, v, EVSNN_TILE);
                            if (s->v_negative) { evsnn_copy((uint32_t *)(void *)(arena + s->state_net) + at, net, EVSNN_TILE); }
                        }
                        if (!s->fires) { evsnn_copy(out + first, v, n); }
                    }
                }
                if (s->readout) {
                    for (j = 0; j < n; j++) {
                        const int8_t *w = s->readout + ((size_t)(oy * s->width + ox) * s->channels + first + j) * s->outputs;
                        for (i = 0; total[j] && i < s->outputs; i++) { out[i] += evsnn_u(total[j]) * evsnn_u(EVSNN_I8(w + i)); }
                    }
                } else if (s->outputs && s->fires) {
                    for (j = 0; j < n; j++) { out[first + j] += evsnn_u(total[j]); }
                }
            }
        }
        if (s->outputs && !s->readout) { out += s->channels; }
    }
}
