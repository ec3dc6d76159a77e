/* Convolution by spectra: transforms of whole maps, or of tiles of them (overlap-save).
 *
 * Sizes have the factors 2, 3 and 5. Two rows are transformed as the real and the imaginary part of one, and parted as
 * half spectra of `half` bins; of a map that is one row they are two tiles of it, never of two samples. Columns are transformed one at a time in a line that stays in the first cache; the
 * outermost transformed axis is transformed, multiplied and transformed back in one go. An axis along which the kernel
 * has one tap is not transformed: such axes come first, and the batch is one more of them where both are free.
 *
 * A circular transform of N cells serves wherever what wraps around meets zeros alone. With cell i at position
 * (i - base) mod N, output o of a tile at o - start and base = start - before, that is N >= tile + kernel - 1, and for a
 * map in one piece also map + max(before, after), which is much less.
 */
#include <math.h>

enum { MOST_FACTORS = 40, SPECTRUM_BYTES = 5 << 18 };

typedef struct {
    int64_t size, count, factors[MOST_FACTORS];
    real *twiddles; /* (cosine, sine) for each pass, each p, each power */
} transform;

typedef struct {
    int64_t map, outputs, kernel, before, size, tile, tiles;
    int transformed;
} fft_axis;

typedef struct {
    fft_axis axis[3];
    transform plan[3];
    int64_t batch, channels, half, blocks, parts, units, columns; /* columns: bins that the fused axis is gone through at */
    int64_t rows[3];                                              /* of a work space, along z and y */
    int twin; /* rows are tiles of a map of one row, two at a time */
    int map, depth; /* depth: how many axes are transformed, 1 to 3; x always is */
    td_tensor input, weight, output;
    vec *spectra; /* of the kernels, or sums of a correlation: (block or block and part, columns, size of the fused axis) */
    real scale;
    int failed;
} fft_call;

/* --- One line ---------------------------------------------------------------------------------------------------- */

__attribute__((always_inline)) static inline void butterfly(const vec *from, vec *to, int64_t m, int64_t s, int64_t p,
                                                            const real *twiddle, const int radix, const int turn) {
    for (int64_t q = 0; q < s; q++) {
        vec re[5], im[5], r[5], i[5];
#pragma GCC unroll 5
        for (int j = 0; j < radix; j++) {
            re[j] = from[2 * (q + s * (p + m * j))];
            im[j] = from[2 * (q + s * (p + m * j)) + 1];
        }
        if (radix == 2) {
            r[0] = re[0] + re[1], i[0] = im[0] + im[1];
            r[1] = re[0] - re[1], i[1] = im[0] - im[1];
        } else if (radix == 3) {
            const vec c = spread((real)0.86602540378443864676), h = spread((real)0.5);
            const vec sr = re[1] + re[2], si = im[1] + im[2], dr = (re[1] - re[2]) * c, di = (im[1] - im[2]) * c;
            const vec mr = re[0] - sr * h, mi = im[0] - si * h;
            r[0] = re[0] + sr, i[0] = im[0] + si;
            r[1] = mr + di, i[1] = mi - dr;
            r[2] = mr - di, i[2] = mi + dr;
        } else if (radix == 4) {
            const vec ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
            const vec cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
            r[0] = ar + cr, i[0] = ai + ci;
            r[1] = br + di, i[1] = bi - dr;
            r[2] = ar - cr, i[2] = ai - ci;
            r[3] = br - di, i[3] = bi + dr;
        } else {
            const vec c1 = spread((real)0.30901699437494742410), c2 = spread((real)-0.80901699437494742410);
            const vec s1 = spread((real)0.95105651629515357212), s2 = spread((real)0.58778525229247312917);
            const vec ar = re[1] + re[4], ai = im[1] + im[4], br = re[1] - re[4], bi = im[1] - im[4];
            const vec cr = re[2] + re[3], ci = im[2] + im[3], dr = re[2] - re[3], di = im[2] - im[3];
            const vec er = re[0] + ar * c1 + cr * c2, ei = im[0] + ai * c1 + ci * c2;
            const vec fr = re[0] + ar * c2 + cr * c1, fi = im[0] + ai * c2 + ci * c1;
            const vec gr = br * s1 + dr * s2, gi = bi * s1 + di * s2, hr = br * s2 - dr * s1, hi = bi * s2 - di * s1;
            r[0] = re[0] + ar + cr, i[0] = im[0] + ai + ci;
            r[1] = er + gi, i[1] = ei - gr;
            r[4] = er - gi, i[4] = ei + gr;
            r[2] = fr + hi, i[2] = fi - hr;
            r[3] = fr - hi, i[3] = fi + hr;
        }
        to[2 * (q + s * radix * p)] = r[0];
        to[2 * (q + s * radix * p) + 1] = i[0];
#pragma GCC unroll 4
        for (int k = 1; k < radix; k++) {
            const int64_t at = 2 * (q + s * (radix * p + k));
            if (turn) {
                const vec c = spread(twiddle[2 * (k - 1)]), d = spread(twiddle[2 * (k - 1) + 1]);
                to[at] = r[k] * c - i[k] * d;
                to[at + 1] = r[k] * d + i[k] * c;
            } else {
                to[at] = r[k];
                to[at + 1] = i[k];
            }
        }
    }
}

