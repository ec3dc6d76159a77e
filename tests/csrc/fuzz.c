/* Random problems for the compiled kernels, against plain loops in double: `fuzz PROBLEMS [SEED]`.
 *
 * A tensor has exactly the memory that its sizes and strides span, between two pages that nobody may touch; under
 * AddressSanitizer in a piece of heap of its own. What lies between its elements has to stay as it was. Tasks of a call
 * are divided among threads of their own, which leave their memory behind for LeakSanitizer.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torchdcls.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__
#endif
#endif
#if !defined(_WIN32) && !defined(__SANITIZE_ADDRESS__)
#define GUARDED
#include <sys/mman.h>
#include <unistd.h>
#endif

const char *td_variant(int index);
int td_variant_runs(int index);
void td_choose(int index);
void td_set_parallel(int32_t (*)(int64_t, int64_t, int64_t, td_range, void *));
void td_clear(void);
int td_run(int twice, int method, int map, const td_problem *, const td_tensor *input, const td_tensor *weight,
           const td_tensor *output);
int td_mix(int twice, int map, const td_mixing *, const td_tensor *input, const td_tensor *weight,
           const td_tensor *output);
int td_delay(int twice, const td_delays *);
int td_construct(int twice, const td_elements *, void *kernel);
int td_construct_gradients(int twice, const td_elements *, const void *gradient, void *to_weight, void *to_position,
                           void *to_sigma);

/* --- Chance ------------------------------------------------------------------------------------------------------ */

static uint64_t state;

static uint64_t chance(uint64_t below) {
    uint64_t bits = state += 0x9e3779b97f4a7c15u;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    return ((bits ^ (bits >> 31)) >> 11) % below;
}

static int64_t between(int64_t low, int64_t high) { return low + (int64_t)chance((uint64_t)(high - low + 1)); }

/* --- Threads ----------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t begin, end;
    td_range function;
    void *context;
} part;

static void *run_part(void *given) {
    part *all = given;
    all->function(all->begin, all->end, all->context);
    return NULL;
}

static int pieces;

static int32_t in_threads(int64_t begin, int64_t end, int64_t grain, td_range function, void *context) {
    (void)grain;
    pthread_t threads[3];
    part parts[3];
    for (int i = 0; i < pieces; i++) {
        const int64_t count = end - begin;
        parts[i] = (part){begin + count * i / pieces, begin + count * (i + 1) / pieces, function, context};
        if (pthread_create(&threads[i], NULL, run_part, &parts[i])) abort();
    }
    for (int i = 0; i < pieces; i++) pthread_join(threads[i], NULL);
    return 0;
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

static const char *const DTYPES[] = {"float32", "float64", "bfloat16", "float16"};
static const int64_t BYTES[] = {4, 8, 2, 2};
/* What a result may be off, in the norm, of the sums of its products' sizes: of signs that cancel less is left. */
static const double ROUNDING[] = {5e-7, 1e-15, 4e-3, 6e-4};

typedef struct {
    td_tensor is;
    int64_t size[5], bytes;
    char *pages;
    size_t mapped;
} tensor;

static int64_t cells(const tensor *t) { return t->size[0] * t->size[1] * t->size[2] * t->size[3] * t->size[4]; }

/* Where element `index` of the order (batch, channel, z, y, x) lies. */
static int64_t place(const tensor *t, int64_t index) {
    int64_t at = 0;
    for (int i = 4; i >= 0; i--) {
        at += index % t->size[i] * t->is.stride[i];
        index /= t->size[i];
    }
    return at;
}

static double get(const tensor *t, int64_t index) {
    const char *from = (const char *)t->is.data + place(t, index) * BYTES[t->is.dtype];
    double twice;
    float single;
    uint16_t half;
    switch (t->is.dtype) {
    case TD_FLOAT64: return memcpy(&twice, from, 8), twice;
    case TD_FLOAT32: return memcpy(&single, from, 4), single;
    }
    memcpy(&half, from, 2);
    if (t->is.dtype == TD_BFLOAT16) {
        const uint32_t bits = (uint32_t)half << 16;
        return memcpy(&single, &bits, 4), single;
    }
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double size = exponent == 31  ? NAN
                        : exponent == 0 ? ldexp(fraction, -24)
                                        : ldexp(1024 + fraction, exponent - 25);
    return half >> 15 ? -size : size;
}

