/* The C interface of the mgec runtime: run a compiled program, or one kernel, on the host.
 *
 * Rules that hold for every function:
 *   - it returns NULL on success, or a pointer to a constant `mgec_failure` that says what went wrong; nothing
 *     needs to be freed, nothing is printed, and the process is never ended;
 *   - sizes and offsets are bytes, times are seconds (double) or nanoseconds (int64_t, `_nanoseconds`);
 *   - handles may be used from any thread; one context runs in one thread at a time (a second run is refused).
 *
 * The only process-wide state is the shared pool, which exists once `mgec_pool_shared` was called.
 */
#ifndef MGEC_H
#define MGEC_H

#include <stdint.h>

#if defined(MGEC_API)
/* Whoever compiles the runtime into a program of its own says how its functions are linked: `static`. */
#elif defined(_WIN32)
#define MGEC_API __declspec(dllexport)
#else
#define MGEC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by one whenever a structure or a meaning below changes. */
#define MGEC_ABI_VERSION 1

/* Every buffer that the runtime allocates is aligned to this; inputs and outputs only to their element. */
#define MGEC_ALIGNMENT 64

/* The most threads that a pool has. */
#define MGEC_MAX_THREADS 256

/* ---- Status ------------------------------------------------------------------------------------------- */

#ifndef MGEC_STATUS /* the header of a compiled model has these lines, too */
#define MGEC_STATUS

typedef enum mgec_code {
  MGEC_INVALID_ARGUMENT = 1, /* a null pointer, a size or an index out of range */
  MGEC_OUT_OF_MEMORY = 2,
  MGEC_SYSTEM = 3,      /* the operating system refused a thread, or a file */
  MGEC_BUSY = 4,        /* the context is running in another thread */
  MGEC_UNSUPPORTED = 5, /* the machine code is for another machine */
  MGEC_DAMAGED = 6      /* a file is not what it must be */
} mgec_code;

typedef struct mgec_failure {
  int32_t code; /* an mgec_code */
  int32_t line;
  const char *message;
  const char *file;
} mgec_failure;

typedef const mgec_failure *mgec_status;

#endif

MGEC_API uint32_t mgec_abi_version(void);

/* ---- Kernels ------------------------------------------------------------------------------------------ */

/* Processes the units [begin, end). What a unit is, only the kernel knows; units may run in any order and on any
 * thread, a thread may be given several ranges of a step, and units must not depend on each other.
 * `dims` holds run-time sizes and parameters and may be NULL. */
typedef void (*mgec_kernel_fn)(void *const *buffers, const int64_t *dims, int64_t begin, int64_t end);

/* ---- Pool --------------------------------------------------------------------------------------------- */

typedef struct mgec_pool mgec_pool;

/* Pin the workers to distinct CPUs, if the process may use at least as many CPUs as the pool has threads.
 * The thread that calls is never pinned. */
#define MGEC_POOL_PIN 1u

/* How long a worker of the shared pool looks for work before it sleeps. */
#define MGEC_POOL_SPIN_NANOSECONDS 200000

/* Makes a pool of `threads` threads, the caller's included: threads - 1 workers start. Workers take parts of the work as
 * they come to run: the caller never waits for a worker that has taken nothing, and for some time uses none after one
 * was taken off its CPU in the middle of its part. A worker without work spins for about `spin_nanoseconds`, then
 * sleeps. After a fork, the child's first parallel step starts the workers anew. */
MGEC_API mgec_status mgec_pool_create(int32_t threads, int64_t spin_nanoseconds, uint32_t flags, mgec_pool **pool);

/* Stops the workers and frees the pool, which must be idle. NULL is allowed; the shared pool is refused. */
MGEC_API mgec_status mgec_pool_destroy(mgec_pool *pool);

/* Gives the one pool of this process, made or grown to at least `threads` threads. It is never destroyed. */
MGEC_API mgec_status mgec_pool_shared(int32_t threads, mgec_pool **pool);

/* The number of threads that the pool has now. */
MGEC_API mgec_status mgec_pool_threads(const mgec_pool *pool, int32_t *threads);

/* Runs one kernel over [0, units), split over at most `threads` threads (0: all that the pool has).
 * With pool NULL, or while the pool serves another caller, the calling thread does all of it. */
MGEC_API mgec_status mgec_parallel_kernel(mgec_pool *pool, int32_t threads, mgec_kernel_fn fn, void *const *buffers,
                                          const int64_t *dims, int64_t units);

/* ---- Program ------------------------------------------------------------------------------------------ */

/* Where the pointer in a slot comes from. */
typedef enum mgec_slot_kind {
  MGEC_SLOT_ARENA = 0,    /* arena of the context + offset */
  MGEC_SLOT_IO = 1,       /* io[index] of the run + offset */
  MGEC_SLOT_CONSTANT = 2, /* constants of the program + offset */
  MGEC_SLOT_SCRATCH = 3   /* scratch of the running thread + offset */
} mgec_slot_kind;

typedef struct mgec_slot {
  uint32_t kind;  /* an mgec_slot_kind */
  uint32_t index; /* which input or output; 0 for the other kinds */
  uint64_t offset;
  uint64_t bytes; /* how much the kernel may touch from there: offset + bytes must lie inside */
} mgec_slot;

/* The whole step runs on the calling thread. */
#define MGEC_STEP_SERIAL 1u