__attribute__((always_inline)) static inline const real *stage(const vec *from, vec *to, int64_t n, int64_t s,
                                                               const real *twiddle, const int radix) {
    const int64_t m = n / radix;
    butterfly(from, to, m, s, 0, twiddle, radix, 0); /* these are turned by 1 */
    for (int64_t p = 1; p < m; p++) butterfly(from, to, m, s, p, twiddle + 2 * (radix - 1) * p, radix, 1);
    return twiddle + 2 * (radix - 1) * m;
}

/* Transforms the line at `one` (real and imaginary vectors in turns), with as much room at `other`; returns where the
 * spectrum is. Given and taken with both parts exchanged, it is the inverse times the size. */
static vec *transformed(const transform *plan, vec *one, vec *other) {
    const real *twiddle = plan->twiddles;
    int64_t n = plan->size, s = 1;
    for (int64_t pass = 0; pass < plan->count; pass++) {
        const int64_t radix = plan->factors[pass];
        switch (radix) {
        case 2: twiddle = stage(one, other, n, s, twiddle, 2); break;
        case 3: twiddle = stage(one, other, n, s, twiddle, 3); break;
        case 4: twiddle = stage(one, other, n, s, twiddle, 4); break;
        default: twiddle = stage(one, other, n, s, twiddle, 5);
        }
        vec *kept = one;
        one = other, other = kept;
        n /= radix, s *= radix;
    }
    return one;
}

static int64_t smooth(int64_t least_size) {
    for (int64_t size = most(1, least_size);; size++) {
        int64_t rest = size;
        while (rest % 2 == 0) rest /= 2;
        while (rest % 3 == 0) rest /= 3;
        while (rest % 5 == 0) rest /= 5;
        if (rest == 1) return size;
    }
}

/* Factors and twiddles of a size, the latter at `to`, of which `2 * size` are taken at most. */
static real *plan_transform(transform *plan, int64_t size, real *to) {
    int64_t rest = size;
    plan->size = size, plan->count = 0, plan->twiddles = to;
    while (rest > 1) {
        const int64_t radix = rest % 5 == 0 ? 5 : rest % 3 == 0 ? 3 : rest % 4 == 0 ? 4 : 2;
        plan->factors[plan->count++] = radix;
        const int64_t m = rest / radix;
        for (int64_t p = 0; p < m; p++)
            for (int64_t k = 1; k < radix; k++) {
                const double angle = -2 * 3.14159265358979323846 * (double)(p * k) / (double)rest;
                *to++ = (real)cos(angle);
                *to++ = (real)sin(angle);
            }
        rest = m;
    }
    return to;
}

/* --- Rows -------------------------------------------------------------------------------------------------------- */

/* Where the cells of a tensor lie in a tile's transform: `count` from `first` on, the first of them at `position`. */
typedef struct {
    int64_t first, count, position;
} stretch;

