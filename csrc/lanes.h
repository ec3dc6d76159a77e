/* Neighboring channels are the lanes of a vector: every step is a scalar algorithm written on vectors. */
#include <stdint.h>
#include <string.h>

#include "torchdcls.h"

#ifdef TD_DOUBLE
typedef double real;
#define TD_NATIVE TD_FLOAT64
#else
typedef float real;
#define TD_NATIVE TD_FLOAT32
#endif

#define LANES ((int64_t)(TD_VECTOR / sizeof(real)))
typedef real vec __attribute__((vector_size(TD_VECTOR), may_alias));
#ifdef TD_DOUBLE
typedef int64_t whole_number __attribute__((vector_size(TD_VECTOR)));
#else
typedef int32_t whole_number __attribute__((vector_size(TD_VECTOR)));
#endif
typedef real loose __attribute__((vector_size(TD_VECTOR), may_alias, aligned(sizeof(real))));

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

static inline vec spread(real value) { return value - (vec){0}; }

static inline float from_bfloat16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static inline uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* to nearest, ties to even */
}

/* By integers, as not every compiler has a type for it, nor its own way to convert. */
static inline float from_float16(uint16_t half) {
    const uint32_t low = 113u << 23; /* the least normal number */
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    float value, least_normal;
    if (bits >= 31u << 23) bits += 112u << 23; /* infinity and NaN */
    bits += 112u << 23;
    if (bits < low) {
        bits += 1u << 23;
        memcpy(&value, &bits, sizeof value);
        memcpy(&least_normal, &low, sizeof value);
        value -= least_normal;
        memcpy(&bits, &value, sizeof value);
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t to_float16(float value) {
    uint32_t bits, sign;
    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000, bits &= 0x7fffffff;
    if (value != value) return (uint16_t)(sign | 0x7e00);
    if (bits >= 143u << 23) return (uint16_t)(sign | 0x7c00);
    if (bits < 113u << 23) { /* adding 0.5 rounds to the last digit of the numbers below */
        memcpy(&value, &bits, sizeof value);
        value += 0.5f;
        memcpy(&bits, &value, sizeof bits);
        return (uint16_t)(sign | (bits - (126u << 23)));
    }
    return (uint16_t)(sign | ((bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13)); /* to nearest, ties to even */
}

static inline real fetched(const td_tensor *tensor, int64_t at) {
    switch (tensor->dtype) {
    case TD_FLOAT64: return (real)((const double *)tensor->data)[at];
    case TD_BFLOAT16: return (real)from_bfloat16(((const uint16_t *)tensor->data)[at]);
    case TD_FLOAT16: return (real)from_float16(((const uint16_t *)tensor->data)[at]);
    default: return (real)((const float *)tensor->data)[at];
    }
}

static inline void put(const td_tensor *tensor, int64_t at, real value) {
    switch (tensor->dtype) {
    case TD_FLOAT64: ((double *)tensor->data)[at] = (double)value; break;
    case TD_BFLOAT16: ((uint16_t *)tensor->data)[at] = to_bfloat16((float)value); break;
    case TD_FLOAT16: ((uint16_t *)tensor->data)[at] = to_float16((float)value); break;
    default: ((float *)tensor->data)[at] = (float)value;
    }
}

/* `count` cells of a row of a block of channels, from a tensor to every `step`th vector at `to`. Lanes that have no
 * channel are zero. */
static void load_row(const td_tensor *tensor, int64_t at, int64_t lanes, int64_t count, vec *to, int64_t step) {
    const int64_t channel = tensor->stride[1], cell = tensor->stride[4];
    if (channel == 1 && tensor->dtype == TD_NATIVE) {
        const real *from = (const real *)tensor->data + at;
        /* Whole vectors are read as long as they end within the row. */
        int64_t x = 0, whole = lanes == LANES ? count : cell > 0 ? count - blocks(LANES - lanes, cell) : 0;
        vec mine;
        for (int64_t c = 0; c < LANES; c++) mine[c] = c < lanes;
        const whole_number mask = mine != (vec){0};
        if (lanes == LANES)
            for (; x < whole; x++) to[x * step] = *(const loose *)(from + x * cell);
        else
            for (; x < whole; x++) to[x * step] = (vec)((whole_number)*(const loose *)(from + x * cell) & mask);
        for (; x < count; x++) {
            vec some = {0};
            memcpy(&some, from + x * cell, (size_t)lanes * sizeof(real));
            to[x * step] = some;
        }
        return;
    }
    if (lanes < LANES)
        for (int64_t x = 0; x < count; x++) to[x * step] = (vec){0};
    real *lane = (real *)to;
    if (tensor->dtype == TD_NATIVE) {
        for (int64_t c = 0; c < lanes; c++) {
            const real *from = (const real *)tensor->data + at + c * channel;
            for (int64_t x = 0; x < count; x++) lane[x * step * LANES + c] = from[x * cell];
        }
        return;
    }
    for (int64_t c = 0; c < lanes; c++)
        for (int64_t x = 0; x < count; x++) lane[x * step * LANES + c] = fetched(tensor, at + c * channel + x * cell);
}

/* The way back: lanes that have no channel are left out. */
static void store_row(const td_tensor *tensor, int64_t at, int64_t lanes, int64_t count, const vec *from, int64_t step) {
    const int64_t channel = tensor->stride[1], cell = tensor->stride[4];
    if (channel == 1 && tensor->dtype == TD_NATIVE) {
        real *to = (real *)tensor->data + at;
        if (lanes == LANES)
            for (int64_t x = 0; x < count; x++) *(loose *)(to + x * cell) = from[x * step];
        else
            for (int64_t x = 0; x < count; x++) memcpy(to + x * cell, from + x * step, (size_t)lanes * sizeof(real));
        return;
    }
    const real *lane = (const real *)from;
    if (tensor->dtype == TD_NATIVE) {
        for (int64_t c = 0; c < lanes; c++) {
            real *to = (real *)tensor->data + at + c * channel;
            for (int64_t x = 0; x < count; x++) to[x * cell] = lane[x * step * LANES + c];
        }
        return;
    }
    for (int64_t c = 0; c < lanes; c++)
        for (int64_t x = 0; x < count; x++) put(tensor, at + c * channel + x * cell, lane[x * step * LANES + c]);
}

static inline int64_t offset(const td_tensor *t, int64_t n, int64_t c, int64_t z, int64_t y, int64_t x) {
    return n * t->stride[0] + c * t->stride[1] + z * t->stride[2] + y * t->stride[3] + x * t->stride[4];
}

/* A kernel's taps in the order (z, y, x), turned if asked. */
static void load_taps(const td_tensor *weight, const int64_t *kernel, int64_t c, int64_t lanes, int turned, vec *to) {
    const int64_t taps = kernel[0] * kernel[1] * kernel[2];
    for (int64_t z = 0; z < kernel[0]; z++)
        for (int64_t y = 0; y < kernel[1]; y++)
            load_row(weight, offset(weight, 0, c, z, y, 0), lanes, kernel[2],
                     to + (z * kernel[1] + y) * kernel[2], 1);
    if (turned)
        for (int64_t i = 0; i < taps / 2; i++) {
            vec kept = to[i];
            to[i] = to[taps - 1 - i];
            to[taps - 1 - i] = kept;
        }
}
