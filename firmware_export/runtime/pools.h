/* ------------------------------------------------------------------ pools: without neurons
 * Defines: evsnn_pool_t, evsnn_pool_row; evsnn_maxpool_t, evsnn_spike, evsnn_maxpool_step, evsnn_maxpool_row.
 * Needs: core.h, views.h.
 */

/* Window sums of spikes: one row of the pooled view. */
typedef struct {
    evsnn_view_t from, to;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t padding[2];
} evsnn_pool_t;

static inline void evsnn_pool_row(const evsnn_pool_t *s, uint8_t *arena, uint32_t oy, uint32_t n_steps) {
    uint8_t *out = evsnn_row(arena, &s->to, oy);
    uint32_t t, ox, py, px, i;
    evsnn_clear(out, s->to.row_bytes);
    for (t = 0; t < n_steps; t++) {
        for (ox = 0; ox < s->to.width; ox++) {
            uint8_t *target = out + t * s->to.step_bytes + (ox + s->to.left) * s->to.words * (s->to.word_bits / 8u);
            for (py = 0; py < s->kernel[0]; py++) {
                int32_t y = (int32_t)(oy * s->stride[0] + py) - s->padding[0];
                if (y < 0 || y >= (int32_t)s->from.height) { continue; }
                for (px = 0; px < s->kernel[1]; px++) {
                    int32_t x = (int32_t)(ox * s->stride[1] + px) - s->padding[1];
                    const uint8_t *p;
                    if (x < 0 || x >= (int32_t)s->from.width) { continue; }
                    p = evsnn_row(arena, &s->from, (uint32_t)y) + t * s->from.step_bytes + ((uint32_t)x + s->from.left) * s->from.words * (s->from.word_bits / 8u);
                    for (i = 0; i < s->from.words; i++) {
                        uint32_t m = evsnn_word(p, i, s->from.word_bits), channel = i * s->from.word_bits, k;
                        while (m) {
                            channel += evsnn_next(&m, &k, 1);
                            evsnn_count(target, channel, s->to.word_bits, s->to.field_bits);
                            channel++;
                        }
                    }
                }
            }
        }
    }
}

/* Maximum of accumulated spike counts: one row of outputs. `counts` has room for a window. */
typedef struct {
    evsnn_view_t from, from_negative, to, to_negative;
    uint16_t channels;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t padding[2];
    uint8_t has_negative;    /* 1: so do its spikes have negative ones among them */
    uint8_t by_step;         /* 1: `counts` are of all inputs, [y][x][channel], and kept from step to step */
} evsnn_maxpool_t;

EVSNN_INLINE uint32_t evsnn_spike(uint8_t *arena, const evsnn_view_t *view, uint32_t channel, uint32_t y, uint32_t x, uint32_t t) {
    const uint8_t *p = evsnn_row(arena, view, y) + t * view->step_bytes + (x + view->left) * view->words * (view->word_bits / 8u);
    return (evsnn_word(p, channel / view->word_bits, view->word_bits) << (channel % view->word_bits)) >> 31;
}

