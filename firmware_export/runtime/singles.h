/* ------------------------------------------------------------------ singles: neurons of 32 bits, weights of 8
 * Defines: evsnn_singles.
 * Needs: core.h, views.h, runs.h, fire.h.
 */

/* The spikes of an identity shortcut. Uses: s, tile, half, lanes, same_weight, u0 .. u7; EVSNN_SAME_SINGLE also m (the tile's spikes). */

#define EVSNN_SAME_SINGLE(j, SIGN) \
    if (lanes > (j) && (m << (j)) & 0x80000000u) { u##j SIGN evsnn_u(EVSNN_I32(same_weight + (j))); }

#define EVSNN_SAME_SINGLES(P, SIGN) \
    do { \
        uint32_t m = evsnn_tile_spikes(P, s->same_word_bits, 4, tile) << half; \
        if (m) { \
            EVSNN_SAME_SINGLE(0, SIGN) EVSNN_SAME_SINGLE(1, SIGN) EVSNN_SAME_SINGLE(2, SIGN) EVSNN_SAME_SINGLE(3, SIGN) \
            EVSNN_SAME_SINGLE(4, SIGN) EVSNN_SAME_SINGLE(5, SIGN) EVSNN_SAME_SINGLE(6, SIGN) EVSNN_SAME_SINGLE(7, SIGN) \
        } \
    } while (0)

/* ADD of EVSNN_RUNS. Uses: k, w, lanes, u0 .. u7. */
#define EVSNN_SINGLE(j) \
    if (lanes > (j)) { u##j += k * evsnn_u(EVSNN_I8(w + (j))); }

#define EVSNN_ADD_SINGLES \
    EVSNN_SINGLE(0) EVSNN_SINGLE(1) EVSNN_IN_ORDER; EVSNN_SINGLE(2) EVSNN_SINGLE(3) if (lanes > 4) { EVSNN_IN_ORDER; } \
    EVSNN_SINGLE(4) EVSNN_SINGLE(5) if (lanes > 4) { EVSNN_IN_ORDER; } EVSNN_SINGLE(6) EVSNN_SINGLE(7)

/* The first membranes. Uses: state, u_init. */
#define EVSNN_V_INIT(j) (state ? state[j] : evsnn_u(EVSNN_I32(u_init + (j))))

/* Uses: lanes, u0 .. u7; EVSNN_BIAS_SINGLE bias; EVSNN_FIRE_SINGLE what EVSNN_FIRE_ALL uses, tile and half. */
#define EVSNN_BIAS_SINGLE(j) \
    if (lanes > (j)) { u##j += evsnn_u(EVSNN_I32(bias + (j))); }

#define EVSNN_FIRE_SINGLE(j) \
    if (lanes > (j) && (int32_t)u##j >= 0) { \
        u##j -= evsnn_u(EVSNN_I32(threshold + (j))); \
        if (s->has_negative) { net[j]++; } \
        EVSNN_EMIT(j, tile * 8u + half + (j)); \
    } else if (lanes > (j) && EVSNN_FIRES_NEGATIVE(u##j, net[j], j)) { \
        u##j += evsnn_u(EVSNN_I32(threshold + (j))); \
        net[j]--; \
        EVSNN_EMIT_NEGATIVE(j, tile * 8u + half + (j)); \
    }

/* All steps of `lanes` neurons of 32 bits at one place, like evsnn_wide, of a tile of 8; here u = v - v_threshold, and weights are int8_t. */
EVSNN_INLINE void evsnn_singles(const evsnn_fast_t *s, evsnn_run8_t *r, evsnn_run8_t *middle, evsnn_run8_t *end, const uint8_t *same, const int32_t *same_weight, const int32_t *u_init,
                                uint32_t *state, const int32_t *bias, const int32_t *threshold, const int32_t *u_negative, uint32_t *totals, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = 8, lanes = s->lanes;
    uint32_t t = s->n_steps + s->warm_up, net[8];
    int j;
    uint32_t u0 = EVSNN_V_INIT(0), u1 = EVSNN_V_INIT(1), u2 = EVSNN_V_INIT(2), u3 = EVSNN_V_INIT(3);
    uint32_t u4 = lanes > 4 ? EVSNN_V_INIT(4) : 0x80000000u, u5 = lanes > 4 ? EVSNN_V_INIT(5) : 0x80000000u;
    uint32_t u6 = lanes > 4 ? EVSNN_V_INIT(6) : 0x80000000u, u7 = lanes > 4 ? EVSNN_V_INIT(7) : 0x80000000u;
    for (j = 0; s->has_negative && j < lanes; j++) { net[j] = state ? state[s->net + j] : 0u; }
    do {
        if (EVSNN_INTEGRATES) {
            EVSNN_RUNS(evsnn_run8_t, int8_t, s->source[0], r, middle, EVSNN_ADD_SINGLES);
            if (s->source[1].positions) { EVSNN_RUNS(evsnn_run8_t, int8_t, s->source[1], middle, end, EVSNN_ADD_SINGLES); }
            if (s->same) {
                EVSNN_SAME_SINGLES(same, +=);
                if (s->same_negative) { EVSNN_SAME_SINGLES(same + s->same_negative, -=); }
                same += s->same_step_bytes;
            }
            EVSNN_BIAS_SINGLE(0) EVSNN_BIAS_SINGLE(1) EVSNN_IN_ORDER; EVSNN_BIAS_SINGLE(2) EVSNN_BIAS_SINGLE(3)
            if (lanes > 4) { EVSNN_IN_ORDER; }
            EVSNN_BIAS_SINGLE(4) EVSNN_BIAS_SINGLE(5)
            if (lanes > 4) { EVSNN_IN_ORDER; }
            EVSNN_BIAS_SINGLE(6) EVSNN_BIAS_SINGLE(7)
        }
        if (EVSNN_FIRES && (s->has_negative || (int32_t)(u0 & u1 & u2 & u3 & u4 & u5 & u6 & u7) >= 0)) {
            EVSNN_FIRE_SINGLE(0) EVSNN_FIRE_SINGLE(1) EVSNN_FIRE_SINGLE(2) EVSNN_FIRE_SINGLE(3)
            EVSNN_FIRE_SINGLE(4) EVSNN_FIRE_SINGLE(5) EVSNN_FIRE_SINGLE(6) EVSNN_FIRE_SINGLE(7)
        }
        if (EVSNN_FIRES && s->emit != EVSNN_TOTALS) { out += s->out_step_bytes; }
    } while (--t);
    EVSNN_KEEP;
    for (j = 0; state && s->has_negative && j < lanes; j++) { state[s->net + j] = net[j]; }
}