static void load_wrapped(const td_tensor *tensor, int64_t at, int64_t lanes, stretch x, int64_t size, vec *to) {
    const int64_t until = least(x.count, size - x.position);
    load_row(tensor, at, lanes, until, to + 2 * x.position, 2);
    if (until < x.count) load_row(tensor, at + until * tensor->stride[4], lanes, x.count - until, to, 2);
}

/* From a row's first cell to that of the other row of its pair. */
static int64_t beside(const fft_call *call, const td_tensor *tensor, const stretch *at) {
    return call->twin ? (at[3].first - at[2].first) * tensor->stride[4] : tensor->stride[3];
}

/* Half spectra of a tensor's rows, (z, y, bin), y counted from the stretch's first. `room` holds two lines. */
static void load_rows(const fft_call *call, const td_tensor *tensor, int64_t n, int64_t c, int64_t lanes,
                      const stretch *at, vec *work, vec *room) {
    const transform *plan = &call->plan[2];
    const int64_t size = plan->size, half = call->half;
    for (int64_t z = 0; z < at[0].count; z++)
        for (int64_t y = 0; y < at[1].count; y += 2) {
            const int paired = y + 1 < at[1].count;
            const int64_t from = offset(tensor, n, c, at[0].first + z, at[1].first + y, at[2].first);
            memset(room, 0, (size_t)(2 * size) * sizeof(vec));
            load_wrapped(tensor, from, lanes, at[2], size, room);
            if (paired) {
                const stretch x = at[call->twin ? 3 : 2];
                load_wrapped(tensor, from + beside(call, tensor, at), lanes, x, size, room + 1);
            }
            const vec *both = transformed(plan, room, room + 2 * size);
            vec *one = work + 2 * half * (z * call->rows[1] + y), *other = one + 2 * half;
            for (int64_t k = 0; k < half; k++) {
                const int64_t mirrored = k == 0 ? 0 : size - k;
                const vec re = both[2 * k], im = both[2 * k + 1];
                const vec re2 = both[2 * mirrored], im2 = both[2 * mirrored + 1];
                one[2 * k] = re + re2;
                one[2 * k + 1] = im - im2;
                if (!paired) continue;
                other[2 * k] = im + im2;
                other[2 * k + 1] = re2 - re;
            }
        }
}

/* The way back. */
static void store_rows(const fft_call *call, const td_tensor *tensor, int64_t n, int64_t c, int64_t lanes,
                       const stretch *at, const vec *work, vec *room) {
    const transform *plan = &call->plan[2];
    const int64_t size = plan->size, half = call->half;
    for (int64_t z = 0; z < at[0].count; z++)
        for (int64_t y = 0; y < at[1].count; y += 2) {
            const int paired = y + 1 < at[1].count;
            const vec *one = work + 2 * half * (z * call->rows[1] + y), *other = one + 2 * half;
            for (int64_t k = 0; k < half; k++) {
                const int64_t mirrored = k == 0 ? 0 : size - k;
                const vec re = one[2 * k], im = one[2 * k + 1];
                const vec re2 = paired ? other[2 * k] : (vec){0}, im2 = paired ? other[2 * k + 1] : (vec){0};
                /* One plus i times the other, parts exchanged. */
                room[2 * mirrored] = re2 - im, room[2 * mirrored + 1] = re + im2;
                room[2 * k] = im + re2, room[2 * k + 1] = re - im2;
            }
            const vec *both = transformed(plan, room, room + 2 * size);
            const int64_t to = offset(tensor, n, c, at[0].first + z, at[1].first + y, at[2].first);
            store_row(tensor, to, lanes, at[2].count, both + 1, 2);
            if (paired)
                store_row(tensor, to + beside(call, tensor, at), lanes, at[call->twin ? 3 : 2].count, both, 2);
        }
}

/* --- Columns ----------------------------------------------------------------------------------------------------- */

/* A line of the work space along an axis: `step` vectors from cell to cell, into positions of the transform. */
static vec *column(const transform *plan, const vec *from, int64_t step, stretch at, vec *room) {
    memset(room, 0, (size_t)(2 * plan->size) * sizeof(vec));
    for (int64_t i = 0, to = at.position; i < at.count; i++, to = to + 1 == plan->size ? 0 : to + 1) {
        room[2 * to] = from[i * step];
        room[2 * to + 1] = from[i * step + 1];
    }
    return transformed(plan, room, room + 2 * plan->size);
}

