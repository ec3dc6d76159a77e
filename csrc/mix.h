/* Convolution along one axis whose channels are mixed, by spectra: for each frequency a product of matrices.
 *
 * A map's row is a tile of a sample. All three maps are left times the conjugate of right, summed over something:
 *   of convolve, a row's spectra (row, input) and the kernel's (input, output), over inputs;
 *   of transpose the same with the roles of inputs and outputs exchanged, and the taps turned;
 *   of correlate, (input, row) and (row, output), over rows.
 * With planes (re, im, re + im) of left and (re, im, re - im) of right, a complex product is three real ones. The
 * kernel's spectra are made where they are multiplied, block by block, and never kept.
 */
enum { PLANES = 3, WIDE = 2 };                        /* vectors of a panel: lanes of the right factor */
enum { MOST_ROWS = TD_VECTOR == 64 || TD_VECTOR == 16 ? 8 : 4 }; /* rows of sums in registers */
enum { MIXED_BYTES = 1 << 24, DEPTH = 64, MIXED_ROWS = 16, LEAST_TASKS = 16 };

typedef struct {
    td_tensor tensor;        /* (sample, channel, cell); of a kernel (lane, summed, tap) */
    int64_t channels, padded; /* of a group */
    vec *spectra;            /* (group, bin, plane, row, channel) */
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

/* sums[r] (+)= sum over k of left[r * row + k * step] * right[k]. */
__attribute__((always_inline)) static inline void multiply_rows(const real *left, int64_t row, int64_t step,
                                                                const vec *right, int64_t right_step, int64_t count,
                                                                vec *sums, const int add, const int rows) {
    vec sum[MOST_ROWS][WIDE];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < WIDE; v++) sum[r][v] = add ? sums[r * WIDE + v] : (vec){0};
    for (int64_t k = 0; k < count; k++, left += step, right += right_step) {
        const vec one = right[0], other = right[1];
        for (int r = 0; r < rows; r++) {
            const vec factor = spread(left[r * row]);
            sum[r][0] += factor * one;
            sum[r][1] += factor * other;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < WIDE; v++) sums[r * WIDE + v] = sum[r][v];
}

static void multiply(const real *left, int64_t row, int64_t step, const vec *right, int64_t right_step, int64_t count,
                     vec *sums, int add, int64_t rows) {
    for (; rows >= MOST_ROWS; rows -= MOST_ROWS, left += MOST_ROWS * row, sums += MOST_ROWS * WIDE) {
        if (add) multiply_rows(left, row, step, right, right_step, count, sums, 1, MOST_ROWS);
        else multiply_rows(left, row, step, right, right_step, count, sums, 0, MOST_ROWS);
    }
    for (; rows >= 2; rows -= 2, left += 2 * row, sums += 2 * WIDE)
        multiply_rows(left, row, step, right, right_step, count, sums, add, 2);
    if (rows) multiply_rows(left, row, step, right, right_step, count, sums, add, 1);
}

/* Half spectra of two real lines that were transformed as one, in planes `plane` apart of bins `bin` apart. */
static void part_spectra(const mix_call *call, const vec *both, vec *one, vec *other, int64_t bin, int64_t plane,
                         real third) {
    for (int64_t k = 0; k < call->half; k++, one += bin, other += bin) {
        const int64_t mirrored = k == 0 ? 0 : call->plan.size - k;
        const vec re = both[2 * k], im = both[2 * k + 1], re2 = both[2 * mirrored], im2 = both[2 * mirrored + 1];
        one[0] = re + re2, one[plane] = im - im2, one[2 * plane] = one[0] + third * one[plane];
        other[0] = im + im2, other[plane] = re2 - re, other[2 * plane] = other[0] + third * other[plane];
    }
}

/* The cells of two lines out of sums of products in planes; room holds two lines. Returns (other, one) in turns. */
static const vec *joined_cells(const mix_call *call, const vec *one, const vec *other, int64_t bin, int64_t plane,
                               vec *room) {
    const int64_t size = call->plan.size;
    const vec scale = spread(call->scale);
    for (int64_t k = 0; k < call->half; k++, one += bin, other += bin) {
        const int64_t mirrored = k == 0 ? 0 : size - k;
        const vec re = (one[0] + one[plane]) * scale, im = (one[2 * plane] - one[0] + one[plane]) * scale;
        const vec re2 = (other[0] + other[plane]) * scale, im2 = (other[2 * plane] - other[0] + other[plane]) * scale;
        /* One plus i times the other, parts exchanged. */
        room[2 * mirrored] = re2 - im, room[2 * mirrored + 1] = re + im2;
        room[2 * k] = im + re2, room[2 * k + 1] = re - im2;
    }
    return transformed(&call->plan, room, room + 2 * size);
}

/* Spectra of a map's rows, two vectors of channels at a time. */
static void mixed_map_range(const mix_call *call, mixed_map *map, int64_t begin, int64_t end, int output) {
    const int64_t size = call->plan.size, vectors = map->padded / LANES, pairs = map->padded / (2 * LANES);
    vec *room = td_scratch(0, (size_t)(4 * size) * sizeof(vec));
    if (room == NULL) {
        ((mix_call *)call)->failed = 1;
        return;
    }
    for (int64_t task = begin; task < end; task++) {
        const int64_t pair = task % pairs, row = task / pairs % call->count, group = task / pairs / call->count;
        const int64_t unit = call->first + row;
        stretch in, out;
        stretch_axis(&call->axis, unit % call->axis.tiles, &in, &out);
        const stretch cells = output ? out : in;
        memset(room, 0, (size_t)(2 * size) * sizeof(vec));
        for (int side = 0; side < 2; side++) {
            const int64_t first = (2 * pair + side) * LANES, lanes = least(LANES, map->channels - first);
            const int64_t at = offset(&map->tensor, unit / call->axis.tiles, group * map->channels + first, 0, 0, cells.first);
            if (lanes > 0) load_wrapped(&map->tensor, at, lanes, cells, size, room + side);
        }
        const vec *both = transformed(&call->plan, room, room + 2 * size);
        vec *to = map->spectra + (group * call->half * PLANES * call->count + row) * vectors + 2 * pair;
        const int64_t plane = call->count * vectors;
        part_spectra(call, both, to, to + 1, PLANES * plane, plane, output ? -1 : 1);
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
    const int64_t size = call->plan.size, plane = DEPTH * WIDE;
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
            part_spectra(call, transformed(&call->plan, room, room + 2 * size), one, one + WIDE, PLANES * plane, plane, -1);
        }
}

static void mixed_convolve_range(int64_t begin, int64_t end, void *context) {
    mix_call *call = context;
    const int64_t size = call->plan.size, half = call->half, vectors = call->left.padded / LANES;
    const int64_t most_rows = blocks(call->count, call->parts), block = half * PLANES * DEPTH * WIDE;
    vec *kernel = td_scratch(0, (size_t)(block + half * PLANES * most_rows * WIDE + 4 * size) * sizeof(vec));
    if (kernel == NULL) {
        call->failed = 1;
        return;
    }
    vec *sums = kernel + block, *room = sums + half * PLANES * most_rows * WIDE;
    for (int64_t task = begin; task < end; task++) {
        const int64_t part = task % call->parts, panel = task / call->parts % call->panels;
        const int64_t group = task / call->parts / call->panels;
        const int64_t first = part * most_rows, rows = least(most_rows, call->count - first), plane = most_rows * WIDE;
        if (rows <= 0) continue;
        for (int64_t k = 0; k < call->left.channels; k += DEPTH) {
            const int64_t depth = least(DEPTH, call->left.channels - k);
            kernel_block(call, group, panel, k, depth, kernel, room);
            for (int64_t bin = 0; bin < half * PLANES; bin++) {
                const vec *left = call->left.spectra + ((group * half * PLANES + bin) * call->count + first) * vectors;
                multiply((const real *)left + k, call->left.padded, 1, kernel + bin * DEPTH * WIDE, WIDE, depth,
                         sums + bin * plane, k > 0, rows);
            }
        }
        for (int64_t row = 0; row < rows; row++) {
            const int64_t unit = call->first + first + row, lane = panel * WIDE * LANES;
            const vec *one = sums + row * WIDE;
            stretch in, out;
            stretch_axis(&call->axis, unit % call->axis.tiles, &in, &out);
            const vec *both = joined_cells(call, one, one + 1, PLANES * plane, plane, room);
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
    const int64_t size = call->plan.size, half = call->half, taps = call->axis.kernel, plane = MIXED_ROWS * WIDE;
    const int64_t lefts = call->left.padded / LANES, rights = call->right.padded / LANES;
    vec *sums = td_scratch(0, (size_t)(half * PLANES * plane + 4 * size) * sizeof(vec));
    if (sums == NULL) {
        call->failed = 1;
        return;
    }
    vec *room = sums + half * PLANES * plane;
    for (int64_t task = begin; task < end; task++) {
        const int64_t part = task % call->parts, panel = task / call->parts % call->panels;
        const int64_t group = task / call->parts / call->panels;
        const int64_t first = part * MIXED_ROWS, rows = least(MIXED_ROWS, call->left.channels - first);
        for (int64_t bin = 0; bin < half * PLANES; bin++) {
            const int64_t at = (group * half * PLANES + bin) * call->count;
            multiply((const real *)(call->left.spectra + at * lefts) + first, 1, call->left.padded,
                     call->right.spectra + at * rights + panel * WIDE, rights, call->count, sums + bin * plane, 0, rows);
        }
        for (int64_t row = 0; row < rows; row += 2)
            for (int64_t v = 0; v < WIDE; v++) {
                const vec *one = sums + row * WIDE + v, *other = row + 1 < rows ? one + WIDE : one;
                const int64_t lane = (panel * WIDE + v) * LANES, lanes = least(LANES, call->right.channels - lane);
                if (lanes <= 0) continue;
                const vec *both = joined_cells(call, one, other, PLANES * plane, plane, room);
                for (int side = 0; side < 2 && row + side < rows; side++) {
                    const int64_t at = (first + row + side) * call->output.stride[0] + lane * call->output.stride[1] +
                                       group * call->output.stride[2];
                    vec *cells = (vec *)both + 1 - side, *before = room == both ? room + 2 * size : room;
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
        one->padded = blocks(one->channels, WIDE * LANES) * WIDE * LANES;
    }
    call->panels = call->right.padded / (WIDE * LANES);
    return TD_OK;
}

/* Multiplications of the products, and as many as take the time of the transforms. */
static double count_mixed(int map, const td_mixing *p) {
    mix_call call = {0};
    if (lay_out_mixed(&call, map, p) != TD_OK) return INFINITY;
    const double left = (double)call.left.channels, right = (double)call.right.padded, rows = (double)call.rows;
    const double steps = transform_steps(call.axis.size);
    return (double)(p->groups * call.axis.size) * (left * right * (rows + steps) + rows * steps * (left + right));
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
    const int64_t channels = call.left.padded + (call.correlates ? call.right.padded : 0);
    const int64_t row = p->groups * call.half * PLANES * channels / LANES;
    const int64_t chunks = blocks(call.rows, most(MIXED_ROWS, MIXED_BYTES / (row * TD_VECTOR)));
    const int64_t most_rows = blocks(call.rows, chunks);
    call.left.spectra = td_scratch(1, (size_t)(most_rows * row) * sizeof(vec) + (size_t)(4 * call.axis.size) * sizeof(real));
    if (call.left.spectra == NULL) return TD_NO_MEMORY;
    call.right.spectra = call.left.spectra + most_rows * p->groups * call.half * PLANES * call.left.padded / LANES;
    plan_transform(&call.plan, call.axis.size, (real *)(call.left.spectra + most_rows * row));
    for (call.first = 0; call.first < call.rows && !call.failed; call.first += most_rows) {
        call.count = least(most_rows, call.rows - call.first);
        const int64_t lines = p->groups * call.count;
        td_parallel(lines * call.left.padded / (WIDE * LANES), left_range, &call);
        if (call.correlates) {
            td_parallel(lines * call.right.padded / (WIDE * LANES), right_range, &call);
            call.parts = blocks(call.left.channels, MIXED_ROWS);
            if (!call.failed) td_parallel(p->groups * call.panels * call.parts, mixed_correlate_range, &call);
        } else {
            /* The kernel's spectra are made once for each part. */
            call.parts = most(1, least(call.count / MIXED_ROWS, LEAST_TASKS / (p->groups * call.panels)));
            if (!call.failed) td_parallel(p->groups * call.panels * call.parts, mixed_convolve_range, &call);
        }
    }
    return call.failed ? TD_NO_MEMORY : TD_OK;
}
