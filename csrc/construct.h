/* Kernels out of elements, and the gradients of elements.
 *
 * An element is a product of factors, one per axis: profile((cell - position) / scale). First the factors of a kernel's
 * elements are made along each axis, with cells as lanes, where the profile reaches; then what there is one of for each
 * element, such as the mass by which it is divided, with elements as lanes; then the sums of products, with the cells
 * of one axis as lanes. One thread makes all of a kernel, from its first element to its last, and nothing is kept:
 * results do not depend on the number of threads.
 */
#include <float.h>

#ifdef TD_DOUBLE
typedef int64_t integer;
typedef uint64_t bits;
enum { FRACTION = 52, TERMS = 13 };
#define LOG2_HIGH 6.93145751953125e-1 /* of few bits: multiples of it are exact */
#define LOG2_LOW 1.42860682030941723212e-6
/* Beyond so many scales the product of two Gaussian factors would leave the range of normal numbers, which is slow. */
#define GAUSSIAN_REACH 26.61567995621374
#define ROUNDING DBL_EPSILON
#else
typedef int32_t integer;
typedef uint32_t bits;
enum { FRACTION = 23, TERMS = 7 };
#define LOG2_HIGH 0.693359375f
#define LOG2_LOW -2.12194440e-4f
#define GAUSSIAN_REACH 9.3452954f
#define ROUNDING FLT_EPSILON
#endif
typedef integer ivec __attribute__((vector_size(TD_VECTOR), may_alias));
typedef bits uvec __attribute__((vector_size(TD_VECTOR), may_alias));

#ifdef __clang__
#define SHUFFLE(from, lanes) __builtin_shufflevector(from, lanes)
#else
#define SHUFFLE(from, lanes) __builtin_shuffle(from, lanes)
#endif

/* Keeps compilers from reading memory again for each product with a vector. */
#if defined(__x86_64__)
#define IN_A_REGISTER(value) __asm__("" : "+v"(value))
#elif defined(__aarch64__)
#define IN_A_REGISTER(value) __asm__("" : "+w"(value))
#else
#define IN_A_REGISTER(value) ((void)0)
#endif

static inline ivec lane_numbers(void) {
    static const integer numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    ivec lane;
    memcpy(&lane, numbers, sizeof lane);
    return lane;
}

static inline vec where(ivec mask, vec value) { return (vec)((ivec)value & mask); }
static inline vec either(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }
static inline vec magnitude(vec value) { return either((ivec)(value < 0), -value, value); }

__attribute__((always_inline)) static inline void fold(vec *rows, const int step) {
    const ivec lane = lane_numbers(), upper = (ivec)((lane & step) != 0);
#pragma GCC unroll 8
    for (int i = 0; i < step; i++) {
        const vec a = rows[i], b = rows[i + step];
        rows[i] = either(upper, b, a) + SHUFFLE(either(upper, a, b), lane ^ step);
    }
}

/* Sums over the lanes of each of LANES vectors, which are overwritten, as the lanes of one. */
static vec sums_over_lanes(vec *rows) {
    if (LANES > 8) fold(rows, 8);
    if (LANES > 4) fold(rows, 4);
    if (LANES > 2) fold(rows, 2);
    fold(rows, 1);
    return rows[0];
}

/* exp(x) to about a rounding unit, where that is a normal number: exp(x - n log 2) by its series, n added to the exponent. */
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
    return (vec)((uvec)value + ((uvec)shifted << FRACTION));
}

enum { BLOCK = 8, FOUR = 4 };               /* sums in registers; rows that a gradient is read by */
enum { BATCH = 64, BATCH_BYTES = 1 << 17 }; /* elements made at once, and what they may take */

/* Axes in the order in which they are visited, lanes last; one that is not there has one cell. */
typedef struct {
    const td_elements *of;
    int64_t axis[3], size[3], step[3]; /* place among the positions, or -1; cells; their distance in a dense kernel */
    int64_t row, lines, height, width; /* cells of a row and rows of a plane with what fills them up; rows and vectors
                                          that are summed at once */
    int64_t batch, several, group;     /* elements made at once, whose kernels they are, kernels of a task */
    real *kernel;                      /* or its gradient */
    real *to_weight, *to_position, *to_sigma;
    int failed;
} construction;

