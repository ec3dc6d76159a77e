/* Kernels out of elements, and the gradients of elements.
 *
 * An element is a product of factors, one per axis: profile((cell - position) / scale). The cells of the longest axis
 * are the lanes; only cells that a profile reaches are visited. One thread makes all of a kernel, from its first element
 * to its last, in memory of its own: nothing is kept, and results do not depend on the number of threads.
 */

#ifdef TD_DOUBLE
typedef int64_t integer;
enum { FRACTION = 52, TERMS = 13 };
#define LOG2_HIGH 6.93145751953125e-1 /* of few bits: multiples of it are exact */
#define LOG2_LOW 1.42860682030941723212e-6
/* Beyond this many scales the product of two Gaussian factors would leave the range of normal numbers, which is slow. */
#define GAUSSIAN_REACH 26.61567995621374
#else
typedef int32_t integer;
enum { FRACTION = 23, TERMS = 7 };
#define LOG2_HIGH 0.693359375f
#define LOG2_LOW -2.12194440e-4f
#define GAUSSIAN_REACH 9.3452954f
#endif
typedef integer ivec __attribute__((vector_size(TD_VECTOR), may_alias));

#ifdef __clang__
#define SHUFFLE(from, lanes) __builtin_shufflevector(from, lanes)
#else
#define SHUFFLE(from, lanes) __builtin_shuffle(from, lanes)
#endif

