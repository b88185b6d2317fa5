/* ------------------------------------------------------------------ readout: totals become its membranes
 * Defines: evsnn_readout_pairs, evsnn_readout_singles.
 * Needs: core.h.
 */

/* The readout's membranes get the spikes of a window of neurons: totals in pairs j, row + j; weight is [channel][output] of the tile. */
EVSNN_INLINE void evsnn_readout_pairs(uint32_t *out, const uint32_t *totals, int row, uint32_t channels, const int8_t *weight, uint32_t outputs) {
    uint32_t c, i;
    for (c = 0; c < channels; c++) {
        uint32_t n = c < (uint32_t)row ? totals[c] & 0xffffu : totals[c - (uint32_t)row] >> 16;
        if (n) {
            const int8_t *w = weight + c * outputs;
            for (i = 0; i < outputs; i++) { out[i] += n * evsnn_u(EVSNN_I8(w + i)); }
        }
    }
}

/* The same for totals of single neurons. */
EVSNN_INLINE void evsnn_readout_singles(uint32_t *out, const uint32_t *totals, uint32_t channels, const int8_t *weight, uint32_t outputs) {
    uint32_t c, i;
    for (c = 0; c < channels; c++) {
        if (totals[c]) {
            const int8_t *w = weight + c * outputs;
            for (i = 0; i < outputs; i++) { out[i] += totals[c] * evsnn_u(EVSNN_I8(w + i)); }
        }
    }
}
