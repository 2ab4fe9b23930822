/* Every machine: the plain reference that the other variants are tested against, bit for bit. */
#include "kernels.h"

static inline i32x16 i8_block(const uint8_t *w, const int8_t *x, const int32_t *correction) {
    (void)correction;
    i32x16 sum = {0};
    for (int lane = 0; lane < 16; lane++)
        for (int i = 0; i < 4; i++) sum[lane] += (int32_t)(int8_t)w[4 * lane + i] * x[4 * lane + i];
    return sum;
}

#define TABLE blyan_kernels_portable
#define ROWS 2
#define TOKENS 2
#include "kernels.inc"
