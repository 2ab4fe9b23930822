/* aarch64; NEON is part of it, the products of int8 use the widening multiply that every one has. */
#if defined(__aarch64__)
#include "kernels.h"

#include <arm_neon.h>

static inline __attribute__((always_inline)) i32x16 i8_block(const uint8_t *w, const int8_t *x, const int32_t *correction) {
    (void)correction;
    i32x16 sum;
    for (int quarter = 0; quarter < 4; quarter++) {
        int8x16_t a = vld1q_s8((const int8_t *)w + 16 * quarter), b = vld1q_s8(x + 16 * quarter);
        int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
        int32x4_t four = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
        __builtin_memcpy((char *)&sum + 16 * quarter, &four, 16);
    }
    return sum;
}

#define TABLE blyan_kernels_neon
#define ROWS 2
#define TOKENS 3
#include "kernels.inc"
#else
typedef int blyan_no_neon;
#endif
