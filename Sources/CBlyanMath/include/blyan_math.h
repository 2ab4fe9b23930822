/* SPDX-License-Identifier: Apache-2.0
 *
 * blyan_math.h: arithmetic on weights as they lie on disk.
 *
 * Canonical order. Every dot product of a stored row with an activation row has one order, whatever the
 * processor, batch, chunk or thread count; all variants give the same bits:
 *  - f32, f16, bf16: sixteen f32 lanes; element k goes to lane k % 16 by fused multiply-add, k ascending; the tail
 *    is as if padded with zeros; then lanes are added as a tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1
 *    (lane i with lane i + 8, then i + 4, ...).
 *  - i8: activations are quantised a block of 64 at a time (scale = max|x| / 127, round half to even, 0 if max is 0; NaN if an x is NaN);
 *    lane l of block b holds the exact int32 sum of the products of elements 64b + 4l ... 64b + 4l + 3, is
 *    converted to f32 and added by fused multiply-add with the block's scale to lane l, b ascending;
 *    the tree as above; then times the row's scale.
 * Variants are picked once, by what the processor has; blyan_math_select forces one, for tests.
 */
#ifndef BLYAN_MATH_H
#define BLYAN_MATH_H

#include "blyan_plugin.h"

/** Instruction sets. A processor that has one has all before it of its family. */
enum {
    BLYAN_ISA_PORTABLE = 0,
    BLYAN_ISA_AVX2 = 1,      /**< AVX2, FMA, F16C */
    BLYAN_ISA_AVX512 = 2,    /**< AVX-512 F, BW, DQ, VL, VNNI */
    BLYAN_ISA_NEON = 3       /**< aarch64 */
};

/** The instruction set in use. [any-thread] */
int32_t blyan_math_isa(void);
/** Its name, static: "portable", "avx2", "avx512-vnni", "neon". [any-thread] */
const char *blyan_math_isa_name(int32_t isa);
/** Uses isa from now on; 0 on success, -1 if the processor lacks it. Not while work is under way. */
int32_t blyan_math_select(int32_t isa);

/** A stored matrix, row-major. Borrowed. */
typedef struct blyan_matrix {
    const uint8_t *data;
    const float *scales;  /**< rows f32 for I8 (any alignment that f32 needs), else NULL */
    uint64_t rows;
    uint64_t columns;
    uint64_t row_stride;  /**< bytes */
    uint32_t dtype;       /**< BLYAN_DTYPE_F32, F16, BF16 or I8 */
    uint32_t reserved;
} blyan_matrix;

/** Bytes that blyan_math_prepare needs for `tokens` activation rows of `columns` for weights of dtype. */
uint64_t blyan_math_prepared_size(uint32_t dtype, uint64_t tokens, uint64_t columns);
/** Prepares activations once for all matrices of that dtype that read them: rows padded to 64 elements and aligned
 *  to 64 bytes; for I8 also quantised. x: tokens rows of x_stride floats. out: prepared_size bytes, 64-aligned. */
void blyan_math_prepare(uint32_t dtype, const float *x, uint64_t x_stride, uint64_t tokens, uint64_t columns,
                        void *out);
/** y[t * y_stride + r] = row r of matrix · activation t, for r in [row_begin, row_end), t in [0, tokens). */
void blyan_math_matmul(const blyan_matrix *matrix, uint64_t row_begin, uint64_t row_end, const void *prepared,
                       uint64_t tokens, float *y, uint64_t y_stride);
/** 1 if matmul knows the dtype. */
int32_t blyan_math_knows(uint32_t dtype);

/** Rows [row_begin, row_end) as f32 to out (contiguous rows of `columns`). */
void blyan_math_decode(const blyan_matrix *matrix, uint64_t row_begin, uint64_t row_end, float *out);
/** out = x converted: count elements of dtype (F32, F16, BF16) to f32. */
void blyan_math_to_f32(uint32_t dtype, const void *x, uint64_t count, float *out);
/** f32 to f16 (round to nearest even). Returns the number of finite inputs that became infinite. */
uint64_t blyan_math_to_f16(const float *x, uint64_t count, uint16_t *out);

/** out = x / sqrt(mean(x²) + epsilon) * weight, over n. Sum of squares in the canonical lane order. out may be x. */
void blyan_math_rms_norm(const float *x, const float *weight, uint64_t n, float epsilon, float *out);
/** out[i] = silu(gate[i]) * up[i]. out may be gate. */
void blyan_math_swiglu(const float *gate, const float *up, float *out, uint64_t n);
/** y[i] = fma(a, x[i], y[i]). */
void blyan_math_axpy(float a, const float *x, float *y, uint64_t n);
/** Canonical dot of two f32 arrays. */
float blyan_math_dot(const float *a, const float *b, uint64_t n);