/* The inverse of a line whose parts are exchanged, its first `count` cells to the work space. */
static void column_back(const transform *plan, vec *line, vec *other, vec *to, int64_t step, int64_t count) {
    const vec *cells = transformed(plan, line, other);
    for (int64_t i = 0; i < count; i++) {
        to[i * step] = cells[2 * i + 1];
        to[i * step + 1] = cells[2 * i];
    }
}

/* Along y of a map of three transformed axes: there, in place. */
static void middle(const fft_call *call, const stretch *at, vec *work, vec *room) {
    const transform *plan = &call->plan[1];
    const int64_t step = 2 * call->half;
    for (int64_t z = 0; z < at[0].count; z++)
        for (int64_t k = 0; k < call->half; k++) {
            vec *line = work + step * z * call->rows[1] + 2 * k;
            const vec *bins = column(plan, line, step, at[1], room);
            for (int64_t i = 0; i < plan->size; i++) line[i * step] = bins[2 * i], line[i * step + 1] = bins[2 * i + 1];
        }
}

static void middle_back(const fft_call *call, int64_t planes, int64_t count, vec *work, vec *room) {
    const transform *plan = &call->plan[1];
    const int64_t step = 2 * call->half;
    for (int64_t z = 0; z < planes; z++)
        for (int64_t k = 0; k < call->half; k++) {
            vec *line = work + step * z * call->rows[1] + 2 * k;
            for (int64_t i = 0; i < plan->size; i++) room[2 * i] = line[i * step + 1], room[2 * i + 1] = line[i * step];
            column_back(plan, room, room + 2 * plan->size, line, step, count);
        }
}

/* Where the fused axis's line of column `k` starts, and its step. With one axis there are `rows` lines of one row. */
static int fused_axis(const fft_call *call) { return 3 - call->depth; }
static int64_t fused_step(const fft_call *call) {
    return 2 * call->half * (fused_axis(call) == 0 ? call->rows[1] : 1);
}

/* Spectra of the lines along the fused axis, (column, size). */
static void spectrum(const fft_call *call, const stretch *at, vec *work, vec *room, vec *to) {
    if (call->depth == 1) {
        memcpy(to, work, (size_t)(2 * call->half) * sizeof(vec));
        return;
    }
    const int axis = fused_axis(call);
    const transform *plan = &call->plan[axis];
    for (int64_t k = 0; k < call->columns; k++)
        memcpy(to + 2 * plan->size * k, column(plan, work + 2 * k, fused_step(call), at[axis], room),
               (size_t)(2 * plan->size) * sizeof(vec));
}

/* --- The three maps ---------------------------------------------------------------------------------------------- */

static void stretch_axis(const fft_axis *axis, int64_t tile, stretch *input, stretch *output) {
    const int64_t start = tile * axis->tile, count = least(axis->tile, axis->outputs - start);
    const int64_t base = start - axis->before;
    *output = (stretch){start, count, 0};
    if (!axis->transformed) { /* one tap: outputs are cells, or beyond them */
        *input = (stretch){start, count, 0};
        return;
    }
    const int64_t first = most(0, base), until = least(axis->map, base + count + axis->kernel - 1);
    *input = (stretch){first, most(0, until - first), (first - base) % axis->size};
}

/* Of z, y and x, and of the second tile of x where there are twins. */
static void stretches(const fft_call *call, int64_t index, stretch *input, stretch *output) {
    for (int i = 2; i >= 0; i--) {
        const fft_axis *axis = &call->axis[i];
        const int twins = i == 2 && call->twin;
        const int64_t units = twins ? blocks(axis->tiles, 2) : axis->tiles, tile = index % units * (twins ? 2 : 1);
        index /= units;
        stretch_axis(axis, tile, &input[i], &output[i]);
        if (twins && tile + 1 < axis->tiles) stretch_axis(axis, tile + 1, &input[3], &output[3]);
        if (twins) input[3].count = tile + 1 < axis->tiles ? input[3].count : -1;
    }
    if (call->twin) input[1].count = output[1].count = input[3].count < 0 ? 1 : 2;
}

