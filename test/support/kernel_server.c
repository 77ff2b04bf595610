/* Runs kernels for a test on another machine: over a pipe, from shared objects in files.
 *
 *   request   path, symbol: uint64 length and bytes each
 *             uint64 number of buffers; per buffer uint64 size, uint64 is it an output?, its bytes
 *             uint64 number of dims; int64 each
 *             uint64 number of ranges; int64 begin and end of each
 *   reply     the bytes of all outputs; if the object does not load, nothing, and the program ends
 *
 * Each buffer ends where a page begins that may not be touched: an access behind it ends the program. A buffer of at
 * least 64 bytes whose size is a multiple of 64 is aligned to that, others to their size's largest power of two.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void (*kernel_fn)(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end);

typedef struct buffer {
  char *pages;
  uint64_t mapped;
  char *data;
  uint64_t bytes;
  uint64_t is_output;
} buffer;

static void stop(const char *why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static void read_exactly(void *to, uint64_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) exit(0); /* the test is over */
}

static uint64_t read_number(void) {
  uint64_t number;
  read_exactly(&number, sizeof number);
  return number;
}

static char *read_text(void) {
  uint64_t length = read_number();
  char *text = malloc(length + 1);
  read_exactly(text, length);
  text[length] = 0;
  return text;
}

static buffer read_buffer(uint64_t page) {
  buffer made = {.bytes = read_number(), .is_output = read_number()};
  made.mapped = (made.bytes + page - 1) / page * page + page;
  made.pages = mmap(NULL, made.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made.pages == MAP_FAILED) stop("out of memory");
  if (mprotect(made.pages + made.mapped - page, page, PROT_NONE)) stop("mprotect");
  made.data = made.pages + made.mapped - page - made.bytes;
  read_exactly(made.data, made.bytes);
  return made;
}

int main(void) {
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  for (;;) {
    char *path = read_text(), *symbol = read_text();
    uint64_t num_buffers = read_number();
    buffer *buffers = calloc(num_buffers + 1, sizeof *buffers);
    void **pointers = calloc(num_buffers + 1, sizeof *pointers);
    for (uint64_t i = 0; i < num_buffers; i++) {
      buffers[i] = read_buffer(page);
      pointers[i] = buffers[i].data;
    }
    uint64_t num_dims = read_number();
    int64_t *dims = calloc(num_dims + 1, sizeof *dims);
    read_exactly(dims, num_dims * sizeof *dims);
    uint64_t num_ranges = read_number();
    int64_t *ranges = calloc(2 * num_ranges + 1, sizeof *ranges);
    read_exactly(ranges, 2 * num_ranges * sizeof *ranges);

    void *library = dlopen(path, RTLD_NOW);
    if (!library) stop(dlerror());
    kernel_fn kernel = (kernel_fn)dlsym(library, symbol);
    if (!kernel) stop(dlerror());
    for (uint64_t i = 0; i < num_ranges; i++) kernel(pointers, dims, ranges[2 * i], ranges[2 * i + 1]);
    dlclose(library);

    for (uint64_t i = 0; i < num_buffers; i++) {
      if (buffers[i].is_output) fwrite(buffers[i].data, 1, buffers[i].bytes, stdout);
      munmap(buffers[i].pages, buffers[i].mapped);
    }
    fflush(stdout);
    free(path);
    free(symbol);
    free(buffers);
    free(pointers);
    free(dims);
    free(ranges);
  }
}
