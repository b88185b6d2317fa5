/* ------------------------------------------------------------------ fast code: runs of spikes; constants are known once these are inlined
 * Defines: EVSNN_TOTALS, EVSNN_SPIKES, EVSNN_COUNTS; evsnn_run_t, evsnn_run8_t, evsnn_run32_t, evsnn_source_t, evsnn_fast_t; evsnn_rows, evsnn_tile_spikes; EVSNN_RUNS, EVSNN_KEEP.
 * Needs: core.h, views.h.
 */

enum { EVSNN_TOTALS, EVSNN_SPIKES, EVSNN_COUNTS }; /* what becomes of a spike: added to a total for the readout, kept, kept in a pool's count */

/* A row of a kernel over the view: its words at the step in hand, and the weights of its first channel. */
typedef struct {
    const uint8_t *p;
    const uint32_t *w;
} evsnn_run_t;

typedef struct {
    const uint8_t *p;
    const int8_t *w;
} evsnn_run8_t;

typedef struct {
    const uint8_t *p;
    const int32_t *w;
} evsnn_run32_t;

/* How the words of a source lie, and the weights of its channels: known once code is inlined. */
typedef struct {
    int word_bits;
    int field_bits;
    int positions;       /* of a run; 0: there is no such source */
    int words;           /* of a position */
    int rows;            /* channels of a kernel position in the weights */
    uint32_t step_bytes; /* from a step to the next */
    int at_once;         /* runs whose sums stay within 16 bits together, if membranes have 32 */
    int32_t negative;    /* bytes from a count of spikes to that of negative ones, which subtract the weights; 0: there are none */
} evsnn_source_t;

typedef struct {
    evsnn_source_t source[2];
    int same;              /* 1: each neuron integrates the spikes of its own channel through an identity shortcut, too */
    int same_word_bits;
    uint32_t same_step_bytes;
    int32_t same_negative; /* like that of a source */
    int row;               /* pairs of a tile; 8 neurons if they have 32 bits */
    int lanes;             /* of them computed in a call */
    uint32_t n_steps;
    int emit;
    int out_word_bits;
    int out_field_bits;
    uint32_t out_step_bytes;
    uint32_t warm_up;      /* steps that only integrate; as many at the end only compare. In pairs: 0 */
    int has_negative;      /* 1: neurons have negative spikes; in pairs: 0 */
    int32_t negative;      /* bytes from a spike's place to that of a negative one, */
    int32_t net;           /* and words from a membrane that is kept to its net count */
} evsnn_fast_t;

/* The rows of a kernel that lie on the map, for outputs of row y: where each begins, and how far its weights are from the first. Gives how many.
 * A row off the map is written, too, and then overwritten or not counted: else compilers warn of places that are never set. */
EVSNN_INLINE uint32_t evsnn_rows(const uint8_t **p, uint32_t *w, uint8_t *arena, const evsnn_view_t *view, uint32_t y, int kernel, int stride, int dilation, int padding,
                                 uint32_t row_weights) {
    int ky;
    uint32_t n = 0;
    for (ky = 0; ky < kernel; ky++) {
        int32_t at = (int32_t)y * stride + ky * dilation - padding;
        p[n] = evsnn_row(arena, view, (uint32_t)at);
        w[n] = (uint32_t)ky * row_weights;
        if (at >= 0 && at < (int32_t)view->height) { n++; }
    }
    return n;
}

/* Runs, from the outside in: EVSNN_RUNS walks runs, EVSNN_RUN the words of one, EVSNN_WALK the fields of a word, EVSNN_SKIP passes by empty ones.
 * Uses: row (weights of a channel); EVSNN_RUN and below also q (the run) and p (where its words begin); EVSNN_WALK and below also w (the weights in
 * hand); EVSNN_SKIP also m (the word) and field_bits. ADD is text that adds k times the weights at w to the accumulators. */

/* Pass by empty fields: with one count of zeros, or by halves of what is left. */
#if EVSNN_HAS_CLZ
#define EVSNN_SKIP(n) \
    if ((n) == 16) { \
        uint32_t zeros = (uint32_t)__builtin_clz((unsigned int)m) & ~((uint32_t)field_bits - 1u); \
        m <<= zeros; \
        w += zeros / (uint32_t)field_bits * (uint32_t)row; \
    }