/* A number of few digits, the same in every type. */
static void put(tensor *t, int64_t index, double value) {
    char *to = (char *)t->is.data + place(t, index) * BYTES[t->is.dtype];
    const float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, 4);
    uint16_t half = (uint16_t)(bits >> 16);
    if (t->is.dtype == TD_FLOAT16)
        half = (uint16_t)((bits >> 16 & 0x8000) | (value == 0 ? 0 : ((bits >> 13) - (112 << 10)) & 0x7fff));
    switch (t->is.dtype) {
    case TD_FLOAT64: memcpy(to, &value, 8); break;
    case TD_FLOAT32: memcpy(to, &single, 4); break;
    default: memcpy(to, &half, 2);
    }
}

static void make_memory(tensor *t) {
#ifdef GUARDED
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = ((size_t)t->bytes + page - 1) / page * page;
    t->mapped = inside + 2 * page;
    t->pages = mmap(NULL, t->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->pages == MAP_FAILED || (inside && mprotect(t->pages + page, inside, PROT_READ | PROT_WRITE))) abort();
    t->is.data = t->pages + page + (chance(2) ? 0 : inside - (size_t)t->bytes); /* at one end or at the other */
#else
    t->is.data = t->pages = malloc((size_t)t->bytes);
    if (t->pages == NULL && t->bytes) abort();
#endif
    if (t->bytes) memset(t->is.data, 0xff, (size_t)t->bytes); /* NaN in every type */
}

static void drop_memory(tensor *t) {
#ifdef GUARDED
    munmap(t->pages, t->mapped);
#else
    free(t->pages);
#endif
}

/* A tensor of axes in any order in memory, perhaps with room between them, and some maybe repeated if it is read. */
static tensor make_tensor(const int64_t *size, int64_t dtype, int read) {
    static const int FORMATS[3][5] = {{4, 3, 2, 1, 0}, {1, 4, 3, 2, 0}, {2, 1, 0, 4, 3}}; /* innermost first */
    tensor t = {.is.dtype = dtype};
    memcpy(t.size, size, sizeof t.size);
    const int *order = FORMATS[chance(5) * 3 / 5];
    int64_t step = chance(6) ? 1 : 2, last = 0;
    for (int i = 0; i < 5; i++) {
        const int axis = order[i];
        const int repeated = read && chance(12) == 0;
        t.is.stride[axis] = repeated ? 0 : step;
        if (repeated) continue;
        last += (size[axis] - 1) * step;
        step = step * size[axis] + (chance(6) ? 0 : between(1, 3));
    }
    t.bytes = cells(&t) ? (last + 1) * BYTES[dtype] : 0;
    make_memory(&t);
    if (read)
        for (int64_t i = 0; i < cells(&t); i++) put(&t, i, (double)between(-127, 127) / 128);
    return t;
}

/* --- Problems ---------------------------------------------------------------------------------------------------- */

typedef struct {
    td_problem is;
    int strided, outside; /* whether a stride is not 1; whether there is more padding than a tap meets a cell from */
} problem;

static problem draw(void) {
    static const int64_t MOST[] = {60, 12, 6}, CHANNELS[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 33};
    const int long_one = chance(6) == 0, axes = (int)between(1, 3), far = chance(8) == 0, strides = (int)chance(2);
    problem p = {.is.batch = between(chance(10) ? 1 : 0, 3), .is.channels = CHANNELS[chance(long_one ? 3 : 10)]};
    for (int i = 0; i < 3; i++) {
        const int used = i >= 3 - axes, longest = long_one && i == 3 - axes;
        const int64_t most = !used ? 1 : longest ? (axes == 1 ? 3000 : 300) : long_one ? 5 : MOST[axes - 1];
        const int64_t map = between(1, most), kernel = between(1, longest ? 40 : most);
        const int64_t step = used && strides ? between(1, 3) : 1, padding = kernel - 1 + (used && far ? 3 : 0);
        int64_t before = between(0, padding), after = between(0, padding);
        if (map + before + after < kernel) before = after = kernel - 1;
        p.is.map[i] = map, p.is.kernel[i] = kernel, p.is.stride[i] = step, p.is.before[i] = before;
        p.is.outputs[i] = (map + before + after - kernel) / step + 1;
        p.strided |= step > 1;
        /* A stride leaves cells behind the last output: what counts is which outputs there are. */
        p.outside |= before >= kernel || p.is.outputs[i] - map - before + kernel - 1 >= kernel;
    }
    return p;
}

