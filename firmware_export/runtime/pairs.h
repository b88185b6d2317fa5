/* ------------------------------------------------------------------ pairs: two neurons of 16 bits in a word
 * Defines: EVSNN_FIRED; evsnn_pairs; EVSNN_ADD_VECTORS (Helium) or EVSNN_ADD_PAIRS.
 * Needs: core.h, views.h, runs.h.
 */

#define EVSNN_FIRED 0x80008000u

/* The spikes of an identity shortcut, whose position begins at P; SIGN is += or -=.
 * Uses: s, row, tile, half, lanes, same_weight, u0 .. u7; EVSNN_SAME_MASK and EVSNN_SAME_PAIR also m (the tile's spikes). */

/* Of the tile's spikes m, those of pair j: all bits of a half that has one. */
#define EVSNN_SAME_MASK(j) (((m >> (31u - (uint32_t)(j)) & 1u) | (m >> (31u - (uint32_t)(j) - (uint32_t)row) & 1u) << 16) * 0xffffu)

#define EVSNN_SAME_PAIR(j, SIGN) \
    if (lanes > (j)) { u##j SIGN EVSNN_U32(same_weight + (j)) & EVSNN_SAME_MASK((uint32_t)(j) + half); }

#define EVSNN_SAME_PAIRS(P, SIGN) \
    do { \
        uint32_t m = evsnn_tile_spikes(P, s->same_word_bits, row, tile); \
        if (m) { \
            EVSNN_SAME_PAIR(0, SIGN) EVSNN_SAME_PAIR(1, SIGN) EVSNN_SAME_PAIR(2, SIGN) EVSNN_SAME_PAIR(3, SIGN) \
            EVSNN_SAME_PAIR(4, SIGN) EVSNN_SAME_PAIR(5, SIGN) EVSNN_SAME_PAIR(6, SIGN) EVSNN_SAME_PAIR(7, SIGN) \
        } \
    } while (0)

/* The first membranes. Uses: state, u_init. */
#define EVSNN_U_INIT(j) (state ? state[j] : EVSNN_U32(u_init + (j)))

#if EVSNN_HAS_MVE

/* ADD of EVSNN_RUNS for four pairs per vector. Uses: k, w, row, u0, u1. */
#define EVSNN_ADD_VECTORS \
    u0 = vmlaq_n_u32(u0, vldrwq_u32(w), k); \
    if (row == 8) { u1 = vmlaq_n_u32(u1, vldrwq_u32(w + 4), k); }

/* Helium: four pairs a vector. The arguments are those of the plain version below. */
EVSNN_INLINE void evsnn_pairs(const evsnn_fast_t *s, evsnn_run_t *r, evsnn_run_t *middle, evsnn_run_t *end, const uint8_t *same, const uint32_t *same_weight, const uint32_t *u_init,
                              uint32_t *state, const uint32_t *bias, const uint32_t *threshold, uint32_t *totals, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = s->row;
    const uint32x4_t fired = vdupq_n_u32(EVSNN_FIRED);
    uint32_t t = s->n_steps;
    uint32x4_t u0 = vldrwq_u32(state ? state : u_init), u1 = row == 8 ? vldrwq_u32(state ? state + 4 : u_init + 4) : vdupq_n_u32(0);
    uint32x4_t n0 = s->emit == EVSNN_TOTALS ? vldrwq_u32(totals) : vdupq_n_u32(0), n1 = s->emit == EVSNN_TOTALS && row == 8 ? vldrwq_u32(totals + 4) : vdupq_n_u32(0);
    do {
        uint32x4_t f0, f1, s0, s1;
        EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[0], r, middle, EVSNN_ADD_VECTORS);
        if (s->source[1].positions) { EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[1], middle, end, EVSNN_ADD_VECTORS); }
        if (s->same) {
            uint32_t spikes[8], j, m = evsnn_tile_spikes(same, s->same_word_bits, row, tile);
            for (j = 0; j < 8; j++) { spikes[j] = j < (uint32_t)row ? EVSNN_SAME_MASK(j) : 0u; }
            u0 = vaddq_u32(u0, vandq_u32(vldrwq_u32(same_weight), vldrwq_u32(spikes)));
            if (row == 8) { u1 = vaddq_u32(u1, vandq_u32(vldrwq_u32(same_weight + 4), vldrwq_u32(spikes + 4))); }
            if (s->same_negative) {
                m = evsnn_tile_spikes(same + s->same_negative, s->same_word_bits, row, tile);
                for (j = 0; j < 8; j++) { spikes[j] = j < (uint32_t)row ? EVSNN_SAME_MASK(j) : 0u; }
                u0 = vsubq_u32(u0, vandq_u32(vldrwq_u32(same_weight), vldrwq_u32(spikes)));
                if (row == 8) { u1 = vsubq_u32(u1, vandq_u32(vldrwq_u32(same_weight + 4), vldrwq_u32(spikes + 4))); }
            }
            same += s->same_step_bytes;
        }
        u0 = vaddq_u32(u0, vldrwq_u32(bias));
        f0 = vandq_u32(u0, fired);
        s0 = vshrq_n_u32(f0, 15);
        u0 = vsubq_u32(u0, vandq_u32(vldrwq_u32(threshold), vsubq_u32(f0, s0)));
        if (row == 8) {
            u1 = vaddq_u32(u1, vldrwq_u32(bias + 4));
            f1 = vandq_u32(u1, fired);
            s1 = vshrq_n_u32(f1, 15);
            u1 = vsubq_u32(u1, vandq_u32(vldrwq_u32(threshold + 4), vsubq_u32(f1, s1)));
        } else {
            s1 = vdupq_n_u32(0);
        }
        if (s->emit == EVSNN_TOTALS) {
            n0 = vaddq_u32(n0, s0);
            n1 = vaddq_u32(n1, s1);
        } else {
            if (vmaxvq_u32(0u, vorrq_u32(s0, s1))) {
                uint32_t fresh[8], j;
                vstrwq_u32(fresh, s0);
                vstrwq_u32(fresh + 4, s1);
                for (j = 0; j < (uint32_t)row; j++) {
                    if (fresh[j] & 1u) { evsnn_count(out, tile * 2u * (uint32_t)row + j, s->out_word_bits, s->out_field_bits); }
                    if (fresh[j] >> 16) { evsnn_count(out, (tile * 2u + 1u) * (uint32_t)row + j, s->out_word_bits, s->out_field_bits); }
                }
            }
            out += s->out_step_bytes;
        }
    } while (--t);
    if (s->emit == EVSNN_TOTALS) {
        vstrwq_u32(totals, n0);
        if (row == 8) { vstrwq_u32(totals + 4, n1); }
    }
    if (state) {
        vstrwq_u32(state, u0);
        if (row == 8) { vstrwq_u32(state + 4, u1); }
    }
    (void)half;
}

