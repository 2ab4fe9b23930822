/* x86-64 with AVX2, FMA and F16C. */
#if defined(__x86_64__)
#include "kernels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

/* |w| · (x with w's sign): |w| ≤ 128 and |x| ≤ 127, so that a pair's sum of 32,512 does not saturate. */
static inline __attribute__((always_inline)) __m256i i8_half(const uint8_t *w, const int8_t *x) {
    __m256i a = _mm256_loadu_si256((const __m256i *)w);
    __m256i b = _mm256_loadu_si256((const __m256i *)x);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static inline __attribute__((always_inline)) i32x16 i8_block(const uint8_t *w, const int8_t *x, const int32_t *correction) {
    (void)correction;
    i32x16 sum;
    __m256i low = i8_half(w, x), high = i8_half(w + 32, x + 32);
    __builtin_memcpy(&sum, &low, 32);
    __builtin_memcpy((char *)&sum + 32, &high, 32);
    return sum;
}

#define TABLE blyan_kernels_avx2
#define ROWS 2
#define TOKENS 3
#include "kernels.inc"

#pragma clang attribute pop
#else
typedef int blyan_no_avx2;
#endif