#else
#define EVSNN_SKIP(n) \
    if (field_bits <= (n) && !(m >> (32 - (n)))) { \
        m <<= (n); \
        w += (n) / field_bits * row; \
    }
#endif

/* Walk the fields of word I of a run that are not 0: ADD uses k (the count) and w (the channel's weights). */
#define EVSNN_WALK(S, I, BASE, ADD) \
    do { \
        uint32_t m = evsnn_word(p, (uint32_t)(I), (S).word_bits); \
        if (m) { \
            const int field_bits = (S).field_bits; \
            w = (BASE); \
            do { \
                uint32_t k; \
                EVSNN_SKIP(16); EVSNN_SKIP(8); EVSNN_SKIP(4); EVSNN_SKIP(2); EVSNN_SKIP(1); \
                k = m >> (32 - field_bits); \
                m <<= field_bits; \
                ADD \
                w += row; \
            } while (m); \
        } \
    } while (0)

/* The weights of the first channel of word I of a run. */
#define EVSNN_BASE(S, I) (q->w + ((I) / (S).words * (S).rows + (I) % (S).words * ((S).word_bits / (S).field_bits)) * row)

/* Run q, whose words begin at p. */
#define EVSNN_RUN(WEIGHT, S, ADD) \
    do { \
        const WEIGHT *w; \
        if ((S).positions * (S).words <= 3) { \
            EVSNN_WALK(S, 0, q->w, ADD); \
            if ((S).positions * (S).words > 1) { EVSNN_WALK(S, 1, EVSNN_BASE(S, 1), ADD); } \
            if ((S).positions * (S).words > 2) { EVSNN_WALK(S, 2, EVSNN_BASE(S, 2), ADD); } \
        } else { \
            const int per_word = (S).word_bits / (S).field_bits, filled = (S).words * per_word == (S).rows; \
            const WEIGHT *base = q->w; \
            int position, i; \
            for (position = 0; position < (filled ? 1 : (S).positions); position++) { \
                for (i = 0; i < (filled ? (S).positions * (S).words : (S).words); i++) { \
                    EVSNN_WALK(S, 0, base, ADD); \
                    p += (S).word_bits / 8; \
                    base += per_word * row; \
                } \
                base += ((S).rows - (S).words * per_word) * row; \
            } \
        } \
    } while (0)

/* The runs R .. END of source S at one step, which they leave behind them. */
#define EVSNN_RUNS(RUN, WEIGHT, S, R, END, ADD) \
    do { \
        RUN *q; \
        for (q = (R); q != (END); q++) { \
            const uint8_t *p = q->p; \
            q->p = p + (S).step_bytes; \
            if ((S).negative) { \
                const uint8_t *spikes = p; \
                p = spikes + (S).negative; \
                EVSNN_RUN(WEIGHT, S, k = 0u - k; ADD); \
                p = spikes; \
            } \
            EVSNN_RUN(WEIGHT, S, ADD); \
        } \
    } while (0)

/* The spikes of a tile's 2 * row channels (8 or 16) of a position, the first in the highest bit of 32. */
EVSNN_INLINE uint32_t evsnn_tile_spikes(const uint8_t *p, int word_bits, int row, uint32_t tile) {
    uint32_t bit = tile * 2u * (uint32_t)row;
    return (evsnn_word(p, bit / (uint32_t)word_bits, word_bits) << (bit % (uint32_t)word_bits)) & (row == 8 ? 0xffff0000u : 0xff000000u);
}

/* Step by step the membranes are kept.
 * Uses: state (NULL: they are not), lanes, u0 .. u7. */
#define EVSNN_KEEP \
    do { \
        if (state) { \
            state[0] = u0; state[1] = u1; state[2] = u2; state[3] = u3; \
            if (lanes > 4) { state[4] = u4; state[5] = u5; state[6] = u6; state[7] = u7; } \
        } \
    } while (0)
