/* Direct convolution: a row of outputs, or of taps, in registers.
 *
 * All three maps come down to one loop, many[j] += one[t] * row[j * step + t * skip]: of a convolution `many` are
 * outputs and `one` taps, of a correlation `many` are taps and `one` gradients of outputs. Where a row of the map has
 * fewer cells than the kernel's has taps they exchange their roles: `one` are the cells, last first, and `row` the taps.
 */

enum { WIDTH = 8, RUN = 32 };              /* sums in registers, half of the 16 that AVX2 has; products of one */
enum { TILE_BYTES = 1 << 18, PARTS = 16 }; /* what a tile's input may take; sums that a gradient is made of */

/* Rows to be summed, of `many` and `one` alike: how many, and how far apart each of both lies from the next. */
typedef struct {
    int64_t count, row, one;
} pitch;

__attribute__((always_inline)) static inline void sum_width(vec *many, const vec *row, const vec *one, int64_t count,
                                                            int64_t step, int64_t skip, pitch rows, const int width) {
    vec sum[WIDTH];
    for (int j = 0; j < width; j++) sum[j] = many[j];
    for (int64_t r = 0; r < rows.count; r++, row += rows.row, one += rows.one) {
        int64_t t = 0;
        if (step == 1 && skip == 1) {
            for (; t + 4 <= count; t += 4) { /* each cell is read once for four products */
                const vec a = one[t], b = one[t + 1], c = one[t + 2], d = one[t + 3];
                const vec *cells = row + t;
#pragma GCC unroll 12
                for (int i = 0; i < width + 3; i++) {
                    const vec cell = cells[i];
                    if (i < width) sum[i] += cell * a;
                    if (i >= 1 && i - 1 < width) sum[i - 1] += cell * b;
                    if (i >= 2 && i - 2 < width) sum[i - 2] += cell * c;
                    if (i >= 3 && i - 3 < width) sum[i - 3] += cell * d;
                }
            }
        }
        for (; t < count; t++) {
            const vec factor = one[t], *cells = row + t * skip;
#pragma GCC unroll 8
            for (int j = 0; j < width; j++) sum[j] += cells[j * step] * factor;
        }
    }
    for (int j = 0; j < width; j++) many[j] = sum[j];
}

static void sum_lines(vec *many, const vec *row, const vec *one, int64_t count, int64_t step, int64_t skip, pitch rows,
                     int64_t width) {
    switch (width) {
#define CASE(n) \
    case n: sum_width(many, row, one, count, step, skip, rows, n); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
#undef CASE
    default: sum_width(many, row, one, count, step, skip, rows, 8);
    }
}

/* A convolution as `direct` sees it: input cells lie `gap` apart, with zeros between. */
typedef struct {
    int64_t batch, channels;
    int64_t map[3], gap[3], outputs[3], kernel[3], stride[3], before[3];
    int64_t tile[3], tiles[3];
    int64_t row; /* cells that a row of a tile's input has room for */
    int exchanged;
    int64_t zeros, taps; /* of exchanged roles: zeros before a row of taps, and all that it has room for */
} direct_shape;

static int64_t reach(const direct_shape *s, int axis) { return (s->map[axis] - 1) * s->gap[axis] + 1; }

/* Rows of the input that a tile's outputs from `start` on read along an axis: first, and how many. */
static int64_t span(const direct_shape *s, int axis, int64_t start, int64_t count, int64_t *first) {
    const int64_t gap = s->gap[axis], low = start * s->stride[axis] - s->before[axis];
    const int64_t high = low + (count - 1) * s->stride[axis] + s->kernel[axis];
    *first = low <= 0 ? 0 : blocks(low, gap);
    return most(0, least(s->map[axis], high <= 0 ? 0 : blocks(high, gap)) - *first);
}

static void divide(direct_shape *s, int64_t also) {
    for (int axis = 0; axis < 3; axis++) s->tile[axis] = s->outputs[axis];
    for (;;) {
        int64_t cells = 1, longest = 0;
        for (int axis = 0; axis < 3; axis++) {
            cells *= (s->tile[axis] - 1) * s->stride[axis] + s->kernel[axis];
            if (s->tile[axis] > s->tile[longest]) longest = axis;
        }
        cells += also * s->tile[0] * s->tile[1] * s->tile[2];
        /* Tiles much shorter than the kernel would read most cells many times. */
        if (cells * TD_VECTOR <= TILE_BYTES || s->tile[longest] <= most(2 * WIDTH, s->kernel[longest])) break;
        s->tile[longest] = (s->tile[longest] + 1) / 2;
    }
    for (int axis = 0; axis < 3; axis++) s->tiles[axis] = blocks(s->outputs[axis], s->tile[axis]);
    s->row = (s->tile[2] + WIDTH - 1) * s->stride[2] + s->kernel[2] + WIDTH;
}