static int64_t room_size(const fft_call *call) {
    int64_t longest = 1;
    for (int i = 0; i < 3; i++) longest = most(longest, call->axis[i].size);
    return 4 * longest;
}

static int64_t work_size(const fft_call *call) { return 2 * call->rows[0] * call->rows[1] * call->half; }
static int64_t bins(const fft_call *call) {
    return 2 * call->columns * (call->depth == 1 ? 1 : call->axis[fused_axis(call)].size);
}

/* Spectra of the kernels of blocks of channels. */
static void kernel_range(int64_t begin, int64_t end, void *context) {
    fft_call *call = context;
    const int64_t taps = call->axis[0].kernel * call->axis[1].kernel * call->axis[2].kernel;
    vec *work = td_scratch(TD_TASK, (size_t)(work_size(call) + room_size(call) + taps) * sizeof(vec));
    if (work == NULL) {
        call->failed = 1;
        return;
    }
    vec *room = work + work_size(call), *kernel = room + room_size(call);
    stretch at[4] = {0};
    for (int i = 0; i < 3; i++) at[i] = (stretch){0, call->axis[i].kernel, 0};
    for (int64_t block = begin; block < end; block++) {
        const int64_t lanes = least(LANES, call->channels - block * LANES);
        const int64_t k[3] = {at[0].count, at[1].count, at[2].count};
        vec *to = call->spectra + block * bins(call);
        load_taps(&call->weight, k, block * LANES, lanes, call->map == TD_TRANSPOSE, kernel);
        for (int64_t i = 0; i < taps; i++) kernel[i] *= spread(call->scale);
        const td_tensor taps_there = {kernel, {0, 1, k[1] * k[2] * LANES, k[2] * LANES, LANES}, TD_NATIVE};
        load_rows(call, &taps_there, 0, 0, LANES, at, work, room);
        if (call->depth == 3) middle(call, at, work, room);
        spectrum(call, at, work, room, to);
    }
}

static void spectral_convolve_range(int64_t begin, int64_t end, void *context) {
    fft_call *call = context;
    vec *work = td_scratch(TD_TASK, (size_t)(work_size(call) + room_size(call)) * sizeof(vec));
    if (work == NULL) {
        call->failed = 1;
        return;
    }
    vec *room = work + work_size(call);
    const int fused = fused_axis(call);
    const transform *plan = &call->plan[fused];
    for (int64_t task = begin; task < end; task++) {
        const int64_t block = task / call->units, c = block * LANES, lanes = least(LANES, call->channels - c);
        const int64_t unit = task % call->units, n = unit % call->batch;
        const vec *kernel = call->spectra + block * bins(call);
        stretch in[4] = {0}, out[4] = {0};
        stretches(call, unit / call->batch, in, out);
        load_rows(call, &call->input, n, c, lanes, in, work, room);
        if (call->depth == 3) middle(call, in, work, room);
        if (call->depth == 1) {
            for (int64_t z = 0; z < in[0].count; z++)
                for (int64_t y = 0; y < in[1].count; y++) {
                    vec *row = work + 2 * call->half * (z * call->rows[1] + y);
                    for (int64_t k = 0; k < call->half; k++) { /* times the conjugate */
                        const vec re = row[2 * k], im = row[2 * k + 1], a = kernel[2 * k], b = kernel[2 * k + 1];
                        row[2 * k] = re * a + im * b;
                        row[2 * k + 1] = im * a - re * b;
                    }
                }
        } else {
            /* Axes before the fused one are not transformed: each of their cells is a map of its own. */
            const int64_t maps = fused == 1 ? in[0].count : 1;
            for (int64_t z = 0; z < maps; z++)
                for (int64_t k = 0; k < call->columns; k++) {
                    vec *line = work + 2 * k + 2 * call->half * z * call->rows[1];
                    vec *cells = column(plan, line, fused_step(call), in[fused], room);
                    const vec *factor = kernel + 2 * plan->size * k;
                    for (int64_t i = 0; i < plan->size; i++) { /* times the conjugate, parts exchanged */
                        const vec re = cells[2 * i], im = cells[2 * i + 1], a = factor[2 * i], b = factor[2 * i + 1];
                        cells[2 * i] = im * a - re * b;
                        cells[2 * i + 1] = re * a + im * b;
                    }
                    column_back(plan, cells, cells == room ? room + 2 * plan->size : room, line, fused_step(call),
                                out[fused].count);
                }
        }
        if (call->depth == 3) middle_back(call, out[0].count, out[1].count, work, room);
        store_rows(call, &call->output, n, c, lanes, out, work, room);
    }
}

