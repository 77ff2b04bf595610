/* Programs (tables of kernel calls) and contexts (the memory of a run). */
#include "internal.h"

#include <stdbool.h>

uint32_t mgec_abi_version(void) { return MGEC_ABI_VERSION; }

/* A step ready to run. */
typedef struct step {
  mgec_kernel_fn fn;
  const int64_t *dims;
  int64_t units;
  uint32_t first_slot;
  bool serial;
} step;

struct mgec_program {
  atomic_int references; /* its creator and its contexts */
  mgec_program_desc desc; /* kernels and steps are not kept */
  step *steps;
  mgec_slot *slots;
  int64_t *dims;
  uint32_t *io_slots; /* the slots that a run must patch */
  uint32_t num_io_slots;
  bool parallel; /* some step can use more than one thread */
};

struct mgec_context {
  mgec_program *program;
  mgec_pool *pool;
  int32_t threads;
  atomic_bool running;
  char *arena;
  char *scratch;
  uint64_t scratch_stride;
  char *tables; /* one `table` per thread */
  uint64_t table_stride;
  /* The run. */
  uint64_t run; /* its number */
  void *const *io;
};

/* The pointers of all slots for one thread. */
typedef struct table {
  uint64_t run; /* whose inputs and outputs it holds */
  void *pointers[];
} table;

static table *table_of(const mgec_context *context, int32_t thread) {
  return (table *)(context->tables + context->table_stride * (uint64_t)thread);
}

static uint64_t align_up(uint64_t bytes) { return (bytes + MGEC_ALIGNMENT - 1) / MGEC_ALIGNMENT * MGEC_ALIGNMENT; }

/* ---- Program ------------------------------------------------------------------------------------------ */

static mgec_status check_slot(const mgec_program_desc *desc, const mgec_slot *slot) {
  uint64_t room;
  switch (slot->kind) {
    case MGEC_SLOT_ARENA: room = desc->arena_bytes; break;
    case MGEC_SLOT_CONSTANT: room = desc->constants_bytes; break;
    case MGEC_SLOT_SCRATCH: room = desc->scratch_bytes; break;
    case MGEC_SLOT_IO:
      CHECK(slot->index < desc->num_io, "program_create: a slot names an input or output that does not exist");
      return NULL; /* the sizes of inputs and outputs are the caller's business */
    default: FAIL(MGEC_INVALID_ARGUMENT, "program_create: a slot has an unknown kind");
  }
  CHECK(slot->offset <= room && slot->bytes <= room - slot->offset,
        "program_create: a slot reaches past the end of its memory");
  return NULL;
}

static mgec_status check_step(const mgec_program_desc *desc, const mgec_step *step) {
  CHECK(step->kernel < desc->num_kernels, "program_create: a step names a kernel that does not exist");
  CHECK(desc->kernels[step->kernel], "program_create: a kernel is NULL");
  CHECK((step->flags & ~MGEC_STEP_SERIAL) == 0, "program_create: a step has an unknown flag");
  CHECK((uint64_t)step->first_slot + step->num_slots <= desc->num_slots,
        "program_create: a step uses slots that do not exist");
  CHECK((uint64_t)step->first_dim + step->num_dims <= desc->num_dims,
        "program_create: a step uses dims that do not exist");
  CHECK(step->units >= 0, "program_create: a step has negative units");
  return NULL;
}

static mgec_status check_desc(const mgec_program_desc *desc) {
  CHECK(desc->kernels || !desc->num_kernels, "program_create: kernels is NULL");
  CHECK(desc->steps || !desc->num_steps, "program_create: steps is NULL");
  CHECK(desc->slots || !desc->num_slots, "program_create: slots is NULL");
  CHECK(desc->dims || !desc->num_dims, "program_create: dims is NULL");
  CHECK(desc->constants || !desc->constants_bytes, "program_create: constants is NULL");
  CHECK(desc->arena_bytes <= INT64_MAX / 2 && desc->scratch_bytes <= INT64_MAX / 2 / MGEC_MAX_THREADS,
        "program_create: the arena or the scratch is too large");
  for (uint32_t i = 0; i < desc->num_slots; i++) RETURN_IF_FAILED(check_slot(desc, &desc->slots[i]));
  for (uint32_t i = 0; i < desc->num_steps; i++) RETURN_IF_FAILED(check_step(desc, &desc->steps[i]));
  return NULL;
}