/* Step by step: the counts take in the rows that output row oy is the first to read, and the largest of a window is compared with what it was. */
static inline void evsnn_maxpool_step(const evsnn_maxpool_t *s, uint8_t *arena, int32_t *counts, uint32_t oy) {
    int32_t first = (int32_t)(oy * s->stride[0]) - s->padding[0], last = first + s->kernel[0], y, x;
    uint32_t ox, c, py, px;
    if (oy && first < last - (int32_t)s->stride[0]) { first = last - (int32_t)s->stride[0]; }
    for (y = first < 0 ? 0 : first; y < last && y < (int32_t)s->from.height; y++) {
        for (x = 0; x < (int32_t)s->from.width; x++) {
            for (c = 0; c < s->channels; c++) {
                int32_t *count = counts + ((uint32_t)(y * s->from.width + x)) * s->channels + c;
                *count += (int32_t)evsnn_spike(arena, &s->from, c, (uint32_t)y, (uint32_t)x, 0);
                if (s->has_negative) { *count -= (int32_t)evsnn_spike(arena, &s->from_negative, c, (uint32_t)y, (uint32_t)x, 0); }
            }
        }
    }
    for (ox = 0; ox < s->to.width; ox++) {
        for (c = 0; c < s->channels; c++) {
            int32_t before = INT32_MIN, after = INT32_MIN;
            for (py = 0; py < s->kernel[0]; py++) {
                y = (int32_t)(oy * s->stride[0] + py) - s->padding[0];
                for (px = 0; px < s->kernel[1]; px++) {
                    int32_t count = 0, spike = 0;
                    x = (int32_t)(ox * s->stride[1] + px) - s->padding[1];
                    if (y >= 0 && y < (int32_t)s->from.height && x >= 0 && x < (int32_t)s->from.width) {
                        count = counts[((uint32_t)(y * s->from.width + x)) * s->channels + c];
                        spike = (int32_t)evsnn_spike(arena, &s->from, c, (uint32_t)y, (uint32_t)x, 0);
                        if (s->has_negative) { spike -= (int32_t)evsnn_spike(arena, &s->from_negative, c, (uint32_t)y, (uint32_t)x, 0); }
                    }
                    if (count > after) { after = count; }
                    if (count - spike > before) { before = count - spike; }
                }
            }
            if (after != before) {
                const evsnn_view_t *view = after > before ? &s->to : &s->to_negative;
                evsnn_count(evsnn_row(arena, view, oy) + (ox + view->left) * view->words * (view->word_bits / 8u), c, view->word_bits, view->field_bits);
            }
        }
    }
}

static inline void evsnn_maxpool_row(const evsnn_maxpool_t *s, uint8_t *arena, int32_t *counts, uint32_t oy, uint32_t n_steps) {
    uint32_t t, ox, c, py, px;
    evsnn_clear(evsnn_row(arena, &s->to, oy), s->to.row_bytes);
    if (s->has_negative) { evsnn_clear(evsnn_row(arena, &s->to_negative, oy), s->to_negative.row_bytes); }
    if (s->by_step) {
        evsnn_maxpool_step(s, arena, counts, oy);
        return;
    }
    for (ox = 0; ox < s->to.width; ox++) {
        for (c = 0; c < s->channels; c++) {
            int32_t before = 0;
            memset(counts, 0, sizeof(int32_t) * s->kernel[0] * s->kernel[1]);
            for (t = 0; t < n_steps; t++) {
                int32_t largest = INT32_MIN;
                for (py = 0; py < s->kernel[0]; py++) {
                    int32_t y = (int32_t)(oy * s->stride[0] + py) - s->padding[0];
                    for (px = 0; px < s->kernel[1]; px++) {
                        int32_t x = (int32_t)(ox * s->stride[1] + px) - s->padding[1];
                        int32_t *count = counts + py * s->kernel[1] + px;
                        if (y >= 0 && y < (int32_t)s->from.height && x >= 0 && x < (int32_t)s->from.width) {
                            *count += (int32_t)evsnn_spike(arena, &s->from, c, (uint32_t)y, (uint32_t)x, t);
                            if (s->has_negative) { *count -= (int32_t)evsnn_spike(arena, &s->from_negative, c, (uint32_t)y, (uint32_t)x, t); }
                        }
                        if (*count > largest) { largest = *count; }
                    }
                }
                if (largest != before) {
                    const evsnn_view_t *view = largest > before ? &s->to : &s->to_negative;
                    uint8_t *p = evsnn_row(arena, view, oy) + t * view->step_bytes + (ox + view->left) * view->words * (view->word_bits / 8u);
                    evsnn_count(p, c, view->word_bits, view->field_bits);
                    before = largest;
                }
            }
        }
    }
}
