/* The variants' table and the vocabulary that they share. One source, kernels.inc, is compiled once for each
 * instruction set, so that every variant does the same operations on the same lanes. */
#ifndef BLYAN_KERNELS_H
#define BLYAN_KERNELS_H

#include "blyan_math.h"

typedef float f32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef _Float16 f16x16 __attribute__((vector_size(32)));

/* Prepared activations, a token after the other:
 *   f32 family: columns padded to 64 floats with zeros;
 *   i8: padded columns of int8, then for each block of 64 its f32 scale (padded to 64 bytes), then for each block sixteen
 *   int32: -128 times the sum of each lane's four values. */
static inline uint64_t blyan_padded(uint64_t columns) { return (columns + 63) & ~(uint64_t)63; }
static inline uint64_t blyan_blocks(uint64_t columns) { return (columns + 63) / 64; }
static inline uint64_t blyan_scales_size(uint64_t columns) { return (blyan_blocks(columns) * 4 + 63) & ~(uint64_t)63; }
static inline uint64_t blyan_token_size(uint32_t dtype, uint64_t columns) {
    if (dtype == BLYAN_DTYPE_I8)
        return blyan_padded(columns) + blyan_scales_size(columns) + blyan_blocks(columns) * 64;
    return blyan_padded(columns) * 4;
}

typedef struct blyan_kernels {
    void (*matmul)(const blyan_matrix *, uint64_t, uint64_t, const void *, uint64_t, float *, uint64_t);
    void (*prepare)(uint32_t, const float *, uint64_t, uint64_t, uint64_t, void *);
    void (*to_f32)(uint32_t, const void *, uint64_t, float *);
    float (*dot)(const float *, const float *, uint64_t);
    void (*rms_norm)(const float *, const float *, uint64_t, float, float *);
    void (*swiglu)(const float *, const float *, float *, uint64_t);
    void (*axpy)(float, const float *, float *, uint64_t);
    void (*attend)(const float *, const float *, const float *, uint64_t, uint64_t, uint64_t, uint64_t, float,
                   float *, float *);
    uint64_t (*to_f16)(const float *, uint64_t, uint16_t *);
    float (*loss)(const float *, uint64_t, uint64_t);
    float (*loss_back)(float *, uint64_t, uint64_t, float);
    void (*softmax)(float *, uint64_t);
    void (*softmax_back)(const float *, float *, uint64_t, float);
    float (*swiglu_back)(const float *, const float *, float *, float, float *, float *, uint64_t);
    void (*rms_norm_back)(const float *, const float *, const float *, uint64_t, float, float *, float *);
    void (*adamw)(const blyan_adamw *, const float *, float *, float *, float *, uint64_t);
} blyan_kernels;

extern const blyan_kernels blyan_kernels_portable;
#if defined(__x86_64__)
extern const blyan_kernels blyan_kernels_avx2;
extern const blyan_kernels blyan_kernels_avx512;
#endif
#if defined(__aarch64__)
extern const blyan_kernels blyan_kernels_neon;
#endif

#endif
