/* Convolution along one axis whose channels are mixed, by spectra: for each frequency a product of matrices.
 *
 * A map's row is a tile of a sample. All three maps are left times the conjugate of right, summed over something:
 *   of convolve, a row's spectra (row, input) and the kernel's (input, output), over inputs;
 *   of transpose the same with the roles of inputs and outputs exchanged, and the taps turned;
 *   of correlate, (input, row) and (row, output), over rows.
 * The kernel's spectra are made where they are multiplied, block by block, and never kept. Channels lie in panels of two
 * vectors; a spectrum is (bin, plane), real parts and imaginary ones.
 */
enum { PLANES = 2, WIDE = 2, PANEL = WIDE * LANES }; /* vectors and channels of a panel */
enum { MOST_ROWS = 4, WIDTH_AT_ONCE = TD_VECTOR == 64 ? 2 : 1 }; /* of sums in registers */
enum { MIXED_ROWS = PANEL < 16 ? PANEL : 16, LEAST_ROWS = 16, LEAST_TASKS = 16 }; /* rows of a task's sums: of one panel */
#ifndef MIXED_BYTES /* of the spectra of maps that are there at once; tests have fewer */
#define MIXED_BYTES (1 << 24)
#endif

/* Vectors from plane to plane of so many rows of a panel: by powers of two, planes would fall on each other in a cache. */
static inline int64_t spaced(int64_t rows) { return (rows + 1) * WIDE; }

/* One factor of a product: its rows, what is summed and its planes so far apart; of the right one in vectors. */
typedef struct {
    const real *at;
    int64_t row, step, plane;
} factors;

typedef struct {
    td_tensor tensor;        /* (sample, channel, cell); of a kernel (lane, summed, tap) */
    int64_t channels, padded; /* of a group */
    vec *spectra;            /* (group, bin, plane, panel, row, vector) */
} mixed_map;

typedef struct {
    const td_mixing *of;
    fft_axis axis;
    transform plan;
    mixed_map left, right; /* of correlate; otherwise right is the kernel */
    td_tensor output;
    int64_t half, rows, first, count; /* bins; rows of the batch; those at work now */
    int64_t panels, parts;            /* of the lanes; of the rows, or of the left factor's channels */
    real scale;
    int correlates, failed;
} mix_call;

/* sums[r] (+)= sum over k of left[r * row + k * step] times the conjugate of right[k]: three products for a complex one.
 * Real parts lie before imaginary ones, which are a plane behind. */
__attribute__((always_inline)) static inline void multiply_rows(factors left, factors right, int64_t count, vec *sums,
                                                                int64_t sums_plane, const int add, const int rows,
                                                                const int width) {
    const real *re = left.at, *im = re + left.plane;
    const vec *from = (const vec *)right.at, *behind = from + right.plane;
    vec real_parts[MOST_ROWS][WIDE] = {0}, imaginary[MOST_ROWS][WIDE] = {0}, mixed[MOST_ROWS][WIDE] = {0};
    for (int64_t k = 0; k < count; k++, re += left.step, im += left.step, from += right.step, behind += right.step) {
        vec r[WIDE], i[WIDE], less[WIDE];
        for (int v = 0; v < width; v++) r[v] = from[v], i[v] = behind[v], less[v] = r[v] - i[v];
#pragma GCC unroll 4
        for (int row = 0; row < rows; row++) {
            const vec one = spread(re[row * left.row]), other = spread(im[row * left.row]), both = one + other;
#pragma GCC unroll 2
            for (int v = 0; v < width; v++) {
                real_parts[row][v] += one * r[v];
                imaginary[row][v] += other * i[v];
                mixed[row][v] += both * less[v];
            }
        }
    }
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < width; v++) {
            vec *to = sums + row * WIDE + v;
            vec sum = real_parts[row][v] + imaginary[row][v];
            vec difference = mixed[row][v] - real_parts[row][v] + imaginary[row][v];
            if (add) sum += to[0], difference += to[sums_plane];
            to[0] = sum, to[sums_plane] = difference;
        }
}

