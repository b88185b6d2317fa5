/* ------------------------------------------------------------------ any layer: what projects to eight neurons of 32 bits
 * Defines: EVSNN_TILE; evsnn_part_t, evsnn_gather; evsnn_channelwise_t, evsnn_gather_channelwise; evsnn_analog_t, evsnn_analog_u8, evsnn_analog_i16.
 * Needs: core.h, views.h.
 */

#define EVSNN_TILE 8

/* Channels of a view that one group of a projection reads. */
typedef struct {
    evsnn_view_t view;
    const int8_t *weight;    /* [tile of the group][ky][kx][channel][8] */
    uint32_t tile_stride;    /* weights of a tile of outputs */
    uint16_t rows;           /* channels of a kernel position in `weight` */
    uint16_t row;            /* and which of them is the first here */
    uint16_t first;          /* channel of the view */
    uint16_t count;          /* channels */
    uint16_t group;          /* of outputs that it belongs to */
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t dilation[2];
    uint16_t padding[2];      /* top, left */
} evsnn_part_t;

/* v[j] += sum over the kernel of counts * weights, at step t. */
static inline void evsnn_gather(uint32_t v[EVSNN_TILE], const evsnn_part_t *s, uint8_t *arena, uint32_t tile, uint32_t oy, uint32_t ox, uint32_t t) {
    uint32_t ky, kx, last_word = ((uint32_t)s->first + s->count) * s->view.field_bits;
    uint32_t per_word = (uint32_t)s->view.word_bits / s->view.field_bits;
    const int8_t *weight = s->weight + tile * s->tile_stride;
    for (ky = 0; ky < s->kernel[0]; ky++) {
        int32_t y = (int32_t)(oy * s->stride[0] + ky * s->dilation[0]) - s->padding[0];
        const uint8_t *row;
        if (y < 0 || y >= (int32_t)s->view.height) { continue; }
        row = evsnn_row(arena, &s->view, (uint32_t)y) + t * s->view.step_bytes;
        for (kx = 0; kx < s->kernel[1]; kx++) {
            int32_t x = (int32_t)(ox * s->stride[1] + kx * s->dilation[1]) - s->padding[1];
            uint32_t i, first_row = (ky * s->kernel[1] + kx) * s->rows + s->row;
            const uint8_t *p;
            if (x < 0 || x >= (int32_t)s->view.width) { continue; }
            p = row + ((uint32_t)x + s->view.left) * s->view.words * (s->view.word_bits / 8u);
            for (i = (uint32_t)s->first / per_word; i * s->view.word_bits < last_word; i++) {
                uint32_t m = evsnn_word(p, i, s->view.word_bits), channel = i * per_word, k;
                while (m) {
                    channel += evsnn_next(&m, &k, s->view.field_bits);
                    if (channel >= s->first && channel < (uint32_t)s->first + s->count) {
                        const int8_t *w = weight + (size_t)(first_row + channel - s->first) * EVSNN_TILE;
                        uint32_t j;
                        for (j = 0; j < EVSNN_TILE; j++) { v[j] += k * evsnn_u(EVSNN_I8(w + j)); }
                    }
                    channel++;
                }
            }
        }
    }
}

/* One weight per channel and kernel position. */
typedef struct {
    evsnn_view_t view;
    const int32_t *weight;   /* [ky][kx][channel] */
    uint16_t channels;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t dilation[2];
    uint16_t padding[2];
} evsnn_channelwise_t;