/* A cell of a result: the sum of its products, and the sum of their sizes. */
typedef struct {
    double sum, size;
} cell;

static void add(cell *to, double product) { to->sum += product, to->size += fabs(product); }

/* All three results, one after the other: output, gradient of the input, gradient of the weight. */
static cell *expected(const problem *given, const tensor *input, const tensor *weight, const tensor *gradient) {
    const td_problem *p = &given->is;
    const int64_t outputs = cells(gradient), inputs = cells(input), channels = p->channels;
    cell *made = calloc((size_t)(outputs + inputs + cells(weight)) + 1, sizeof *made);
    if (made == NULL) abort();
    cell *taken = made + outputs, *learned = taken + inputs;
    int64_t at = 0;
    for (int64_t n = 0; n < p->batch; n++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t oz = 0; oz < p->outputs[0]; oz++)
                for (int64_t oy = 0; oy < p->outputs[1]; oy++)
                    for (int64_t ox = 0; ox < p->outputs[2]; ox++, at++) {
                        const double g = get(gradient, at);
                        int64_t tap = c * p->kernel[0] * p->kernel[1] * p->kernel[2];
                        for (int64_t kz = 0; kz < p->kernel[0]; kz++)
                            for (int64_t ky = 0; ky < p->kernel[1]; ky++)
                                for (int64_t kx = 0; kx < p->kernel[2]; kx++, tap++) {
                                    const int64_t z = oz * p->stride[0] + kz - p->before[0];
                                    const int64_t y = oy * p->stride[1] + ky - p->before[1];
                                    const int64_t x = ox * p->stride[2] + kx - p->before[2];
                                    if (z < 0 || y < 0 || x < 0 || z >= p->map[0] || y >= p->map[1] || x >= p->map[2])
                                        continue;
                                    const int64_t plane = (n * channels + c) * p->map[0] + z;
                                    const int64_t from = (plane * p->map[1] + y) * p->map[2] + x;
                                    add(&made[at], get(input, from) * get(weight, tap));
                                    add(&taken[from], g * get(weight, tap));
                                    add(&learned[tap], g * get(input, from));
                                }
                    }
    return made;
}

static void describe(const char *what, const tensor *t) {
    printf("  %s: %s, sizes", what, DTYPES[t->is.dtype]);
    for (int i = 0; i < 5; i++) printf(" %lld", (long long)t->size[i]);
    printf(", strides");
    for (int i = 0; i < 5; i++) printf(" %lld", (long long)t->is.stride[i]);
    printf("\n");
}

static const char *const METHODS[] = {"direct", "fft"}, *const MAPS[] = {"convolve", "transpose", "correlate"};

static double norm(const tensor *t) {
    double squares = 0;
    for (int64_t i = 0; i < cells(t); i++) squares += get(t, i) * get(t, i);
    return sqrt(squares);
}

/* Whether a result is as expected, but for `relative` of the sizes and `absolute`, and nothing else was written. */
static int agrees(const tensor *result, const cell *right, double relative, double absolute) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < cells(result); i++) {
        const double off = get(result, i) - right[i].sum;
        error += off * off, size += right[i].size * right[i].size;
    }
    error = sqrt(error), size = sqrt(size);
    if (!(error <= relative * size + absolute)) {
        printf("an error of %g of %g\n", error, size);
        return 0;
    }
    for (int64_t i = 0; i < cells(result); i++)
        memset((char *)result->is.data + place(result, i) * BYTES[result->is.dtype], 0xff, (size_t)BYTES[result->is.dtype]);
    for (int64_t i = 0; i < result->bytes; i++)
        if (((unsigned char *)result->is.data)[i] != 0xff) {
            printf("something between its elements was written\n");
            return 0;
        }
    return 1;
}