/* Elements along an axis. */
typedef struct {
    int64_t length;               /* vectors of a row of the next three, a row for each element */
    vec *factor, *slope, *moment; /* the profile, its derivative, and that times the distance */
    vec *position, *sigma, *sign, *inverse; /* elements as lanes: sigma's sign, one over the scale, */
    vec *mass, *slopes, *moments;           /* sums over cells, */
    ivec *start, *end;                      /* and the cells that are not 0 */
} spreading;

/* A thread's memory. */
typedef struct {
    vec *base;
    int64_t used;
    spreading axis[3];
    real *cells; /* of a kernel, each row filled up with zeros */
    vec *partial[3]; /* what is to be summed over lanes, a vector for each element */
    vec *weight, *mass, *share, *of_weight;
    vec *sums;                  /* over rows of a gradient: SUMS rows for each element */
    real *left;                 /* factors of the rows that are summed at once, BLOCK for each element */
    int64_t *element, *meeting; /* elements that reach these rows, and those of them that reach the lanes */
} workplace;

static void *take(workplace *w, int64_t bytes) {
    const int64_t at = w->used, vectors = blocks(bytes, TD_VECTOR);
    w->used += vectors;
    return w->base == NULL ? NULL : w->base + at;
}

enum { FACTORS, SLOPES_0, MOMENTS_0, SLOPES_1, MOMENTS_1, SUMS };

static void divide_memory(const construction *c, workplace *w, int gradients) {
    const int64_t row = c->row * (int64_t)sizeof(real), padded = blocks(c->batch, LANES) * LANES;
    const int64_t each = padded * (int64_t)sizeof(real);
    w->used = 0;
    w->cells = take(w, (c->size[0] * c->lines + FOUR) * row);
    for (int slot = 0; slot < 3; slot++) {
        spreading *s = &w->axis[slot];
        s->length = slot == 2 ? c->row / LANES : blocks(c->size[slot] + BLOCK, LANES) + 1;
        const int64_t rows = c->batch * s->length * TD_VECTOR;
        s->factor = take(w, rows), s->slope = take(w, gradients * rows), s->moment = take(w, gradients * rows);
        vec **numbers[] = {&s->position, &s->sigma, &s->sign, &s->inverse, &s->mass, &s->slopes, &s->moments};
        for (int i = 0; i < 7; i++) *numbers[i] = take(w, each);
        s->start = take(w, each), s->end = take(w, each);
    }
    for (int i = 0; i < 3; i++) w->partial[i] = take(w, padded * TD_VECTOR);
    w->weight = take(w, each), w->mass = take(w, each), w->share = take(w, each), w->of_weight = take(w, each);
    w->sums = take(w, gradients * c->batch * SUMS * row);
    w->left = take(w, BLOCK * each);
    w->element = take(w, c->batch * (int64_t)sizeof(int64_t));
    w->meeting = take(w, c->batch * (int64_t)sizeof(int64_t));
}

static int has_memory(construction *c, workplace *w, int gradients) {
    *w = (workplace){0};
    divide_memory(c, w, gradients);
    w->base = td_scratch(TD_TASK, (size_t)w->used * sizeof(vec));
    if (w->base == NULL) {
        c->failed = 1;
        return 0;
    }
    memset(w->base, 0, (size_t)w->used * sizeof(vec));
    divide_memory(c, w, gradients);
    for (int slot = 0; slot < 3; slot++) {
        const spreading *s = &w->axis[slot];
        if (c->axis[slot] >= 0) continue;
        for (int64_t i = 0; i < c->batch; i++) *(real *)(s->factor + i * s->length) = 1;
        for (int64_t i = 0; i < blocks(c->batch, LANES); i++) s->mass[i] = spread(1), s->end[i] += 1;
    }
    return 1;
}

