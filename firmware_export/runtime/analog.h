/* ------------------------------------------------------------------ analog: a layer whose current is that of the input, the same at every step
 * Defines: evsnn_fire_constant; evsnn_currents_u8, evsnn_currents_i16, and each with _seen.
 * Needs: core.h, views.h.
 */

/* All steps of a neuron whose current is the same at each: u = v - v_threshold. Its spikes add `one` to a word of each step. It integrates
 * `warm_up` steps, at most n_steps, before the first that may fire. */
EVSNN_INLINE void evsnn_fire_constant(int32_t current, int32_t u, int32_t threshold, uint32_t one, uint8_t *out, uint32_t step_bytes, int word_bits, uint32_t n_steps, uint32_t warm_up) {
    uint32_t t;
    u += current * (int32_t)warm_up;
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#pragma GCC unroll 16
#endif
    for (t = 0; t < n_steps; t++) {
        if (t + warm_up < n_steps) { u += current; }
        if (u >= 0) {
            u -= threshold;
            evsnn_word_add(out + t * step_bytes, 0, word_bits, one);
        }
    }
}

/* Kernel column i of a row. Uses: kernel_width, left, right, first_x, last_x, x, p (the input's row), row (the weights'), lanes, a0 .. a7. */
#define EVSNN_CURRENT(i) \
    if (kernel_width > (i) && ((i) >= left || first_x <= (i)) && ((i) < kernel_width - right || (i) < last_x)) { \
        int32_t v = p[x + (i)]; \
        if (v) { \
            const int8_t *w = row + 8 * (i); \
            a0 += v * EVSNN_I8(w); a1 += v * EVSNN_I8(w + 1); a2 += v * EVSNN_I8(w + 2); a3 += v * EVSNN_I8(w + 3); \
            if (lanes > 4) { a4 += v * EVSNN_I8(w + 4); a5 += v * EVSNN_I8(w + 5); a6 += v * EVSNN_I8(w + 6); a7 += v * EVSNN_I8(w + 7); } \
        } \
    }

/* The currents of 8 neurons (4 if lanes is 4) at one place: a += sum x * w over a kernel; weight is [channel][ky][kx][8] of the tile.
 * y and x are those of the kernel's first position; at most `left` and `right` positions of a row lie outside the map. */
#define EVSNN_DEFINE_CURRENTS(NAME, INPUT) \
    EVSNN_INLINE void NAME(int32_t *a, const INPUT *input, const int8_t *weight, int lanes, int channels, int height, int width, int kernel_height, int kernel_width, int left, int right, \
                           int32_t y, int32_t x) { \
        int32_t c, ky, kx, first_y = y < 0 ? -y : 0, last_y = kernel_height < height - y ? kernel_height : height - y; \
        int32_t first_x = left && x < 0 ? -x : 0, last_x = !right || kernel_width < width - x ? kernel_width : width - x; \
        int32_t a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = 0, a5 = 0, a6 = 0, a7 = 0; \
        if (lanes > 4) { a4 = a[4]; a5 = a[5]; a6 = a[6]; a7 = a[7]; } \
        for (c = 0; c < channels; c++) { \
            for (ky = first_y; ky < last_y; ky++) { \
                const INPUT *p = input + (c * height + y + ky) * width; \
                const int8_t *row = weight + (c * kernel_height + ky) * kernel_width * 8; \
                if (kernel_width <= 8) { \
                    EVSNN_CURRENT(0) EVSNN_CURRENT(1) EVSNN_CURRENT(2) EVSNN_CURRENT(3) EVSNN_CURRENT(4) EVSNN_CURRENT(5) EVSNN_CURRENT(6) EVSNN_CURRENT(7) \
                } else { \
                    p += x + first_x; \
                    row += first_x * 8; \
                    for (kx = first_x; kx < last_x; kx++) { \
                        if (*p) { \
                            int32_t v = *p; \
                            a0 += v * EVSNN_I8(row); a1 += v * EVSNN_I8(row + 1); a2 += v * EVSNN_I8(row + 2); a3 += v * EVSNN_I8(row + 3); \
                            if (lanes > 4) { a4 += v * EVSNN_I8(row + 4); a5 += v * EVSNN_I8(row + 5); a6 += v * EVSNN_I8(row + 6); a7 += v * EVSNN_I8(row + 7); } \
                        } \
                        p++; \
                        row += 8; \
                    } \
                } \
            } \
        } \
        a[0] = a0; a[1] = a1; a[2] = a2; a[3] = a3; \
        if (lanes > 4) { a[4] = a4; a[5] = a5; a[6] = a6; a[7] = a7; } \
    } \
    /* Which columns of some rows of the input hold anything but 0: bit left + x of 32. */ \
    EVSNN_INLINE uint32_t NAME##_seen(const INPUT *input, int channels, int height, int width, int32_t y, int rows, int left) { \
        uint32_t seen = 0; \
        int32_t c, at, x, last = y + rows < height ? y + rows : height; \
        for (x = 0; x < width; x++) { \
            uint32_t any = 0; \
            for (c = 0; c < channels; c++) { \
                for (at = y < 0 ? 0 : y; at < last; at++) { any |= evsnn_u(input[(c * height + at) * width + x]); } \
            } \
            if (any) { seen |= (uint32_t)1 << (left + x); } \
        } \
        return seen; \
    }

EVSNN_DEFINE_CURRENTS(evsnn_currents_u8, uint8_t)
EVSNN_DEFINE_CURRENTS(evsnn_currents_i16, int16_t)