static void multiply(factors left, factors right, int64_t count, vec *sums, int64_t sums_plane, int add, int64_t rows) {
    for (int64_t step; rows > 0; rows -= step, left.at += step * left.row, sums += step * WIDE) {
        factors other = right;
        vec *to = sums;
        step = rows >= MOST_ROWS ? MOST_ROWS : 1;
        for (int v = 0; v < WIDE; v += WIDTH_AT_ONCE, other.at += WIDTH_AT_ONCE * LANES, to += WIDTH_AT_ONCE) {
            if (step == 1) multiply_rows(left, other, count, to, sums_plane, add, 1, WIDTH_AT_ONCE);
            else if (add) multiply_rows(left, other, count, to, sums_plane, 1, MOST_ROWS, WIDTH_AT_ONCE);
            else multiply_rows(left, other, count, to, sums_plane, 0, MOST_ROWS, WIDTH_AT_ONCE);
        }
    }
}

/* Half spectra of two real lines that were transformed as one. */
static void part_spectra(const mix_call *call, const vec *both, vec *one, vec *other, int64_t plane) {
    for (int64_t k = 0; k < call->half; k++, one += 2 * plane, other += 2 * plane) {
        const int64_t mirrored = k == 0 ? 0 : call->plan.size - k;
        const vec re = both[2 * k], im = both[2 * k + 1], re2 = both[2 * mirrored], im2 = both[2 * mirrored + 1];
        one[0] = re + re2, one[plane] = im - im2;
        other[0] = im + im2, other[plane] = re2 - re;
    }
}

/* The cells of two lines out of their half spectra; room holds two lines. Returns (other, one) in turns. */
static vec *joined_cells(const mix_call *call, const vec *one, const vec *other, int64_t plane, vec *room) {
    const int64_t size = call->plan.size;
    const vec scale = spread(call->scale);
    for (int64_t k = 0; k < call->half; k++, one += 2 * plane, other += 2 * plane) {
        const int64_t mirrored = k == 0 ? 0 : size - k;
        const vec re = one[0] * scale, im = one[plane] * scale, re2 = other[0] * scale, im2 = other[plane] * scale;
        /* One plus i times the other, parts exchanged. */
        room[2 * mirrored] = re2 - im, room[2 * mirrored + 1] = re + im2;
        room[2 * k] = im + re2, room[2 * k + 1] = re - im2;
    }
    return transformed(&call->plan, room, room + 2 * size);
}

/* Spectra of a map's rows, two vectors of channels at a time. */
static void mixed_map_range(mix_call *call, mixed_map *map, int64_t begin, int64_t end, int output) {
    const int64_t size = call->plan.size, panels = map->padded / PANEL, plane = spaced(panels * call->count);
    vec *room = td_scratch(TD_TASK, (size_t)(4 * size) * sizeof(vec));
    if (room == NULL) {
        call->failed = 1;
        return;
    }
    for (int64_t task = begin; task < end; task++) {
        const int64_t panel = task % panels, row = task / panels % call->count, group = task / panels / call->count;
        const int64_t unit = call->first + row;
        stretch in, out;
        stretch_axis(&call->axis, unit % call->axis.tiles, &in, &out);
        const stretch cells = output ? out : in;
        memset(room, 0, (size_t)(2 * size) * sizeof(vec));
        for (int side = 0; side < 2; side++) {
            const int64_t first = (panel * WIDE + side) * LANES, lanes = least(LANES, map->channels - first);
            const int64_t at = offset(&map->tensor, unit / call->axis.tiles, group * map->channels + first, 0, 0, cells.first);
            if (lanes > 0) load_wrapped(&map->tensor, at, lanes, cells, size, room + side);
        }
        vec *to = map->spectra + group * call->half * PLANES * plane + (panel * call->count + row) * WIDE;
        part_spectra(call, transformed(&call->plan, room, room + 2 * size), to, to + 1, plane);
    }
}

static void left_range(int64_t begin, int64_t end, void *context) {
    mix_call *call = context;
    mixed_map_range(call, &call->left, begin, end, 0);
}

static void right_range(int64_t begin, int64_t end, void *context) {
    mix_call *call = context;
    mixed_map_range(call, &call->right, begin, end, 1);
}

