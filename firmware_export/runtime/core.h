/* evsnn_rt.h: what every exported spiking network computes with; part of evsnn (firmware_export).
 * C99 and C++11, integers only; no heap, no recursion, no globals, nothing of the C library but memset.
 *
 * Words used below
 *   step      t = 0 .. n_steps - 1
 *   view      what the targets of a layer see of it: for each row, step and column the counts of its channels, packed into words.
 *             A count is a field of 1, 4, 8 or 16 bits: 1 for spikes, more behind an average pool. The first channel has the highest bits.
 *   row       [step][column][word]; columns of zeros stand left and right if kernels reach over the edge
 *   run       the words that one row of a kernel covers at one step: they lie side by side
 *   pair      two neurons of 16 bits in one uint32_t. With u = v - v_threshold + 0x8000 in each half, a neuron has fired if the
 *             half's highest bit is set. Weights are w_low + w_high * 65536, so u += k * w is exact modulo 2^32 in both halves at
 *             once: a borrow that the low half takes from the high one comes back with the sum. That u fits its half is proven
 *             from the weights when the network is exported.
 *   window    neurons whose spikes are counted together: those of an average pool behind them, or of the readout's; else one
 *   total     the spikes of a window of neurons in all steps of a run, less the negative ones; the readout integrates them at once
 *   negative  spikes of -1: they lie in a view of their own, and subtract the weights that others add
 *   u         v - v_threshold in fast code: a neuron fires if u >= 0
 *
 * What stands between lines of - is a part. It says what it defines, and which of the parts before it that needs. Macros of inner loops use
 * variables of the function they stand in (accumulators have to be named scalars: of arrays GCC makes memory); "Uses" lists them.
 */

/* ------------------------------------------------------------------ core: compilers, constants, results of calls
 * Defines: EVSNN_RT_VERSION, EVSNN_OK, EVSNN_ERROR_*, EVSNN_CONST, EVSNN_LANES and what hides compilers; evsnn_u, evsnn_signed, evsnn_copy, evsnn_load.
 * Needs: nothing.
 */

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

/* Results of calls. */
#define EVSNN_OK 0
#define EVSNN_ERROR_NULL (-1)     /* a pointer is NULL */
#define EVSNN_ERROR_LENGTH (-2)   /* an array is not as long as the network's input */
#define EVSNN_ERROR_RANGE (-3)    /* a value or an event outside the input's range, or a number of steps out of range */
#define EVSNN_ERROR_STATE (-4)    /* not initialised, no input, or a step or event after the last step */

/* Compilers. */
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
