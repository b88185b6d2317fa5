/* ------------------------------------------------------------------ fast code: neurons of 32 bits fire
 * Defines: EVSNN_INTEGRATES, EVSNN_FIRES, EVSNN_FIRES_NEGATIVE, EVSNN_EMIT, EVSNN_EMIT_NEGATIVE, EVSNN_FIRE_ALL.
 * Needs: core.h, views.h, runs.h.
 */

/* Uses: s, t (the steps that are left); EVSNN_FIRES_NEGATIVE also u_negative; EVSNN_EMIT and EVSNN_EMIT_NEGATIVE totals and out;
 * EVSNN_FIRE_ALL all of these, and j, v (membranes), net (net counts), bias, threshold. */

/* Membranes of 32 bits: whether the step in hand is one of input, and whether one of output. */
#define EVSNN_INTEGRATES (!s->warm_up || t > s->warm_up)
#define EVSNN_FIRES (!s->warm_up || t <= s->n_steps)

/* Whether neuron u, if it has not fired at this step, sends a negative spike. */
#define EVSNN_FIRES_NEGATIVE(u, net, INDEX) (s->has_negative && evsnn_signed(net) > 0 && evsnn_signed(u) < EVSNN_I32(u_negative + (INDEX)))

/* Tell of a spike, or of a negative one. */
#define EVSNN_EMIT(INDEX, CHANNEL) \
    do { \
        if (s->emit == EVSNN_TOTALS) { totals[INDEX]++; } else { evsnn_count(out, (CHANNEL), s->out_word_bits, s->out_field_bits); } \
    } while (0)
#define EVSNN_EMIT_NEGATIVE(INDEX, CHANNEL) \
    do { \
        if (s->emit == EVSNN_TOTALS) { totals[INDEX]--; } else { evsnn_count(out + s->negative, (CHANNEL), s->out_word_bits, s->out_field_bits); } \
    } while (0)

/* Bias, comparison and reset of N neurons of 32 bits; INDEX of j is its constants' and total's place, CHANNEL its channel. */
#define EVSNN_FIRE_ALL(N, INDEX, CHANNEL) \
    for (j = 0; j < (N); j++) { \
        uint32_t u = EVSNN_INTEGRATES ? v[j] + evsnn_u(EVSNN_I32(bias + (INDEX))) : v[j]; \
        if (EVSNN_FIRES && evsnn_signed(u) >= 0) { \
            u -= evsnn_u(EVSNN_I32(threshold + (INDEX))); \
            if (s->has_negative) { net[j]++; } \
            EVSNN_EMIT(INDEX, CHANNEL); \
        } else if (EVSNN_FIRES && EVSNN_FIRES_NEGATIVE(u, net[j], INDEX)) { \
            u += evsnn_u(EVSNN_I32(threshold + (INDEX))); \
            net[j]--; \
            EVSNN_EMIT_NEGATIVE(INDEX, CHANNEL); \
        } \
        v[j] = u; \
    }
