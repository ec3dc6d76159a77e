/* Rows that are delayed by whole steps, each by a delay of its own for each sum that it is in, and added up.
 *
 * A sample's rows are copied between zeros; then a few sums of a stretch of time stay in registers, while the rows go by.
 */
enum { SUMS_AT_ONCE = 4, STRETCH = 4 }; /* rows, and vectors of time */

typedef struct {
    const td_delays *of;
    int64_t row, parts, each; /* cells of a copied row; parts of the outputs, and how many each has */
    int failed;
} delay_call;

__attribute__((always_inline)) static inline void add_delayed(const delay_call *call, const real *rows, int64_t first,
                                                              int64_t start, real *to, const int sums, const int vectors) {
    const td_delays *of = call->of;
    const int64_t terms = of->in * of->count, left = least(vectors * LANES, of->outputs - start);
    const real *weight = (const real *)of->weight + first * terms;
    const int32_t *delay = of->delay + first * terms;
    vec sum[SUMS_AT_ONCE][STRETCH] = {0};
    const real *cells = rows + of->most + start;
    for (int64_t in = 0, term = 0; in < of->in; in++, cells += call->row)
        for (int64_t n = 0; n < of->count; n++, term++)
            for (int s = 0; s < sums; s++) {
                const vec factor = spread(weight[s * terms + term]);
                const real *from = cells - delay[s * terms + term];
                for (int v = 0; v < vectors; v++) sum[s][v] += factor * *(const loose *)(from + v * LANES);
            }
    for (int s = 0; s < sums; s++) memcpy(to + s * of->outputs + start, sum[s], (size_t)left * sizeof(real));
}

static void delay_range(int64_t begin, int64_t end, void *context) {
    delay_call *call = context;
    const td_delays *of = call->of;
    real *rows = td_scratch(TD_TASK, (size_t)(of->in * call->row) * sizeof(real));
    if (rows == NULL) {
        call->failed = 1;
        return;
    }
    for (int64_t task = begin; task < end; task++) {
        const int64_t sample = task / call->parts, part = task % call->parts;
        for (int64_t in = 0; in < of->in; in++) {
            real *to = rows + in * call->row;
            memset(to, 0, (size_t)call->row * sizeof(real));
            memcpy(to + of->most, (const real *)of->input + (sample * of->in + in) * of->time,
                   (size_t)least(of->time, of->outputs) * sizeof(real));
        }
        const int64_t last = least(of->out, (part + 1) * call->each);
        for (int64_t start = 0; start < of->outputs; start += STRETCH * LANES) {
            const int64_t vectors = least(STRETCH, blocks(of->outputs - start, LANES));
            for (int64_t out = part * call->each, sums; out < last; out += sums) {
                real *to = (real *)of->output + (sample * of->out + out) * of->outputs;
                sums = last - out >= SUMS_AT_ONCE ? SUMS_AT_ONCE : 1;
                switch (vectors * (sums > 1 ? 1 : -1)) {
#define CASE(n) \
    case n: add_delayed(call, rows, out, start, to, SUMS_AT_ONCE, n); break; \
    case -n: add_delayed(call, rows, out, start, to, 1, n); break;
                    CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
                }
            }
        }
    }
}

static int delay(const td_delays *of) {
    delay_call call = {.of = of, .row = of->most + blocks(of->outputs, LANES) * LANES};
    /* Few samples share their outputs among threads; each part copies the rows. */
    call.parts = most(1, least(of->out / 16, 16 / of->batch));
    call.each = blocks(blocks(of->out, call.parts), SUMS_AT_ONCE) * SUMS_AT_ONCE;
    call.parts = blocks(of->out, call.each);
    td_parallel(of->batch * call.parts, delay_range, &call);
    return call.failed ? TD_NO_MEMORY : TD_OK;
}