static void spectral_correlate_range(int64_t begin, int64_t end, void *context) {
    fft_call *call = context;
    const int fused = fused_axis(call);
    const transform *plan = &call->plan[fused];
    vec *work = td_scratch(TD_TASK, (size_t)(2 * work_size(call) + room_size(call) * 2) * sizeof(vec));
    if (work == NULL) {
        call->failed = 1;
        return;
    }
    vec *other = work + work_size(call), *room = other + work_size(call), *more = room + room_size(call);
    for (int64_t task = begin; task < end; task++) {
        const int64_t block = task / call->parts, part = task % call->parts;
        const int64_t c = block * LANES, lanes = least(LANES, call->channels - c);
        vec *sums = call->spectra + task * bins(call);
        memset(sums, 0, (size_t)bins(call) * sizeof(vec));
        for (int64_t unit = part * call->units / call->parts; unit < (part + 1) * call->units / call->parts; unit++) {
            const int64_t n = unit % call->batch;
            stretch in[4] = {0}, out[4] = {0};
            stretches(call, unit / call->batch, in, out);
            load_rows(call, &call->input, n, c, lanes, in, work, room);
            load_rows(call, &call->output, n, c, lanes, out, other, room);
            if (call->depth == 3) middle(call, in, work, room), middle(call, out, other, room);
            const int64_t size = call->depth == 1 ? 1 : plan->size;
            const int64_t maps = fused == 0 ? 1 : in[0].count * (fused == 2 ? in[1].count : 1);
            for (int64_t map = 0; map < maps; map++) {
                const int64_t y = fused == 2 ? map % in[1].count : 0, z = fused == 2 ? map / in[1].count : map;
                const int64_t from = 2 * call->half * (z * call->rows[1] + y);
                for (int64_t k = 0; k < call->columns; k++) {
                    const vec *cells = work + from + 2 * k, *gradients = other + from + 2 * k;
                    if (call->depth > 1) {
                        cells = column(plan, cells, fused_step(call), in[fused], room);
                        gradients = column(plan, gradients, fused_step(call), out[fused], more);
                    }
                    vec *sum = sums + 2 * size * k;
                    for (int64_t i = 0; i < size; i++) { /* times the conjugate */
                        const vec re = cells[2 * i], im = cells[2 * i + 1];
                        const vec a = gradients[2 * i], b = gradients[2 * i + 1];
                        sum[2 * i] += re * a + im * b;
                        sum[2 * i + 1] += im * a - re * b;
                    }
                }
            }
        }
    }
}

/* From the parts' sums of spectra to the gradient of the weight. */
static void gradient_range(int64_t begin, int64_t end, void *context) {
    fft_call *call = context;
    const int fused = fused_axis(call);
    const transform *plan = &call->plan[fused];
    vec *work = td_scratch(TD_TASK, (size_t)(work_size(call) + room_size(call)) * sizeof(vec));
    if (work == NULL) {
        call->failed = 1;
        return;
    }
    vec *room = work + work_size(call);
    stretch at[4] = {0};
    for (int i = 0; i < 3; i++) at[i] = (stretch){0, call->axis[i].kernel, 0};
    for (int64_t block = begin; block < end; block++) {
        const int64_t lanes = least(LANES, call->channels - block * LANES);
        vec *sums = call->spectra + block * call->parts * bins(call);
        for (int64_t part = 1; part < call->parts; part++)
            for (int64_t i = 0; i < bins(call); i++) sums[i] += sums[part * bins(call) + i];
        for (int64_t i = 0; i < bins(call); i++) sums[i] *= spread(call->scale);
        if (call->depth == 1) {
            memcpy(work, sums, (size_t)bins(call) * sizeof(vec));
        } else {
            for (int64_t k = 0; k < call->columns; k++) {
                for (int64_t i = 0; i < plan->size; i++) {
                    room[2 * i] = sums[2 * (plan->size * k + i) + 1];
                    room[2 * i + 1] = sums[2 * (plan->size * k + i)];
                }
                column_back(plan, room, room + 2 * plan->size, work + 2 * k, fused_step(call), at[fused].count);
            }
            if (call->depth == 3) middle_back(call, at[0].count, at[1].count, work, room);
        }
        store_rows(call, &call->weight, 0, block * LANES, lanes, at, work, room);
    }
}