/* Cells and taps exchange their roles where that is less to multiply. */
static void exchange_roles(direct_shape *s) {
    s->exchanged = s->stride[2] == 1 && s->gap[2] == 1 && s->tiles[2] == 1 && s->map[2] < s->kernel[2];
    if (!s->exchanged) return;
    s->row = s->map[2];
    s->zeros = most(0, s->map[2] + s->before[2] - s->kernel[2]);
    s->taps = s->zeros + most(s->kernel[2], s->kernel[2] - s->before[2] + s->outputs[2] + WIDTH);
}

/* The tile's input, rows with zeros at both ends; tells which rows it holds. */
static void load_tile(const direct_shape *s, const td_tensor *input, int64_t n, int64_t c, int64_t lanes,
                      const int64_t *start, const int64_t *count, int64_t *first, int64_t *rows, vec *to) {
    int64_t first_x = 0;
    rows[0] = span(s, 0, start[0], count[0], &first[0]);
    rows[1] = span(s, 1, start[1], count[1], &first[1]);
    const int64_t cells = s->exchanged ? s->map[2] : span(s, 2, start[2], count[2], &first_x);
    const int64_t lead = first_x * s->gap[2] - (start[2] * s->stride[2] - s->before[2]);
    memset(to, 0, (size_t)(rows[0] * rows[1] * s->row) * sizeof(vec));
    if (cells == 0) return;
    for (int64_t z = 0; z < rows[0]; z++)
        for (int64_t y = 0; y < rows[1]; y++)
            load_row(input, offset(input, n, c, first[0] + z, first[1] + y, first_x), lanes, cells,
                     to + (z * rows[1] + y) * s->row + (s->exchanged ? cells - 1 : lead), s->exchanged ? -1 : s->gap[2]);
}

/* Index of the row that output `o` meets with tap `k`, in a tile's rows, or -1. */
static int64_t met(const direct_shape *s, int axis, int64_t o, int64_t k, int64_t first) {
    const int64_t at = o * s->stride[axis] + k - s->before[axis];
    if (at < 0 || at >= reach(s, axis) || at % s->gap[axis]) return -1;
    return at / s->gap[axis] - first;
}

typedef struct {
    direct_shape shape;
    const td_tensor *input, *weight, *output;
    int turned;
    int64_t blocks, parts;
    vec *sums; /* of a correlation: (block, part, tap) */
    int failed;
} direct_call;

static void place(const direct_shape *s, int64_t index, int64_t *start, int64_t *count) {
    for (int axis = 2; axis >= 0; axis--) {
        start[axis] = index % s->tiles[axis] * s->tile[axis];
        count[axis] = least(s->tile[axis], s->outputs[axis] - start[axis]);
        index /= s->tiles[axis];
    }
}