static void release(mgec_program *program) {
  if (atomic_fetch_sub(&program->references, 1) != 1) return;
  free(program->steps);
  free(program->slots);
  free(program->dims);
  free(program->io_slots);
  free(program);
}

/* A copy of `count` elements; never NULL for lack of elements. */
static void *copy_of(const void *source, uint64_t count, uint64_t bytes_each) {
  void *copy = malloc(count ? count * bytes_each : 1);
  if (copy && count) memcpy(copy, source, count * bytes_each);
  return copy;
}

mgec_status mgec_program_create(const mgec_program_desc *desc, mgec_program **out) {
  CHECK(desc && out, "program_create: NULL argument");
  *out = NULL;
  RETURN_IF_FAILED(check_desc(desc));

  mgec_program *program = calloc(1, sizeof *program);
  if (!program) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  atomic_init(&program->references, 1);
  program->desc = *desc;
  program->steps = calloc(desc->num_steps + (uint64_t)1, sizeof *program->steps);
  program->slots = copy_of(desc->slots, desc->num_slots, sizeof *desc->slots);
  program->dims = copy_of(desc->dims, desc->num_dims, sizeof *desc->dims);
  program->io_slots = calloc(desc->num_slots + (uint64_t)1, sizeof *program->io_slots);
  if (!program->steps || !program->slots || !program->dims || !program->io_slots) {
    release(program);
    FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  }

  for (uint32_t i = 0; i < desc->num_slots; i++)
    if (desc->slots[i].kind == MGEC_SLOT_IO) program->io_slots[program->num_io_slots++] = i;
  for (uint32_t i = 0; i < desc->num_steps; i++) {
    const mgec_step *source = &desc->steps[i];
    step *target = &program->steps[i];
    target->fn = desc->kernels[source->kernel];
    target->dims = source->num_dims ? program->dims + source->first_dim : NULL;
    target->units = source->units;
    target->first_slot = source->first_slot;
    target->serial = (source->flags & MGEC_STEP_SERIAL) || source->units <= 1;
    program->parallel |= !target->serial;
  }
  *out = program;
  return NULL;
}

mgec_status mgec_program_destroy(mgec_program *program) {
  if (program) release(program);
  return NULL;
}

/* ---- Context ------------------------------------------------------------------------------------------ */

static void fill_table(const mgec_context *context, int32_t thread) {
  const mgec_program *program = context->program;
  table *target = table_of(context, thread);
  target->run = 0;
  void **table = target->pointers;
  for (uint32_t i = 0; i < program->desc.num_slots; i++) {
    const mgec_slot *slot = &program->slots[i];
    switch (slot->kind) {
      case MGEC_SLOT_ARENA: table[i] = context->arena + slot->offset; break;
      case MGEC_SLOT_CONSTANT: table[i] = (char *)program->desc.constants + slot->offset; break;
      case MGEC_SLOT_SCRATCH:
        table[i] = context->scratch + context->scratch_stride * (uint64_t)thread + slot->offset;
        break;
      default: table[i] = NULL; /* patched by each run */
    }
  }
}

mgec_status mgec_context_create(mgec_program *program, mgec_pool *pool, int32_t threads, mgec_context **out) {
  CHECK(program && out, "context_create: NULL argument");
  *out = NULL;
  CHECK(threads >= 1 && threads <= MGEC_MAX_THREADS, "context_create: threads must lie in [1, 256]");

  mgec_context *context = calloc(1, sizeof *context);
  if (!context) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  context->program = program;
  atomic_fetch_add(&program->references, 1);
  context->pool = pool;
  context->threads = pool && program->parallel ? threads : 1;
  context->scratch_stride = align_up(program->desc.scratch_bytes);
  /* Tables of different threads share no cache line. */
  context->table_stride = align_up(sizeof(table) + (uint64_t)program->desc.num_slots * sizeof(void *));

  uint64_t count = (uint64_t)context->threads;
  mgec_status status = mgec_alloc(program->desc.arena_bytes, (void **)&context->arena);
  if (!status) status = mgec_alloc(context->scratch_stride * count, (void **)&context->scratch);
  if (!status) status = mgec_alloc(context->table_stride * count, (void **)&context->tables);
  if (status) {
    mgec_context_destroy(context);
    return status;
  }
  for (int32_t thread = 0; thread < context->threads; thread++) fill_table(context, thread);
  *out = context;
  return NULL;
}