static int try_problem(void) {
    const problem p = draw();
    const int64_t *m = p.is.map, *o = p.is.outputs, *k = p.is.kernel;
    const int64_t sizes[3][5] = {{p.is.batch, p.is.channels, m[0], m[1], m[2]},
                                 {1, p.is.channels, k[0], k[1], k[2]},
                                 {p.is.batch, p.is.channels, o[0], o[1], o[2]}}; /* input, weight, output */
    const int twice = chance(3) == 0, mixed = chance(4) == 0;
    const int64_t one = twice ? TD_FLOAT64 : (int64_t[]){TD_FLOAT32, TD_FLOAT32, TD_BFLOAT16, TD_FLOAT16}[chance(4)];
    tensor read[3], written[3];
    for (int i = 0; i < 3; i++) {
        read[i] = make_tensor(sizes[i], mixed ? (int64_t)chance(4) : one, 1);
        written[i] = make_tensor(sizes[i], mixed ? (int64_t)chance(4) : one, 0);
    }
    cell *right = expected(&p, &read[0], &read[1], &read[2]);
    const cell *results[3] = {right + cells(&read[2]), right + cells(&read[2]) + cells(&read[0]), right};
    const double norms[3] = {norm(&read[0]), norm(&read[1]), norm(&read[2])};
    pieces = (int)between(1, 3);
    int failed = 0;
    for (int variant = 0; td_variant(variant) != NULL && !failed; variant++) {
        if (!td_variant_runs(variant)) continue;
        td_choose(variant);
        for (int method = TD_DIRECT; method <= TD_FFT && !failed; method++)
            for (int map = TD_CONVOLVE; map <= TD_CORRELATE && !failed; map++) {
                const int result = (int[]){2, 0, 1}[map]; /* which of input, weight and output it writes */
                const td_tensor *call[3];
                for (int i = 0; i < 3; i++) call[i] = i == result ? &written[i].is : &read[i].is;
                const int said = td_run(twice, method, map, &p.is, call[0], call[1], call[2]);
                if (method == TD_FFT && (p.strided || p.outside)) {
                    failed = said != TD_UNSUPPORTED;
                    if (failed) printf("expected %d, got %d\n", TD_UNSUPPORTED, said);
                } else if (said != TD_OK) {
                    failed = printf("expected %d, got %d\n", TD_OK, said);
                } else {
                    /* Of spectra, cells and taps that meet nothing leave their rounding too. */
                    const double own = ROUNDING[twice ? TD_FLOAT64 : TD_FLOAT32];
                    const double spread = own * norms[(result + 1) % 3] * norms[(result + 2) % 3];
                    failed = !agrees(&written[result], results[result], fmax(own, ROUNDING[written[result].is.dtype]),
                                     method == TD_FFT ? spread : 0);
                }
                if (failed)
                    printf("  %s, %s, %s, %s arithmetic\n", td_variant(variant), METHODS[method], MAPS[map], DTYPES[twice]);
            }
    }
    if (failed) {
        printf("  stride %lld %lld %lld, before %lld %lld %lld\n", (long long)p.is.stride[0], (long long)p.is.stride[1],
               (long long)p.is.stride[2], (long long)p.is.before[0], (long long)p.is.before[1], (long long)p.is.before[2]);
        for (int i = 0; i < 3; i++) describe((const char *[]){"input", "weight", "output"}[i], &read[i]);
        for (int i = 0; i < 3; i++) describe((const char *[]){"input's", "weight's", "output's"}[i], &written[i]);
    }
    for (int i = 0; i < 3; i++) drop_memory(&read[i]), drop_memory(&written[i]);
    free(right);
    return failed;
}

/* --- Elements ---------------------------------------------------------------------------------------------------- */

enum { WEIGHT, POSITION, SIGMA, KERNEL, ELEMENT_TENSORS };

static tensor make_row(int64_t count, int64_t dtype) {
    tensor t = {.is = {.stride = {0, 0, 0, 0, 1}, .dtype = dtype}, .size = {1, 1, 1, 1, count}, .bytes = count * BYTES[dtype]};
    make_memory(&t);
    return t;
}

/* The profile, its derivative, and the scale of an element along an axis. */
static double profile(const td_elements *of, double u) {
    return of->profile == TD_GAUSSIAN ? exp(-u * u / 2) : fmax(0, 1 - fabs(u));
}

static double slope(const td_elements *of, double u) {
    return of->profile == TD_GAUSSIAN ? -u * exp(-u * u / 2) : fabs(u) < 1 ? (u < 0) - (u > 0) : 0;
}

