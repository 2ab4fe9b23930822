/* Elementary functions of single numbers, for what the kernels do not compute: rotary angles, gates, settings.
 *
 * Additions, multiplications, divisions and conversions of IEEE double precision alone, each rounded once (the package
 * builds without contraction), and integers: the same bits wherever doubles are doubles. No fma, so that nothing calls
 * a library where the processor lacks it. */
#include "blyan_math.h"

#include <string.h>

static double from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, 8);
    return x;
}
static uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}
/* 2^n of a normal number. */
static double power_of_2(int64_t n) { return from_bits((uint64_t)(n + 1023) << 52); }

/* ln 2 in two parts: the first has few bits, so that its product with an exponent is exact (Cody and Waite). */
static const double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;

/* x = n ln 2 + r, and e^r = 1 + 2 p / (q - p) with the polynomials of the Cephes library (S. Moshier). */
double blyan_math_exp(double x) {
    if (x != x) return x;
    if (x > 709.782712893384) return __builtin_inf();
    if (x < -745.1332191019412) return 0;
    double scaled = x * 1.4426950408889634;
    int64_t n = (int64_t)(scaled + (scaled < 0 ? -0.5 : 0.5));
    double r = x - (double)n * ln2_high - (double)n * ln2_low, rr = r * r;
    double p = r * ((1.26177193074810590878e-4 * rr + 3.02994407707441961300e-2) * rr + 9.99999999999999999910e-1);
    double q = ((3.00198505138664455042e-6 * rr + 2.52448340349684104192e-3) * rr + 2.27265548208155028766e-1) * rr +
               2.00000000000000000009;
    double value = 1.0 + 2.0 * (p / (q - p));
    /* In two steps: 2^n itself may be no normal number. */
    return value * power_of_2(n / 2) * power_of_2(n - n / 2);
}

/* x = 2^e m with m in [sqrt 1/2, sqrt 2), and log m = f - f²/2 + f³ p(f) / q(f), f = m - 1, as Cephes has it. */
double blyan_math_log(double x) {
    if (x != x || x < 0) return __builtin_nan("");
    if (x == 0) return -__builtin_inf();
    if (x == __builtin_inf()) return x;
    int64_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits = bits_of(x);
    e += (int64_t)(bits >> 52) - 1022;
    double m = from_bits((bits & 0x000fffffffffffffu) | 0x3fe0000000000000u);
    if (m < 0.70710678118654752440) {
        m += m;
        e -= 1;
    }
    double f = m - 1.0, ff = f * f;
    double p = ((((1.01875663804580931796e-4 * f + 4.97494994976747001425e-1) * f + 4.70579119878881725854) * f +
                 1.44989225341610930846e1) * f + 1.79368678507819816313e1) * f + 7.70838733755885391666;
    double q = ((((f + 1.12873587189167450590e1) * f + 4.52279145837532221105e1) * f + 8.29875266912776603211e1) * f +
                7.11544750618563894466e1) * f + 2.31251620126765340583e1;
    double tail = f * (ff * p / q) - 0.5 * ff + (double)e * ln2_low;
    return f + tail + (double)e * ln2_high;
}

double blyan_math_pow(double x, double y) { return y == 0 ? 1 : blyan_math_exp(y * blyan_math_log(x)); }

float blyan_math_sigmoid(float x) { return (float)(1.0 / (1.0 + blyan_math_exp(-(double)x))); }

/* The first 256 bits of 2/pi after the point. */
static const uint64_t two_over_pi[4] = {0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561};

/* |angle| = quadrant * pi/2 + r with |r| <= pi/4, for a finite angle: the product with 2/pi in integers, as far as it
 * matters (Payne and Hanek), so that no angle is too large. Returns r. */
static double reduce(uint32_t bits, uint32_t *quadrant) {
    /* |angle| = m 2^e. Bits of 2/pi that weigh 4 or more after multiplication are whole turns, and left out. */
    uint64_t m = (bits & 0x7fffffu) | 0x800000u;
    int32_t e = (int32_t)(bits >> 23 & 0xff) - 150;
    int32_t first = e > 2 ? e - 2 : 0, shift = e > 2 ? 0 : 2 - e;
    const uint64_t *word = two_over_pi + first / 64;
    int32_t skip = first % 64;
    uint64_t high = skip ? word[0] << skip | word[1] >> (64 - skip) : word[0];
    uint64_t low = skip ? word[1] << skip | word[2] >> (64 - skip) : word[1];
    unsigned __int128 below = (unsigned __int128)m * low;
    unsigned __int128 above = (unsigned __int128)m * high + (uint64_t)(below >> 64);
    /* Quarter turns modulo 4, with 126 bits after the point. */
    unsigned __int128 turns = above << (64 - shift) | (uint64_t)below >> shift;
    unsigned __int128 nearest = (turns + ((unsigned __int128)1 << 125)) >> 126;
    *quadrant = (uint32_t)nearest;
    __int128 rest = (__int128)(turns - (nearest << 126));
    double quarters = (double)(int64_t)(rest >> 64) * 0x1p-62 + (double)(uint64_t)rest * 0x1p-126;
    return quarters * 1.57079632679489661923;
}

/* Sine and cosine on [-pi/4, pi/4] by the polynomials of Cephes. */
void blyan_math_sincos(float angle, float *sine, float *cosine) {
    uint32_t bits, quadrant = 0;
    memcpy(&bits, &angle, 4);
    int is_negative = bits >> 31 != 0;
    bits &= 0x7fffffffu;
    if (bits >= 0x7f800000u) {
        *sine = *cosine = __builtin_nanf("");
        return;
    }
    double x = is_negative ? -(double)angle : (double)angle;
    if (bits > 0x3f490fdau) x = reduce(bits, &quadrant);
    double z = x * x;
    double s = 1.58962301576546568060e-10;
    s = s * z - 2.50507477628578072866e-8;
    s = s * z + 2.75573136213857245213e-6;
    s = s * z - 1.98412698295895385996e-4;
    s = s * z + 8.33333333332211858878e-3;
    s = s * z - 1.66666666666666307295e-1;
    s = x + x * z * s;
    double c = -1.13585365213876817300e-11;
    c = c * z + 2.08757008419747316778e-9;
    c = c * z - 2.75573141792967388112e-7;
    c = c * z + 2.48015872888517045348e-5;
    c = c * z - 1.38888888888730564116e-3;
    c = c * z + 4.16666666666665929218e-2;
    c = 1.0 - 0.5 * z + z * z * c;
    double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
    if (quadrant & 2) a = -a;
    if ((quadrant + 1) & 2) b = -b;
    *sine = (float)(is_negative ? -a : a);
    *cosine = (float)b;
}