mgec_status mgec_context_destroy(mgec_context *context) {
  if (!context) return NULL;
  if (atomic_load(&context->running)) FAIL(MGEC_BUSY, "context_destroy: the context is running");
  mgec_free(context->arena);
  mgec_free(context->scratch);
  mgec_free(context->tables);
  release(context->program);
  free(context);
  return NULL;
}

/* ---- Run ---------------------------------------------------------------------------------------------- */

/* Part of a step, on any thread. */
static void run_units(void *arg, const void *item, int32_t thread, int64_t begin, int64_t end) {
  const mgec_context *context = arg;
  const step *step = item;
  table *table = table_of(context, thread);
  if (table->run != context->run) { /* the thread's first part of this run */
    const mgec_program *program = context->program;
    for (uint32_t i = 0; i < program->num_io_slots; i++) {
      const mgec_slot *slot = &program->slots[program->io_slots[i]];
      table->pointers[program->io_slots[i]] = (char *)context->io[slot->index] + slot->offset;
    }
    table->run = context->run;
  }
  step->fn(table->pointers + step->first_slot, step->dims, begin, end);
}

static void run_steps(mgec_context *context, void *const *io, double *step_seconds) {
  const mgec_program *program = context->program;
  context->run++;
  context->io = io;
  int32_t width = mgec_pool_take(context->pool, context->threads);
  int64_t before = step_seconds ? mgec_now() : 0;
  for (uint32_t i = 0; i < program->desc.num_steps; i++) {
    const step *step = &program->steps[i];
    if (width > 1 && !step->serial)
      mgec_pool_run(context->pool, width, run_units, context, step, step->units);
    else if (step->units > 0)
      run_units(context, step, 0, 0, step->units);
    if (step_seconds) {
      int64_t now = mgec_now();
      step_seconds[i] = (double)(now - before) * 1e-9;
      before = now;
    }
  }
  if (width > 1) mgec_pool_give_back(context->pool);
}

/* Takes the context for this thread, or says why not. */
static mgec_status begin_run(mgec_context *context, void *const *io, uint32_t num_io) {
  CHECK(context, "run: the context is NULL");
  CHECK(num_io == context->program->desc.num_io, "run: the number of inputs and outputs is not the program's");
  CHECK(io || num_io == 0, "run: io is NULL");
  if (atomic_exchange_explicit(&context->running, true, memory_order_acquire))
    FAIL(MGEC_BUSY, "run: the context is running in another thread");
  return NULL;
}

static void end_run(mgec_context *context) {
  atomic_store_explicit(&context->running, false, memory_order_release);
}

mgec_status mgec_run_timed(mgec_context *context, void *const *io, uint32_t num_io, double *step_seconds) {
  RETURN_IF_FAILED(begin_run(context, io, num_io));
  run_steps(context, io, step_seconds);
  end_run(context);
  return NULL;
}

mgec_status mgec_run(mgec_context *context, void *const *io, uint32_t num_io) {
  return mgec_run_timed(context, io, num_io, NULL);
}

mgec_status mgec_bench(mgec_context *context, void *const *io, uint32_t num_io, double seconds_budget, double *samples,
                       int64_t max_samples, int64_t *num_samples) {
  CHECK(samples && num_samples && max_samples >= 1, "bench: no room for samples");
  *num_samples = 0;
  RETURN_IF_FAILED(begin_run(context, io, num_io));
  int64_t begin = mgec_now();
  int64_t count = 0;
  for (int64_t before = begin, now; count < max_samples; before = now) {
    run_steps(context, io, NULL);
    now = mgec_now();
    samples[count++] = (double)(now - before) * 1e-9;
    if ((double)(now - begin) * 1e-9 >= seconds_budget) break;
  }
  end_run(context);
  *num_samples = count;
  return NULL;
}
