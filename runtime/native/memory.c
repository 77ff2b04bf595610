/* Aligned host memory. */
#include "internal.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((uint64_t)2 << 20)

mgec_status mgec_alloc(uint64_t bytes, void **address) {
  CHECK(address, "alloc: address is NULL");
  *address = NULL;
  if (bytes > PTRDIFF_MAX - HUGE_PAGE) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  /* From two huge pages on, the block begins on one, so that the system can use them. */
  uint64_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : MGEC_ALIGNMENT;
  uint64_t rounded = (bytes + MGEC_ALIGNMENT - 1) / MGEC_ALIGNMENT * MGEC_ALIGNMENT;
  if (posix_memalign(address, alignment, rounded ? rounded : MGEC_ALIGNMENT)) {
    *address = NULL;
    FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  }
#if defined(__linux__)
  if (alignment == HUGE_PAGE) madvise(*address, rounded / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
  return NULL;
}

mgec_status mgec_free(void *address) {
  free(address);
  return NULL;
}
