/* Picks a variant once, and offers it by the names of blyan_math.h. */
#include "kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const blyan_kernels *chosen = &blyan_kernels_portable;
static int32_t chosen_isa = BLYAN_ISA_PORTABLE;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const blyan_kernels *variant(int32_t isa) {
    if (isa == BLYAN_ISA_PORTABLE) return &blyan_kernels_portable;
#if defined(__x86_64__)
    if (isa == BLYAN_ISA_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        return &blyan_kernels_avx2;
    if (isa == BLYAN_ISA_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        return &blyan_kernels_avx512;
#endif
#if defined(__aarch64__)
    if (isa == BLYAN_ISA_NEON) return &blyan_kernels_neon;
#endif
    return NULL;
}

static void choose(void) {
    static const int32_t order[] = {BLYAN_ISA_AVX512, BLYAN_ISA_NEON, BLYAN_ISA_AVX2};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const blyan_kernels *found = variant(order[i]);
        if (!found) continue;
        chosen = found;
        chosen_isa = order[i];
        return;
    }
}

static const blyan_kernels *kernels(void) {
    pthread_once(&once, choose);
    return chosen;
}

int32_t blyan_math_isa(void) {
    kernels();
    return chosen_isa;
}

const char *blyan_math_isa_name(int32_t isa) {
    switch (isa) {
    case BLYAN_ISA_PORTABLE: return "portable";
    case BLYAN_ISA_AVX2: return "avx2";
    case BLYAN_ISA_AVX512: return "avx512-vnni";
    case BLYAN_ISA_NEON: return "neon";
    default: return "unknown";
    }
}

int32_t blyan_math_select(int32_t isa) {
    kernels();
    const blyan_kernels *found = variant(isa);
    if (!found) return -1;
    chosen = found;
    chosen_isa = isa;
    return 0;
}

int32_t blyan_math_knows(uint32_t dtype) {
    return dtype == BLYAN_DTYPE_F32 || dtype == BLYAN_DTYPE_F16 || dtype == BLYAN_DTYPE_BF16 || dtype == BLYAN_DTYPE_I8;
}

uint64_t blyan_math_prepared_size(uint32_t dtype, uint64_t tokens, uint64_t columns) {
    return tokens * blyan_token_size(dtype, columns);
}

void blyan_math_prepare(uint32_t dtype, const float *x, uint64_t x_stride, uint64_t tokens, uint64_t columns, void *out) {
    kernels()->prepare(dtype, x, x_stride, tokens, columns, out);
}

void blyan_math_matmul(const blyan_matrix *matrix, uint64_t row_begin, uint64_t row_end, const void *prepared,
                       uint64_t tokens, float *y, uint64_t y_stride) {
    kernels()->matmul(matrix, row_begin, row_end, prepared, tokens, y, y_stride);
}

void blyan_math_decode(const blyan_matrix *matrix, uint64_t row_begin, uint64_t row_end, float *out) {
    for (uint64_t r = row_begin; r < row_end; r++, out += matrix->columns) {
        const uint8_t *row = matrix->data + r * matrix->row_stride;
        if (matrix->dtype != BLYAN_DTYPE_I8) {
            kernels()->to_f32(matrix->dtype, row, matrix->columns, out);
            continue;
        }
        for (uint64_t k = 0; k < matrix->columns; k++) out[k] = matrix->scales[r] * (float)(int8_t)row[k];
    }
}

void blyan_math_to_f32(uint32_t dtype, const void *x, uint64_t count, float *out) {
    kernels()->to_f32(dtype, x, count, out);
}

uint64_t blyan_math_to_f16(const float *x, uint64_t count, uint16_t *out) { return kernels()->to_f16(x, count, out); }

void blyan_math_rms_norm(const float *x, const float *weight, uint64_t n, float epsilon, float *out) {
    kernels()->rms_norm(x, weight, n, epsilon, out);
}

void blyan_math_swiglu(const float *gate, const float *up, float *out, uint64_t n) { kernels()->swiglu(gate, up, out, n); }

void blyan_math_axpy(float a, const float *x, float *y, uint64_t n) { kernels()->axpy(a, x, y, n); }

float blyan_math_dot(const float *a, const float *b, uint64_t n) { return kernels()->dot(a, b, n); }

void blyan_math_attend(const float *q, const float *keys, const float *values, uint64_t stride, uint64_t begin,
                       uint64_t end, uint64_t head_dim, float scale, float *scores, float *out) {
    kernels()->attend(q, keys, values, stride, begin, end, head_dim, scale, scores, out);
}

float blyan_math_loss(const float *logits, uint64_t n, uint64_t target) { return kernels()->loss(logits, n, target); }

float blyan_math_loss_back(float *logits, uint64_t n, uint64_t target, float scale) {
    return kernels()->loss_back(logits, n, target, scale);
}

void blyan_math_softmax(float *x, uint64_t n) { kernels()->softmax(x, n); }

void blyan_math_softmax_back(const float *p, float *dp, uint64_t n, float scale) {
    kernels()->softmax_back(p, dp, n, scale);
}

float blyan_math_swiglu_back(const float *gate, const float *up, float *h, float scale, float *dgate, float *dup,
                             uint64_t n) {
    return kernels()->swiglu_back(gate, up, h, scale, dgate, dup, n);
}

void blyan_math_rms_norm_back(const float *x, const float *weight, const float *dy, uint64_t n, float epsilon,
                              float *dx, float *dweight) {
    kernels()->rms_norm_back(x, weight, dy, n, epsilon, dx, dweight);
}

void blyan_math_adamw(const blyan_adamw *options, const float *gradient, float *w, float *m, float *v, uint64_t n) {
    kernels()->adamw(options, gradient, w, m, v, n);
}

/* ---- the service for plugins ---- */

static blyan_status service_multiply(const blyan_tensor *tensor, const uint8_t *data, const float *scales,
                                     const float *zeros, uint64_t row_begin, uint64_t row_end, const float *x,
                                     uint64_t x_stride, uint64_t tokens, float *y, uint64_t y_stride) {
    int quantised = tensor->quantisation == BLYAN_QUANT_ROW_SYMMETRIC;
    int is_i8 = tensor->dtype == BLYAN_DTYPE_I8;
    if (!blyan_math_knows(tensor->dtype) || tensor->layout != BLYAN_LAYOUT_ROWS || zeros || quantised != is_i8 ||
        tensor->quantisation > BLYAN_QUANT_ROW_SYMMETRIC)
        return BLYAN_E_UNSUPPORTED;
    if (row_begin > row_end || row_end > tensor->rows || (is_i8 && !scales)) return BLYAN_E_ARGUMENT;
    blyan_matrix matrix = {data, scales, tensor->rows, tensor->columns, tensor->row_stride, tensor->dtype, 0};
    uint64_t size = blyan_math_prepared_size(tensor->dtype, tokens, tensor->columns);
    void *prepared = aligned_alloc(64, (size + 63) & ~(uint64_t)63);
    if (!prepared) return BLYAN_E_MEMORY;
    blyan_math_prepare(tensor->dtype, x, x_stride, tokens, tensor->columns, prepared);
    blyan_math_matmul(&matrix, row_begin, row_end, prepared, tokens, y, y_stride);
    free(prepared);
    return BLYAN_OK;
}

const blyan_math *blyan_math_service(void) {
    static const blyan_math service = {sizeof(blyan_math), 0, service_multiply, blyan_math_swiglu};
    return &service;
}
