/* evsnn_rt.h: what every exported spiking network computes with; part of evsnn (firmware_export).
 * C99 and C++11, integers only; no heap, no recursion, no globals, nothing of the C library but memset.
 *
 * Words used below
 *   step      t = 0 .. n_steps - 1
 *   view      what the targets of a layer see of it: for each row, step and column the counts of its channels, packed into words.
 *             A count is a field of 1, 4, 8 or 16 bits: 1 for spikes, more behind an average pool. The first channel has the highest bits.
 *   row       [step][column][word]; columns of zeros stand left and right where kernels reach over the edge
 *   run       the words that one row of a kernel covers at one step: they lie side by side
 *   pair      two neurons of 16 bits in one uint32_t. With u = v - v_threshold + 0x8000 in each half, a neuron has fired where the
 *             half's highest bit is set. Weights are w_low + w_high * 65536, so u += k * w is exact modulo 2^32 in both halves at
 *             once: a borrow that the low half takes from the high one comes back with the sum. That u fits its half is proven
 *             from the weights when the network is exported.
 */
#ifndef EVSNN_RT_H
#define EVSNN_RT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#include <arm_mve.h>
#define EVSNN_HAS_MVE 1
#else
#define EVSNN_HAS_MVE 0
#endif

#define EVSNN_RT_VERSION 0 /* in an export: a digest of this text */

/* ------------------------------------------------------------------ results of calls */

#define EVSNN_OK 0
#define EVSNN_ERROR_NULL (-1)     /* a pointer is NULL */
#define EVSNN_ERROR_LENGTH (-2)   /* an array is not as long as the network's input */
#define EVSNN_ERROR_RANGE (-3)    /* a value or an event outside the input's range, or a number of steps out of range */
#define EVSNN_ERROR_STATE (-4)    /* not initialised, no input, or a step or event after the last step */

/* ------------------------------------------------------------------ compilers */

#if defined(__GNUC__)
#define EVSNN_INLINE static inline __attribute__((always_inline))
#define EVSNN_NOINLINE __attribute__((noinline, unused))
#else
#define EVSNN_INLINE static inline
#define EVSNN_NOINLINE
#endif

#if defined(__cplusplus)
#define EVSNN_STATIC_ASSERT(condition, name) static_assert(condition, #name)
#else
#define EVSNN_STATIC_ASSERT(condition, name) typedef char evsnn_assert_##name[(condition) ? 1 : -1]
#endif

/* Where constants lie, and how they are read. Define EVSNN_CONST yourself to give them a section. */
#if defined(__AVR__)
#include <avr/pgmspace.h>
#ifndef EVSNN_CONST
#define EVSNN_CONST PROGMEM
#endif
#define EVSNN_I8(p) ((int8_t)pgm_read_byte(p))
#define EVSNN_U8(p) ((uint8_t)pgm_read_byte(p))
#define EVSNN_U16(p) ((uint16_t)pgm_read_word(p))
#define EVSNN_I32(p) ((int32_t)pgm_read_dword(p))
#define EVSNN_U32(p) ((uint32_t)pgm_read_dword(p))
#define EVSNN_GET(type, name, from) \
    type name##_copy; \
    const type *name = &name##_copy; \
    memcpy_P(&name##_copy, (from), sizeof name##_copy)
#define EVSNN_GET_ARRAY(type, n, name, from) \
    type name[n]; \
    memcpy_P(name, (from), sizeof name)
#else
#ifndef EVSNN_CONST
#define EVSNN_CONST
#endif
#define EVSNN_I8(p) (*(p))
#define EVSNN_U8(p) (*(p))
#define EVSNN_U16(p) (*(p))
#define EVSNN_I32(p) (*(p))
#define EVSNN_U32(p) (*(p))
#define EVSNN_GET(type, name, from) const type *name = (from)
#define EVSNN_GET_ARRAY(type, n, name, from) const type *name = (from)
#endif

EVSNN_STATIC_ASSERT((int32_t)0xffffffffu == -1 && (-1 >> 1) == -1, negative_numbers_are_two_s_complement_and_keep_their_sign_in_a_shift);

/* Cores that count leading zeros in an instruction. */
#if defined(__GNUC__) && (defined(__ARM_FEATURE_CLZ) || defined(__riscv_zbb) || defined(__XTENSA__) || defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__PPC__))
#define EVSNN_HAS_CLZ 1
#else
#define EVSNN_HAS_CLZ 0
#endif

/* Thumb-2: keeps GCC from loading all weights of a row before it adds the first, for which it has no registers. */
#if defined(__GNUC__) && defined(__ARM_ARCH) && !defined(__aarch64__)
#define EVSNN_IN_ORDER __asm__ volatile("" ::: "memory")
#else
#define EVSNN_IN_ORDER ((void)0)
#endif

/* Keeps GCC from making a call of memset, which small libraries write byte by byte, of a loop. */
#if defined(__GNUC__)
#define EVSNN_A_LOOP __asm__ volatile("" ::: "memory")
#else
#define EVSNN_A_LOOP ((void)0)
#endif

/* Hides a value from the compiler: else GCC turns tables of a layer of one tile into constants, which take longer to make than to load. */
#if defined(__GNUC__) && defined(__riscv)
#define EVSNN_HIDE(x) __asm__("" : "+r"(x))
#else
#define EVSNN_HIDE(x) ((void)0)
#endif

/* Accumulators that the registers hold: pairs of 16 bits, or neurons of 32. */
#ifndef EVSNN_LANES
#if defined(__ARM_ARCH_6M__)
#define EVSNN_LANES 4
#else
#define EVSNN_LANES 8
#endif
#endif

#if EVSNN_LANES != 4 && EVSNN_LANES != 8
#error "EVSNN_LANES is 4 or 8"
#endif
#if EVSNN_HAS_MVE && EVSNN_LANES != 8
#error "with Helium EVSNN_LANES is 8"
#endif

#define EVSNN_FIRED 0x80008000u

/* Words of 16 bits in an arena of 32-bit words. */
#if defined(__GNUC__)
typedef uint16_t __attribute__((may_alias)) evsnn_half_t;
#else
typedef uint16_t evsnn_half_t;
#endif

/* Membranes are added up as unsigned integers, whose sums may wrap on their way home; they are compared as signed ones. */
EVSNN_INLINE uint32_t evsnn_u(int32_t v) { return (uint32_t)v; }
EVSNN_INLINE int32_t evsnn_signed(uint32_t v) { return (int32_t)v; }

EVSNN_INLINE void evsnn_copy(uint32_t *to, const uint32_t *from, uint32_t n) {
    uint32_t i;
    for (i = 0; i < n; i++) {
        to[i] = from[i];
        EVSNN_A_LOOP;
    }
}

/* Constants of 32 bits. */
EVSNN_INLINE void evsnn_load(uint32_t *to, const int32_t *from, uint32_t n) {
    uint32_t i;
    for (i = 0; i < n; i++) {
        to[i] = evsnn_u(EVSNN_I32(from + i));
        EVSNN_A_LOOP;
    }
}

/* ------------------------------------------------------------------ views */

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

/* ------------------------------------------------------------------ any layer: eight neurons of 32 bits at a time */

#define EVSNN_TILE 8

/* Channels of a view that one group of a synapse reads. */
typedef struct {
    evsnn_view_t view;
    const int8_t *weight;    /* [tile of the group][ky][kx][channel][8] */
    uint32_t tile_stride;    /* weights of a tile of outputs */
    uint16_t rows;           /* channels of a tap in `weight` */
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
            uint32_t i, tap = (ky * s->kernel[1] + kx) * s->rows + s->row;
            const uint8_t *p;
            if (x < 0 || x >= (int32_t)s->view.width) { continue; }
            p = row + ((uint32_t)x + s->view.left) * s->view.words * (s->view.word_bits / 8u);
            for (i = (uint32_t)s->first / per_word; i * s->view.word_bits < last_word; i++) {
                uint32_t m = evsnn_word(p, i, s->view.word_bits), channel = i * per_word, k;
                while (m) {
                    channel += evsnn_next(&m, &k, s->view.field_bits);
                    if (channel >= s->first && channel < (uint32_t)s->first + s->count) {
                        const int8_t *w = weight + (size_t)(tap + channel - s->first) * EVSNN_TILE;
                        uint32_t j;
                        for (j = 0; j < EVSNN_TILE; j++) { v[j] += k * evsnn_u(EVSNN_I8(w + j)); }
                    }
                    channel++;
                }
            }
        }
    }
}

