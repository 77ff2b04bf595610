/* The program around a compiled model: arrays from files, one run, arrays to files.
 *
 * It is compiled after the runtime and the model, in one translation unit: `mgec_standalone_model` is the model. */
#include <errno.h>
#include <stdio.h>

static const char usage_text[] =
    "usage: %s [--threads N] [--bench SECONDS] INPUT... OUTPUT...\n"
    "Runs the model %s once. Files hold the bytes of arrays in C order:\n";

static int fail(const char *what, const char *why) {
  fprintf(stderr, "error: %s: %s\n", what, why);
  return 1;
}

static void print_usage(const char *program, const mgec_model_desc *model, FILE *to) {
  fprintf(to, usage_text, program, model->name);
  for (uint32_t i = 0; i < model->program.num_io; i++) {
    const mgec_tensor *tensor = &model->io[i];
    fprintf(to, "  %-6s  %s  %s[", i < model->num_inputs ? "input" : "output", tensor->name, tensor->dtype);
    for (uint32_t axis = 0; axis < tensor->rank; axis++)
      fprintf(to, "%s%lld", axis ? ", " : "", (long long)tensor->shape[axis]);
    fprintf(to, "], %llu bytes\n", (unsigned long long)tensor->bytes);
  }
  fputs("--bench runs it again and again and prints the shortest and the mean time; without files, on zeros.\n", to);
}

/* Reads a file that must have exactly so many bytes. */
static int read_array(const char *path, void *data, uint64_t bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) return fail(path, strerror(errno));
  size_t count = fread(data, 1, bytes, file);
  int more = count == bytes ? fgetc(file) : EOF;
  fclose(file);
  if (count == bytes && more == EOF) return 0;
  fprintf(stderr, "error: %s: the input has %llu bytes, but the file has %s\n", path, (unsigned long long)bytes,
          more == EOF ? "fewer" : "more");
  return 1;
}

static int write_array(const char *path, const void *data, uint64_t bytes) {
  FILE *file = fopen(path, "wb");
  if (!file) return fail(path, strerror(errno));
  size_t count = fwrite(data, 1, bytes, file);
  if (fclose(file) || count != bytes) return fail(path, "it cannot be written");
  return 0;
}

static int bench(mgec_model *model, void *const *io, uint32_t num_io, double seconds) {
  int64_t begin = mgec_now(), now = begin, shortest = INT64_MAX, runs = 0;
  do {
    int64_t before = now;
    mgec_status status = mgec_model_run(model, io, num_io);
    if (status) return fail("bench", status->message);
    now = mgec_now();
    runs++;
    if (now - before < shortest) shortest = now - before;
  } while ((double)(now - begin) * 1e-9 < seconds);
  printf("%lld runs, shortest %.3f us, mean %.3f us\n", (long long)runs, (double)shortest * 1e-3,
         (double)(now - begin) * 1e-3 / (double)runs);
  return 0;
}

static int run_files(mgec_model *model, const mgec_model_desc *desc, void **io, char **files, double seconds) {
  uint32_t num_io = desc->program.num_io;
  for (uint32_t i = 0; i < num_io; i++) {
    mgec_status status = mgec_alloc(desc->io[i].bytes, &io[i]);
    if (status) return fail(desc->io[i].name, status->message);
    memset(io[i], 0, desc->io[i].bytes);
    if (files && i < desc->num_inputs && read_array(files[i], io[i], desc->io[i].bytes)) return 1;
  }
  mgec_status status = mgec_model_run(model, io, num_io);
  if (status) return fail("run", status->message);
  for (uint32_t i = desc->num_inputs; files && i < num_io; i++)
    if (write_array(files[i], io[i], desc->io[i].bytes)) return 1;
  return seconds > 0 ? bench(model, io, num_io, seconds) : 0;
}

int main(int count, char **arguments) {
  const mgec_model_desc *desc = &mgec_standalone_model;
  double seconds = 0;
  long threads = 1;
  int first = 1;
  for (; first + 1 < count && !strncmp(arguments[first], "--", 2); first += 2) {
    char *end = arguments[first + 1];
    if (!strcmp(arguments[first], "--threads"))
      threads = strtol(arguments[first + 1], &end, 10);
    else if (!strcmp(arguments[first], "--bench"))
      seconds = strtod(arguments[first + 1], &end);
    if (*end || end == arguments[first + 1] || threads < 1 || threads > MGEC_MAX_THREADS || !(seconds >= 0)) {
      print_usage(arguments[0], desc, stderr);
      return 2;
    }
  }
  uint32_t files = (uint32_t)(count - first);
  if (files != desc->program.num_io && !(files == 0 && seconds > 0)) {
    print_usage(arguments[0], desc, stderr);
    return 2;
  }
  mgec_model *model;
  mgec_status status = mgec_model_create(desc, NULL, (int32_t)threads, &model);
  if (status) return fail(desc->name, status->message);
  void **io = calloc(desc->program.num_io + (size_t)1, sizeof *io);
  int result = io ? run_files(model, desc, io, files ? arguments + first : NULL, seconds) : fail("run", "out of memory");
  for (uint32_t i = 0; io && i < desc->program.num_io; i++) mgec_free(io[i]);
  free(io);
  mgec_model_destroy(model);
  return result;
}