static void convolve_range(int64_t begin, int64_t end, void *context) {
    direct_call *call = context;
    const direct_shape *s = &call->shape;
    const int64_t taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
    const int64_t rows_most = ((s->tile[0] - 1) * s->stride[0] + s->kernel[0]) *
                              ((s->tile[1] - 1) * s->stride[1] + s->kernel[1]);
    const int64_t kernel_rows = s->kernel[0] * s->kernel[1];
    vec *weight = td_scratch(TD_TASK, (size_t)(taps + rows_most * s->row + s->tile[2] + WIDTH + kernel_rows * s->taps) *
                                    sizeof(vec));
    if (weight == NULL) {
        call->failed = 1;
        return;
    }
    vec *tile = weight + taps, *line = tile + rows_most * s->row, *turned = line + s->tile[2] + WIDTH;
    if (s->exchanged) memset(turned, 0, (size_t)(kernel_rows * s->taps) * sizeof(vec));
    const int64_t per_block = s->batch * s->tiles[0] * s->tiles[1] * s->tiles[2];
    const int64_t segments = blocks(s->tile[2], WIDTH), width = blocks(s->tile[2], segments);
    for (int64_t task = begin, loaded = -1; task < end; task++) {
        const int64_t block = task / per_block, c = block * LANES, lanes = least(LANES, s->channels - c);
        int64_t rest = task % per_block, n = rest % s->batch, start[3], count[3], first[3], rows[3];
        if (block != loaded) load_taps(call->weight, s->kernel, c, lanes, call->turned, weight);
        if (block != loaded && s->exchanged)
            for (int64_t i = 0; i < taps; i++)
                turned[i / s->kernel[2] * s->taps + s->zeros + s->kernel[2] - 1 - i % s->kernel[2]] = weight[i];
        loaded = block;
        place(s, rest / s->batch, start, count);
        load_tile(s, call->input, n, c, lanes, start, count, first, rows, tile);
        for (int64_t z = start[0]; z < start[0] + count[0]; z++)
            for (int64_t y = start[1]; y < start[1] + count[1]; y++) {
                for (int64_t x = 0; x < count[2]; x += width) {
                    /* Taps that meet the map from any of these outputs. */
                    const int64_t at = (start[2] + x) * s->stride[2] - s->before[2];
                    int64_t low = most(0, -at - (width - 1) * s->stride[2]);
                    int64_t high = least(s->kernel[2], reach(s, 2) - at);
                    /* Of exchanged roles: where the first cell meets the first output, and the cells that meet taps. */
                    const int64_t base = s->kernel[2] - s->map[2] + at;
                    if (s->exchanged) low = most(0, 1 - width - base), high = least(s->map[2], s->kernel[2] - base);
                    vec sums[WIDTH] = {0};
                    for (int64_t kz = 0; kz < s->kernel[0]; kz++) {
                        const int64_t plane = met(s, 0, z, kz, first[0]);
                        if (plane < 0) continue;
                        /* Of an input without gaps the rows that meet follow each other. */
                        const int64_t top = s->before[1] - y * s->stride[1], each = s->gap[1] > 1;
                        const int64_t last = least(s->kernel[1], reach(s, 1) + top);
                        for (int64_t ky = most(0, top); ky < last && high > low; ky += each ? 1 : s->kernel[1]) {
                            const int64_t row = met(s, 1, y, ky, first[1]), count = each ? 1 : last - ky;
                            if (row < 0) continue;
                            const vec *cells = tile + (plane * rows[1] + row) * s->row + low;
                            const int64_t at_tap = kz * s->kernel[1] + ky;
                            if (s->exchanged)
                                sum_lines(sums, turned + at_tap * s->taps + s->zeros + base + low, cells, high - low, 1,
                                         1, (pitch){count, s->taps, s->row}, width);
                            else
                                sum_lines(sums, cells + x * s->stride[2], weight + at_tap * s->kernel[2] + low, high - low,
                                         s->stride[2], 1, (pitch){count, s->row, s->kernel[2]}, width);
                        }
                    }
                    memcpy(line + x, sums, (size_t)width * sizeof(vec));
                }
                store_row(call->output, offset(call->output, n, c, z, y, start[2]), lanes, count[2], line, 1);
            }
    }
}

static void correlate_range(int64_t begin, int64_t end, void *context) {
    direct_call *call = context;
    const direct_shape *s = &call->shape;
    const int64_t taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
    const int64_t rows_most = ((s->tile[0] - 1) * s->stride[0] + s->kernel[0]) *
                              ((s->tile[1] - 1) * s->stride[1] + s->kernel[1]);
    const int64_t cells = s->tile[0] * s->tile[1] * s->tile[2];
    vec *tile = td_scratch(TD_TASK, (size_t)(rows_most * s->row + cells) * sizeof(vec));
    if (tile == NULL) {
        call->failed = 1;
        return;
    }
    vec *gradients = tile + rows_most * s->row;
    const int64_t units = s->batch * s->tiles[0] * s->tiles[1] * s->tiles[2];
    const int64_t segments = blocks(s->kernel[2], WIDTH), width = blocks(s->kernel[2], segments);
    for (int64_t task = begin; task < end; task++) {
        const int64_t block = task / call->parts, part = task % call->parts;
        const int64_t c = block * LANES, lanes = least(LANES, s->channels - c);
        vec *sums = call->sums + task * taps;
        memset(sums, 0, (size_t)taps * sizeof(vec));
        for (int64_t unit = part * units / call->parts; unit < (part + 1) * units / call->parts; unit++) {
            int64_t n = unit % s->batch, start[3], count[3], first[3], rows[3];
            place(s, unit / s->batch, start, count);
            load_tile(s, call->input, n, c, lanes, start, count, first, rows, tile);
            for (int64_t z = 0; z < count[0]; z++)
                for (int64_t y = 0; y < count[1]; y++)
                    load_row(call->output, offset(call->output, n, c, start[0] + z, start[1] + y, start[2]), lanes,
                             count[2], gradients + (z * count[1] + y) * count[2], 1);
            for (int64_t kz = 0; kz < s->kernel[0]; kz++)
                for (int64_t ky = 0; ky < s->kernel[1]; ky++)
                    for (int64_t kx = 0; kx < s->kernel[2]; kx += width) {
                        /* Outputs that meet the map with any of these taps. */
                        const int64_t at = start[2] * s->stride[2] + kx - s->before[2];
                        const int64_t low = least(count[2], blocks(most(0, -at - (width - 1)), s->stride[2]));
                        const int64_t high = least(count[2], blocks(most(0, reach(s, 2) - at), s->stride[2]));
                        vec *to = sums + (kz * s->kernel[1] + ky) * s->kernel[2] + kx;
                        for (int64_t z = 0; z < count[0]; z++) {
                            const int64_t plane = met(s, 0, start[0] + z, kz, first[0]);
                            if (plane < 0) continue;
                            /* Rows of outputs that meet the map with this tap follow each other. */
                            const int64_t top = start[1] * s->stride[1] + ky - s->before[1];
                            const int64_t bottom = least(count[1], blocks(most(0, reach(s, 1) - top), s->stride[1]));
                            const int64_t group = most(1, RUN / most(1, high - low)); /* long sums of few lose digits */
                            for (int64_t y = blocks(most(0, -top), s->stride[1]); y < bottom; y += group) {
                                const int64_t row = met(s, 1, start[1] + y, ky, first[1]);
                                const pitch some = {least(group, bottom - y), s->row * s->stride[1], count[2]};
                                const vec *cells = tile + (plane * rows[1] + row) * s->row + kx;
                                const vec *one = gradients + (z * count[1] + y) * count[2];
                                for (int64_t x = low; x < high; x += RUN) {
                                    vec part[WIDTH] = {0};
                                    sum_lines(part, cells + x * s->stride[2], one + x, least(RUN, high - x), 1,
                                             s->stride[2], some, width);
                                    for (int64_t j = 0; j < least(width, s->kernel[2] - kx); j++) to[j] += part[j];
                                }
                            }
                        }
                    }
        }
    }
}