static const integer LANE[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static inline vec where(ivec mask, vec value) { return (vec)((ivec)value & mask); }

static inline real sum_lanes(vec value) {
    ivec lane;
    memcpy(&lane, LANE, sizeof lane);
    for (int64_t step = LANES / 2; step > 0; step /= 2) value += SHUFFLE(value, lane ^ (integer)step);
    return value[0];
}

/* exp(x) to a rounding unit where the result is a normal number: exp(x - n log 2) by its series, and n added to the
 * exponent. */
static inline vec exponential(vec x) {
    static const real inverse_factorials[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                              1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                              1.0 / 120,        1.0 / 24,        1.0 / 6,        1.0 / 2};
    const real whole = (real)1.5 * ((int64_t)1 << FRACTION); /* added, it leaves an integer in the lowest bits */
    const vec shifted = x * (real)1.44269504088896340736 + whole, n = shifted - whole;
    const vec r = (x - n * LOG2_HIGH) - n * LOG2_LOW;
    vec series = spread(inverse_factorials[13 - TERMS]);
#pragma GCC unroll 12
    for (int i = 14 - TERMS; i < 12; i++) series = series * r + inverse_factorials[i];
    const vec value = series * (r * r) + r + 1;
    return (vec)((ivec)value + ((ivec)shifted << FRACTION));
}

/* Axes of kernels in the order in which they are visited, lanes last. Axes that are not there have one cell. */
typedef struct {
    const td_elements *of;
    int64_t axis[3], size[3], step[3]; /* place among the positions, or -1; cells; their distance in a dense kernel */
    int64_t row, group;                /* cells that a row has room for; kernels of a task */
    real *kernel;                      /* or its gradient */
    real *to_weight, *to_position, *to_sigma;
    int failed;
} construction;

/* How an element spreads along an axis, from its first cell `low` on. */
typedef struct {
    int64_t low, count, chunks; /* cells that it may reach, vectors that hold them */
    real inverse, sign;         /* one over the scale, and the sign of sigma */
    real mass, slopes, moments; /* sums of factors, of their slopes, and of slopes times distances */
    vec *factor, *slope, *moment;
} spreading;

__attribute__((always_inline)) static inline void spread_along(const construction *c, int slot, int64_t element,
                                                               spreading *s, const int gaussian, const int slopes) {
    if (c->axis[slot] < 0) {
        s->low = 0;
        s->count = s->chunks = 1;
        s->mass = 1;
        *s->factor = spread(1);
        s->slopes = s->moments = 0;
        *s->slope = *s->moment = (vec){0};
        return;
    }
    const td_elements *of = c->of;
    const int64_t size = c->size[slot], origin = size / 2;
    const int64_t at = c->axis[slot] * of->kernels * of->count + element;
    const real position = ((const real *)of->position)[at];
    const real sigma = of->sigma == NULL ? 0 : ((const real *)of->sigma)[at];
    s->sign = sigma < 0 ? -1 : 1;
    const real scale = (real)of->smallest_scale + s->sign * sigma;
    s->inverse = 1 / scale;
    const double reach = (gaussian ? GAUSSIAN_REACH : 1) * (double)scale;
    const double slack = 4e-15 * (reach + (position < 0 ? -(double)position : (double)position));
    const double from = (double)position + (double)origin - reach - slack;
    const double to = (double)position + (double)origin + reach + slack;
    const int64_t end = to > 0 ? to >= (double)size ? size : (int64_t)to + 1 : 0;
    s->low = from >= 0 ? from >= (double)size ? size : (int64_t)from + 1 : 0;
    s->count = most(0, end - s->low);
    s->chunks = blocks(s->count, LANES);
    if (slot == 2) s->low = least(s->low, c->row - s->chunks * LANES);
    const real nearness = position * s->inverse;
    s->mass = nearness == nearness ? 0 : nearness; /* an element that is no number has no mass that is one */
    ivec lane;
    memcpy(&lane, LANE, sizeof lane);
    vec cell = __builtin_convertvector(lane, vec) + (real)(s->low - origin);
    vec mass = {0}, sum_slopes = {0}, sum_moments = {0};
    const vec limit = spread((real)(size - origin)), one = spread(1);
    for (int64_t i = 0; i < s->chunks; i++, cell += (real)LANES) {
        const vec distance = (cell - position) * s->inverse;
        vec factor;
        ivec inside = (ivec)(cell < limit);
        if (gaussian) {
            const vec square = distance * distance;
            inside &= (ivec)(square <= (real)GAUSSIAN_REACH * (real)GAUSSIAN_REACH);
            factor = where(inside, exponential((real)-0.5 * square));
        } else {
            factor = 1 - (where((ivec)(distance > 0), distance) - where((ivec)(distance < 0), distance));
            inside &= (ivec)(factor > 0);
            factor = where(inside, factor);
        }
        s->factor[i] = factor;
        mass += factor;
        if (!slopes) continue;
        vec slope = -distance * factor;
        if (!gaussian) slope = where(inside, where((ivec)(distance < 0), one) - where((ivec)(distance > 0), one));
        s->slope[i] = slope;
        s->moment[i] = slope * distance;
        sum_slopes += slope;
        sum_moments += s->moment[i];
    }
    s->mass += sum_lanes(mass);
    if (!slopes) return;
    s->slopes = sum_lanes(sum_slopes);
    s->moments = sum_lanes(sum_moments);
}

enum { CHUNKS = 4 }; /* vectors of a row that are held in registers */
#define BY_WIDTH(call, count)                                \
    switch (count) {                                         \
    case 1: call(1); break;                                  \
    case 2: call(2); break;                                  \
    case 3: call(3); break;                                  \
    default: call(4);                                        \
    }

__attribute__((always_inline)) static inline void add_rows(const construction *c, real *cells, const spreading *s,
                                                           real share, int64_t chunk, const int width) {
    const real *outer = (const real *)s[0].factor, *inner = (const real *)s[1].factor;
    vec right[CHUNKS];
    for (int j = 0; j < width; j++) right[j] = s[2].factor[chunk + j];
    for (int64_t z = 0; z < s[0].count; z++) {
        real *row = cells + ((s[0].low + z) * c->size[1] + s[1].low) * c->row + s[2].low + chunk * LANES;
        for (int64_t y = 0; y < s[1].count; y++, row += c->row) {
            const vec left = spread(share * outer[z] * inner[y]);
            for (int j = 0; j < width; j++) *(loose *)(row + j * LANES) += left * right[j];
        }
    }
}

/* Cells between a dense kernel and rows that have room for all lanes. */
static void copy_cells(const construction *c, real *kernel, real *cells, int out) {
    for (int64_t z = 0; z < c->size[0]; z++)
        for (int64_t y = 0; y < c->size[1]; y++, cells += c->row) {
            real *dense = kernel + z * c->step[0] + y * c->step[1];
            const int64_t step = c->step[2], size = c->size[2];
            if (step == 1 && out) memcpy(dense, cells, (size_t)size * sizeof(real));
            if (step == 1 && !out) memcpy(cells, dense, (size_t)size * sizeof(real));
            if (step != 1)
                for (int64_t x = 0; x < size; x++) *(out ? dense + x * step : cells + x) = out ? cells[x] : dense[x * step];
        }
}

/* A thread's memory: rows of a kernel, and what `arrays` numbers for each cell of an axis need, for each axis. */
static real *construction_memory(construction *c, spreading *s, int64_t arrays, vec **sums) {
    const int64_t cells = c->size[0] * c->size[1] * c->row;
    int64_t chunks = cells / LANES;
    for (int slot = 0; slot < 3; slot++) chunks += 3 * blocks(c->size[slot], LANES);
    vec *memory = td_scratch(0, (size_t)(chunks + arrays * c->row / LANES) * sizeof(vec));
    if (memory == NULL) {
        c->failed = 1;
        return NULL;
    }
    memset(memory, 0, (size_t)cells * sizeof(real));
    vec *next = memory + cells / LANES;
    for (int slot = 0; slot < 3; slot++) {
        const int64_t length = blocks(c->size[slot], LANES);
        s[slot].factor = next;
        s[slot].slope = next + length;
        s[slot].moment = next + 2 * length;
        next += 3 * length;
    }
    *sums = next;
    return (real *)memory;
}

__attribute__((always_inline)) static inline void make_kernels(construction *c, int64_t begin, int64_t end,
                                                               const int gaussian) {
    const td_elements *of = c->of;
    const int64_t rows = c->size[0] * c->size[1], dense = rows * c->size[2];
    spreading s[3];
    vec *unused;
    real *cells = construction_memory(c, s, 0, &unused);
    if (cells == NULL) return;
    for (int64_t kernel = begin; kernel < end; kernel++) {
        if (kernel > begin) memset(cells, 0, (size_t)(rows * c->row) * sizeof(real));
        for (int64_t element = kernel * of->count; element < (kernel + 1) * of->count; element++) {
            for (int slot = 0; slot < 3; slot++) spread_along(c, slot, element, &s[slot], gaussian, 0);
            const real mass = s[0].mass * s[1].mass * s[2].mass + (real)of->epsilon;
            const real share = ((const real *)of->weight)[element] / mass;
            if (!(share - share == 0)) { /* no number: nor is any cell */
                for (int64_t i = 0; i < rows * c->row; i++) cells[i] += share - share;
                continue;
            }
            for (int64_t chunk = 0; chunk < s[2].chunks; chunk += CHUNKS) {
#define ADD(width) add_rows(c, cells, s, share, chunk, width)
                BY_WIDTH(ADD, s[2].chunks - chunk)
#undef ADD
            }
        }
        copy_cells(c, c->kernel + kernel * dense, cells, 1);
    }
}

/* Sums over a kernel's rows of its gradient times factors, each a row of cells: with the slope or the moment of an axis
 * in the place of its factor. */
enum { FACTORS, SLOPE_0, MOMENT_0, SLOPE_1, MOMENT_1, SUMS };

__attribute__((always_inline)) static inline void sum_rows(const construction *c, const real *cells,
                                                           const spreading *s, vec *sums, int64_t chunk,
                                                           const int width, const int scales) {
    const int64_t length = c->row / LANES;
    const real *factor = (const real *)s[1].factor, *slope = (const real *)s[1].slope;
    const real *moment = (const real *)s[1].moment;
    vec *to = sums + chunk;
    for (int j = 0; j < width; j++)
        for (int i = 0; i < SUMS; i++) to[i * length + j] = (vec){0};
    for (int64_t z = 0; z < s[0].count; z++) {
        const real *row = cells + ((s[0].low + z) * c->size[1] + s[1].low) * c->row + s[2].low + chunk * LANES;
        vec factors[CHUNKS] = {0}, slopes[CHUNKS] = {0}, moments[CHUNKS] = {0};
        for (int64_t y = 0; y < s[1].count; y++, row += c->row)
            for (int j = 0; j < width; j++) {
                const vec gradient = *(const loose *)(row + j * LANES);
                factors[j] += factor[y] * gradient;
                slopes[j] += slope[y] * gradient;
                if (scales) moments[j] += moment[y] * gradient;
            }
        const real outer = ((const real *)s[0].factor)[z];
        for (int j = 0; j < width; j++) {
            to[FACTORS * length + j] += outer * factors[j];
            to[SLOPE_1 * length + j] += outer * slopes[j];
            if (scales) to[MOMENT_1 * length + j] += outer * moments[j];
            if (c->axis[0] < 0) continue;
            to[SLOPE_0 * length + j] += ((const real *)s[0].slope)[z] * factors[j];
            if (scales) to[MOMENT_0 * length + j] += ((const real *)s[0].moment)[z] * factors[j];
        }
    }
}

/* Sum over lanes of weight * (sum - level). */
static inline real contract(const vec *weight, const vec *sum, real level, int64_t chunks) {
    vec total = {0};
    for (int64_t i = 0; i < chunks; i++) total += weight[i] * (sum[i] - level);
    return sum_lanes(total);
}

__attribute__((always_inline)) static inline void make_gradients(construction *c, int64_t begin, int64_t end,
                                                                 const int gaussian, const int scales) {
    const td_elements *of = c->of;
    const int64_t rows = c->size[0] * c->size[1], dense = rows * c->size[2], length = c->row / LANES;
    spreading s[3];
    vec *sums;
    real *cells = construction_memory(c, s, SUMS, &sums);
    if (cells == NULL) return;
    for (int64_t kernel = begin; kernel < end; kernel++) {
        copy_cells(c, c->kernel + kernel * dense, cells, 0);
        for (int64_t element = kernel * of->count; element < (kernel + 1) * of->count; element++) {
            for (int slot = 0; slot < 3; slot++) spread_along(c, slot, element, &s[slot], gaussian, 1);
            const real mass = s[0].mass * s[1].mass * s[2].mass + (real)of->epsilon;
            const real share = ((const real *)of->weight)[element] / mass;
            const int64_t chunks = s[2].chunks;
            for (int64_t chunk = 0; chunk < chunks; chunk += CHUNKS) {
#define SUM(width) sum_rows(c, cells, s, sums, chunk, width, scales)
                BY_WIDTH(SUM, chunks - chunk)
#undef SUM
            }
            /* The normaliser takes from a kernel's gradient what it is on average over the element: `of_weight`. */
            const real of_weight = contract(s[2].factor, sums, 0, chunks) / mass;
            c->to_weight[element] = of_weight;
            for (int slot = 0; slot < 3; slot++) {
                if (c->axis[slot] < 0) continue;
                const int64_t at = c->axis[slot] * of->kernels * of->count + element;
                const real factor = -share * s[slot].inverse;
                const vec *slope = slot == 2 ? s[2].slope : s[2].factor, *moment = slot == 2 ? s[2].moment : slope;
                real others = slot == 2 ? s[0].mass * s[1].mass : s[1 - slot].mass;
                others *= of_weight;
                const vec *of_slope = slot == 2 ? sums : sums + (SLOPE_0 + 2 * slot) * length;
                const real slopes = slot == 2 ? 1 : s[slot].slopes, moments = slot == 2 ? 1 : s[slot].moments;
                c->to_position[at] = factor * contract(slope, of_slope, others * slopes, chunks);
                if (!scales) continue;
                const vec *of_moment = slot == 2 ? sums : of_slope + length;
                c->to_sigma[at] = factor * s[slot].sign * contract(moment, of_moment, others * moments, chunks);
            }
        }
    }
}

static void make_range(int64_t begin, int64_t end, void *context) {
    construction *c = context;
    begin *= c->group;
    end = least(end * c->group, c->of->kernels);
    if (c->of->profile == TD_GAUSSIAN)
        make_kernels(c, begin, end, 1);
    else
        make_kernels(c, begin, end, 0);
}

static void gradients_range(int64_t begin, int64_t end, void *context) {
    construction *c = context;
    begin *= c->group;
    end = least(end * c->group, c->of->kernels);
    if (c->of->profile == TD_GAUSSIAN)
        make_gradients(c, begin, end, 1, c->of->sigma != NULL);
    else if (c->of->sigma != NULL)
        make_gradients(c, begin, end, 0, 1);
    else
        make_gradients(c, begin, end, 0, 0);
}

static int run_construction(construction *c, td_range range) {
    const td_elements *of = c->of;
    int64_t chunks[3], lanes = 0, cells = 1;
    for (int64_t axis = 0; axis < of->axes; axis++) {
        cells *= of->size[axis];
        chunks[axis] = blocks(of->size[axis], LANES);
    }
    /* The lanes are the axis that leaves the fewest of them idle. */
    for (int64_t axis = 0; axis < of->axes; axis++)
        if (cells / of->size[axis] * chunks[axis] <= cells / of->size[lanes] * chunks[lanes]) lanes = axis;
    int slot = 2;
    for (int64_t axis = of->axes - 1, step = 1; axis >= 0; step *= of->size[axis--]) {
        const int to = axis == lanes ? 2 : --slot;
        c->axis[to] = axis;
        c->size[to] = of->size[axis];
        c->step[to] = step;
    }
    while (slot > 0) {
        c->axis[--slot] = -1;
        c->size[slot] = 1;
        c->step[slot] = 0;
    }
    c->row = blocks(c->size[2], LANES) * LANES;
    c->group = 1 + 16384 / (cells + 32 * of->count + 1);
    td_parallel(blocks(of->kernels, c->group), range, c);
    return c->failed ? TD_NO_MEMORY : TD_OK;
}

static int construct(const td_elements *elements, void *kernel) {
    construction c = {.of = elements, .kernel = kernel};
    return run_construction(&c, make_range);
}

static int construct_gradients(const td_elements *elements, const void *gradient, void *to_weight, void *to_position,
                               void *to_sigma) {
    construction c = {.of = elements,
                      .kernel = (void *)gradient,
                      .to_weight = to_weight,
                      .to_position = to_position,
                      .to_sigma = to_sigma};
    return run_construction(&c, gradients_range);
}
