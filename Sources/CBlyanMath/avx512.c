/* x86-64 with AVX-512 F, BW, DQ, VL and VNNI. */
#if defined(__x86_64__)
#include "kernels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), apply_to = function)

/* (w + 128) · x - 128 · Σx: vpdpbusd wants one unsigned side, and w xor 0x80 is w + 128. */
static inline __attribute__((always_inline)) i32x16 i8_block(const uint8_t *w, const int8_t *x, const int32_t *correction) {
    __m512i a = _mm512_xor_si512(_mm512_loadu_si512(w), _mm512_set1_epi8((char)0x80));
    return (i32x16)_mm512_dpbusd_epi32(_mm512_loadu_si512(correction), a, _mm512_loadu_si512(x));
}

#define TABLE blyan_kernels_avx512
#define ROWS 4
#define TOKENS 6
#include "kernels.inc"

#pragma clang attribute pop
#else
typedef int blyan_no_avx512;
#endif