/* What there is one of for each element along an axis, before its cells are visited. */
static void place_elements(const construction *c, spreading *s, int slot, int64_t first, int64_t count,
                           const int gaussian) {
    const td_elements *of = c->of;
    const int64_t at = c->axis[slot] * of->kernels * of->count + first, size = c->size[slot];
    memcpy(s->position, (const real *)of->position + at, (size_t)count * sizeof(real));
    if (of->sigma != NULL) memcpy(s->sigma, (const real *)of->sigma + at, (size_t)count * sizeof(real));
    const vec none = {0}, all = spread((real)size);
    for (int64_t i = 0; i < blocks(count, LANES); i++) {
        const vec position = s->position[i], sigma = s->sigma[i];
        s->sign[i] = either((ivec)(sigma < 0), spread(-1), spread(1));
        const vec scale = s->sign[i] * sigma + (real)of->smallest_scale;
        s->inverse[i] = 1 / scale;
        const vec reach = scale * (gaussian ? GAUSSIAN_REACH : 1), center = position + (real)(size / 2);
        const vec slack = (magnitude(position) + reach + all) * (4 * ROUNDING);
        vec start = center - reach - slack, end = center + reach + slack + 1;
        start = either((ivec)(start < all), where((ivec)(start > 0), start), all);
        end = where((ivec)(end > 0), either((ivec)(end < all), end, all)); /* 0 where it is no number */
        s->start[i] = __builtin_convertvector(start, ivec);
        s->end[i] = __builtin_convertvector(end, ivec);
        const vec nearness = position * s->inverse[i];
        s->mass[i] = either((ivec)(nearness == nearness), none, nearness);
    }
}

/* Sums over lanes for all elements, added to what is there. */
static void add_sums(vec *partial, int64_t count, vec *to) {
    for (int64_t i = 0; i < blocks(count, LANES); i++) to[i] += sums_over_lanes(partial + i * LANES);
}

/* Factors of elements along an axis, and what gradients need beside them. */
__attribute__((always_inline)) static inline void spread_out(const construction *c, workplace *w, int slot,
                                                             int64_t first, int64_t count, const int gaussian,
                                                             const int gradients) {
    spreading *s = &w->axis[slot];
    if (c->axis[slot] < 0) return;
    place_elements(c, s, slot, first, count, gaussian);
    if (!gradients) memset(s->factor, 0, (size_t)(count * s->length) * sizeof(vec));
    const int64_t origin = c->size[slot] / 2;
    const vec lane = __builtin_convertvector(lane_numbers(), vec), one = spread(1);
    const vec last = spread((real)(c->size[slot] - origin));
    integer *starts = (integer *)s->start, *ends = (integer *)s->end;
    for (int64_t e = 0; e < count; e++) {
        int64_t start = starts[e];
        const int64_t cells = ends[e] - start;
        /* Of an axis of rows, whole fours of cells are read. */
        const int64_t chunks = cells <= 0 ? 0 : blocks(slot == 2 ? cells : blocks(cells, FOUR) * FOUR, LANES);
        if (slot == 2) {
            starts[e] = (integer)(start = least(start, c->row - chunks * LANES));
            ends[e] = (integer)(start + chunks * LANES);
        }
        const real position = ((const real *)s->position)[e], inverse = ((const real *)s->inverse)[e];
        const int64_t at = e * s->length * LANES + start;
        vec cell = lane + (real)(start - origin), mass = {0}, slopes = {0}, moments = {0};
        for (int64_t i = 0; i < chunks; i++, cell += (real)LANES) {
            const vec distance = (cell - position) * inverse;
            ivec inside = (ivec)(cell < last);
            vec factor, slope;
            if (gaussian) {
                const vec square = distance * distance;
                inside &= (ivec)(square <= GAUSSIAN_REACH * GAUSSIAN_REACH);
                factor = where(inside, exponential(square * (real)-0.5));
                slope = -distance * factor;
            } else {
                factor = 1 - magnitude(distance);
                inside &= (ivec)(factor > 0);
                factor = where(inside, factor);
                slope = where(inside, where((ivec)(distance < 0), one) - where((ivec)(distance > 0), one));
            }
            *(loose *)((real *)s->factor + at + i * LANES) = factor;
            mass += factor;
            if (!gradients) continue;
            const vec moment = slope * distance;
            *(loose *)((real *)s->slope + at + i * LANES) = slope;
            *(loose *)((real *)s->moment + at + i * LANES) = moment;
            slopes += slope;
            moments += moment;
        }
        w->partial[0][e] = mass, w->partial[1][e] = slopes, w->partial[2][e] = moments;
    }
    add_sums(w->partial[0], count, s->mass);
    if (!gradients) return;
    for (int64_t i = 0; i < blocks(count, LANES); i++) s->slopes[i] = s->moments[i] = (vec){0};
    add_sums(w->partial[1], count, s->slopes);
    add_sums(w->partial[2], count, s->moments);
}