/* Spectra of a block of a panel of kernels, (bin, plane, summed, vector): two lines that are summed at a time. */
static void kernel_block(const mix_call *call, int64_t group, int64_t panel, int64_t first, int64_t count, vec *to,
                         vec *room) {
    const td_tensor *kernel = &call->right.tensor;
    const int64_t size = call->plan.size, plane = spaced(PANEL);
    const stretch taps = {0, call->axis.kernel, 0};
    for (int64_t k = 0; k < count; k += 2)
        for (int64_t v = 0; v < WIDE; v++) {
            const int64_t lane = (panel * WIDE + v) * LANES, lanes = least(LANES, call->right.channels - lane);
            vec *one = to + k * WIDE + v;
            memset(room, 0, (size_t)(2 * size) * sizeof(vec));
            for (int side = 0; side < 2 && k + side < count && lanes > 0; side++) {
                const int64_t summed = first + k + side;
                /* Groups lie along the axis of outputs, which are lanes or summed. */
                const int64_t at = summed * kernel->stride[0] + lane * kernel->stride[1] + group * kernel->stride[2];
                load_wrapped(kernel, at, lanes, taps, size, room + side);
            }
            part_spectra(call, transformed(&call->plan, room, room + 2 * size), one, one + WIDE, plane);
        }
}

static void mixed_convolve_range(int64_t begin, int64_t end, void *context) {
    mix_call *call = context;
    const int64_t size = call->plan.size, half = call->half, lefts = call->left.padded / PANEL;
    const int64_t most_rows = blocks(call->count, call->parts), block = half * PLANES * spaced(PANEL);
    vec *kernel = td_scratch(TD_TASK, (size_t)(block + half * PLANES * spaced(most_rows) + 4 * size) * sizeof(vec));
    if (kernel == NULL) {
        call->failed = 1;
        return;
    }
    vec *sums = kernel + block, *room = sums + half * PLANES * spaced(most_rows);
    for (int64_t task = begin; task < end; task++) {
        const int64_t part = task % call->parts, panel = task / call->parts % call->panels;
        const int64_t group = task / call->parts / call->panels;
        const int64_t first = part * most_rows, rows = least(most_rows, call->count - first), plane = spaced(most_rows);
        for (int64_t summed = 0; summed < lefts && rows > 0; summed++) {
            const int64_t depth = least(PANEL, call->left.channels - summed * PANEL);
            kernel_block(call, group, panel, summed * PANEL, depth, kernel, room);
            for (int64_t bin = 0; bin < half; bin++) {
                const int64_t behind = spaced(lefts * call->count), at = (group * half + bin) * PLANES * behind;
                const vec *left = call->left.spectra + at + (summed * call->count + first) * WIDE;
                const vec *right = kernel + bin * PLANES * spaced(PANEL);
                multiply((factors){(const real *)left, PANEL, 1, behind * LANES},
                         (factors){(const real *)right, 0, WIDE, spaced(PANEL)}, depth, sums + bin * PLANES * plane,
                         plane, summed > 0, rows);
            }
        }
        for (int64_t row = 0; row < rows; row++) {
            const int64_t unit = call->first + first + row, lane = panel * PANEL;
            const vec *one = sums + row * WIDE;
            stretch in, out;
            stretch_axis(&call->axis, unit % call->axis.tiles, &in, &out);
            const vec *both = joined_cells(call, one, one + 1, plane, room);
            for (int side = 0; side < 2; side++) {
                const int64_t channel = lane + side * LANES, lanes = least(LANES, call->right.channels - channel);
                const int64_t at = offset(&call->output, unit / call->axis.tiles,
                                          group * call->right.channels + channel, 0, 0, out.first);
                if (lanes > 0) store_row(&call->output, at, lanes, out.count, both + 1 - side, 2);
            }
        }
    }
}