/* Kernel calls for all units of a step. Steps run in order; a step begins when all units of the one before are done. */
typedef struct mgec_step {
  uint32_t kernel; /* index into the program's kernels */
  uint32_t flags;
  uint32_t first_slot; /* its pointer table is slots [first_slot, first_slot + num_slots) */
  uint32_t num_slots;
  uint32_t first_dim; /* its sizes are dims [first_dim, first_dim + num_dims); NULL is passed when num_dims is 0 */
  uint32_t num_dims;
  int64_t units; /* > 1 and not SERIAL: split over the threads; 0: the step does nothing */
} mgec_step;

typedef struct mgec_program_desc {
  const mgec_kernel_fn *kernels;
  const mgec_step *steps;
  const mgec_slot *slots;
  const int64_t *dims;
  const void *constants; /* kept by reference: must outlive the program; everything else is copied */
  uint64_t constants_bytes;
  uint64_t arena_bytes;   /* per context */
  uint64_t scratch_bytes; /* per context and thread */
  uint32_t num_kernels;
  uint32_t num_steps;
  uint32_t num_slots;
  uint32_t num_dims;
  uint32_t num_io;
  uint32_t reserved; /* 0 */
} mgec_program_desc;

typedef struct mgec_program mgec_program; /* immutable, shared by its contexts */
typedef struct mgec_context mgec_context; /* the memory of one run */

MGEC_API mgec_status mgec_program_create(const mgec_program_desc *desc, mgec_program **program);

/* Frees the program once its last context is destroyed. NULL is allowed. */
MGEC_API mgec_status mgec_program_destroy(mgec_program *program);

/* Makes the arena, the scratch and the pointer tables for running on up to `threads` threads of `pool`.
 * With pool NULL the program runs on the calling thread. The pool must outlive the context. */
MGEC_API mgec_status mgec_context_create(mgec_program *program, mgec_pool *pool, int32_t threads,
                                         mgec_context **context);
MGEC_API mgec_status mgec_context_destroy(mgec_context *context);

/* Runs the whole program once. `io` holds the inputs' addresses, then the outputs'; num_io must be the program's. */
MGEC_API mgec_status mgec_run(mgec_context *context, void *const *io, uint32_t num_io);

/* The same; step_seconds[i] becomes the wall time of step i, waiting for the last unit included. */
MGEC_API mgec_status mgec_run_timed(mgec_context *context, void *const *io, uint32_t num_io, double *step_seconds);

/* Runs again and again, at least once, until seconds_budget is spent or max_samples are taken; samples[i] becomes the
 * wall time of run i, *num_samples their number. */
MGEC_API mgec_status mgec_bench(mgec_context *context, void *const *io, uint32_t num_io, double seconds_budget,
                                double *samples, int64_t max_samples, int64_t *num_samples);

/* ---- Model -------------------------------------------------------------------------------------------- */

/* An input or an output: a dense array in C order. */
typedef struct mgec_tensor {
  const char *name;
  const char *dtype; /* as NumPy calls it: "float32", "bfloat16", "bool", ... */
  const int64_t *shape;
  uint64_t bytes;
  uint32_t rank;
  uint32_t reserved; /* 0 */
} mgec_tensor;

typedef struct mgec_model_desc {
  const char *name;
  const char *required; /* flags that the CPU must have, as Linux names them, separated by spaces */
  const mgec_tensor *io; /* the inputs, then the outputs: program.num_io of them */
  uint32_t num_inputs;
  uint32_t reserved; /* 0 */
  mgec_program_desc program;
} mgec_model_desc;

/* A program with its inputs and outputs, and the memory of one run: one thread at a time runs it. */
typedef struct mgec_model mgec_model;

/* Makes a model that runs on up to `threads` threads of `pool`. With pool NULL and more than one thread it has a pool of
 * its own. The description is kept by reference: it must outlive the model. MGEC_UNSUPPORTED if this CPU lacks a
 * required flag. */
MGEC_API mgec_status mgec_model_create(const mgec_model_desc *desc, mgec_pool *pool, int32_t threads,
                                       mgec_model **model);

/* Makes a model of an artifact (`.mge`), which stays mapped as long as the model lives: the code of the first target in
 * it that this machine runs. The whole file is checked before anything in it is used: MGEC_DAMAGED if it is not as it
 * must be, MGEC_SYSTEM if it cannot be read, MGEC_UNSUPPORTED if no target runs here. Linux only. */
MGEC_API mgec_status mgec_model_load(const char *path, mgec_pool *pool, int32_t threads, mgec_model **model);

/* Frees the model, which must not be running. NULL is allowed. */
MGEC_API mgec_status mgec_model_destroy(mgec_model *model);

/* The description: name, inputs and outputs. Valid as long as the model. */
MGEC_API mgec_status mgec_model_describe(const mgec_model *model, const mgec_model_desc **desc);

/* Runs the model once. `io` holds the inputs' addresses, then the outputs'; num_io must be the program's. Each array must
 * have the bytes that its description says and be aligned to its elements; outputs must overlap nothing. */
MGEC_API mgec_status mgec_model_run(mgec_model *model, void *const *io, uint32_t num_io);

/* ---- Memory ------------------------------------------------------------------------------------------- */

/* Uninitialized memory aligned to MGEC_ALIGNMENT; large blocks are offered huge pages. 0 bytes gives a valid address. */
MGEC_API mgec_status mgec_alloc(uint64_t bytes, void **address);
MGEC_API mgec_status mgec_free(void *address);

#ifdef __cplusplus
}
#endif
#endif
