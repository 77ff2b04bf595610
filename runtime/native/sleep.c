/* The clock, and sleeping: in a futex (Linux) or on a condition variable. */
#include "internal.h"

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

void mgec_bed_init(mgec_bed *bed) {
  atomic_init(&bed->asleep, 0);
#if !defined(__linux__)
  pthread_mutex_init(&bed->mutex, NULL);
  pthread_cond_init(&bed->changed, NULL);
#endif
}

/* The sleeper counts as asleep before it looks for its reason for the last time, and the waker gives the reason before
 * it looks for a sleeper: one of the two sees the other. */
void mgec_bed_lie_down(mgec_bed *bed) { atomic_store(&bed->asleep, 1); }

void mgec_bed_get_up(mgec_bed *bed) { atomic_store_explicit(&bed->asleep, 0, memory_order_relaxed); }

void mgec_bed_sleep(mgec_bed *bed) {
#if defined(__linux__)
  while (atomic_load_explicit(&bed->asleep, memory_order_relaxed))
    syscall(SYS_futex, &bed->asleep, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
#else
  pthread_mutex_lock(&bed->mutex);
  while (atomic_load_explicit(&bed->asleep, memory_order_relaxed)) pthread_cond_wait(&bed->changed, &bed->mutex);
  pthread_mutex_unlock(&bed->mutex);
#endif
}

void mgec_bed_wake(mgec_bed *bed) {
  /* Only who clears the mark wakes, so that a sleeper on its way up is not woken again at every step. */
  if (!atomic_load(&bed->asleep) || !atomic_exchange(&bed->asleep, 0)) return;
#if defined(__linux__)
  syscall(SYS_futex, &bed->asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
#else
  pthread_mutex_lock(&bed->mutex);
  pthread_cond_broadcast(&bed->changed);
  pthread_mutex_unlock(&bed->mutex);
#endif
}