static void mixed_correlate_range(int64_t begin, int64_t end, void *context) {
    mix_call *call = context;
    const int64_t size = call->plan.size, half = call->half, taps = call->axis.kernel, plane = spaced(MIXED_ROWS);
    const int64_t lefts = call->left.padded / PANEL, rights = call->right.padded / PANEL;
    vec *sums = td_scratch(TD_TASK, (size_t)(half * PLANES * plane + 4 * size) * sizeof(vec));
    if (sums == NULL) {
        call->failed = 1;
        return;
    }
    vec *room = sums + half * PLANES * plane;
    for (int64_t task = begin; task < end; task++) {
        const int64_t part = task % call->parts, panel = task / call->parts % call->panels;
        const int64_t group = task / call->parts / call->panels;
        const int64_t first = part * MIXED_ROWS, rows = least(MIXED_ROWS, call->left.channels - first);
        for (int64_t bin = 0; bin < half; bin++) {
            const int64_t at = (group * half + bin) * PLANES, count = call->count;
            const int64_t behind = spaced(lefts * count), beyond = spaced(rights * count);
            const vec *left = call->left.spectra + at * behind + first / PANEL * count * WIDE;
            const vec *right = call->right.spectra + at * beyond + panel * count * WIDE;
            multiply((factors){(const real *)left + first % PANEL, 1, PANEL, behind * LANES},
                     (factors){(const real *)right, 0, WIDE, beyond}, count, sums + bin * PLANES * plane, plane, 0, rows);
        }
        for (int64_t row = 0; row < rows; row += 2)
            for (int64_t v = 0; v < WIDE; v++) {
                const vec *one = sums + row * WIDE + v, *other = row + 1 < rows ? one + WIDE : one;
                const int64_t lane = (panel * WIDE + v) * LANES, lanes = least(LANES, call->right.channels - lane);
                if (lanes <= 0) continue;
                vec *both = joined_cells(call, one, other, plane, room);
                for (int side = 0; side < 2 && row + side < rows; side++) {
                    const int64_t at = (first + row + side) * call->output.stride[0] + lane * call->output.stride[1] +
                                       group * call->output.stride[2];
                    vec *cells = both + 1 - side, *before = room == both ? room + 2 * size : room;
                    if (call->first > 0) { /* what the rows before gave */
                        load_row(&call->output, at, lanes, taps, before, 1);
                        for (int64_t t = 0; t < taps; t++) cells[2 * t] += before[t];
                    }
                    store_row(&call->output, at, lanes, taps, cells, 2);
                }
            }
    }
}

/* --- Sizes ------------------------------------------------------------------------------------------------------- */

/* What the transforms of a size take beside products, for each of which a row of a map takes one. */
static double transform_steps(int64_t size) { return 0.4 * (log2((double)size) + 2); }

static int lay_out_mixed(mix_call *call, int map, const td_mixing *p) {
    fft_axis *axis = &call->axis;
    const int back = map == TD_TRANSPOSE;
    call->of = p, call->correlates = map == TD_CORRELATE;
    axis->map = back ? p->outputs : p->map;
    axis->outputs = back ? p->map : p->outputs;
    axis->kernel = p->kernel;
    axis->before = back ? p->kernel - 1 - p->before : p->before;
    axis->transformed = 1;
    const int64_t after = axis->outputs + axis->kernel - 1 - axis->map - axis->before;
    if (axis->before < 0 || after < 0 || axis->before >= axis->kernel || after >= axis->kernel) return TD_UNSUPPORTED;
    const int64_t whole = smooth(most(axis->kernel, most(axis->outputs, axis->map + most(axis->before, after))));
    double best = INFINITY;
    for (int64_t size = smooth(most(axis->kernel + 1, 8)); ; size = smooth(size + 1)) {
        size = least(size, whole);
        const int64_t tile = size == whole ? axis->outputs : least(axis->outputs, size - axis->kernel + 1);
        const int64_t tiles = blocks(axis->outputs, tile);
        const double cost = (double)size * ((double)(tiles * p->batch) + transform_steps(size));
        if (cost < best) best = cost, axis->size = size, axis->tile = blocks(axis->outputs, tiles), axis->tiles = tiles;
        if (size == whole) break;
    }
    call->half = axis->size / 2 + 1;
    call->rows = p->batch * axis->tiles;
    call->scale = (real)0.25 / (real)axis->size;
    call->left.channels = back ? p->out : p->in;
    call->right.channels = back ? p->in : p->out;
    for (int side = 0; side < 2; side++) {
        mixed_map *one = side ? &call->right : &call->left;
        one->padded = blocks(one->channels, PANEL) * PANEL;
    }
    call->panels = call->right.padded / PANEL;
    return TD_OK;
}