/* Factors of elements along all axes, and their shares. */
__attribute__((always_inline)) static inline void make_elements(const construction *c, workplace *w, int64_t first,
                                                                int64_t count, const int gaussian,
                                                                const int gradients) {
    for (int slot = 0; slot < 3; slot++) spread_out(c, w, slot, first, count, gaussian, gradients);
    memcpy(w->weight, (const real *)c->of->weight + first, (size_t)count * sizeof(real));
    for (int64_t i = 0; i < blocks(count, LANES); i++) {
        w->mass[i] = w->axis[0].mass[i] * w->axis[1].mass[i] * w->axis[2].mass[i] + (real)c->of->epsilon;
        w->share[i] = w->weight[i] / w->mass[i];
    }
}

/* Adds the products of `count` elements to a block of rows. */
__attribute__((always_inline)) static inline void add_block(const construction *c, const workplace *w, real *rows,
                                                            int64_t count, const int height, const int width) {
    const spreading *s = &w->axis[2];
    const integer *starts = (const integer *)s->start, *ends = (const integer *)s->end;
    for (int64_t x = 0; x < c->row; x += width * LANES) {
        int64_t meeting = 0;
        if (c->row <= 4 * width * LANES) /* to look costs more than a few products by zero */
            for (; meeting < count; meeting++) w->meeting[meeting] = meeting;
        else
            for (int64_t i = 0; i < count; i++) {
                w->meeting[meeting] = i;
                meeting += (starts[w->element[i]] < x + width * LANES) & (ends[w->element[i]] > x);
            }
        if (meeting == 0) continue;
        vec sums[BLOCK];
        for (int r = 0; r < height; r++)
            for (int j = 0; j < width; j++) sums[r * width + j] = *(const vec *)(rows + r * c->row + x + j * LANES);
        for (int64_t i = 0; i < meeting; i++) {
            const real *left = w->left + w->meeting[i] * BLOCK;
            const vec *right = s->factor + w->element[w->meeting[i]] * s->length + x / LANES;
            for (int r = 0; r < height; r++)
                for (int j = 0; j < width; j++) sums[r * width + j] += left[r] * right[j];
        }
        for (int r = 0; r < height; r++)
            for (int j = 0; j < width; j++) *(vec *)(rows + r * c->row + x + j * LANES) = sums[r * width + j];
    }
}

/* Adds elements to a kernel, block by block: those that reach it, their factors of its rows, and the products. */
__attribute__((always_inline)) static inline void add_elements(const construction *c, const workplace *w,
                                                               int64_t first, int64_t last, const int height,
                                                               const int width) {
    const spreading *outer = &w->axis[0], *inner = &w->axis[1];
    for (int64_t z = 0; z < c->size[0]; z++)
        for (int64_t y = 0; y < c->size[1]; y += height) {
            int64_t reaching = 0;
            for (int64_t e = first; e < last; e++) {
                w->element[reaching] = e;
                reaching += (((const integer *)outer->start)[e] <= z) & (((const integer *)outer->end)[e] > z) &
                            (((const integer *)inner->start)[e] < y + height) & (((const integer *)inner->end)[e] > y);
            }
            for (int64_t i = 0; i < reaching; i++) {
                const int64_t e = w->element[i];
                const real factor = ((const real *)w->share)[e] * ((const real *)(outer->factor + e * outer->length))[z];
                const real *restrict factors = (const real *)(inner->factor + e * inner->length) + y;
                real *restrict left = w->left + i * BLOCK;
                for (int r = 0; r < BLOCK; r++) left[r] = factor * factors[r];
            }
            add_block(c, w, w->cells + (z * c->lines + y) * c->row, reaching, height, width);
        }
}