/* By the definition: all of a kernel's cells for each element, its kernel first and then its gradients. */
static void expect_element(const td_elements *of, const tensor *read, int64_t kernel, int64_t element, cell **made) {
    const int64_t elements = of->kernels * of->count, at = kernel * of->count + element;
    int64_t cells = 1, order[3] = {1, 1, 1};
    for (int64_t axis = of->axes - 1; axis >= 0; axis--) order[axis] = cells, cells *= of->size[axis];
    const double weight = get(&read[WEIGHT], at);
    double mass = of->epsilon, level = 0, rough = 0, u[3], scale[3];
    for (int pass = 0; pass < 3; pass++) /* the mass; the kernel and the gradient of the weight; the others */
        for (int64_t i = 0; i < cells; i++) {
            double factor = 1, derivative[3] = {1, 1, 1};
            for (int64_t axis = 0; axis < of->axes; axis++) {
                const double sigma = of->sigma == NULL ? 0 : get(&read[SIGMA], axis * elements + at);
                scale[axis] = of->smallest_scale + fabs(sigma);
                const int64_t place = i / order[axis] % of->size[axis] - of->size[axis] / 2;
                u[axis] = ((double)place - get(&read[POSITION], axis * elements + at)) / scale[axis];
                for (int64_t other = 0; other < of->axes; other++)
                    derivative[other] *= other == axis ? slope(of, u[axis]) : profile(of, u[axis]);
                factor *= profile(of, u[axis]);
            }
            const double gradient = get(&read[KERNEL], kernel * cells + i);
            if (pass == 0) mass += factor;
            if (pass == 1) {
                add(&made[KERNEL][kernel * cells + i], weight / mass * factor);
                add(&made[WEIGHT][at], gradient * factor / mass);
                level += gradient * factor / mass, rough += fabs(gradient) * factor / mass;
            }
            for (int64_t axis = 0; pass == 2 && axis < of->axes; axis++) {
                const double along = weight / mass * derivative[axis] / -scale[axis];
                const double sign = of->sigma != NULL && get(&read[SIGMA], axis * elements + at) < 0 ? -1 : 1;
                cell *const to[] = {&made[POSITION][axis * elements + at], &made[SIGMA][axis * elements + at]};
                for (int which = 0; which < (of->sigma == NULL ? 1 : 2); which++) {
                    const double times = along * (which ? u[axis] * sign : 1);
                    to[which]->sum += (gradient - level) * times;
                    to[which]->size += (fabs(gradient) + rough) * fabs(times);
                }
            }
        }
}

static int try_elements(void) {
    static const int64_t MOST[] = {200, 30, 9};
    const int twice = chance(3) == 0;
    td_elements e = {.profile = (int64_t)chance(2), .kernels = between(0, chance(8) ? 5 : 70), .axes = between(1, 3),
                     .count = between(1, chance(8) ? 5 : 70), .smallest_scale = 0.25 + 0.25 * (double)chance(4),
                     .epsilon = 1e-7};
    const int64_t elements = e.kernels * e.count, dtype = twice ? TD_FLOAT64 : TD_FLOAT32;
    int64_t all = e.kernels;
    for (int64_t axis = 0; axis < e.axes; axis++) all *= e.size[axis] = between(1, MOST[e.axes - 1]);
    const int64_t counts[] = {elements, e.axes * elements, e.axes * elements, all};
    tensor read[ELEMENT_TENSORS], written[ELEMENT_TENSORS];
    cell *right[ELEMENT_TENSORS];
    for (int i = 0; i < ELEMENT_TENSORS; i++) {
        read[i] = make_row(counts[i], dtype), written[i] = make_row(counts[i], dtype);
        right[i] = calloc((size_t)counts[i] + 1, sizeof **right);
        if (right[i] == NULL) abort();
        for (int64_t at = 0; at < counts[i]; at++) {
            /* Positions are odd, and scales even: no cell is at a kink of the triangle. */
            const int64_t size = e.size[i == POSITION ? at / elements : 0], reach = 64 * (size + 2);
            const int64_t number = i == POSITION ? 2 * between(-reach, reach) + 1 : 2 * between(-127, 127);
            put(&read[i], at, (double)number / 256);
        }
    }
    if (chance(2)) e.sigma = read[SIGMA].is.data;
    e.weight = read[WEIGHT].is.data, e.position = read[POSITION].is.data;
    for (int64_t kernel = 0; kernel < e.kernels; kernel++)
        for (int64_t element = 0; element < e.count; element++) expect_element(&e, read, kernel, element, right);
    pieces = (int)between(1, 3);
    int failed = 0;
    for (int variant = 0; td_variant(variant) != NULL && !failed; variant++) {
        if (!td_variant_runs(variant)) continue;
        td_choose(variant);
        failed = td_construct(twice, &e, written[KERNEL].is.data) |
                 td_construct_gradients(twice, &e, read[KERNEL].is.data, written[WEIGHT].is.data,
                                        written[POSITION].is.data, e.sigma == NULL ? NULL : written[SIGMA].is.data);
        /* A factor is off by its distance squared, in rounding units. */
        for (int i = 0; i < ELEMENT_TENSORS && !failed; i++)
            if (i != SIGMA || e.sigma != NULL) failed = !agrees(&written[i], right[i], 20 * ROUNDING[dtype], 1e-25);
        if (failed) printf("  %s, %s\n", td_variant(variant), DTYPES[dtype]);
    }
    if (failed)
        printf("  profile %lld, %lld kernels of %lld elements, %lld axes of %lld %lld %lld, %s sigma\n",
               (long long)e.profile, (long long)e.kernels, (long long)e.count, (long long)e.axes, (long long)e.size[0],
               (long long)e.size[1], (long long)e.size[2], e.sigma == NULL ? "no" : "with");
    for (int i = 0; i < ELEMENT_TENSORS; i++) drop_memory(&read[i]), drop_memory(&written[i]), free(right[i]);
    return failed;
}