/* Multiplications of the products, or operations of the transforms. */
static double count_mixed(int map, const td_mixing *p, int transforms) {
    mix_call call = {0};
    if (lay_out_mixed(&call, map, p) != TD_OK) return INFINITY;
    const double left = (double)call.left.padded, right = (double)call.right.padded, rows = (double)call.rows;
    const double size = (double)call.axis.size * (double)p->groups, lanes = (double)call.left.channels * right;
    return transforms ? size * (log2((double)call.axis.size) + 2) * (lanes + rows * (left + right)) : size * lanes * rows;
}

/* The kernel, or its gradient, as (sample: summed or rows; channel: lanes; z: group; x: tap). */
static td_tensor as_kernel(const td_tensor *weight, int map, const td_mixing *p) {
    td_tensor kernel = *weight;
    const int back = map == TD_TRANSPOSE;
    kernel.stride[0] = weight->stride[back ? 0 : 1];
    kernel.stride[1] = weight->stride[back ? 1 : 0];
    kernel.stride[2] = weight->stride[0] * p->out;
    if (back) {
        const int64_t last = (p->kernel - 1) * weight->stride[4];
        kernel.data = (char *)weight->data + last * (weight->dtype == TD_FLOAT64 ? 8 : weight->dtype == TD_FLOAT32 ? 4 : 2);
        kernel.stride[4] = -weight->stride[4];
    }
    return kernel;
}

static int mix(int map, const td_mixing *p, const td_tensor *input, const td_tensor *weight, const td_tensor *output) {
    mix_call call = {0};
    const int refused = lay_out_mixed(&call, map, p);
    if (refused) return refused;
    call.left.tensor = map == TD_TRANSPOSE ? *output : *input;
    if (call.correlates) call.right.tensor = *output, call.output = as_kernel(weight, map, p);
    else call.right.tensor = as_kernel(weight, map, p), call.output = map == TD_TRANSPOSE ? *input : *output;
    const int64_t bins = p->groups * call.half * PLANES, lefts = call.left.padded / PANEL;
    const int64_t rights = call.correlates ? call.right.padded / PANEL : 0;
    const int64_t row = bins * (lefts + rights) * WIDE * TD_VECTOR;
    const int64_t most_rows = blocks(call.rows, blocks(call.rows, most(LEAST_ROWS, MIXED_BYTES / row)));
    const int64_t left = bins * spaced(most_rows * lefts), right = bins * spaced(most_rows * rights);
    call.left.spectra = td_scratch(TD_CALL, (size_t)(left + right) * sizeof(vec) + (size_t)(4 * call.axis.size) * sizeof(real));
    if (call.left.spectra == NULL) return TD_NO_MEMORY;
    call.right.spectra = call.left.spectra + left;
    plan_transform(&call.plan, call.axis.size, (real *)(call.right.spectra + right));
    for (call.first = 0; call.first < call.rows && !call.failed; call.first += most_rows) {
        call.count = least(most_rows, call.rows - call.first);
        const int64_t lines = p->groups * call.count;
        td_parallel(lines * call.left.padded / PANEL, left_range, &call);
        if (call.correlates) {
            td_parallel(lines * call.right.padded / PANEL, right_range, &call);
            call.parts = blocks(call.left.channels, MIXED_ROWS);
            if (!call.failed) td_parallel(p->groups * call.panels * call.parts, mixed_correlate_range, &call);
        } else {
            /* The kernel's spectra are made once for each part. */
            call.parts = most(1, least(call.count / LEAST_ROWS, LEAST_TASKS / (p->groups * call.panels)));
            if (!call.failed) td_parallel(p->groups * call.panels * call.parts, mixed_convolve_range, &call);
        }
    }
    return call.failed ? TD_NO_MEMORY : TD_OK;
}
