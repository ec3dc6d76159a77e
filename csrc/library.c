/* The library's entry: which instruction set, whose threads, what memory. */
#include <pthread.h>
#include <stdlib.h>

#include "torchdcls.h"

#ifdef _WIN32
#include <malloc.h>
#define EXPORT __declspec(dllexport)
#define aligned_alloc(alignment, bytes) _aligned_malloc(bytes, alignment)
#define free_aligned _aligned_free
#else
#define EXPORT __attribute__((visibility("default")))
#define free_aligned free
#endif

#ifdef __x86_64__
#define VARIANTS(X) X(avx512) X(avx2) X(sse2)
#else
#define VARIANTS(X) X(neon)
#endif
#define DECLARE(isa) extern const td_kernels td_##isa##_float, td_##isa##_double;
VARIANTS(DECLARE)

#define NAME(isa) {#isa, &td_##isa##_float, &td_##isa##_double},
static const struct {
    const char *name;
    const td_kernels *single, *twice;
} variants[] = {VARIANTS(NAME)};
enum { COUNT = sizeof variants / sizeof *variants };
static int chosen = -1;

static int runs(int variant) {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (variant == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    if (variant == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)variant;
    return 1;
}

/* Name of variant `index`, best first, or NULL beyond the last. */
EXPORT const char *td_variant(int index) { return index >= 0 && index < COUNT ? variants[index].name : NULL; }

/* Which TD_INTERFACE the library was compiled with. */
EXPORT int td_interface(void) { return TD_INTERFACE; }

/* Whether this processor runs variant `index`. */
EXPORT int td_variant_runs(int index) { return index >= 0 && index < COUNT && runs(index); }

/* Takes variant `index` from now on. */
EXPORT void td_choose(int index) { chosen = index; }

/* torch_parallel_for, or NULL for one thread. */
typedef int32_t (*torch_parallel)(int64_t, int64_t, int64_t, td_range, void *);
static torch_parallel torch_parallel_for;
EXPORT void td_set_parallel(torch_parallel function) { torch_parallel_for = function; }

void td_parallel(int64_t count, td_range function, void *context) {
    if (count > 1 && torch_parallel_for != NULL && torch_parallel_for(0, count, 1, function, context) == 0) return;
    if (count > 0) function(0, count, context);
}

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
typedef struct {
    void *memory[TD_USERS];
    size_t bytes[TD_USERS];
} pieces;

static void release(void *kept) {
    pieces *all = kept;
    for (int user = 0; user < TD_USERS; user++) free_aligned(all->memory[user]);
    free(all);
}

static void make_key(void) { pthread_key_create(&key, release); }

void *td_scratch(td_user user, size_t bytes) {
    pthread_once(&once, make_key);
    pieces *all = pthread_getspecific(key);
    if (all == NULL) {
        if ((all = calloc(1, sizeof *all)) == NULL) return NULL;
        pthread_setspecific(key, all);
    }
    if (all->bytes[user] < bytes) {
        free_aligned(all->memory[user]);
        all->bytes[user] = 0;
        bytes = (bytes + 4095) / 4096 * 4096;
        if ((all->memory[user] = aligned_alloc(4096, bytes)) == NULL) return NULL;
        all->bytes[user] = bytes;
    }
    return all->memory[user];
}

/* Frees what this thread keeps. */
EXPORT void td_clear(void) {
    pthread_once(&once, make_key);
    void *all = pthread_getspecific(key);
    if (all == NULL) return;
    pthread_setspecific(key, NULL);
    release(all);
}

static const td_kernels *kernels(int twice) { return twice ? variants[chosen].twice : variants[chosen].single; }

EXPORT int td_run(int twice, int method, int map, const td_problem *problem, const td_tensor *input,
                  const td_tensor *weight, const td_tensor *output) {
    for (int axis = 0; axis < 3; axis++)
        if (problem->map[axis] < 1 || problem->outputs[axis] < 1 || problem->kernel[axis] < 1 || problem->stride[axis] < 1)
            return TD_UNSUPPORTED;
    if (problem->batch < 0 || problem->channels < 0) return TD_UNSUPPORTED;
    if (problem->channels == 0) return TD_OK;
    return kernels(twice)->run(method, map, problem, input, weight, output);
}

/* How many operations a map takes: products by the direct method, additions and multiplications by spectra. */
EXPORT double td_count(int twice, int method, int map, const td_problem *problem) {
    return kernels(twice)->count(method, map, problem);
}

static int is_mixing(const td_mixing *p) {
    return p->batch > 0 && p->groups > 0 && p->in > 0 && p->out > 0 && p->map > 0 && p->outputs > 0 && p->kernel > 0;
}

EXPORT int td_mix(int twice, int map, const td_mixing *problem, const td_tensor *input, const td_tensor *weight,
                  const td_tensor *output) {
    return is_mixing(problem) ? kernels(twice)->mix(map, problem, input, weight, output) : TD_UNSUPPORTED;
}

/* Multiplications of the products over channels, or operations of the transforms. */
EXPORT double td_count_mixed(int twice, int map, const td_mixing *problem, int transforms) {
    return kernels(twice)->count_mixed(map, problem, transforms);
}

/* Delays beyond their range read what is not there. */
EXPORT int td_delay(int twice, const td_delays *delays) {
    if (delays->batch < 1 || delays->outputs < 1) return TD_OK;
    return kernels(twice)->delay(delays);
}

/* Dense kernels (kernels, *size) of elements. */
EXPORT int td_construct(int twice, const td_elements *elements, void *kernel) {
    return kernels(twice)->construct(elements, kernel);
}

/* Gradients of weight, position and sigma (NULL without sigma), from that of the kernels. */
EXPORT int td_construct_gradients(int twice, const td_elements *elements, const void *gradient, void *to_weight,
                                  void *to_position, void *to_sigma) {
    return kernels(twice)->construct_gradients(elements, gradient, to_weight, to_position, to_sigma);
}
