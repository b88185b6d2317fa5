/* ------------------------------------------------------------------ channelwise: neurons of 32 bits that read a channel each
 * Defines: evsnn_channelwise.
 * Needs: core.h, views.h, runs.h, fire.h.
 */

/* Uses: v (membranes), tile; EVSNN_CHANNELWISE_RUN and below also q (the run) and a0 .. a7 (v while counts have 4 bits);
 * EVSNN_ADD_CHANNEL also m (the word) and w (the weights in hand). */

/* Count j of eight in a word. Behind a pool most are not 0: all are multiplied. */
#define EVSNN_ADD_CHANNEL(j, SIGN) \
    a##j SIGN ((m >> (28 - 4 * (j))) & 15u) * evsnn_u(EVSNN_I32(w + (j)));

/* The counts of a tile of eight channels at the positions of run q, whose words begin at P, each to the membrane of its own channel. */
#define EVSNN_CHANNELWISE_RUN(S, P, SIGN) \
    do { \
        const int per_word = (S).word_bits / (S).field_bits, n_words = per_word < 8 ? 8 / per_word : 1; \
        int position, i; \
        for (position = 0; position < (S).positions; position++) { \
            const int32_t *w = q->w + position * (S).rows; \
            if ((S).field_bits == 4 && (S).word_bits == 32) { \
                uint32_t m = evsnn_word(P, (uint32_t)(position * (S).words) + tile, 32); \
                if (m) { EVSNN_ADD_CHANNEL(0, SIGN) EVSNN_ADD_CHANNEL(1, SIGN) EVSNN_ADD_CHANNEL(2, SIGN) EVSNN_ADD_CHANNEL(3, SIGN) EVSNN_ADD_CHANNEL(4, SIGN) EVSNN_ADD_CHANNEL(5, SIGN) EVSNN_ADD_CHANNEL(6, SIGN) EVSNN_ADD_CHANNEL(7, SIGN) } \
                continue; \
            } \
            for (i = 0; i < n_words; i++) { \
                const uint32_t first = tile * 8u / (uint32_t)per_word + (uint32_t)i, place = tile * 8u % (uint32_t)per_word; \
                uint32_t *membrane = v + i * per_word, m, k; \
                if (per_word < 8 && first >= (uint32_t)(S).words) { break; } \
                m = evsnn_word(P, (uint32_t)(position * (S).words) + first, (S).word_bits) << (place * (uint32_t)(S).field_bits); \
                if (per_word > 8) { m &= ~((~(uint32_t)0) >> (8 * (S).field_bits)); } \
                w = q->w + position * (S).rows + i * per_word; \
                while (m) { \
                    uint32_t skipped = evsnn_next(&m, &k, (S).field_bits); \
                    membrane += skipped; \
                    w += skipped; \
                    *membrane SIGN k * evsnn_u(EVSNN_I32(w)); \
                    membrane++; \
                    w++; \
                } \
            } \
        } \
    } while (0)

/* Runs R .. END of source S at one step, which they leave behind them; weights are [position][channel]. */
#define EVSNN_CHANNELWISE_RUNS(S, R, END) \
    do { \
        uint32_t a0 = v[0], a1 = v[1], a2 = v[2], a3 = v[3], a4 = v[4], a5 = v[5], a6 = v[6], a7 = v[7]; \
        evsnn_run32_t *q; \
        for (q = (R); q != (END); q++) { \
            EVSNN_CHANNELWISE_RUN(S, q->p, +=); \
            if ((S).negative) { EVSNN_CHANNELWISE_RUN(S, q->p + (S).negative, -=); } \
            q->p += (S).step_bytes; \
        } \
        if ((S).field_bits == 4 && (S).word_bits == 32) { \
            v[0] = a0; v[1] = a1; v[2] = a2; v[3] = a3; v[4] = a4; v[5] = a5; v[6] = a6; v[7] = a7; \
        } \
    } while (0)

/* Eight neurons of 32 bits, each of which reads one channel alone: channelwise weights. Here u = v - v_threshold, and runs hold weights of 32 bits. */
EVSNN_INLINE void evsnn_channelwise(const evsnn_fast_t *s, evsnn_run32_t *r, evsnn_run32_t *middle, evsnn_run32_t *end, const uint8_t *same, const int32_t *same_weight, const int32_t *u_init,
                             uint32_t *state, const int32_t *bias, const int32_t *threshold, const int32_t *u_negative, uint32_t *totals, uint8_t *out, uint32_t tile, uint32_t half) {
    uint32_t t = s->n_steps + s->warm_up, v[8], net[8];
    int j;
    for (j = 0; j < 8; j++) { v[j] = state ? state[j] : evsnn_u(EVSNN_I32(u_init + j)); }
    for (j = 0; s->has_negative && j < 8; j++) { net[j] = state ? state[s->net + j] : 0u; }
    do {
        if (EVSNN_INTEGRATES) {
            EVSNN_CHANNELWISE_RUNS(s->source[0], r, middle);
            if (s->source[1].positions) { EVSNN_CHANNELWISE_RUNS(s->source[1], middle, end); }
        }
        EVSNN_FIRE_ALL(8, j, tile * 8u + (uint32_t)j)
        if (EVSNN_FIRES && s->emit != EVSNN_TOTALS) { out += s->out_step_bytes; }
    } while (--t);
    for (j = 0; state && j < 8; j++) { state[j] = v[j]; }
    for (j = 0; state && s->has_negative && j < 8; j++) { state[s->net + j] = net[j]; }
    (void)same;
    (void)same_weight;
    (void)half;
}
