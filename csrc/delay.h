/* Rows that are delayed by whole steps, each by a delay of its own for each sum that it is in, and added up.
 *
 * A lane is a segment of a sample's time, so that every delay is by whole vectors. Rows are copied so, with what is
 * before a segment; then the sums of a few steps stay in registers, while a block of rows that stays in cache goes by.
 */
enum { SEGMENTS = 64, MOST_STEPS = TD_VECTOR == 64 ? 12 : 8 }; /* lanes to be filled; sums in registers */
enum { OUT_BLOCK = 64, ROW_BYTES = 1 << 15 };                  /* sums of a task; rows that stay in cache */

typedef struct {
    const td_delays *of;
    int64_t segments, length, row;     /* of a sample; steps of a segment; steps of a copied row */
    int64_t units, steps, chunks;      /* vectors of segments; steps that are summed at once, how often */
    vec *rows;                         /* (unit, in, row) */
    int failed;
} delay_call;

static void copy_rows_range(int64_t begin, int64_t end, void *context) {
    const delay_call *call = context;
    const td_delays *of = call->of;
    for (int64_t task = begin; task < end; task++) {
        const int64_t unit = task / of->in, in = task % of->in;
        real *to = (real *)(call->rows + task * call->row);
        memset(to, 0, (size_t)call->row * sizeof(vec));
        for (int64_t lane = 0; lane < LANES; lane++) {
            const int64_t segment = unit * LANES + lane, sample = segment / call->segments;
            if (sample >= of->batch) break;
            const int64_t start = segment % call->segments * call->length - of->most;
            const int64_t first = most(0, -start), last = least(call->row, of->time - start);
            const real *from = (const real *)of->input + (sample * of->in + in) * of->time + start;
            for (int64_t step = first; step < last; step++) to[step * LANES + lane] = from[step];
        }
    }
}

__attribute__((always_inline)) static inline void add_rows(const td_delays *of, const vec *rows, int64_t row,
                                                           int64_t first, int64_t last, const real *weight,
                                                           const int32_t *delay, vec *sums, const int steps) {
    vec sum[MOST_STEPS];
    for (int i = 0; i < steps; i++) sum[i] = sums[i];
    for (int64_t in = first; in < last; in++, rows += row)
        for (int64_t term = in * of->count; term < (in + 1) * of->count; term++) {
            const vec factor = spread(weight[term]), *cells = rows - delay[term];
            __asm__("" : "+r"(cells)); /* or compilers work out each of the next addresses anew */
            for (int i = 0; i < steps; i++) sum[i] += factor * cells[i];
        }
    for (int i = 0; i < steps; i++) sums[i] = sum[i];
}

static void store_sums(const delay_call *call, const vec *sums, int64_t unit, int64_t out, int64_t step) {
    const td_delays *of = call->of;
    for (int64_t lane = 0; lane < LANES; lane++) {
        const int64_t segment = unit * LANES + lane, sample = segment / call->segments;
        if (sample >= of->batch) break;
        const int64_t start = segment % call->segments * call->length + step;
        const int64_t count = least(least(call->steps, call->length - step), of->outputs - start);
        real *to = (real *)of->output + (sample * of->out + out) * of->outputs + start;
        for (int64_t i = 0; i < count; i++) to[i] = ((const real *)sums)[i * LANES + lane];
    }
}

static void delay_range(int64_t begin, int64_t end, void *context) {
    delay_call *call = context;
    const td_delays *of = call->of;
    const int64_t parts = blocks(of->out, OUT_BLOCK), terms = of->in * of->count;
    const int64_t block = most(1, ROW_BYTES / TD_VECTOR / (of->most + call->steps));
    vec *sums = td_scratch(TD_TASK, OUT_BLOCK * MOST_STEPS * sizeof(vec));
    if (sums == NULL) {
        call->failed = 1;
        return;
    }
    for (int64_t task = begin; task < end; task++) {
        const int64_t part = task % parts, step = task / parts % call->chunks * call->steps;
        const int64_t unit = task / parts / call->chunks, start = part * OUT_BLOCK;
        const int64_t outs = least(OUT_BLOCK, of->out - start);
        memset(sums, 0, OUT_BLOCK * MOST_STEPS * sizeof(vec));
        for (int64_t in = 0; in < of->in; in += block) {
            const int64_t last = least(of->in, in + block);
            const vec *rows = call->rows + (unit * of->in + in) * call->row + of->most + step;
            for (int64_t out = 0; out < outs; out++) {
                const real *weight = (const real *)of->weight + (start + out) * terms;
                const int32_t *delay = of->delay + (start + out) * terms;
                vec *to = sums + out * MOST_STEPS;
                switch (call->steps) {
#define CASE(n) \
    case n: add_rows(of, rows, call->row, in, last, weight, delay, to, n); break;
                    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#if TD_VECTOR == 64
                    CASE(9) CASE(10) CASE(11) CASE(12)
#endif
#undef CASE
                }
            }
        }
        for (int64_t out = 0; out < outs; out++) store_sums(call, sums + out * MOST_STEPS, unit, start + out, step);
    }
}

static int delay(const td_delays *of) {
    delay_call call = {.of = of};
    call.segments = least(of->outputs, blocks(SEGMENTS, of->batch));
    call.length = blocks(of->outputs, call.segments);
    call.segments = blocks(of->outputs, call.length);
    call.units = blocks(of->batch * call.segments, LANES);
    call.chunks = blocks(call.length, MOST_STEPS);
    call.steps = blocks(call.length, call.chunks);
    call.row = of->most + call.chunks * call.steps;
    call.rows = td_scratch(TD_CALL, (size_t)(call.units * of->in * call.row) * sizeof(vec));
    if (call.rows == NULL) return TD_NO_MEMORY;
    td_parallel(call.units * of->in, copy_rows_range, &call);
    td_parallel(call.units * call.chunks * blocks(of->out, OUT_BLOCK), delay_range, &call);
    return call.failed ? TD_NO_MEMORY : TD_OK;
}
