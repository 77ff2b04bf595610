/* Hand-written kernels for the tests of the runtime. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define KERNEL(name) void name(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end)

KERNEL(empty) { (void)buffers, (void)dims, (void)begin, (void)end; }

/* out[i] = 2 * x[i] + w[i]; a unit is one element */
KERNEL(scale_add) {
  (void)dims;
  const float *x = buffers[0], *w = buffers[1];
  float *out = buffers[2];
  for (int64_t i = begin; i < end; i++) out[i] = 2.0f * x[i] + w[i];
}

/* out[i] = x[n-1-i]: needs everything that the step before wrote; a unit is one element of dims[0] */
KERNEL(reverse) {
  const float *x = buffers[0];
  float *out = buffers[1];
  for (int64_t i = begin; i < end; i++) out[i] = x[dims[0] - 1 - i];
}

/* Sums rows of dims[0] elements by way of scratch; a unit is a row. */
KERNEL(row_sum) {
  const float *x = buffers[0];
  volatile float *scratch = buffers[1];
  float *out = buffers[2];
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < dims[0]; i++) scratch[i] = x[row * dims[0] + i];
    float sum = 0;
    for (int64_t i = 0; i < dims[0]; i++) sum += scratch[i];
    out[row] = sum;
  }
}

/* Counts how often each unit runs. */
KERNEL(count) {
  (void)dims;
  int32_t *counts = buffers[0];
  for (int64_t i = begin; i < end; i++) __atomic_fetch_add(&counts[i], 1, __ATOMIC_RELAXED);
}

/* Stores begin, end and the thread of each call, at the position of its first unit. */
KERNEL(record) {
  (void)dims;
  int64_t *rows = buffers[0];
  rows[3 * begin] = begin;
  rows[3 * begin + 1] = end;
  rows[3 * begin + 2] = (int64_t)pthread_self();
}

/* Stores the thread of each unit, which takes a millisecond. */
KERNEL(nap) {
  (void)dims;
  int64_t *threads = buffers[0];
  for (int64_t unit = begin; unit < end; unit++) {
    threads[unit] = (int64_t)pthread_self();
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  }
}

/* Busy for a while: dims[0] iterations per unit. */
KERNEL(spin) {
  volatile int64_t *out = buffers[0];
  for (int64_t unit = begin; unit < end; unit++)
    for (int64_t i = 0; i < dims[0]; i++) *out = i;
}
