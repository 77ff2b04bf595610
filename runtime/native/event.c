/* A counter that threads wait on: they spin for a while, then sleep in a futex (Linux) or a condition variable. */
#include "internal.h"

#include <sched.h>
#include <time.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

int64_t mgec_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory"); /* `yield` is a no-op on most cores; isb waits about as long as pause */
#endif
}

/* Sleeping. A sleeper counts itself before it looks at the value for the last time, and a poster changes the value before
 * it looks at the count, both in sequentially consistent order: one of the two sees the other. */
static void sleep_while(mgec_event *event, unsigned seen) {
#if defined(__linux__)
  atomic_fetch_add(&event->sleepers, 1);
  while (atomic_load(&event->value) == seen)
    syscall(SYS_futex, &event->value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  atomic_fetch_sub(&event->sleepers, 1);
#else
  pthread_mutex_lock(&event->mutex);
  atomic_fetch_add(&event->sleepers, 1);
  while (atomic_load(&event->value) == seen) pthread_cond_wait(&event->changed, &event->mutex);
  atomic_fetch_sub(&event->sleepers, 1);
  pthread_mutex_unlock(&event->mutex);
#endif
}

void mgec_event_init(mgec_event *event) {
  atomic_init(&event->value, 0);
  atomic_init(&event->sleepers, 0);
#if !defined(__linux__)
  pthread_mutex_init(&event->mutex, NULL);
  pthread_cond_init(&event->changed, NULL);
#endif
}

void mgec_event_wait(mgec_event *event, unsigned seen, mgec_spin *spin) {
  int64_t deadline = 0;
  for (uint32_t spins = 1; atomic_load_explicit(&event->value, memory_order_acquire) == seen; spins++) {
    relax();
    if (spins % atomic_load_explicit(&spin->yield_every, memory_order_relaxed) != 0) continue;
    int64_t now = mgec_now();
    if (deadline == 0) deadline = now + spin->nanoseconds;
    if (now >= deadline) {
      sleep_while(event, seen);
      return;
    }
    sched_yield(); /* more threads than CPUs: let the one run that we wait for */
  }
}

void mgec_event_post(mgec_event *event) {
  unsigned next = atomic_load_explicit(&event->value, memory_order_relaxed) + 1;
  atomic_store_explicit(&event->value, next, memory_order_release);
}

void mgec_event_wake(mgec_event *event) {
  if (atomic_load(&event->sleepers) == 0) return;
#if defined(__linux__)
  syscall(SYS_futex, &event->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#else
  pthread_mutex_lock(&event->mutex);
  pthread_cond_broadcast(&event->changed);
  pthread_mutex_unlock(&event->mutex);
#endif
}

void mgec_event_advance(mgec_event *event) {
  atomic_fetch_add(&event->value, 1);
  mgec_event_wake(event);
}
