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

/* Tells the CPU that this thread spins. */
static inline void mgec_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory"); /* `yield` is a no-op on most cores; isb waits about as long as pause */
#endif
}

/* ---- sleep.c: a bed, for one thread -------------------------------------------------------------------- */

typedef struct mgec_bed {
  _Alignas(64) atomic_uint asleep;
#if !defined(__linux__)
  pthread_mutex_t mutex;
  pthread_cond_t changed;
#endif
} mgec_bed;

void mgec_bed_init(mgec_bed *bed);

/* How to sleep without missing the reason to wake: lie down, look once more whether there is a reason, then either
 * get up or sleep. Who gives the reason does so before `mgec_bed_wake`, both in sequentially consistent order. */
void mgec_bed_lie_down(mgec_bed *bed);
void mgec_bed_get_up(mgec_bed *bed);
void mgec_bed_sleep(mgec_bed *bed); /* returns after a wake that came after lying down */
void mgec_bed_wake(mgec_bed *bed);  /* costs a system call only if somebody lies there */

/* ---- pool.c ------------------------------------------------------------------------------------------- */

/* Does the units [begin, end) of `item`; `thread` is 0 for the caller. Calls with the same `thread` never overlap. */
typedef void (*mgec_job_fn)(void *arg, const void *item, int32_t thread, int64_t begin, int64_t end);

/* Takes the pool for this thread. Returns how many of its threads may help, at most `threads`, the caller included; 1
 * when the pool is NULL or serves somebody else: then it was not taken. */
int32_t mgec_pool_take(mgec_pool *pool, int32_t threads);
void mgec_pool_give_back(mgec_pool *pool);

/* Runs the job over [0, units) on the caller and on those of the `width` threads that come in time; returns when all
 * units are done. The pool is taken, and 1 < width <= what `mgec_pool_take` said. */
void mgec_pool_run(mgec_pool *pool, int32_t width, mgec_job_fn job, void *arg, const void *item, int64_t units);

/* First unit of share `share` when `units` are split evenly into `shares`: units * share / shares, without overflow. */
static inline int64_t mgec_share_begin(int64_t units, int32_t share, int32_t shares) {
  return units / shares * share + units % shares * share / shares;
}

#endif