/* One weight a channel and tap. */
typedef struct {
    evsnn_view_t view;
    const int32_t *weight;   /* [ky][kx][channel] */
    uint16_t channels;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t dilation[2];
    uint16_t padding[2];
} evsnn_channelwise_t;

static inline void evsnn_channelwise(uint32_t v[EVSNN_TILE], const evsnn_channelwise_t *s, uint8_t *arena, uint32_t first, uint32_t n, uint32_t oy, uint32_t ox, uint32_t t) {
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

/* The analog input's constant current. */
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
} evsnn_drive_t;

#define EVSNN_DEFINE_DRIVE(NAME, INPUT) \
    static inline int32_t NAME##_at(const INPUT *x, const evsnn_drive_t *s, uint32_t c, uint32_t y, uint32_t column) { \
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
    static inline void NAME(uint32_t a[EVSNN_TILE], const evsnn_drive_t *s, const INPUT *x, uint32_t tile, uint32_t group, uint32_t oy, uint32_t ox) { \
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

/* ------------------------------------------------------------------ pools without neurons */

/* Window sums of spikes: one row of the pooled view. */
typedef struct {
    evsnn_view_t from, to;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t padding[2];
} evsnn_pool_t;

static inline void evsnn_pool_row(const evsnn_pool_t *s, uint8_t *arena, uint32_t oy, uint32_t n_steps) {
    uint8_t *out = evsnn_row(arena, &s->to, oy);
    uint32_t t, ox, py, px, i;
    evsnn_clear(out, s->to.row_bytes);
    for (t = 0; t < n_steps; t++) {
        for (ox = 0; ox < s->to.width; ox++) {
            uint8_t *target = out + t * s->to.step_bytes + (ox + s->to.left) * s->to.words * (s->to.word_bits / 8u);
            for (py = 0; py < s->kernel[0]; py++) {
                int32_t y = (int32_t)(oy * s->stride[0] + py) - s->padding[0];
                if (y < 0 || y >= (int32_t)s->from.height) { continue; }
                for (px = 0; px < s->kernel[1]; px++) {
                    int32_t x = (int32_t)(ox * s->stride[1] + px) - s->padding[1];
                    const uint8_t *p;
                    if (x < 0 || x >= (int32_t)s->from.width) { continue; }
                    p = evsnn_row(arena, &s->from, (uint32_t)y) + t * s->from.step_bytes + ((uint32_t)x + s->from.left) * s->from.words * (s->from.word_bits / 8u);
                    for (i = 0; i < s->from.words; i++) {
                        uint32_t m = evsnn_word(p, i, s->from.word_bits), channel = i * s->from.word_bits, k;
                        while (m) {
                            channel += evsnn_next(&m, &k, 1);
                            evsnn_count(target, channel, s->to.word_bits, s->to.field_bits);
                            channel++;
                        }
                    }
                }
            }
        }
    }
}

/* Maximum of accumulated spike counts: one row of outputs. `counts` has room for a window. */
typedef struct {
    evsnn_view_t from, from_negative, to, to_negative;
    uint16_t channels;
    uint16_t kernel[2];
    uint16_t stride[2];
    uint16_t padding[2];
    uint8_t is_signed;
    uint8_t by_step;         /* 1: `counts` are of all inputs, [y][x][channel], and kept from step to step */
} evsnn_maxpool_t;

EVSNN_INLINE uint32_t evsnn_spike(uint8_t *arena, const evsnn_view_t *view, uint32_t channel, uint32_t y, uint32_t x, uint32_t t) {
    const uint8_t *p = evsnn_row(arena, view, y) + t * view->step_bytes + (x + view->left) * view->words * (view->word_bits / 8u);
    return (evsnn_word(p, channel / view->word_bits, view->word_bits) << (channel % view->word_bits)) >> 31;
}

/* Step by step: the counts take in the rows that output row oy is the first to read, and the largest of a window is compared with what it was. */
static inline void evsnn_maxpool_step(const evsnn_maxpool_t *s, uint8_t *arena, int32_t *counts, uint32_t oy) {
    int32_t first = (int32_t)(oy * s->stride[0]) - s->padding[0], last = first + s->kernel[0], y, x;
    uint32_t ox, c, py, px;
    if (oy && first < last - (int32_t)s->stride[0]) { first = last - (int32_t)s->stride[0]; }
    for (y = first < 0 ? 0 : first; y < last && y < (int32_t)s->from.height; y++) {
        for (x = 0; x < (int32_t)s->from.width; x++) {
            for (c = 0; c < s->channels; c++) {
                int32_t *count = counts + ((uint32_t)(y * s->from.width + x)) * s->channels + c;
                *count += (int32_t)evsnn_spike(arena, &s->from, c, (uint32_t)y, (uint32_t)x, 0);
                if (s->is_signed) { *count -= (int32_t)evsnn_spike(arena, &s->from_negative, c, (uint32_t)y, (uint32_t)x, 0); }
            }
        }
    }
    for (ox = 0; ox < s->to.width; ox++) {
        for (c = 0; c < s->channels; c++) {
            int32_t before = INT32_MIN, after = INT32_MIN;
            for (py = 0; py < s->kernel[0]; py++) {
                y = (int32_t)(oy * s->stride[0] + py) - s->padding[0];
                for (px = 0; px < s->kernel[1]; px++) {
                    int32_t count = 0, spike = 0;
                    x = (int32_t)(ox * s->stride[1] + px) - s->padding[1];
                    if (y >= 0 && y < (int32_t)s->from.height && x >= 0 && x < (int32_t)s->from.width) {
                        count = counts[((uint32_t)(y * s->from.width + x)) * s->channels + c];
                        spike = (int32_t)evsnn_spike(arena, &s->from, c, (uint32_t)y, (uint32_t)x, 0);
                        if (s->is_signed) { spike -= (int32_t)evsnn_spike(arena, &s->from_negative, c, (uint32_t)y, (uint32_t)x, 0); }
                    }
                    if (count > after) { after = count; }
                    if (count - spike > before) { before = count - spike; }
                }
            }
            if (after != before) {
                const evsnn_view_t *view = after > before ? &s->to : &s->to_negative;
                evsnn_count(evsnn_row(arena, view, oy) + (ox + view->left) * view->words * (view->word_bits / 8u), c, view->word_bits, view->field_bits);
            }
        }
    }
}

static inline void evsnn_maxpool_row(const evsnn_maxpool_t *s, uint8_t *arena, int32_t *counts, uint32_t oy, uint32_t n_steps) {
    uint32_t t, ox, c, py, px;
    evsnn_clear(evsnn_row(arena, &s->to, oy), s->to.row_bytes);
    if (s->is_signed) { evsnn_clear(evsnn_row(arena, &s->to_negative, oy), s->to_negative.row_bytes); }
    if (s->by_step) {
        evsnn_maxpool_step(s, arena, counts, oy);
        return;
    }
    for (ox = 0; ox < s->to.width; ox++) {
        for (c = 0; c < s->channels; c++) {
            int32_t before = 0;
            memset(counts, 0, sizeof(int32_t) * s->kernel[0] * s->kernel[1]);
            for (t = 0; t < n_steps; t++) {
                int32_t largest = INT32_MIN;
                for (py = 0; py < s->kernel[0]; py++) {
                    int32_t y = (int32_t)(oy * s->stride[0] + py) - s->padding[0];
                    for (px = 0; px < s->kernel[1]; px++) {
                        int32_t x = (int32_t)(ox * s->stride[1] + px) - s->padding[1];
                        int32_t *count = counts + py * s->kernel[1] + px;
                        if (y >= 0 && y < (int32_t)s->from.height && x >= 0 && x < (int32_t)s->from.width) {
                            *count += (int32_t)evsnn_spike(arena, &s->from, c, (uint32_t)y, (uint32_t)x, t);
                            if (s->is_signed) { *count -= (int32_t)evsnn_spike(arena, &s->from_negative, c, (uint32_t)y, (uint32_t)x, t); }
                        }
                        if (*count > largest) { largest = *count; }
                    }
                }
                if (largest != before) {
                    const evsnn_view_t *view = largest > before ? &s->to : &s->to_negative;
                    uint8_t *p = evsnn_row(arena, view, oy) + t * view->step_bytes + (ox + view->left) * view->words * (view->word_bits / 8u);
                    evsnn_count(p, c, view->word_bits, view->field_bits);
                    before = largest;
                }
            }
        }
    }
}

/* ------------------------------------------------------------------ a layer of neurons, a row at a time */

#define EVSNN_NO_LEAK 255

typedef struct {
    const evsnn_part_t *parts;
    const evsnn_channelwise_t *channelwise;
    const evsnn_drive_t *drives;
    const int32_t *bias;        /* (channels) added at every step; here and below padded to whole tiles of each group */
    const int32_t *v_init;
    const int32_t *v_threshold;
    const int32_t *v_negative;  /* below it a neuron whose net count is positive takes a spike back; NULL: none does */
    const int8_t *readout;      /* [y][x][channel][classes]: spikes charge the readout at once and are not kept; NULL: they are kept */
    evsnn_view_t view;          /* of the spikes, pooled over the window */
    evsnn_view_t view_negative;
    uint32_t state;             /* step by step: where in the arena membranes lie, [y][x][padded channel] of 4 bytes, */
    uint32_t state_net;         /* net counts, if neurons may take spikes back, */
    uint32_t state_current;     /* and currents, if the input drives it */
    uint16_t n_parts, n_channelwise, n_drives;
    uint16_t channels, groups;
    uint16_t width;             /* windows in a row */
    uint16_t window[2];         /* neurons whose spikes are counted together, vertically and horizontally */
    uint16_t delay;
    uint16_t classes;
    uint8_t leak;               /* k of 1 - 2^-k, or EVSNN_NO_LEAK */
    uint8_t input_bits;         /* 8: the input is uint8_t, 16: int16_t */
    uint8_t kept;               /* 1: spikes are kept in `view` (and `view_negative`) */
    uint8_t fires;
    uint8_t by_step;            /* 1: a call computes one step, and membranes are kept */
    uint16_t neurons[2];        /* rows and columns of neurons */
} evsnn_population_t;

EVSNN_DEFINE_DRIVE(evsnn_drive_u8, uint8_t)
EVSNN_DEFINE_DRIVE(evsnn_drive_i16, int16_t)

EVSNN_INLINE void evsnn_bias_and_input(uint32_t a[EVSNN_TILE], const evsnn_population_t *s, const void *input, uint32_t tile, uint32_t group, uint32_t y, uint32_t x) {
    uint32_t i;
    evsnn_load(a, s->bias + tile * EVSNN_TILE, EVSNN_TILE);
    for (i = 0; i < s->n_drives; i++) {
        EVSNN_GET(evsnn_drive_t, drive, s->drives + i);
        if (s->input_bits == 8) {
            evsnn_drive_u8(a, drive, (const uint8_t *)input, tile, group, y, x);
        } else {
            evsnn_drive_i16(a, drive, (const int16_t *)input, tile, group, y, x);
        }
    }
}

/* Step by step: membranes before the first step, and the currents of an input. */
static EVSNN_NOINLINE void evsnn_population_start(const evsnn_population_t *s, uint8_t *arena, const void *input) {
    uint32_t tiles = ((uint32_t)s->channels / s->groups + EVSNN_TILE - 1u) / EVSNN_TILE, at = 0, y, x, group, tile;
    for (y = 0; y < s->neurons[0]; y++) {
        for (x = 0; x < s->neurons[1]; x++) {
            for (group = 0; group < s->groups; group++) {
                for (tile = group * tiles; tile < (group + 1u) * tiles; tile++, at += EVSNN_TILE) {
                    evsnn_load((uint32_t *)(void *)(arena + s->state) + at, s->v_init + tile * EVSNN_TILE, EVSNN_TILE);
                    if (s->v_negative) { evsnn_clear(arena + s->state_net + at * 4u, EVSNN_TILE * 4u); }
                    if (s->n_drives) { evsnn_bias_and_input((uint32_t *)(void *)(arena + s->state_current) + at, s, input, tile, group, y, x); }
                }
            }
        }
    }
}

/* All steps of a row of windows, or one. `out` are the readout's membranes. */
static EVSNN_NOINLINE void evsnn_population_row(const evsnn_population_t *s, uint8_t *arena, const void *input, uint32_t *out, uint32_t oy, uint32_t n_steps) {
    uint32_t per_group = (uint32_t)s->channels / s->groups, tiles = (per_group + EVSNN_TILE - 1u) / EVSNN_TILE, ox, group, tile, i, j;
    if (s->kept) {
        evsnn_clear(evsnn_row(arena, &s->view, oy), s->view.row_bytes);
        if (s->v_negative) { evsnn_clear(evsnn_row(arena, &s->view_negative, oy), s->view_negative.row_bytes); }
    }
    for (ox = 0; ox < s->width; ox++) {
        for (group = 0; group < s->groups; group++) {
            for (tile = 0; tile < tiles; tile++) {
                uint32_t first = group * per_group + tile * EVSNN_TILE, padded = (group * tiles + tile) * EVSNN_TILE, py, px;
                uint32_t n = per_group - tile * EVSNN_TILE < EVSNN_TILE ? per_group - tile * EVSNN_TILE : (uint32_t)EVSNN_TILE;
                int32_t total[EVSNN_TILE] = {0};
                for (py = 0; py < s->window[0]; py++) {
                    for (px = 0; px < s->window[1]; px++) {
                        uint32_t v[EVSNN_TILE], a[EVSNN_TILE], y = oy * s->window[0] + py, x = ox * s->window[1] + px, u;
                        uint32_t at = ((y * s->neurons[1] + x) * s->groups * tiles * EVSNN_TILE) + padded;
                        uint32_t net[EVSNN_TILE] = {0};
                        if (s->by_step) {
                            evsnn_copy(v, (const uint32_t *)(const void *)(arena + s->state) + at, EVSNN_TILE);
                            if (s->v_negative) { evsnn_copy(net, (const uint32_t *)(const void *)(arena + s->state_net) + at, EVSNN_TILE); }
                        } else {
                            evsnn_load(v, s->v_init + padded, EVSNN_TILE);
                        }
                        if (s->by_step && s->n_drives) {
                            evsnn_copy(a, (const uint32_t *)(const void *)(arena + s->state_current) + at, EVSNN_TILE);
                        } else {
                            evsnn_bias_and_input(a, s, input, group * tiles + tile, group, y, x);
                        }
                        for (u = 0; u < n_steps + s->delay; u++) {
                            if (u < n_steps) {
                                if (s->leak != EVSNN_NO_LEAK) {
                                    for (j = 0; j < EVSNN_TILE; j++) { v[j] -= evsnn_u(evsnn_signed(v[j]) >> s->leak); }
                                }
                                for (i = 0; i < s->n_parts; i++) {
                                    EVSNN_GET(evsnn_part_t, part, s->parts + i);
                                    if (part->group == group) { evsnn_gather(v, part, arena, tile, y, x, u); }
                                }
                                for (i = 0; i < s->n_channelwise; i++) {
                                    EVSNN_GET(evsnn_channelwise_t, synapse, s->channelwise + i);
                                    evsnn_channelwise(v, synapse, arena, first, n, y, x, u);
                                }
                                for (j = 0; j < EVSNN_TILE; j++) { v[j] += a[j]; }
                            }
                            if (u < s->delay || !s->fires) { continue; }
                            for (j = 0; j < n; j++) {
                                int32_t threshold = EVSNN_I32(s->v_threshold + padded + j), spike = 0;
                                if (evsnn_signed(v[j]) >= threshold) {
                                    spike = 1;
                                    v[j] -= evsnn_u(threshold);
                                } else if (s->v_negative && evsnn_signed(net[j]) > 0 && evsnn_signed(v[j]) < EVSNN_I32(s->v_negative + padded + j)) {
                                    spike = -1;
                                    v[j] += evsnn_u(threshold);
                                }
                                if (spike) {
                                    net[j] += evsnn_u(spike);
                                    total[j] += spike;
                                    if (s->kept) {
                                        const evsnn_view_t *view = spike > 0 ? &s->view : &s->view_negative;
                                        uint8_t *p = evsnn_row(arena, view, oy) + (u - s->delay) * view->step_bytes;
                                        evsnn_count(p + (ox + view->left) * view->words * (view->word_bits / 8u), first + j, view->word_bits, view->field_bits);
                                    }
                                }
                            }
                        }
                        if (s->by_step) {
                            evsnn_copy((uint32_t *)(void *)(arena + s->state) + at, v, EVSNN_TILE);
                            if (s->v_negative) { evsnn_copy((uint32_t *)(void *)(arena + s->state_net) + at, net, EVSNN_TILE); }
                        }
                        if (!s->fires) { evsnn_copy(out + first, v, n); }
                    }
                }
                if (s->readout) {
                    for (j = 0; j < n; j++) {
                        const int8_t *w = s->readout + ((size_t)(oy * s->width + ox) * s->channels + first + j) * s->classes;
                        for (i = 0; total[j] && i < s->classes; i++) { out[i] += evsnn_u(total[j]) * evsnn_u(EVSNN_I8(w + i)); }
                    }
                } else if (s->classes && s->fires) {
                    for (j = 0; j < n; j++) { out[first + j] += evsnn_u(total[j]); }
                }
            }
        }
    }
}

/* ------------------------------------------------------------------ fast: constants are known where these are inlined */

enum { EVSNN_TALLY, EVSNN_SPIKES, EVSNN_COUNTS }; /* what becomes of a spike: counted for the readout, kept, kept as a pool's count */

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

/* How the words of a source lie, and the weights of its channels: known where code is inlined. */
typedef struct {
    int word_bits;
    int field_bits;
    int taps;            /* positions of a run; 0: there is no such source */
    int words;           /* of a position */
    int rows;            /* channels of a tap in the weights */
    uint32_t step_bytes; /* from a step to the next */
    int at_once;         /* runs whose sums stay within 16 bits together, where membranes have 32 */
    int32_t negative;    /* bytes from a count of spikes to that of those taken back, which take the weights away; 0: there are none */
} evsnn_source_t;

typedef struct {
    evsnn_source_t source[2];
    int same;              /* 1: an identity shortcut charges each neuron with the spikes of its own channel, too */
    int same_word_bits;
    uint32_t same_step_bytes;
    int32_t same_negative; /* like that of a source */
    int row;               /* pairs of a tile; 8 neurons where they have 32 bits */
    int lanes;             /* of them computed in a call */
    uint32_t n_steps;
    int emit;
    int out_word_bits;
    int out_field_bits;
    uint32_t out_step_bytes;
    uint32_t delay;        /* steps that only charge; as many at the end only compare. In pairs: 0 */
    int is_signed;         /* 1: neurons may take spikes back; in pairs: 0 */
    int32_t negative;      /* bytes from a spike's place to that of one that takes it back, */
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
        if ((S).taps * (S).words <= 3) { \
            EVSNN_WALK(S, 0, q->w, ADD); \
            if ((S).taps * (S).words > 1) { EVSNN_WALK(S, 1, EVSNN_BASE(S, 1), ADD); } \
            if ((S).taps * (S).words > 2) { EVSNN_WALK(S, 2, EVSNN_BASE(S, 2), ADD); } \
        } else { \
            const int per_word = (S).word_bits / (S).field_bits, filled = (S).words * per_word == (S).rows; \
            const WEIGHT *base = q->w; \
            int tap, i; \
            for (tap = 0; tap < (filled ? 1 : (S).taps); tap++) { \
                for (i = 0; i < (filled ? (S).taps * (S).words : (S).words); i++) { \
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

#define EVSNN_U_INIT(j) (state ? state[j] : EVSNN_U32(u_init + (j)))

/* Step by step the membranes are kept. */
#define EVSNN_KEEP \
    do { \
        if (state) { \
            state[0] = u0; state[1] = u1; state[2] = u2; state[3] = u3; \
            if (lanes > 4) { state[4] = u4; state[5] = u5; state[6] = u6; state[7] = u7; } \
        } \
    } while (0)

#if EVSNN_HAS_MVE

#define EVSNN_ADD_VECTORS \
    u0 = vmlaq_n_u32(u0, vldrwq_u32(w), k); \
    if (row == 8) { u1 = vmlaq_n_u32(u1, vldrwq_u32(w + 4), k); }

/* Helium: four pairs a vector. The arguments are those of the plain version below. */
EVSNN_INLINE void evsnn_pairs(const evsnn_fast_t *s, evsnn_run_t *r, evsnn_run_t *middle, evsnn_run_t *end, const uint8_t *same, const uint32_t *same_weight, const uint32_t *u_init,
                              uint32_t *state, const uint32_t *bias, const uint32_t *threshold, uint32_t *tally, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = s->row;
    const uint32x4_t fired = vdupq_n_u32(EVSNN_FIRED);
    uint32_t t = s->n_steps;
    uint32x4_t u0 = vldrwq_u32(state ? state : u_init), u1 = row == 8 ? vldrwq_u32(state ? state + 4 : u_init + 4) : vdupq_n_u32(0);
    uint32x4_t n0 = s->emit == EVSNN_TALLY ? vldrwq_u32(tally) : vdupq_n_u32(0), n1 = s->emit == EVSNN_TALLY && row == 8 ? vldrwq_u32(tally + 4) : vdupq_n_u32(0);
    do {
        uint32x4_t f0, f1, s0, s1;
        EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[0], r, middle, EVSNN_ADD_VECTORS);
        if (s->source[1].taps) { EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[1], middle, end, EVSNN_ADD_VECTORS); }
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
        if (s->emit == EVSNN_TALLY) {
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
    if (s->emit == EVSNN_TALLY) {
        vstrwq_u32(tally, n0);
        if (row == 8) { vstrwq_u32(tally + 4, n1); }
    }
    if (state) {
        vstrwq_u32(state, u0);
        if (row == 8) { vstrwq_u32(state + 4, u1); }
    }
    (void)half;
}

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

#define EVSNN_PAIR(j) \
    if (lanes > (j)) { u##j += k * EVSNN_U32(w + (j)); }

#define EVSNN_ADD_PAIRS \
    EVSNN_PAIR(0) EVSNN_PAIR(1) EVSNN_IN_ORDER; EVSNN_PAIR(2) EVSNN_PAIR(3) if (lanes > 4) { EVSNN_IN_ORDER; } \
    EVSNN_PAIR(4) EVSNN_PAIR(5) if (lanes > 4) { EVSNN_IN_ORDER; } EVSNN_PAIR(6) EVSNN_PAIR(7)

#define EVSNN_BIAS_PAIR(j) \
    if (lanes > (j)) { u##j += EVSNN_U32(bias + (j)); }

/* Pair j, of channels j and row + j of the tile: compare, reset, and tell. */
#define EVSNN_FIRE_PAIR(j) \
    if (lanes > (j)) { \
        uint32_t f = u##j & EVSNN_FIRED; \
        if (f) { \
            uint32_t fresh = f >> 15; \
            u##j -= EVSNN_U32(threshold + (j)) & (f - fresh); \
            if (s->emit == EVSNN_TALLY) { \
                tally[j] += fresh; \
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
                              uint32_t *state, const uint32_t *bias, const uint32_t *threshold, uint32_t *tally, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = s->row, lanes = s->lanes;
    uint32_t t = s->n_steps;
    uint32_t u0 = EVSNN_U_INIT(0), u1 = EVSNN_U_INIT(1), u2 = EVSNN_U_INIT(2), u3 = EVSNN_U_INIT(3);
    uint32_t u4 = lanes > 4 ? EVSNN_U_INIT(4) : 0u, u5 = lanes > 4 ? EVSNN_U_INIT(5) : 0u, u6 = lanes > 4 ? EVSNN_U_INIT(6) : 0u, u7 = lanes > 4 ? EVSNN_U_INIT(7) : 0u;
    do {
        EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[0], r, middle, EVSNN_ADD_PAIRS);
        if (s->source[1].taps) { EVSNN_RUNS(evsnn_run_t, uint32_t, s->source[1], middle, end, EVSNN_ADD_PAIRS); }
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
        if (s->emit != EVSNN_TALLY) { out += s->out_step_bytes; }
    } while (--t);
    EVSNN_KEEP;
}

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

/* Membranes of 32 bits: whether the step in hand is one of input, and whether one of output. */
#define EVSNN_CHARGES (!s->delay || t > s->delay)
#define EVSNN_FIRES (!s->delay || t <= s->n_steps)

/* Whether neuron u, without a spike at this step, takes one back. */
#define EVSNN_TAKES_BACK(u, net, INDEX) (s->is_signed && evsnn_signed(net) > 0 && evsnn_signed(u) < EVSNN_I32(bottom + (INDEX)))

/* Tell of a spike, or of one that is taken back. */
#define EVSNN_EMIT(INDEX, CHANNEL) \
    do { \
        if (s->emit == EVSNN_TALLY) { tally[INDEX]++; } else { evsnn_count(out, (CHANNEL), s->out_word_bits, s->out_field_bits); } \
    } while (0)
#define EVSNN_EMIT_NEGATIVE(INDEX, CHANNEL) \
    do { \
        if (s->emit == EVSNN_TALLY) { tally[INDEX]--; } else { evsnn_count(out + s->negative, (CHANNEL), s->out_word_bits, s->out_field_bits); } \
    } while (0)

/* Bias, comparison and reset of N neurons of 32 bits; INDEX of j is its constants' and tally's place, CHANNEL its channel. */
#define EVSNN_FIRE_ALL(N, INDEX, CHANNEL) \
    for (j = 0; j < (N); j++) { \
        uint32_t u = EVSNN_CHARGES ? v[j] + evsnn_u(EVSNN_I32(bias + (INDEX))) : v[j]; \
        if (EVSNN_FIRES && evsnn_signed(u) >= 0) { \
            u -= evsnn_u(EVSNN_I32(threshold + (INDEX))); \
            if (s->is_signed) { net[j]++; } \
            EVSNN_EMIT(INDEX, CHANNEL); \
        } else if (EVSNN_FIRES && EVSNN_TAKES_BACK(u, net[j], INDEX)) { \
            u += evsnn_u(EVSNN_I32(threshold + (INDEX))); \
            net[j]--; \
            EVSNN_EMIT_NEGATIVE(INDEX, CHANNEL); \
        } \
        v[j] = u; \
    }

/* Neuron j of 2 * lanes: which of its tile's, from `half` on. */
#define EVSNN_PLACE (j < lanes ? j : j - lanes + row)

#define EVSNN_SAME_WIDE(P, SIGN) \
    do { \
        uint32_t m = evsnn_tile_spikes(P, s->same_word_bits, row, tile); \
        for (j = 0; m && j < 2 * lanes; j++) { \
            if ((m << ((uint32_t)(EVSNN_PLACE) + half)) & 0x80000000u) { v[j] SIGN evsnn_u(EVSNN_I32(same_weight + EVSNN_PLACE)); } \
        } \
    } while (0)

/* The same for 2 * lanes neurons of 32 bits: the sum of a step is kept in pairs of 16 bits, and widened once for some runs. Here u = v - v_threshold;
 * u_init, bias, threshold, bottom, state and tally have 2 * row values a tile, in the order of the channels. A signed neuron whose net count is
 * positive takes a spike back below `bottom`, which is NULL where none does. */
EVSNN_INLINE void evsnn_wide(const evsnn_fast_t *s, evsnn_run_t *r, evsnn_run_t *middle, evsnn_run_t *end, const uint8_t *same, const int32_t *same_weight, const int32_t *u_init,
                             uint32_t *state, const int32_t *bias, const int32_t *threshold, const int32_t *bottom, uint32_t *tally, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = s->row, lanes = s->lanes;
    uint32_t t = s->n_steps + s->delay, v[16], net[16];
    int j;
    for (j = 0; j < 2 * lanes; j++) { v[j] = state ? state[EVSNN_PLACE] : evsnn_u(EVSNN_I32(u_init + EVSNN_PLACE)); }
    for (j = 0; s->is_signed && j < 2 * lanes; j++) { net[j] = state ? state[s->net + EVSNN_PLACE] : 0u; }
    do {
        if (EVSNN_CHARGES) {
            EVSNN_WIDE_RUNS(s->source[0], r, middle, s->source[0].at_once);
            if (s->source[1].taps) { EVSNN_WIDE_RUNS(s->source[1], middle, end, s->source[1].at_once); }
            if (s->same) {
                EVSNN_SAME_WIDE(same, +=);
                if (s->same_negative) { EVSNN_SAME_WIDE(same + s->same_negative, -=); }
                same += s->same_step_bytes;
            }
        }
        EVSNN_FIRE_ALL(2 * lanes, EVSNN_PLACE, tile * 2u * (uint32_t)row + half + (uint32_t)(EVSNN_PLACE))
        if (EVSNN_FIRES && s->emit != EVSNN_TALLY) { out += s->out_step_bytes; }
    } while (--t);
    for (j = 0; state && j < 2 * lanes; j++) { state[EVSNN_PLACE] = v[j]; }
    for (j = 0; state && s->is_signed && j < 2 * lanes; j++) { state[s->net + EVSNN_PLACE] = net[j]; }
}

/* The readout's membranes get the spikes of a window of neurons: counts in pairs j, row + j; weight is [channel][classes] of the tile. */
EVSNN_INLINE void evsnn_readout_pairs(uint32_t *out, const uint32_t *tally, int row, uint32_t channels, const int8_t *weight, uint32_t classes) {
    uint32_t c, i;
    for (c = 0; c < channels; c++) {
        uint32_t n = c < (uint32_t)row ? tally[c] & 0xffffu : tally[c - (uint32_t)row] >> 16;
        if (n) {
            const int8_t *w = weight + c * classes;
            for (i = 0; i < classes; i++) { out[i] += n * evsnn_u(EVSNN_I8(w + i)); }
        }
    }
}

#define EVSNN_SINGLE(j) \
    if (lanes > (j)) { u##j += k * evsnn_u(EVSNN_I8(w + (j))); }

#define EVSNN_ADD_SINGLES \
    EVSNN_SINGLE(0) EVSNN_SINGLE(1) EVSNN_IN_ORDER; EVSNN_SINGLE(2) EVSNN_SINGLE(3) if (lanes > 4) { EVSNN_IN_ORDER; } \
    EVSNN_SINGLE(4) EVSNN_SINGLE(5) if (lanes > 4) { EVSNN_IN_ORDER; } EVSNN_SINGLE(6) EVSNN_SINGLE(7)

#define EVSNN_V_INIT(j) (state ? state[j] : evsnn_u(EVSNN_I32(u_init + (j))))

#define EVSNN_BIAS_SINGLE(j) \
    if (lanes > (j)) { u##j += evsnn_u(EVSNN_I32(bias + (j))); }

#define EVSNN_FIRE_SINGLE(j) \
    if (lanes > (j) && (int32_t)u##j >= 0) { \
        u##j -= evsnn_u(EVSNN_I32(threshold + (j))); \
        if (s->is_signed) { net[j]++; } \
        EVSNN_EMIT(j, tile * 8u + half + (j)); \
    } else if (lanes > (j) && EVSNN_TAKES_BACK(u##j, net[j], j)) { \
        u##j += evsnn_u(EVSNN_I32(threshold + (j))); \
        net[j]--; \
        EVSNN_EMIT_NEGATIVE(j, tile * 8u + half + (j)); \
    }

/* The same for `lanes` neurons of 32 bits, of a tile of 8; here u = v - v_threshold, and weights are int8_t. */
EVSNN_INLINE void evsnn_singles(const evsnn_fast_t *s, evsnn_run8_t *r, evsnn_run8_t *middle, evsnn_run8_t *end, const uint8_t *same, const int32_t *same_weight, const int32_t *u_init,
                                uint32_t *state, const int32_t *bias, const int32_t *threshold, const int32_t *bottom, uint32_t *tally, uint8_t *out, uint32_t tile, uint32_t half) {
    const int row = 8, lanes = s->lanes;
    uint32_t t = s->n_steps + s->delay, net[8];
    int j;
    uint32_t u0 = EVSNN_V_INIT(0), u1 = EVSNN_V_INIT(1), u2 = EVSNN_V_INIT(2), u3 = EVSNN_V_INIT(3);
    uint32_t u4 = lanes > 4 ? EVSNN_V_INIT(4) : 0x80000000u, u5 = lanes > 4 ? EVSNN_V_INIT(5) : 0x80000000u;
    uint32_t u6 = lanes > 4 ? EVSNN_V_INIT(6) : 0x80000000u, u7 = lanes > 4 ? EVSNN_V_INIT(7) : 0x80000000u;
    for (j = 0; s->is_signed && j < lanes; j++) { net[j] = state ? state[s->net + j] : 0u; }
    do {
        if (EVSNN_CHARGES) {
            EVSNN_RUNS(evsnn_run8_t, int8_t, s->source[0], r, middle, EVSNN_ADD_SINGLES);
            if (s->source[1].taps) { EVSNN_RUNS(evsnn_run8_t, int8_t, s->source[1], middle, end, EVSNN_ADD_SINGLES); }
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
        if (EVSNN_FIRES && (s->is_signed || (int32_t)(u0 & u1 & u2 & u3 & u4 & u5 & u6 & u7) >= 0)) {
            EVSNN_FIRE_SINGLE(0) EVSNN_FIRE_SINGLE(1) EVSNN_FIRE_SINGLE(2) EVSNN_FIRE_SINGLE(3)
            EVSNN_FIRE_SINGLE(4) EVSNN_FIRE_SINGLE(5) EVSNN_FIRE_SINGLE(6) EVSNN_FIRE_SINGLE(7)
        }
        if (EVSNN_FIRES && s->emit != EVSNN_TALLY) { out += s->out_step_bytes; }
    } while (--t);
    EVSNN_KEEP;
    for (j = 0; state && s->is_signed && j < lanes; j++) { state[s->net + j] = net[j]; }
}

/* Count j of eight in a word. Behind a pool most are not 0: all are multiplied. */
#define EVSNN_TAP(j, SIGN) \
    a##j SIGN ((m >> (28 - 4 * (j))) & 15u) * evsnn_u(EVSNN_I32(w + (j)));

/* The counts of a tile of eight channels at the taps of run q, whose words begin at P, each to the membrane of its own channel. */
#define EVSNN_TAPS_OF(S, P, SIGN) \
    do { \
        const int per_word = (S).word_bits / (S).field_bits, n_words = per_word < 8 ? 8 / per_word : 1; \
        int tap, i; \
        for (tap = 0; tap < (S).taps; tap++) { \
            const int32_t *w = q->w + tap * (S).rows; \
            if ((S).field_bits == 4 && (S).word_bits == 32) { \
                uint32_t m = evsnn_word(P, (uint32_t)(tap * (S).words) + tile, 32); \
                if (m) { EVSNN_TAP(0, SIGN) EVSNN_TAP(1, SIGN) EVSNN_TAP(2, SIGN) EVSNN_TAP(3, SIGN) EVSNN_TAP(4, SIGN) EVSNN_TAP(5, SIGN) EVSNN_TAP(6, SIGN) EVSNN_TAP(7, SIGN) } \
                continue; \
            } \
            for (i = 0; i < n_words; i++) { \
                const uint32_t first = tile * 8u / (uint32_t)per_word + (uint32_t)i, place = tile * 8u % (uint32_t)per_word; \
                uint32_t *membrane = v + i * per_word, m, k; \
                if (per_word < 8 && first >= (uint32_t)(S).words) { break; } \
                m = evsnn_word(P, (uint32_t)(tap * (S).words) + first, (S).word_bits) << (place * (uint32_t)(S).field_bits); \
                if (per_word > 8) { m &= ~((~(uint32_t)0) >> (8 * (S).field_bits)); } \
                w = q->w + tap * (S).rows + i * per_word; \
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

/* Runs R .. END of source S at one step, which they leave behind them; weights are [tap][channel]. */
#define EVSNN_TAPS(S, R, END) \
    do { \
        uint32_t a0 = v[0], a1 = v[1], a2 = v[2], a3 = v[3], a4 = v[4], a5 = v[5], a6 = v[6], a7 = v[7]; \
        evsnn_run32_t *q; \
        for (q = (R); q != (END); q++) { \
            EVSNN_TAPS_OF(S, q->p, +=); \
            if ((S).negative) { EVSNN_TAPS_OF(S, q->p + (S).negative, -=); } \
            q->p += (S).step_bytes; \
        } \
        if ((S).field_bits == 4 && (S).word_bits == 32) { \
            v[0] = a0; v[1] = a1; v[2] = a2; v[3] = a3; v[4] = a4; v[5] = a5; v[6] = a6; v[7] = a7; \
        } \
    } while (0)

/* Eight neurons of 32 bits, each of which reads one channel alone: depthwise weights. Here u = v - v_threshold, and runs hold weights of 32 bits. */
EVSNN_INLINE void evsnn_taps(const evsnn_fast_t *s, evsnn_run32_t *r, evsnn_run32_t *middle, evsnn_run32_t *end, const uint8_t *same, const int32_t *same_weight, const int32_t *u_init,
                             uint32_t *state, const int32_t *bias, const int32_t *threshold, const int32_t *bottom, uint32_t *tally, uint8_t *out, uint32_t tile, uint32_t half) {
    uint32_t t = s->n_steps + s->delay, v[8], net[8];
    int j;
    for (j = 0; j < 8; j++) { v[j] = state ? state[j] : evsnn_u(EVSNN_I32(u_init + j)); }
    for (j = 0; s->is_signed && j < 8; j++) { net[j] = state ? state[s->net + j] : 0u; }
    do {
        if (EVSNN_CHARGES) {
            EVSNN_TAPS(s->source[0], r, middle);
            if (s->source[1].taps) { EVSNN_TAPS(s->source[1], middle, end); }
        }
        EVSNN_FIRE_ALL(8, j, tile * 8u + (uint32_t)j)
        if (EVSNN_FIRES && s->emit != EVSNN_TALLY) { out += s->out_step_bytes; }
    } while (--t);
    for (j = 0; state && j < 8; j++) { state[j] = v[j]; }
    for (j = 0; state && s->is_signed && j < 8; j++) { state[s->net + j] = net[j]; }
    (void)same;
    (void)same_weight;
    (void)half;
}

EVSNN_INLINE void evsnn_readout_singles(uint32_t *out, const uint32_t *tally, uint32_t channels, const int8_t *weight, uint32_t classes) {
    uint32_t c, i;
    for (c = 0; c < channels; c++) {
        if (tally[c]) {
            const int8_t *w = weight + c * classes;
            for (i = 0; i < classes; i++) { out[i] += tally[c] * evsnn_u(EVSNN_I8(w + i)); }
        }
    }
}

/* All steps of a neuron whose current is the same at each: u = v - v_threshold. Its spikes add `one` to a word of each step. At most n_steps of `delay` steps charge it beforehand. */
EVSNN_INLINE void evsnn_fire_constant(int32_t current, int32_t u, int32_t threshold, uint32_t one, uint8_t *out, uint32_t step_bytes, int word_bits, uint32_t n_steps, uint32_t delay) {
    uint32_t t;
    u += current * (int32_t)delay;
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#pragma GCC unroll 16
#endif
    for (t = 0; t < n_steps; t++) {
        if (t + delay < n_steps) { u += current; }
        if (u >= 0) {
            u -= threshold;
            evsnn_word_add(out + t * step_bytes, 0, word_bits, one);
        }
    }
}

#define EVSNN_CURRENT(i) \
    if (kernel_width > (i) && ((i) >= left || first_x <= (i)) && ((i) < kernel_width - right || (i) < last_x)) { \
        int32_t v = p[x + (i)]; \
        if (v) { \
            const int8_t *w = row + 8 * (i); \
            a0 += v * EVSNN_I8(w); a1 += v * EVSNN_I8(w + 1); a2 += v * EVSNN_I8(w + 2); a3 += v * EVSNN_I8(w + 3); \
            if (lanes > 4) { a4 += v * EVSNN_I8(w + 4); a5 += v * EVSNN_I8(w + 5); a6 += v * EVSNN_I8(w + 6); a7 += v * EVSNN_I8(w + 7); } \
        } \
    }

/* The currents of 8 neurons (4 where lanes is 4) at one place: a += sum x * w over a kernel; weight is [channel][ky][kx][8] of the tile.
 * y and x are those of the kernel's first tap; at most `left` and `right` taps of a row lie outside the map. */
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

#endif