/* --- Mixed channels ---------------------------------------------------------------------------------------------- */

static int try_mixing(void) {
    const int twice = chance(3) == 0, far = chance(10) == 0;
    const int64_t kernel = between(1, 30), map = between(1, chance(6) ? 60 : 600), padding = kernel - 1 + (far ? 3 : 0);
    int64_t before = between(0, padding), after = between(0, padding);
    if (map + before + after < kernel) before = after = kernel - 1;
    const td_mixing p = {.batch = between(1, 3), .groups = between(1, 3), .in = between(1, chance(4) ? 9 : 40),
                         .out = between(1, chance(4) ? 9 : 40), .map = map, .outputs = map + before + after - kernel + 1,
                         .kernel = kernel, .before = before};
    const int64_t dtype = twice ? TD_FLOAT64 : TD_FLOAT32;
    const int64_t sizes[3][5] = {{p.batch, p.groups * p.in, 1, 1, map},
                                 {p.groups * p.out, p.in, 1, 1, kernel},
                                 {p.batch, p.groups * p.out, 1, 1, p.outputs}}; /* input, weight, output */
    tensor read[3], written[3];
    cell *right[3];
    for (int i = 0; i < 3; i++) {
        read[i] = make_tensor(sizes[i], dtype, 1), written[i] = make_tensor(sizes[i], dtype, 0);
        right[i] = calloc((size_t)cells(&read[i]), sizeof **right);
        if (right[i] == NULL) abort();
    }
    for (int64_t n = 0; n < p.batch; n++)
        for (int64_t o = 0; o < p.groups * p.out; o++)
            for (int64_t i = 0; i < p.in; i++)
                for (int64_t t = 0; t < p.outputs; t++)
                    for (int64_t k = 0; k < kernel; k++) {
                        const int64_t x = t + k - before, row = n * p.groups * p.in + o / p.out * p.in + i;
                        if (x < 0 || x >= map) continue;
                        const int64_t at[3] = {row * map + x, (o * p.in + i) * kernel + k,
                                               (n * p.groups * p.out + o) * p.outputs + t};
                        for (int j = 0; j < 3; j++) {
                            const int one = (j + 1) % 3, other = (j + 2) % 3;
                            add(&right[j][at[j]], get(&read[one], at[one]) * get(&read[other], at[other]));
                        }
                    }
    const int outside = before >= kernel || after >= kernel;
    const double norms[3] = {norm(&read[0]), norm(&read[1]), norm(&read[2])};
    pieces = (int)between(1, 3);
    int failed = 0;
    for (int variant = 0; td_variant(variant) != NULL && !failed; variant++) {
        if (!td_variant_runs(variant)) continue;
        td_choose(variant);
        for (int way = TD_CONVOLVE; way <= TD_CORRELATE && !failed; way++) {
            const int result = (int[]){2, 0, 1}[way];
            const td_tensor *call[3];
            for (int i = 0; i < 3; i++) call[i] = i == result ? &written[i].is : &read[i].is;
            const int said = td_mix(twice, way, &p, call[0], call[1], call[2]), wanted = outside ? TD_UNSUPPORTED : TD_OK;
            const double spread = ROUNDING[dtype] * norms[(result + 1) % 3] * norms[(result + 2) % 3];
            if (said != wanted) failed = printf("expected %d, got %d\n", wanted, said);
            else if (said == TD_OK) failed = !agrees(&written[result], right[result], ROUNDING[dtype], spread);
            if (failed) printf("  %s, mixed %s\n", td_variant(variant), MAPS[way]);
        }
    }
    if (failed) printf("  %lld groups, padding %lld and %lld\n", (long long)p.groups, (long long)before, (long long)after);
    for (int i = 0; i < 3; i++) {
        if (failed) describe((const char *[]){"input", "weight", "output"}[i], &read[i]);
        drop_memory(&read[i]), drop_memory(&written[i]), free(right[i]);
    }
    return failed;
}

