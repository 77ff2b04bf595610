/* What the files of the native runtime share. */
#ifndef MGEC_INTERNAL_H
#define MGEC_INTERNAL_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mgec.h"

/* Leaves the function with a failure: a constant, so it needs no memory and no lock, and is never freed. */
#define FAIL(code, message)                                                          \
  do {                                                                               \
    static const mgec_failure failure_ = {(code), __LINE__, (message), __FILE__};    \
    return &failure_;                                                                \
  } while (0)

#define CHECK(condition, message)                       \
  do {                                                  \
    if (!(condition)) FAIL(MGEC_INVALID_ARGUMENT, (message)); \
  } while (0)

#define RETURN_IF_FAILED(call)          \
  do {                                  \
    mgec_status status_ = (call);       \
    if (status_) return status_;        \
  } while (0)

/* Wall clock in nanoseconds that never goes back. */
int64_t mgec_now(void);

/* ---- event.c: a counter that threads wait on ---------------------------------------------------------- */

typedef struct mgec_spin {
  int64_t nanoseconds; /* how long to spin before sleeping */
  atomic_uint yield_every; /* spins between two looks at the clock, each with a sched_yield */
} mgec_spin;

typedef struct mgec_event {
  _Alignas(64) atomic_uint value;
  atomic_uint sleepers;
#if !defined(__linux__)
  pthread_mutex_t mutex;
  pthread_cond_t changed;
#endif
} mgec_event;

void mgec_event_init(mgec_event *event);

/* Returns when the value is no longer `seen`. */
void mgec_event_wait(mgec_event *event, unsigned seen, mgec_spin *spin);

/* Adds one and wakes who sleeps. */
void mgec_event_advance(mgec_event *event);

/* The two halves of `advance`, for many events at once: post each, one seq_cst fence, wake each.
 * Only for events with a single poster. */
void mgec_event_post(mgec_event *event);
void mgec_event_wake(mgec_event *event);

/* ---- pool.c ------------------------------------------------------------------------------------------- */

/* What every thread of a region runs; `thread` is 0 for the caller. */
typedef void (*mgec_job_fn)(void *arg, int32_t thread, int32_t width);

/* Runs job(arg, t, width) on `width` <= `threads` threads and returns when all have ended. The width is 1 when the pool
 * is NULL or serves somebody else. */
void mgec_pool_region(mgec_pool *pool, int32_t threads, mgec_job_fn job, void *arg);

/* Inside a job of width > 1: returns when all threads of the region have arrived. */
void mgec_pool_barrier(mgec_pool *pool);

/* First unit of share `share` when `units` are split evenly into `shares`: units * share / shares, without overflow. */
static inline int64_t mgec_share_begin(int64_t units, int32_t share, int32_t shares) {
  return units / shares * share + units % shares * share / shares;
}

#endif