/* Between a dense kernel and one whose rows are filled up. */
static void copy_cells(const construction *c, real *kernel, real *cells, int out) {
    const int64_t step = c->step[2], size = c->size[2];
    for (int64_t z = 0; z < c->size[0]; z++)
        for (int64_t y = 0; y < c->size[1]; y++) {
            real *dense = kernel + z * c->step[0] + y * c->step[1], *row = cells + (z * c->lines + y) * c->row;
            if (step == 1)
                memcpy(out ? dense : row, out ? row : dense, (size_t)size * sizeof(real));
            else
                for (int64_t x = 0; x < size; x++) *(out ? dense + x * step : row + x) = out ? row[x] : dense[x * step];
        }
}

__attribute__((always_inline)) static inline void make_kernels(construction *c, int64_t begin, int64_t end,
                                                               const int gaussian) {
    const int64_t count = c->of->count, cells = c->size[0] * c->lines * c->row;
    workplace w;
    if (!has_memory(c, &w, 0)) return;
    real fault = 0; /* a share that is no number leaves no cell that is one */
    for (int64_t kernel = begin; kernel < end; kernel += c->several)
        for (int64_t batch = 0; batch < count; batch += c->batch) {
            const int64_t kernels = least(c->several, end - kernel), part = least(c->batch, count - batch);
            make_elements(c, &w, kernel * count + batch, kernels * part, gaussian, 0);
            for (int64_t k = 0; k < kernels; k++) {
                const int64_t first = k * part, last = first + part;
                if (batch == 0) {
                    memset(w.cells, 0, (size_t)cells * sizeof(real));
                    fault = 0;
                }
                for (int64_t e = first; e < last; e++) fault += ((const real *)w.share)[e] - ((const real *)w.share)[e];
                switch (c->height) {
#define CASE(height, width) \
    case height: add_elements(c, &w, first, last, height, width); break;
                    CASE(1, 8) CASE(2, 4) CASE(3, 2) CASE(4, 2) CASE(5, 1) CASE(6, 1) CASE(7, 1)
#undef CASE
                default: add_elements(c, &w, first, last, 8, 1);
                }
                if (batch + part < count) continue;
                if (fault != 0)
                    for (int64_t i = 0; i < cells; i++) w.cells[i] += fault;
                copy_cells(c, c->kernel + (kernel + k) * c->size[0] * c->size[1] * c->size[2], w.cells, 1);
            }
        }
}