static inline void evsnn_gather_channelwise(uint32_t v[EVSNN_TILE], const evsnn_channelwise_t *s, uint8_t *arena, uint32_t first, uint32_t n, uint32_t oy, uint32_t ox, uint32_t t) {
    uint32_t ky, kx, j;
    for (ky = 0; ky < s->kernel[0]; ky++) {
        int32_t y = (int32_t)(oy * s->stride[0] + ky * s->dilation[0]) - s->padding[0];
        const uint8_t *row;
        if (y < 0 || y >= (int32_t)s->view.height) { continue; }
        row = evsnn_row(arena, &s->view, (uint32_t)y) + t * s->view.step_bytes;
        for (kx = 0; kx < s->kernel[1]; kx++) {
            int32_t x = (int32_t)(ox * s->stride[1] + kx * s->dilation[1]) - s->padding[1];
            const uint8_t *p;
            if (x < 0 || x >= (int32_t)s->view.width) { continue; }
            p = row + ((uint32_t)x + s->view.left) * s->view.words * (s->view.word_bits / 8u);
            for (j = 0; j < n; j++) {
                uint32_t channel = first + j;
                if ((evsnn_word(p, channel / s->view.word_bits, s->view.word_bits) << (channel % s->view.word_bits)) & 0x80000000u) {
                    v[j] += evsnn_u(EVSNN_I32(s->weight + (size_t)(ky * s->kernel[1] + kx) * s->channels + channel));
                }
            }
        }
    }
}

/* The analog input's current, the same at every step. */
typedef struct {
    const int8_t *weight;    /* [tile of the group][ky][kx][channel][8] */
    uint32_t tile_stride;
    uint16_t channels;       /* of a group */
    uint16_t height, width;  /* of what the kernel slides over */
    uint16_t input_height, input_width;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t dilation[2];
    uint16_t padding[2];
    uint16_t pool[2];         /* window sums of the input: 1, 1 is none */
    uint16_t pool_stride[2];
    uint16_t pool_padding[2];
} evsnn_analog_t;

/* NAME: a[j] += sum over the kernel of values * weights, for an input of type INPUT. It uses nothing but its arguments. */
#define EVSNN_DEFINE_ANALOG(NAME, INPUT) \
    static inline int32_t NAME##_at(const INPUT *x, const evsnn_analog_t *s, uint32_t c, uint32_t y, uint32_t column) { \
        uint32_t py, px; \
        int32_t sum = 0; \
        for (py = 0; py < s->pool[0]; py++) { \
            int32_t iy = (int32_t)(y * s->pool_stride[0] + py) - s->pool_padding[0]; \
            if (iy < 0 || iy >= (int32_t)s->input_height) { continue; } \
            for (px = 0; px < s->pool[1]; px++) { \
                int32_t ix = (int32_t)(column * s->pool_stride[1] + px) - s->pool_padding[1]; \
                if (ix < 0 || ix >= (int32_t)s->input_width) { continue; } \
                sum += x[((size_t)c * s->input_height + (uint32_t)iy) * s->input_width + (uint32_t)ix]; \
            } \
        } \
        return sum; \
    } \
    static inline void NAME(uint32_t a[EVSNN_TILE], const evsnn_analog_t *s, const INPUT *x, uint32_t tile, uint32_t group, uint32_t oy, uint32_t ox) { \
        uint32_t ky, kx, c, j; \
        const int8_t *weight = s->weight + tile * s->tile_stride; \
        for (ky = 0; ky < s->kernel[0]; ky++) { \
            int32_t y = (int32_t)(oy * s->stride[0] + ky * s->dilation[0]) - s->padding[0]; \
            if (y < 0 || y >= (int32_t)s->height) { continue; } \
            for (kx = 0; kx < s->kernel[1]; kx++) { \
                int32_t column = (int32_t)(ox * s->stride[1] + kx * s->dilation[1]) - s->padding[1]; \
                if (column < 0 || column >= (int32_t)s->width) { continue; } \
                for (c = 0; c < s->channels; c++) { \
                    uint32_t value = (uint32_t)NAME##_at(x, s, group * s->channels + c, (uint32_t)y, (uint32_t)column); \
                    const int8_t *w = weight + (((size_t)ky * s->kernel[1] + kx) * s->channels + c) * EVSNN_TILE; \
                    if (value) { \
                        for (j = 0; j < EVSNN_TILE; j++) { a[j] += value * evsnn_u(EVSNN_I8(w + j)); } \
                    } \
                } \
            } \
        } \
    }

EVSNN_DEFINE_ANALOG(evsnn_analog_u8, uint8_t)
EVSNN_DEFINE_ANALOG(evsnn_analog_i16, int16_t)
