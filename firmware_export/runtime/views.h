/* ------------------------------------------------------------------ views: spikes as they are kept
 * Defines: evsnn_view_t; evsnn_word, evsnn_word_add, evsnn_count, evsnn_clear, evsnn_row, evsnn_next.
 * Needs: core.h.
 */

typedef struct {
    uint32_t offset;     /* of row 0 in the arena, bytes */
    uint32_t row_bytes;  /* [step][column][word] */
    uint32_t step_bytes; /* [column][word] */
    uint16_t ring;       /* rows kept: row y lies at y % ring */
    uint16_t height;
    uint16_t width;
    uint16_t left;       /* columns of zeros at the left */
    uint16_t words;      /* of a position */
    uint8_t word_bits;   /* 8, 16 or 32 */
    uint8_t field_bits;  /* 1, 4, 8 or 16 */
} evsnn_view_t;

/* A word of a view, its first channel in the highest bits of the 32. */
EVSNN_INLINE uint32_t evsnn_word(const uint8_t *p, uint32_t i, int word_bits) {
    if (word_bits == 8) { return (uint32_t)p[i] << 24; }
    if (word_bits == 16) { return (uint32_t)((const evsnn_half_t *)(const void *)p)[i] << 16; }
    return ((const uint32_t *)(const void *)p)[i];
}

/* Add `value`, made like what `evsnn_word` gives, to a word. */
EVSNN_INLINE void evsnn_word_add(uint8_t *p, uint32_t i, int word_bits, uint32_t value) {
    if (word_bits == 8) {
        p[i] = (uint8_t)(p[i] + (value >> 24));
    } else if (word_bits == 16) {
        evsnn_half_t *q = (evsnn_half_t *)(void *)p;
        q[i] = (uint16_t)(q[i] + (value >> 16));
    } else {
        ((uint32_t *)(void *)p)[i] += value;
    }
}

/* Add 1 to the count of a channel. */
EVSNN_INLINE void evsnn_count(uint8_t *position, uint32_t channel, int word_bits, int field_bits) {
    uint32_t bit = channel * (uint32_t)field_bits, i = bit / (uint32_t)word_bits, shift = bit % (uint32_t)word_bits;
    evsnn_word_add(position, i, word_bits, (uint32_t)1 << (32u - (uint32_t)field_bits - shift));
}

/* Fill with zeros; `bytes` is a multiple of 4, and p aligned to 4. */
EVSNN_INLINE void evsnn_clear(uint8_t *p, uint32_t bytes) {
    uint32_t *q = (uint32_t *)(void *)p, *end = q + bytes / 4u, *fours = q + bytes / 16u * 4u;
    while (q != fours) {
        q[0] = 0; q[1] = 0; q[2] = 0; q[3] = 0;
        q += 4;
        EVSNN_A_LOOP;
    }
    while (q != end) {
        *q++ = 0;
        EVSNN_A_LOOP;
    }
}

EVSNN_INLINE uint8_t *evsnn_row(uint8_t *arena, const evsnn_view_t *view, uint32_t y) {
    return arena + view->offset + (y % view->ring) * view->row_bytes;
}

/* Go to the first field of m (not 0) that is not 0: give its number, and leave m behind it. */
EVSNN_INLINE uint32_t evsnn_next(uint32_t *m, uint32_t *count, int field_bits) {
    uint32_t skipped;
#if EVSNN_HAS_CLZ
    skipped = (uint32_t)__builtin_clz((unsigned int)*m) & ~((uint32_t)field_bits - 1u);
    *m <<= skipped;
#else
    skipped = 0;
    if (!(*m >> 16)) { *m <<= 16; skipped = 16; }
    if (field_bits <= 8 && !(*m >> 24)) { *m <<= 8; skipped += 8; }
    if (field_bits <= 4 && !(*m >> 28)) { *m <<= 4; skipped += 4; }
    if (field_bits <= 2 && !(*m >> 30)) { *m <<= 2; skipped += 2; }
    if (field_bits <= 1 && !(*m >> 31)) { *m <<= 1; skipped += 1; }
#endif
    *count = *m >> (32 - field_bits);
    *m <<= field_bits;
    return skipped / (uint32_t)field_bits;
}
