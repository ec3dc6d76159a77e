/* The C interface of the compiled kernels: depthwise convolution in one to three dimensions, convolution along one axis
 * with channels mixed, sums of delayed rows, and kernels out of elements.
 *
 * A call is one of three maps of the same trilinear form, sum over o, k of g[o] * x[o * stride + k - before] * w[k]:
 *   CONVOLVE    output from input and weight
 *   TRANSPOSE   gradient of the input from gradient of the output and weight
 *   CORRELATE   gradient of the weight from input and gradient of the output
 * Axes are (z, y, x); fewer axes have size 1, kernel 1 and stride 1 in front. Strides of tensors count elements.
 */
#ifndef TORCHDCLS_H
#define TORCHDCLS_H

#include <stddef.h>
#include <stdint.h>

enum { TD_INTERFACE = 2 }; /* one more with every change of this file, as in library.py */
enum { TD_CONVOLVE, TD_TRANSPOSE, TD_CORRELATE };
enum { TD_FLOAT32, TD_FLOAT64, TD_BFLOAT16, TD_FLOAT16 };
enum { TD_DIRECT, TD_FFT };
enum { TD_OK, TD_NO_MEMORY, TD_UNSUPPORTED };

typedef struct {
    int64_t batch, channels;
    int64_t map[3], outputs[3], kernel[3], stride[3], before[3];
} td_problem;

typedef struct {
    void *data;
    int64_t stride[5]; /* batch, channel, z, y, x; of a weight: unused, channel, z, y, x */
    int64_t dtype;
} td_tensor;

/* A convolution along x with channels mixed: `in` and `out` channels of each of `groups`. Its weight has its outputs for
 * samples, and the inputs of a group for channels. */
typedef struct {
    int64_t batch, groups, in, out, map, outputs, kernel, before;
} td_mixing;

/* Sums of rows that are delayed by whole steps from 0 to `most`, zeros before them and behind; all without gaps. */
typedef struct {
    int64_t batch, in, out, count, time, outputs, most;
    const void *input;    /* (batch, in, time) */
    const void *weight;   /* (out, in, count) */
    const int32_t *delay; /* (out, in, count) */
    void *output;         /* (batch, out, outputs) */
} td_delays;

/* Elements of dense kernels, each of `axes` learned axes, in the type of the call and without gaps. The scale along an
 * axis is smallest_scale + |sigma|; `epsilon` is added to the mass by which an element is divided. */
enum { TD_TRIANGLE, TD_GAUSSIAN };
typedef struct {
    int64_t profile, kernels, count, axes, size[3];
    double smallest_scale, epsilon;
    const void *weight;           /* (kernels, count) */
    const void *position, *sigma; /* (axes, kernels, count); no sigma: 0 */
} td_elements;

/* What there is of one instruction set and one type. `count` tells how many operations a map takes. */
typedef struct {
    int (*run)(int method, int map, const td_problem *, const td_tensor *input, const td_tensor *weight,
               const td_tensor *output);
    double (*count)(int method, int map, const td_problem *);
    int (*mix)(int map, const td_mixing *, const td_tensor *input, const td_tensor *weight, const td_tensor *output);
    double (*count_mixed)(int map, const td_mixing *, int transforms);
    int (*delay)(const td_delays *);
    int (*construct)(const td_elements *, void *kernel);
    int (*construct_gradients)(const td_elements *, const void *gradient, void *to_weight, void *to_position,
                               void *to_sigma);
} td_kernels;

/* Calls function(begin, end, context) for parts of [0, count), on whatever threads there are. */
typedef void (*td_range)(int64_t begin, int64_t end, void *context);
void td_parallel(int64_t count, td_range function, void *context);

/* Who uses a piece of memory: a task for its work, or a call for what it shares among its tasks. A task calls nothing
 * that has tasks, so that no piece is taken twice. */
typedef enum { TD_TASK, TD_CALL, TD_USERS } td_user;

/* At least `bytes` of memory that belong to this thread and are kept for its next call, or NULL. */
void *td_scratch(td_user user, size_t bytes);

#endif