/* Products, each of as many lanes as the channels fill. */
static double count_direct(const td_problem *p) {
    double products = (double)(p->batch * blocks(p->channels, LANES) * LANES);
    for (int axis = 0; axis < 3; axis++) {
        int64_t met = 0; /* pairs of an output and a tap that meet a cell */
        for (int64_t o = 0; o < p->outputs[axis]; o++) {
            const int64_t at = o * p->stride[axis] - p->before[axis];
            met += most(0, least(p->kernel[axis], p->map[axis] - at) - most(0, -at));
        }
        products *= (double)met;
    }
    return products;
}

static int run_direct(int map, const td_problem *p, const td_tensor *input, const td_tensor *weight,
                      const td_tensor *output) {
    direct_call call = {.input = input, .weight = weight, .output = output, .turned = map == TD_TRANSPOSE};
    direct_shape *s = &call.shape;
    s->batch = p->batch;
    s->channels = p->channels;
    for (int axis = 0; axis < 3; axis++) {
        const int back = map == TD_TRANSPOSE;
        s->map[axis] = back ? p->outputs[axis] : p->map[axis];
        s->gap[axis] = back ? p->stride[axis] : 1;
        s->outputs[axis] = back ? p->map[axis] : p->outputs[axis];
        s->kernel[axis] = p->kernel[axis];
        s->stride[axis] = back ? 1 : p->stride[axis];
        s->before[axis] = back ? p->kernel[axis] - 1 - p->before[axis] : p->before[axis];
    }
    if (map == TD_TRANSPOSE) {
        call.input = output;
        call.output = input;
    }
    call.blocks = blocks(s->channels, LANES);
    divide(s, map == TD_CORRELATE);
    const int64_t units = s->batch * s->tiles[0] * s->tiles[1] * s->tiles[2];
    if (map != TD_CORRELATE) {
        exchange_roles(s);
        td_parallel(call.blocks * units, convolve_range, &call);
        return call.failed ? TD_NO_MEMORY : TD_OK;
    }
    const int64_t taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
    call.parts = most(1, least(units, PARTS / call.blocks));
    call.sums = td_scratch(TD_CALL, (size_t)(call.blocks * call.parts * taps) * sizeof(vec));
    if (call.sums == NULL) return TD_NO_MEMORY;
    td_parallel(call.blocks * call.parts, correlate_range, &call);
    if (call.failed) return TD_NO_MEMORY;
    for (int64_t block = 0; block < call.blocks; block++) {
        vec *sums = call.sums + block * call.parts * taps;
        for (int64_t part = 1; part < call.parts; part++)
            for (int64_t tap = 0; tap < taps; tap++) sums[tap] += sums[part * taps + tap];
        const int64_t c = block * LANES, lanes = least(LANES, s->channels - c);
        for (int64_t z = 0; z < s->kernel[0]; z++)
            for (int64_t y = 0; y < s->kernel[1]; y++)
                store_row(weight, offset(weight, 0, c, z, y, 0), lanes, s->kernel[2],
                          sums + (z * s->kernel[1] + y) * s->kernel[2], 1);
    }
    return TD_OK;
}
