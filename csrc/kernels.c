/* All kernels for one instruction set and one type: compiled with TD_NAME, TD_VECTOR (bytes) and perhaps TD_DOUBLE. */
#include "lanes.h"

#include "construct.h"
#include "delay.h"
#include "direct.h"
#include "fft.h"
#include "mix.h"

static int run(int method, int map, const td_problem *problem, const td_tensor *input, const td_tensor *weight,
               const td_tensor *output) {
    return (method == TD_FFT ? run_fft : run_direct)(map, problem, input, weight, output);
}

static double count(int method, int map, const td_problem *problem) {
    return method == TD_FFT ? count_fft(map, problem) : count_direct(problem);
}

const td_kernels TD_NAME = {run, count, mix, count_mixed, delay, construct, construct_gradients};