#else
/* ADD of EVSNN_RUNS for pairs. Uses: k, w, lanes, u0 .. u7. */
#define EVSNN_PAIR(j) \
    if (lanes > (j)) { u##j += k * EVSNN_U32(w + (j)); }

#define EVSNN_ADD_PAIRS \
    EVSNN_PAIR(0) EVSNN_PAIR(1) EVSNN_IN_ORDER; EVSNN_PAIR(2) EVSNN_PAIR(3) if (lanes > 4) { EVSNN_IN_ORDER; } \
    EVSNN_PAIR(4) EVSNN_PAIR(5) if (lanes > 4) { EVSNN_IN_ORDER; } EVSNN_PAIR(6) EVSNN_PAIR(7)

/* Uses: bias, lanes, u0 .. u7. */
#define EVSNN_BIAS_PAIR(j) \
    if (lanes > (j)) { u##j += EVSNN_U32(bias + (j)); }

/* Pair j, of channels j and row + j of the tile: compare, reset, and tell.
 * Uses: s, row, lanes, threshold, totals, out, tile, half, u0 .. u7, first and second (the words of spikes or counts in the making). */
#define EVSNN_FIRE_PAIR(j) \
    if (lanes > (j)) { \
        uint32_t f = u##j & EVSNN_FIRED; \
        if (f) { \
            uint32_t fresh = f >> 15; \
            u##j -= EVSNN_U32(threshold + (j)) & (f - fresh); \
            if (s->emit == EVSNN_TOTALS) { \
                totals[j] += fresh; \
            } else if (s->emit == EVSNN_SPIKES) { \
                first |= fresh << ((uint32_t)row - 1u - (j) - half); \
            } else if (s->out_field_bits == 4) { \
                first += (fresh & 1u) << (28u - 4u * ((j) + half)); \
                if (row == 8) { second += (fresh >> 16) << (28u - 4u * ((j) + half)); } else { first += (fresh >> 16) << (12u - 4u * ((j) + half)); } \
            } else { \
                if (fresh & 1u) { evsnn_count(out, tile * 2u * (uint32_t)row + half + (j), s->out_word_bits, s->out_field_bits); } \
                if (fresh >> 16) { evsnn_count(out, (tile * 2u + 1u) * (uint32_t)row + half + (j), s->out_word_bits, s->out_field_bits); } \
            } \
        } \
    }

/* All steps of 2 * lanes neurons of 16 bits at one place: pairs half .. half + lanes - 1 of a tile.
 * r .. middle are the runs of the first source, middle .. end those of the second; `same` is where an identity shortcut's position begins.
 * u_init, bias and threshold are those of the first pair; `state`, if not NULL, are their membranes from the step before. */
EVSNN_INLINE void evsnn_pairs(const evsnn_fast_t *s, evsnn_run_t *r, evsnn_run_t *middle, evsnn_run_t *end, const uint8_t *same, const uint32_t *same_weight, const uint32_t *u_init,
                              uint32_t *state, const uint32_t *bias, const uint32_t *threshold, uint32_t *totals, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = s->row, lanes = s->lanes;
    uint32_t t = s->n_steps;
    uint32_t u0 = EVSNN_U_INIT(0), u1 = EVSNN_U_INIT(1), u2 = EVSNN_U_INIT(2), u3 = EVSNN_U_INIT(3);
    uint32_t u4 = lanes > 4 ? EVSNN_U_INIT(4) : 0u, u5 = lanes > 4 ? EVSNN_U_INIT(5) : 0u, u6 = lanes > 4 ? EVSNN_U_INIT(6) : 0u, u7 = lanes > 4 ? EVSNN_U_INIT(7) : 0u;
    do {
        EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[0], r, middle, EVSNN_ADD_PAIRS);
        if (s->source[1].positions) { EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[1], middle, end, EVSNN_ADD_PAIRS); }
        if (s->same) {
            EVSNN_SAME_PAIRS(same, +=);
            if (s->same_negative) { EVSNN_SAME_PAIRS(same + s->same_negative, -=); }
            same += s->same_step_bytes;
        }
        EVSNN_BIAS_PAIR(0) EVSNN_BIAS_PAIR(1) EVSNN_IN_ORDER; EVSNN_BIAS_PAIR(2) EVSNN_BIAS_PAIR(3)
        if (lanes > 4) { EVSNN_IN_ORDER; }
        EVSNN_BIAS_PAIR(4) EVSNN_BIAS_PAIR(5)
        if (lanes > 4) { EVSNN_IN_ORDER; }
        EVSNN_BIAS_PAIR(6) EVSNN_BIAS_PAIR(7)
        if ((u0 | u1 | u2 | u3 | u4 | u5 | u6 | u7) & EVSNN_FIRED) {
            uint32_t first = 0, second = 0;
            EVSNN_FIRE_PAIR(0) EVSNN_FIRE_PAIR(1) EVSNN_FIRE_PAIR(2) EVSNN_FIRE_PAIR(3)
            EVSNN_FIRE_PAIR(4) EVSNN_FIRE_PAIR(5) EVSNN_FIRE_PAIR(6) EVSNN_FIRE_PAIR(7)
            if (s->emit == EVSNN_SPIKES) {
                if (row == 8) {
                    first = (first & 0xffu) << 24 | (first >> 16) << 16;
                    evsnn_word_add(out, s->out_word_bits == 32 ? tile >> 1 : tile, s->out_word_bits, s->out_word_bits == 32 ? first >> (16u * (tile & 1u)) : first);
                } else {
                    evsnn_word_add(out, tile, s->out_word_bits, (first & 0xfu) << 28 | (first >> 16) << 24);
                }
            } else if (s->emit == EVSNN_COUNTS && s->out_field_bits == 4) {
                if (first) { evsnn_word_add(out, row == 8 ? 2u * tile : tile, s->out_word_bits, first); }
                if (row == 8 && second) { evsnn_word_add(out, 2u * tile + 1u, s->out_word_bits, second); }
            }
        }
        if (s->emit != EVSNN_TOTALS) { out += s->out_step_bytes; }
    } while (--t);
    EVSNN_KEEP;
}

#endif