/** One head of one query over a key/value cache: softmax(scale * q·K[j] for j in [begin, end)) · V.
 *  keys, values: f32, row j at j * stride floats; scores: scratch of (end - begin) floats; out: head_dim floats.
 *  The order of sums depends only on begin and end. */
void blyan_math_attend(const float *q, const float *keys, const float *values, uint64_t stride, uint64_t begin,
                       uint64_t end, uint64_t head_dim, float scale, float *scores, float *out);

/* ---- losses and derivatives ---------------------------------------------------------------- */

/** -log softmax(logits)[target] in nats, over n >= 1; target < n. Sums in the canonical lane order, exponential and
 *  logarithm are our own: the same bits everywhere. */
float blyan_math_loss(const float *logits, uint64_t n, uint64_t target);
/** As blyan_math_loss; then logits = scale * (softmax(logits) - 1 at target), the derivative of scale * loss. */
float blyan_math_loss_back(float *logits, uint64_t n, uint64_t target, float scale);
/** x = softmax(x) over n. */
void blyan_math_softmax(float *x, uint64_t n);
/** dp = scale * p * (dp - p·dp): from the derivative by p = softmax(s) to that by s / scale, over n. */
void blyan_math_softmax_back(const float *p, float *dp, uint64_t n, float scale);
/** Of scale * h, h = silu(gate) * up: in, h is the derivative by scale * h; out, h is h itself, and dgate, dup are
 *  the derivatives by gate and up, which they may replace. Returns the derivative by scale. */
float blyan_math_swiglu_back(const float *gate, const float *up, float *h, float scale, float *dgate, float *dup,
                             uint64_t n);
/** Of y = rms_norm(x): adds the derivative by x to dx, and that by weight to dweight unless it is NULL. */
void blyan_math_rms_norm_back(const float *x, const float *weight, const float *dy, uint64_t n, float epsilon,
                              float *dx, float *dweight);

/** One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101). */
typedef struct blyan_adamw {
    float rate;
    float beta1;
    float beta2;
    float epsilon;
    float weight_decay;
    float first_correction;  /**< 1 / (1 - beta1^step) */
    float second_correction; /**< 1 / (1 - beta2^step) */
    float gradient_scale;    /**< the gradient is multiplied by it first: clipping */
} blyan_adamw;
/** w and its moments m and v after one step along the gradient, over n. */
void blyan_math_adamw(const blyan_adamw *options, const float *gradient, float *w, float *m, float *v, uint64_t n);

/* ---- elementary functions of single numbers ------------------------------------------------ */

/* What the forward pass needs outside the kernels. Operations of IEEE doubles and integers alone, one source for every
 * machine: the same bits everywhere, where a C library's functions differ by version. EXACT.md says more. */

/** e^x. Below the smallest number 0, above the largest infinity. [any-thread] */
double blyan_math_exp(double x);
/** The natural logarithm: -infinity of 0, not a number below. [any-thread] */
double blyan_math_log(double x);
/** x^y of x > 0, as e^(y log x): up to some 2 |y log x| units in the last place off. [any-thread] */
double blyan_math_pow(double x, double y);
/** 1 / (1 + e^-x). [any-thread] */
float blyan_math_sigmoid(float x);
/** Sine and cosine of an angle in radians, of any size; not numbers unless it is finite. [any-thread] */
void blyan_math_sincos(float angle, float *sine, float *cosine);

/** The host service BLYAN_HOST_MATH. Static. */
const blyan_math *blyan_math_service(void);

/* ---- threads ------------------------------------------------------------------------------- */

/** Workers that spin briefly, then park. */
typedef struct blyan_pool blyan_pool;
/** A pool of `threads` (1 = the caller alone). NULL if threads cannot be had. Free with blyan_pool_free.
 *  background: the workers run only where nothing else wants the processor. */
blyan_pool *blyan_pool_new(uint32_t threads, int background);
/** From now on the calling thread runs only where nothing else wants the processor (Linux: SCHED_IDLE). */
void blyan_thread_background(void);
/** Whether the calling thread does, by that call or since the thread that started it did. */
int blyan_thread_is_background(void);
void blyan_pool_free(blyan_pool *pool);
uint32_t blyan_pool_threads(const blyan_pool *pool);
/** Calls work(context, i) for i in [0, tasks), each once, spread over the pool; returns when all are done.
 *  One call at a time a pool. */
void blyan_pool_run(blyan_pool *pool, uint32_t tasks, void (*work)(void *context, uint32_t task), void *context);

#endif