/* --- Delays ------------------------------------------------------------------------------------------------------ */

static int try_delays(void) {
    const int twice = chance(3) == 0;
    const int64_t dtype = twice ? TD_FLOAT64 : TD_FLOAT32;
    td_delays d = {.batch = between(0, chance(4) ? 3 : 40), .in = between(1, 20), .out = between(1, chance(4) ? 9 : 140),
                   .count = between(1, 3), .time = between(1, 50), .most = between(0, 30)};
    d.outputs = d.time + between(0, d.most);
    const int64_t synapses = d.out * d.in * d.count;
    tensor input = make_row(d.batch * d.in * d.time, dtype), weight = make_row(synapses, dtype);
    tensor delay = make_row(synapses, TD_FLOAT32), output = make_row(d.batch * d.out * d.outputs, dtype);
    cell *right = calloc((size_t)cells(&output) + 1, sizeof *right);
    if (right == NULL) abort();
    for (int64_t i = 0; i < cells(&input); i++) put(&input, i, (double)between(-127, 127) / 128);
    for (int64_t i = 0; i < synapses; i++) {
        put(&weight, i, (double)between(-127, 127) / 128);
        ((int32_t *)delay.is.data)[i] = (int32_t)between(0, d.most);
    }
    for (int64_t n = 0; n < d.batch; n++)
        for (int64_t s = 0; s < synapses; s++)
            for (int64_t t = 0; t < d.time; t++) {
                const int64_t at = t + ((int32_t *)delay.is.data)[s], out = s / d.count / d.in, in = s / d.count % d.in;
                if (at < d.outputs)
                    add(&right[(n * d.out + out) * d.outputs + at],
                        get(&weight, s) * get(&input, (n * d.in + in) * d.time + t));
            }
    d.input = input.is.data, d.weight = weight.is.data, d.delay = delay.is.data, d.output = output.is.data;
    pieces = (int)between(1, 3);
    int failed = 0;
    for (int variant = 0; td_variant(variant) != NULL && !failed; variant++) {
        if (!td_variant_runs(variant)) continue;
        td_choose(variant);
        failed = td_delay(twice, &d) || !agrees(&output, right, ROUNDING[dtype], 0);
        if (failed)
            printf("  %s, %lld samples of %lld steps, %lld to %lld by %lld delays of at most %lld\n", td_variant(variant),
                   (long long)d.batch, (long long)d.time, (long long)d.in, (long long)d.out, (long long)d.count,
                   (long long)d.most);
    }
    drop_memory(&input), drop_memory(&weight), drop_memory(&delay), drop_memory(&output), free(right);
    return failed;
}

int main(int count, char **arguments) {
    const uint64_t problems = count > 1 ? strtoull(arguments[1], NULL, 10) : 100;
    const uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 10) : 0;
    td_set_parallel(in_threads);
    for (uint64_t number = 0; number < problems; number++) {
        state = seed + (number << 32); /* a problem does not depend on those before */
        if (try_problem() || try_elements() || (number % 4 == 0 && (try_mixing() || try_delays()))) {
            printf("problem %llu of seed %llu\n", (unsigned long long)number, (unsigned long long)seed);
            return 1;
        }
    }
    td_clear();
    for (int variant = 0; td_variant(variant) != NULL; variant++)
        if (td_variant_runs(variant)) printf("%s ", td_variant(variant));
    printf("agree on %llu problems\n", (unsigned long long)problems);
    return 0;
}