/* --- Sizes ------------------------------------------------------------------------------------------------------- */

static double transform_cost(int64_t size, int64_t tiles) { return (double)tiles * (double)size * (log2((double)size) + 2); }

/* The size of an axis's transform and of its tiles: in one piece, or in tiles of at most about `most_size` cells. */
static void divide_axis(fft_axis *axis, int64_t most_size, int twin) {
    const int64_t after = axis->outputs + axis->kernel - 1 - axis->map - axis->before;
    const int64_t whole = most(axis->kernel, most(axis->outputs, axis->map + most(axis->before, after)));
    axis->size = smooth(whole);
    axis->tile = axis->outputs;
    double best = axis->size <= most_size ? transform_cost(axis->size, 1) : INFINITY; /* twins: of a pair of tiles */
    for (int64_t size = smooth(axis->kernel + 1); size <= most(most_size, smooth(2 * axis->kernel)) && size < whole;
         size = smooth(size + 1)) {
        const int64_t tile = least(axis->outputs, size - axis->kernel + 1);
        const int64_t tiles = blocks(axis->outputs, tile);
        const double cost = transform_cost(size, twin ? blocks(tiles, 2) : tiles);
        if (cost < best) best = cost, axis->size = size, axis->tile = tile;
    }
    axis->tiles = blocks(axis->outputs, axis->tile);
}

static void exchange(fft_call *call, int a, int b) {
    fft_axis kept = call->axis[a];
    call->axis[a] = call->axis[b], call->axis[b] = kept;
    td_tensor *tensors[] = {&call->input, &call->weight, &call->output};
    for (int i = 0; i < 3; i++) {
        int64_t stride = tensors[i]->stride[2 + a];
        tensors[i]->stride[2 + a] = tensors[i]->stride[2 + b], tensors[i]->stride[2 + b] = stride;
    }
}

/* Transforms and tiles of a call; the strides of its tensors are exchanged with its axes. */
static int lay_out(fft_call *call, int map, const td_problem *p) {
    call->map = map, call->batch = p->batch, call->channels = p->channels;
    for (int i = 0; i < 3; i++) {
        fft_axis *axis = &call->axis[i];
        const int back = map == TD_TRANSPOSE;
        axis->map = back ? p->outputs[i] : p->map[i];
        axis->outputs = back ? p->map[i] : p->outputs[i];
        axis->kernel = p->kernel[i];
        axis->before = back ? p->kernel[i] - 1 - p->before[i] : p->before[i];
        const int64_t after = axis->outputs + axis->kernel - 1 - axis->map - axis->before;
        if (p->stride[i] != 1 || axis->before < 0 || after < 0 || axis->before >= axis->kernel || after >= axis->kernel)
            return TD_UNSUPPORTED;
        axis->transformed = axis->kernel > 1;
    }
    /* Axes that are not transformed first; x is transformed in any case. */
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 2; i++)
            if (call->axis[i].transformed && !call->axis[i + 1].transformed) exchange(call, i, i + 1);
    call->axis[2].transformed = 1;
    call->depth = 1 + call->axis[1].transformed + call->axis[0].transformed;
    call->twin = call->depth == 1 && call->axis[0].outputs == 1 && call->axis[1].outputs == 1;
    static const int64_t longest[4] = {0, 1 << 14, 192, 48};
    int64_t cells = 1;
    for (int i = 2; i >= 0; i--) {
        fft_axis *axis = &call->axis[i];
        if (axis->transformed) divide_axis(axis, longest[call->depth], call->twin);
        else { /* few cells at once: the others wait for their turn */
            axis->size = 1;
            axis->tile = most(1, least(axis->outputs, SPECTRUM_BYTES / (int64_t)sizeof(vec) / cells / 2));
            if (axis->tile > 2) axis->tile &= ~(int64_t)1;
            axis->tiles = blocks(axis->outputs, axis->tile);
        }
        cells *= axis->transformed ? axis->size : axis->tile;
    }
    call->half = call->axis[2].size / 2 + 1;
    for (int i = 0; i < 2; i++) {
        const fft_axis *axis = &call->axis[i];
        /* Rows that come or go, or all bins of an axis between. */
        call->rows[i] = axis->transformed ? least(axis->size, most(axis->tile + axis->kernel - 1, axis->kernel)) : axis->tile;
        if (axis->transformed && i > fused_axis(call)) call->rows[i] = axis->size;
    }
    if (call->twin) call->rows[1] = 2;
    call->columns = call->half * (call->depth == 3 ? call->axis[1].size : 1);
    call->scale = (real)0.25;
    for (int i = 0; i < 3; i++) call->scale /= (real)call->axis[i].size;
    call->units = call->batch * call->axis[0].tiles * call->axis[1].tiles *
                  (call->twin ? blocks(call->axis[2].tiles, 2) : call->axis[2].tiles);
    call->blocks = blocks(call->channels, LANES);
    call->parts = map == TD_CORRELATE ? most(1, least(call->units, PARTS / call->blocks)) : 1;
    return TD_OK;
}

