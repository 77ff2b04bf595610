/* Models: a program, what it takes and gives, and whether this machine can run it. */
#include "internal.h"

#include <stdbool.h>
#include <stdio.h>

#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

struct mgec_model {
  const mgec_model_desc *desc;
  mgec_program *program;
  mgec_context *context;
  mgec_pool *own_pool;  /* NULL if it has none */
  void (*release)(void *); /* frees `owner`; NULL if the description belongs to the caller */
  void *owner;
};

/* ---- CPU ---------------------------------------------------------------------------------------------- */

static bool is_word_of(const char *word, size_t length, const char *text) {
  for (const char *at = text; *at;) {
    size_t here = strcspn(at, " \t\n");
    if (here == length && !memcmp(at, word, length)) return true;
    at += here + (at[here] != 0);
  }
  return false;
}

#if defined(__linux__) && defined(__aarch64__)

/* From the kernel's own table: /proc/cpuinfo is the host's under emulators. */
static bool cpu_has(const char *flag, size_t length) {
  static const struct {
    const char *name;
    unsigned long type, mask;
  } flags[] = {
      {"asimd", AT_HWCAP, 1ul << 1},
      {"asimddp", AT_HWCAP, 1ul << 20},
      {"i8mm", AT_HWCAP2, 1ul << 13},
      {"bf16", AT_HWCAP2, 1ul << 14},
  };
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (is_word_of(flag, length, flags[i].name)) return getauxval(flags[i].type) & flags[i].mask;
  return false;
}

#elif defined(__linux__)

/* Where the system does not tell, the CPU is believed to have everything. */
static bool cpu_has(const char *flag, size_t length) {
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (!file) return true;
  char *line = NULL;
  size_t room = 0;
  bool found = false, told = false;
  while (!told && getline(&line, &room, file) > 0) {
    const char *colon = strchr(line, ':');
    told = colon && !strncmp(line, "flags", strlen("flags"));
    found = told && is_word_of(flag, length, colon + 1);
  }
  free(line);
  fclose(file);
  return found || !told;
}

#else

static bool cpu_has(const char *flag, size_t length) { return flag && length; }

#endif

bool mgec_cpu_runs(const char *required) {
  for (const char *at = required; *at;) {
    size_t length = strcspn(at, " ");
    if (length && !cpu_has(at, length)) return false;
    at += length + (at[length] != 0);
  }
  return true;
}

/* ---- Model -------------------------------------------------------------------------------------------- */

static mgec_status check_io(const mgec_model_desc *desc) {
  const mgec_program_desc *program = &desc->program;
  CHECK(desc->name && desc->required, "model_create: the name or the required flags are NULL");
  CHECK(desc->io || !program->num_io, "model_create: io is NULL");
  CHECK(desc->num_inputs <= program->num_io, "model_create: there are more inputs than inputs and outputs");
  CHECK(program->slots || !program->num_slots, "model_create: slots is NULL");
  for (uint32_t i = 0; i < program->num_slots; i++) {
    const mgec_slot *slot = &program->slots[i];
    if (slot->kind != MGEC_SLOT_IO) continue;
    CHECK(slot->index < program->num_io, "model_create: a slot names an input or output that does not exist");
    uint64_t room = desc->io[slot->index].bytes;
    CHECK(slot->offset <= room && slot->bytes <= room - slot->offset,
          "model_create: a slot reaches past the end of an input or output");
  }
  return NULL;
}

static mgec_status prepare(mgec_model *model, mgec_pool *pool, int32_t threads) {
  if (!pool && threads > 1) {
    RETURN_IF_FAILED(mgec_pool_create(threads, MGEC_POOL_SPIN_NANOSECONDS, 0, &model->own_pool));
    pool = model->own_pool;
  }
  RETURN_IF_FAILED(mgec_program_create(&model->desc->program, &model->program));
  return mgec_context_create(model->program, pool, threads, &model->context);
}

mgec_status mgec_model_create(const mgec_model_desc *desc, mgec_pool *pool, int32_t threads, mgec_model **out) {
  CHECK(desc && out, "model_create: NULL argument");
  *out = NULL;
  CHECK(threads >= 1 && threads <= MGEC_MAX_THREADS, "model_create: threads must lie in [1, 256]");
  RETURN_IF_FAILED(check_io(desc));
  if (!mgec_cpu_runs(desc->required))
    FAIL(MGEC_UNSUPPORTED, "model_create: the model was compiled for a CPU with more instructions than this one has");
  mgec_model *model = calloc(1, sizeof *model);
  if (!model) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  model->desc = desc;
  mgec_status status = prepare(model, pool, threads);
  if (status) {
    mgec_model_destroy(model);
    return status;
  }
  *out = model;
  return NULL;
}

void mgec_model_own(mgec_model *model, void (*release)(void *), void *owner) {
  model->release = release;
  model->owner = owner;
}

mgec_status mgec_model_destroy(mgec_model *model) {
  if (!model) return NULL;
  RETURN_IF_FAILED(mgec_context_destroy(model->context));
  mgec_program_destroy(model->program);
  mgec_pool_destroy(model->own_pool);
  if (model->release) model->release(model->owner);
  free(model);
  return NULL;
}

mgec_status mgec_model_describe(const mgec_model *model, const mgec_model_desc **desc) {
  CHECK(model && desc, "model_describe: NULL argument");
  *desc = model->desc;
  return NULL;
}

mgec_status mgec_model_run(mgec_model *model, void *const *io, uint32_t num_io) {
  CHECK(model, "model_run: the model is NULL");
  return mgec_run(model->context, io, num_io);
}
