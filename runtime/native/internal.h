/* What the files of the native runtime share. */
#ifndef MGEC_INTERNAL_H
#define MGEC_INTERNAL_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mgec.h"

/* Before what the files of the runtime share among themselves; `static` where all of them are one translation unit. */
#ifndef MGEC_INTERNAL
#define MGEC_INTERNAL
#endif

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
MGEC_INTERNAL int64_t mgec_now(void);

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

MGEC_INTERNAL void mgec_bed_init(mgec_bed *bed);

/* How to sleep without missing the reason to wake: lie down, look once more whether there is a reason, then either
 * get up or sleep. Who gives the reason does so before `mgec_bed_wake`, both in sequentially consistent order. */
MGEC_INTERNAL void mgec_bed_lie_down(mgec_bed *bed);
MGEC_INTERNAL void mgec_bed_get_up(mgec_bed *bed);
MGEC_INTERNAL void mgec_bed_sleep(mgec_bed *bed); /* returns after a wake that came after lying down */
MGEC_INTERNAL void mgec_bed_wake(mgec_bed *bed);  /* costs a system call only if somebody lies there */

/* ---- pool.c ------------------------------------------------------------------------------------------- */

/* Does the units [begin, end) of `item`; `thread` is 0 for the caller. Calls with the same `thread` never overlap. */
typedef void (*mgec_job_fn)(void *arg, const void *item, int32_t thread, int64_t begin, int64_t end);

/* Takes the pool for this thread. Returns how many of its threads may help, at most `threads`, the caller included; 1
 * when the pool is NULL or serves somebody else: then it was not taken. */
MGEC_INTERNAL int32_t mgec_pool_take(mgec_pool *pool, int32_t threads);
MGEC_INTERNAL void mgec_pool_give_back(mgec_pool *pool);

/* Runs the job over [0, units) on the caller and on those of the `width` threads that come in time; returns when all
 * units are done. The pool is taken, and 1 < width <= what `mgec_pool_take` said. */
MGEC_INTERNAL void mgec_pool_run(mgec_pool *pool, int32_t width, mgec_job_fn job, void *arg, const void *item,
                                 int64_t units);

/* First unit of share `share` when `units` are split evenly into `shares`: units * share / shares, without overflow. */
static inline int64_t mgec_share_begin(int64_t units, int32_t share, int32_t shares) {
  return units / shares * share + units % shares * share / shares;
}

/* ---- model.c ------------------------------------------------------------------------------------------ */

/* Whether this CPU has all of the flags, which are separated by spaces. */
MGEC_INTERNAL bool mgec_cpu_runs(const char *required);

/* Hands the model something that it frees when it is destroyed. */
MGEC_INTERNAL void mgec_model_own(mgec_model *model, void (*release)(void *), void *owner);

/* ---- json.c ------------------------------------------------------------------------------------------- */

/* A value of a document. What an object or array contains follows it: the first of its `count` members is the next
 * value, and each ends before its own `next`. A member of an object is its key, a string, then its value. */
typedef struct mgec_json_value {
  char type;           /* { [ " 0 t f n: what it begins with; 0 for all numbers */
  uint32_t begin, end; /* its text, a string's without the quotes */
  uint32_t count;
  uint32_t next; /* index of the value after everything in this one; not set for keys */
} mgec_json_value;

typedef struct mgec_json {
  const char *text;
  mgec_json_value *values; /* the first is the document */
  uint32_t count, room;
  bool out_of_memory;
} mgec_json;

/* Reads a whole document; false if it is not one, or memory runs out. Free it in any case. */
MGEC_INTERNAL bool mgec_json_parse(const char *text, uint64_t length, mgec_json *json);
MGEC_INTERNAL void mgec_json_free(mgec_json *json);

/* The value of a key, if it is of this type; NULL otherwise, also if `object` is NULL or no object. */
MGEC_INTERNAL const mgec_json_value *mgec_json_get(const mgec_json *json, const mgec_json_value *object,
                                                   const char *key, char type);

/* Writes a string at *room, ended by a zero, and moves *room behind it: at most one byte more than its text has. */
MGEC_INTERNAL char *mgec_json_text(const mgec_json *json, const mgec_json_value *value, char **room);

#endif