/* Additions and multiplications of a transform of three axes, of which rows and columns may be fewer than bins. */
static double steps(const fft_call *call, const int64_t *cells) {
    double lines = 1, total = 0;
    for (int i = 2; i >= 0; i--) {
        const fft_axis *axis = &call->axis[i];
        double others = lines;
        for (int j = 0; j < i; j++) others *= (double)cells[j];
        if (axis->transformed) total += others * (i == 2 ? 0.5 : 1) * (double)axis->size * (log2((double)axis->size) + 2);
        lines *= i == 2 ? (double)call->half : axis->transformed ? (double)axis->size : (double)cells[i];
    }
    return total;
}

static double count_fft(int map, const td_problem *p) {
    fft_call call = {0};
    if (lay_out(&call, map, p) != TD_OK) return INFINITY;
    int64_t in[3], out[3], taps[3];
    for (int i = 0; i < 3; i++) {
        const fft_axis *axis = &call.axis[i];
        in[i] = least(axis->map, axis->transformed ? axis->tile + axis->kernel - 1 : axis->tile);
        out[i] = axis->tile, taps[i] = axis->kernel;
    }
    if (call.twin) in[1] = out[1] = 2;
    const double maps = steps(&call, in) + steps(&call, out) + 2 * (double)bins(&call);
    return (double)(call.blocks * LANES) * ((double)call.units * maps + steps(&call, taps));
}

static int run_fft(int map, const td_problem *p, const td_tensor *input, const td_tensor *weight,
                   const td_tensor *output) {
    fft_call call = {.input = *input, .weight = *weight, .output = *output};
    if (map == TD_TRANSPOSE) call.input = *output, call.output = *input;
    const int refused = lay_out(&call, map, p);
    if (refused) return refused;
    const int64_t sums = call.blocks * call.parts * bins(&call);
    int64_t twiddles = 0;
    for (int i = 0; i < 3; i++) twiddles += 4 * call.axis[i].size;
    call.spectra = td_scratch(TD_CALL, (size_t)sums * sizeof(vec) + (size_t)twiddles * sizeof(real));
    if (call.spectra == NULL) return TD_NO_MEMORY;
    real *to = (real *)(call.spectra + sums);
    for (int i = 0; i < 3; i++) to = plan_transform(&call.plan[i], call.axis[i].size, to);
    if (map == TD_CORRELATE) {
        td_parallel(call.blocks * call.parts, spectral_correlate_range, &call);
        if (!call.failed) td_parallel(call.blocks, gradient_range, &call);
    } else {
        td_parallel(call.blocks, kernel_range, &call);
        if (!call.failed) td_parallel(call.blocks * call.units, spectral_convolve_range, &call);
    }
    return call.failed ? TD_NO_MEMORY : TD_OK;
}