/* Sums over a gradient's rows times factors, with the slope or the moment of an axis in the place of its factor. */
__attribute__((always_inline)) static inline void sum_rows(const construction *c, const workplace *w, int64_t e,
                                                           int64_t x, const int width, const int scales) {
    const spreading *outer = &w->axis[0], *inner = &w->axis[1];
    const int64_t row = c->row / LANES;
    const int64_t first_z = ((const integer *)outer->start)[e], last_z = ((const integer *)outer->end)[e];
    const int64_t first_y = ((const integer *)inner->start)[e], last_y = ((const integer *)inner->end)[e];
    const real *factor = (const real *)(inner->factor + e * inner->length);
    const real *slope = (const real *)(inner->slope + e * inner->length);
    const real *moment = (const real *)(inner->moment + e * inner->length);
    vec *to = w->sums + e * SUMS * row;
    real *at = (real *)to + x;
    const int alone = c->axis[0] < 0; /* one plane */
    for (int i = 0; i < SUMS && !alone; i++)
        for (int j = 0; j < width; j++) *(loose *)(at + i * c->row + j * LANES) = (vec){0};
    for (int64_t z = first_z; z < last_z; z++) {
        vec sums[3][4] = {0};
        const real *cells = w->cells + (z * c->lines + first_y) * c->row + x;
        for (int64_t y = first_y; y < last_y; y += FOUR)
#pragma GCC unroll 4
            for (int r = 0; r < FOUR; r++, cells += c->row)
#pragma GCC unroll 4
                for (int j = 0; j < width; j++) {
                    vec gradient = *(const loose *)(cells + j * LANES);
                    IN_A_REGISTER(gradient);
                    sums[0][j] += factor[y + r] * gradient;
                    sums[1][j] += slope[y + r] * gradient;
                    if (scales) sums[2][j] += moment[y + r] * gradient;
                }
        if (alone) {
            for (int j = 0; j < width; j++) {
                *(loose *)(at + FACTORS * c->row + j * LANES) = sums[0][j];
                *(loose *)(at + SLOPES_1 * c->row + j * LANES) = sums[1][j];
                if (scales) *(loose *)(at + MOMENTS_1 * c->row + j * LANES) = sums[2][j];
            }
            return;
        }
        const real by_factor = ((const real *)(outer->factor + e * outer->length))[z];
        const real by_slope = ((const real *)(outer->slope + e * outer->length))[z];
        const real by_moment = ((const real *)(outer->moment + e * outer->length))[z];
        for (int j = 0; j < width; j++) {
            *(loose *)(at + FACTORS * c->row + j * LANES) += by_factor * sums[0][j];
            *(loose *)(at + SLOPES_0 * c->row + j * LANES) += by_slope * sums[0][j];
            *(loose *)(at + SLOPES_1 * c->row + j * LANES) += by_factor * sums[1][j];
            if (!scales) continue;
            *(loose *)(at + MOMENTS_0 * c->row + j * LANES) += by_moment * sums[0][j];
            *(loose *)(at + MOMENTS_1 * c->row + j * LANES) += by_factor * sums[2][j];
        }
    }
}

/* For each element the sum over lanes of rows of `factor` times those sums over rows less a level. */
static void contract(const construction *c, workplace *w, const vec *factor, int which, const vec *level, int64_t count,
                     vec *to) {
    const integer *starts = (const integer *)w->axis[2].start, *ends = (const integer *)w->axis[2].end;
    for (int64_t e = 0; e < count; e++) {
        const real *one = (const real *)factor + e * c->row, *other = (const real *)w->sums + (e * SUMS + which) * c->row;
        const real less = level == NULL ? 0 : ((const real *)level)[e];
        vec sum = {0};
        for (int64_t x = starts[e]; x < ends[e]; x += LANES)
            sum += *(const loose *)(one + x) * (*(const loose *)(other + x) - less);
        w->partial[0][e] = sum;
    }
    for (int64_t i = 0; i < blocks(count, LANES); i++) to[i] = (vec){0};
    add_sums(w->partial[0], count, to);
}

/* Gradients of elements out of the sums over rows. The normalizer subtracts from a kernel's gradient its average over the
 * element, which is the gradient of the element's weight. */
static void finish_gradients(construction *c, workplace *w, int64_t first, int64_t count, const int scales) {
    const spreading *lanes = &w->axis[2];
    const int64_t groups = blocks(count, LANES);
    const size_t bytes = (size_t)count * sizeof(real);
    contract(c, w, lanes->factor, FACTORS, NULL, count, w->of_weight);
    for (int64_t i = 0; i < groups; i++) w->of_weight[i] /= w->mass[i];
    memcpy(c->to_weight + first, w->of_weight, bytes);
    for (int slot = 0; slot < 3; slot++) {
        spreading *s = &w->axis[slot];
        if (c->axis[slot] < 0) continue;
        const int64_t at = c->axis[slot] * c->of->kernels * c->of->count + first;
        /* The masses of the other axes; the mass of the lanes is in the contraction. */
        const vec *one = slot == 0 ? w->axis[1].mass : w->axis[0].mass;
        for (int64_t i = 0; i < groups; i++) {
            const vec level = w->of_weight[i] * one[i] * (slot == 2 ? w->axis[1].mass[i] : spread(1));
            s->slopes[i] = level * (slot == 2 ? spread(1) : s->slopes[i]);
            s->moments[i] = level * (slot == 2 ? spread(1) : s->moments[i]);
            s->inverse[i] *= -w->share[i];
        }
        const vec *slope = slot == 2 ? lanes->slope : lanes->factor, *moment = slot == 2 ? lanes->moment : slope;
        contract(c, w, slope, slot == 2 ? FACTORS : SLOPES_0 + 2 * slot, s->slopes, count, s->position);
        for (int64_t i = 0; i < groups; i++) s->position[i] *= s->inverse[i];
        memcpy(c->to_position + at, s->position, bytes);
        if (!scales) continue;
        contract(c, w, moment, slot == 2 ? FACTORS : MOMENTS_0 + 2 * slot, s->moments, count, s->sigma);
        for (int64_t i = 0; i < groups; i++) s->sigma[i] *= s->inverse[i] * s->sign[i];
        memcpy(c->to_sigma + at, s->sigma, bytes);
    }
}

