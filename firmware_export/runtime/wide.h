/* ------------------------------------------------------------------ wide: neurons of 32 bits, the sum of a step in pairs of 16
 * Defines: evsnn_wide.
 * Needs: core.h, views.h, runs.h, pairs.h, fire.h.
 */

/* From pairs to membranes. EVSNN_WIDEN uses v (membranes), lanes and, in plain C, u0 .. u7; EVSNN_WIDE_RUNS uses row, lanes, v;
 * EVSNN_PLACE uses j, lanes, row; EVSNN_SAME_WIDE uses s, row, lanes, tile, half, same_weight, v, j. */

#if EVSNN_HAS_MVE

/* The sum of a step goes from four pairs to their eight membranes of 32 bits. */
#define EVSNN_WIDEN(u, at) \
    do { \
        int32x4_t both = vreinterpretq_s32_u32(u), low = vmovlbq_s16(vreinterpretq_s16_u32(u)); \
        vstrwq_u32(v + (at), vaddq_u32(vldrwq_u32(v + (at)), vreinterpretq_u32_s32(low))); \
        vstrwq_u32(v + lanes + (at), vaddq_u32(vldrwq_u32(v + lanes + (at)), vreinterpretq_u32_s32(vshrq_n_s32(vsubq_s32(both, low), 16)))); \
    } while (0)

/* Runs R .. END of a source, `n` at a time: so many together stay within 16 bits, which is proven when the network is exported. */
#define EVSNN_WIDE_RUNS(S, R, END, N) \
    do { \
        evsnn_run_t *from = (R), *to; \
        for (; from != (END); from = to) { \
            uint32x4_t u0 = vdupq_n_u32(0), u1 = vdupq_n_u32(0); \
            to = (END) - from > (N) ? from + (N) : (END); \
            EVSNN_RUNS(evsnn_run_t, uint32_t, S, from, to, EVSNN_ADD_VECTORS); \
            EVSNN_WIDEN(u0, 0); \
            if (row == 8) { EVSNN_WIDEN(u1, 4); } \
        } \
    } while (0)

#else

/* The sum of a step goes from pair j to its two membranes of 32 bits. */
#define EVSNN_WIDEN(j) \
    if (lanes > (j)) { \
        uint32_t low = ((u##j & 0xffffu) ^ 0x8000u) - 0x8000u; \
        v[j] += low; \
        v[(j) + lanes] += evsnn_u(evsnn_signed(u##j - low) >> 16); \
    }

/* Runs R .. END of a source, `n` at a time: so many together stay within 16 bits. */
#define EVSNN_WIDE_RUNS(S, R, END, N) \
    do { \
        evsnn_run_t *from = (R), *to; \
        for (; from != (END); from = to) { \
            uint32_t u0 = 0, u1 = 0, u2 = 0, u3 = 0, u4 = 0, u5 = 0, u6 = 0, u7 = 0; \
            to = (END) - from > (N) ? from + (N) : (END); \
            EVSNN_RUNS(evsnn_run_t, uint32_t, S, from, to, EVSNN_ADD_PAIRS); \
            EVSNN_WIDEN(0) EVSNN_WIDEN(1) EVSNN_WIDEN(2) EVSNN_WIDEN(3) EVSNN_WIDEN(4) EVSNN_WIDEN(5) EVSNN_WIDEN(6) EVSNN_WIDEN(7) \
            (void)u4; (void)u5; (void)u6; (void)u7; \
        } \
    } while (0)

#endif

/* Neuron j of 2 * lanes: which of its tile's, from `half` on. */
#define EVSNN_PLACE (j < lanes ? j : j - lanes + row)

#define EVSNN_SAME_WIDE(P, SIGN) \
    do { \
        uint32_t m = evsnn_tile_spikes(P, s->same_word_bits, row, tile); \
        for (j = 0; m && j < 2 * lanes; j++) { \
            if ((m << ((uint32_t)(EVSNN_PLACE) + half)) & 0x80000000u) { v[j] SIGN evsnn_u(EVSNN_I32(same_weight + EVSNN_PLACE)); } \
        } \
    } while (0)

/* All steps of 2 * lanes neurons of 32 bits at one place, like evsnn_pairs: the sum of a step is kept in pairs of 16 bits, and widened once for some runs. Here u = v - v_threshold;
 * u_init, bias, threshold, u_negative, state and totals have 2 * row values a tile, in the order of the channels. A neuron whose net count is
 * above 0 sends a negative spike below `u_negative`, which is NULL if none does. */
EVSNN_INLINE void evsnn_wide(const evsnn_fast_t *s, evsnn_run_t *r, evsnn_run_t *middle, evsnn_run_t *end, const uint8_t *same, const int32_t *same_weight, const int32_t *u_init,
                             uint32_t *state, const int32_t *bias, const int32_t *threshold, const int32_t *u_negative, uint32_t *totals, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = s->row, lanes = s->lanes;
    uint32_t t = s->n_steps + s->warm_up, v[16], net[16];
    int j;
    for (j = 0; j < 2 * lanes; j++) { v[j] = state ? state[EVSNN_PLACE] : evsnn_u(EVSNN_I32(u_init + EVSNN_PLACE)); }
    for (j = 0; s->has_negative && j < 2 * lanes; j++) { net[j] = state ? state[s->net + EVSNN_PLACE] : 0u; }
    do {
        if (EVSNN_INTEGRATES) {
            EVSNN_WIDE_RUNS(s->source[0], r, middle, s->source[0].at_once);
            if (s->source[1].positions) { EVSNN_WIDE_RUNS(s->source[1], middle, end, s->source[1].at_once); }
            if (s->same) {
                EVSNN_SAME_WIDE(same, +=);
                if (s->same_negative) { EVSNN_SAME_WIDE(same + s->same_negative, -=); }
                same += s->same_step_bytes;
            }
        }
        EVSNN_FIRE_ALL(2 * lanes, EVSNN_PLACE, tile * 2u * (uint32_t)row + half + (uint32_t)(EVSNN_PLACE))
        if (EVSNN_FIRES && s->emit != EVSNN_TOTALS) { out += s->out_step_bytes; }
    } while (--t);
    for (j = 0; state && j < 2 * lanes; j++) { state[EVSNN_PLACE] = v[j]; }
    for (j = 0; state && s->has_negative && j < 2 * lanes; j++) { state[s->net + EVSNN_PLACE] = net[j]; }
}