__attribute__((always_inline)) static inline void make_gradients(construction *c, int64_t begin, int64_t end,
                                                                 const int gaussian, const int scales) {
    const int64_t count = c->of->count;
    workplace w;
    if (!has_memory(c, &w, 1)) return;
    const integer *starts = (const integer *)w.axis[2].start, *ends = (const integer *)w.axis[2].end;
    for (int64_t kernel = begin; kernel < end; kernel += c->several)
        for (int64_t batch = 0; batch < count; batch += c->batch) {
            const int64_t kernels = least(c->several, end - kernel), part = least(c->batch, count - batch);
            const int64_t first = kernel * count + batch;
            make_elements(c, &w, first, kernels * part, gaussian, 1);
            for (int64_t k = 0; k < kernels; k++) {
                if (batch == 0)
                    copy_cells(c, c->kernel + (kernel + k) * c->size[0] * c->size[1] * c->size[2], w.cells, 0);
                for (int64_t e = k * part; e < (k + 1) * part; e++) {
                    int64_t x = starts[e];
                    for (; x + 2 * LANES <= ends[e]; x += 2 * LANES) sum_rows(c, &w, e, x, 2, scales);
                    if (x < ends[e]) sum_rows(c, &w, e, x, 1, scales);
                }
            }
            finish_gradients(c, &w, first, kernels * part, scales);
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
    else
        make_gradients(c, begin, end, 0, c->of->sigma != NULL);
}

static int run_construction(construction *c, td_range range) {
    const td_elements *of = c->of;
    int64_t lanes = 0, idle = INT64_MAX, cells = 1, slot = 2, step = 1, memory = 0;
    for (int64_t axis = 0; axis < of->axes; axis++) cells *= of->size[axis];
    /* The lanes are along the axis that leaves the fewest of them idle. */
    for (int64_t axis = 0; axis < of->axes; axis++) {
        const int64_t filled = cells / of->size[axis] * blocks(of->size[axis], LANES);
        if (filled <= idle) idle = filled, lanes = axis;
    }
    for (int i = 0; i < 3; i++) c->axis[i] = -1, c->size[i] = 1;
    for (int64_t axis = of->axes - 1; axis >= 0; step *= of->size[axis--]) {
        const int64_t to = axis == lanes ? 2 : --slot;
        c->axis[to] = axis, c->size[to] = of->size[axis], c->step[to] = step;
        memory += blocks(of->size[axis], LANES) * TD_VECTOR * (SUMS + 3);
    }
    const int64_t segments = blocks(c->size[1], BLOCK);
    c->height = blocks(c->size[1], segments);
    c->width = c->height > 4 ? 1 : c->height > 2 ? 2 : c->height > 1 ? 4 : 8;
    c->lines = blocks(c->size[1], c->height) * c->height;
    c->row = blocks(blocks(c->size[2], LANES), c->width) * c->width * LANES;
    c->batch = most(1, least(least(BATCH, of->kernels * of->count), BATCH_BYTES / memory));
    c->several = most(1, c->batch / most(1, of->count));
    if (c->several > 1) c->batch = c->several * of->count;
    c->group = 1 + 16384 / (cells + 32 * of->count);
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
