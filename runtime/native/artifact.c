/* Loading an artifact (`.mge`): the file format is described in runtime/artifact.py, which checks the same.
 *
 * Everything is checked before it is used, so that a damaged file is a status and never a crash. Checksums guard against
 * damage, not against malice: an artifact contains machine code. */
#include "internal.h"

#if !defined(__linux__)

mgec_status mgec_model_load(const char *path, mgec_pool *pool, int32_t threads, mgec_model **out) {
  (void)path, (void)pool, (void)threads, (void)out;
  FAIL(MGEC_UNSUPPORTED, "model_load: artifacts are loaded on Linux only");
}

#else

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HEADER_BYTES 64u
#define ROW_BYTES 48u
#define NAME_BYTES 16u
#define FORMAT_VERSION 1u
#define ENDIAN_MARK 0x01020304u
#define MAX_SECTIONS 1024u
#define MAX_BYTES ((uint64_t)1 << 48) /* more than a process can address */

enum { METADATA = 1, PROGRAM, WEIGHTS, CODE, GRAPH };

#if defined(__x86_64__)
#define ARCHITECTURE "x86_64"
#elif defined(__aarch64__)
#define ARCHITECTURE "aarch64"
#else
#define ARCHITECTURE "unknown"
#endif

typedef struct section {
  uint32_t kind;
  char name[NAME_BYTES + 1];
  const unsigned char *data;
  uint64_t bytes;
} section;

/* What a loaded model needs as long as it lives. */
typedef struct artifact {
  const unsigned char *file;
  uint64_t bytes;
  section *sections;
  uint32_t num_sections;
  mgec_json metadata;
  char *texts; /* all strings of the description */
  char *room;  /* behind the last of them */
  int64_t *shapes;
  mgec_tensor *io;
  mgec_kernel_fn *kernels;
  int code; /* the loader knows libraries by path: while it is open, no other gets this one */
  void *library;
  mgec_model_desc desc;
} artifact;

#define EXPECT(condition, message)                        \
  do {                                                    \
    if (!(condition)) FAIL(MGEC_DAMAGED, "artifact: " message); \
  } while (0)

static void release(void *owner) {
  artifact *a = owner;
  if (a->library) dlclose(a->library);
  if (a->code >= 0) close(a->code);
  if (a->file) munmap((void *)a->file, a->bytes);
  mgec_json_free(&a->metadata);
  free(a->sections);
  free(a->texts);
  free(a->shapes);
  free(a->io);
  free(a->kernels);
  free(a);
}

/* ---- Checksums ---------------------------------------------------------------------------------------- */

#define PRIME1 0x9E3779B185EBCA87u
#define PRIME2 0xC2B2AE3D27D4EB4Fu
#define PRIME3 0x165667B19E3779F9u
#define PRIME4 0x85EBCA77C2B2AE63u
#define PRIME5 0x27D4EB2F165667C5u

static uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static uint64_t load64(const unsigned char *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static uint32_t load32(const unsigned char *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static uint64_t mix(uint64_t sum, uint64_t input) { return rotate(sum + input * PRIME2, 31) * PRIME1; }

/* XXH64 with seed 0. */
static uint64_t checksum(const unsigned char *data, uint64_t bytes) {
  const unsigned char *at = data, *end = data + bytes;
  uint64_t hash = PRIME5;
  if (bytes >= 32) {
    uint64_t sums[4] = {PRIME1 + PRIME2, PRIME2, 0, 0 - PRIME1};
    for (; end - at >= 32; at += 32)
      for (int i = 0; i < 4; i++) sums[i] = mix(sums[i], load64(at + 8 * i));
    hash = rotate(sums[0], 1) + rotate(sums[1], 7) + rotate(sums[2], 12) + rotate(sums[3], 18);
    for (int i = 0; i < 4; i++) hash = (hash ^ mix(0, sums[i])) * PRIME1 + PRIME4;
  }
  hash += bytes;
  for (; end - at >= 8; at += 8) hash = rotate(hash ^ mix(0, load64(at)), 27) * PRIME1 + PRIME4;
  for (; end - at >= 4; at += 4) hash = rotate(hash ^ load32(at) * PRIME1, 23) * PRIME2 + PRIME3;
  for (; at < end; at++) hash = rotate(hash ^ *at * PRIME5, 11) * PRIME1;
  hash = (hash ^ hash >> 33) * PRIME2;
  hash = (hash ^ hash >> 29) * PRIME3;
  return hash ^ hash >> 32;
}

static bool all_zero(const unsigned char *data, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; i++)
    if (data[i]) return false;
  return true;
}

/* Whether bytes are UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const unsigned char *data, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes;) {
    unsigned char c = data[i++];
    if (c < 0x80) continue;
    int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
    if (c < 0xC2 || c > 0xF4 || bytes - i < (uint64_t)more) return false;
    unsigned char least = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, most = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (data[i] < least || data[i] > most) return false;
    for (int k = 1; k < more; k++)
      if ((data[i + (uint64_t)k] & 0xC0) != 0x80) return false;
    i += (uint64_t)more;
  }
  return true;
}

/* ---- File and sections -------------------------------------------------------------------------------- */

static mgec_status map_file(artifact *a, const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) FAIL(MGEC_SYSTEM, "model_load: the file cannot be opened");
  struct stat status;
  void *data = MAP_FAILED;
  if (!fstat(file, &status) && S_ISREG(status.st_mode) && status.st_size >= (off_t)HEADER_BYTES) {
    a->bytes = (uint64_t)status.st_size;
    data = mmap(NULL, a->bytes, PROT_READ, MAP_PRIVATE, file, 0);
  }
  close(file);
  EXPECT(a->bytes, "it is no file of at least 64 bytes");
  if (data == MAP_FAILED) FAIL(MGEC_SYSTEM, "model_load: the file cannot be mapped");
  a->file = data;
  return NULL;
}

/* The header and the table behind it have one checksum, which lies in the header and counts as zero. */
static mgec_status check_header(artifact *a) {
  const unsigned char *header = a->file;
  EXPECT(!memcmp(header, "MGECART", 8), "it does not begin as an artifact does");
  EXPECT(load32(header + 12) == ENDIAN_MARK, "it was written on a machine of another byte order");
  EXPECT(load32(header + 8) == FORMAT_VERSION, "it is of another version");
  a->num_sections = load32(header + 16);
  EXPECT(load32(header + 20) == HEADER_BYTES && all_zero(header + 40, 24), "reserved bytes are not zero");
  EXPECT(load64(header + 24) == a->bytes, "the file is longer or shorter than it says");
  EXPECT(a->num_sections >= 1 && a->num_sections <= MAX_SECTIONS, "the number of sections is out of range");
  uint64_t end = HEADER_BYTES + (uint64_t)a->num_sections * ROW_BYTES;
  EXPECT(end <= a->bytes, "the table of sections is cut off");
  unsigned char *copy = malloc(end);
  if (!copy) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  memcpy(copy, header, end);
  memset(copy + 32, 0, 8);
  uint64_t computed = checksum(copy, end);
  free(copy);
  EXPECT(computed == load64(header + 32), "the checksum of the section table differs");
  return NULL;
}

static mgec_status read_section(const artifact *a, uint32_t number, uint64_t *end, section *made) {
  const unsigned char *row = a->file + HEADER_BYTES + (uint64_t)number * ROW_BYTES;
  made->kind = load32(row);
  memcpy(made->name, row + 32, NAME_BYTES);
  uint64_t offset = load64(row + 8), expected = (*end + MGEC_ALIGNMENT - 1) / MGEC_ALIGNMENT * MGEC_ALIGNMENT;
  made->bytes = load64(row + 16);
  EXPECT(made->kind >= METADATA && made->kind <= GRAPH && load32(row + 4) == 0, "a section has an unknown kind");
  EXPECT(!number || made->kind >= made[-1].kind, "the sections are not in order");
  EXPECT(all_zero(row + 32 + strlen(made->name), NAME_BYTES - strlen(made->name)), "a section has a strange name");
  bool shared = made->kind != CODE, single = made->kind == METADATA || made->kind == GRAPH;
  EXPECT(made->name[0] ? !single : shared, "a section is of no target, or of one where it must not be");
  EXPECT(offset == expected && offset <= a->bytes && made->bytes <= a->bytes - offset,
         "a section does not lie where it must");
  EXPECT(all_zero(a->file + *end, offset - *end), "there are bytes between the sections");
  made->data = a->file + offset;
  EXPECT(checksum(made->data, made->bytes) == load64(row + 24), "the checksum of a section differs");
  for (uint32_t i = 0; i < number; i++)
    EXPECT(a->sections[i].kind != made->kind || strcmp(a->sections[i].name, made->name), "a section is there twice");
  *end = offset + made->bytes;
  return NULL;
}

static mgec_status read_sections(artifact *a) {
  RETURN_IF_FAILED(check_header(a));
  a->sections = calloc(a->num_sections, sizeof *a->sections);
  if (!a->sections) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  uint64_t end = HEADER_BYTES + (uint64_t)a->num_sections * ROW_BYTES;
  for (uint32_t i = 0; i < a->num_sections; i++) RETURN_IF_FAILED(read_section(a, i, &end, &a->sections[i]));
  EXPECT(end == a->bytes, "there are bytes behind the last section");
  EXPECT(a->sections[0].kind == METADATA && !a->sections[0].name[0], "there is no METADATA");
  return NULL;
}

/* The section of a target, or the one that all targets share; NULL if there is neither. */
static const section *find(const artifact *a, uint32_t kind, const char *target) {
  const section *shared = NULL;
  for (uint32_t i = 0; i < a->num_sections; i++) {
    if (a->sections[i].kind != kind) continue;
    if (!strcmp(a->sections[i].name, target)) return &a->sections[i];
    if (!a->sections[i].name[0]) shared = &a->sections[i];
  }
  return shared;
}

/* ---- Metadata ----------------------------------------------------------------------------------------- */

#define GET(object, key, type) mgec_json_get(&a->metadata, (object), (key), (type))

static const mgec_json_value *next(const artifact *a, const mgec_json_value *value) {
  return a->metadata.values + value->next;
}

static mgec_status read_number(const artifact *a, const mgec_json_value *value, int64_t *number) {
  EXPECT(value->type == '0' && value->end - value->begin <= 15, "METADATA: a size is out of range");
  *number = 0;
  for (uint32_t at = value->begin; at < value->end; at++) {
    char c = a->metadata.text[at];
    EXPECT(c >= '0' && c <= '9', "METADATA: a size is out of range");
    *number = *number * 10 + (c - '0');
  }
  return NULL;
}

static uint64_t element_bytes(const char *dtype) {
  static const struct {
    const char *name;
    uint64_t bytes;
  } types[] = {
      {"bool", 1},      {"int8", 1},     {"int16", 2},   {"int32", 4},   {"int64", 8},         {"uint8", 1},
      {"uint16", 2},    {"uint32", 4},   {"uint64", 8},  {"float16", 2}, {"bfloat16", 2},      {"float32", 4},
      {"float64", 8},   {"float8_e4m3fn", 1}, {"float8_e5m2", 1}, {"complex64", 8}, {"complex128", 16},
  };
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (!strcmp(types[i].name, dtype)) return types[i].bytes;
  return 0;
}

static mgec_status read_tensor(artifact *a, const mgec_json_value *row, mgec_tensor *made, int64_t **shapes) {
  const mgec_json_value *name = GET(row, "name", '"'), *dtype = GET(row, "dtype", '"'), *shape = GET(row, "shape", '[');
  EXPECT(name && dtype && shape, "METADATA: an input or output lacks its name, dtype or shape");
  *made = (mgec_tensor){
      .name = mgec_json_text(&a->metadata, name, &a->room),
      .dtype = mgec_json_text(&a->metadata, dtype, &a->room),
      .shape = *shapes,
      .rank = shape->count,
  };
  bool empty = false;
  made->bytes = element_bytes(made->dtype);
  EXPECT(made->bytes, "METADATA: a dtype is unknown");
  const mgec_json_value *size = shape + 1;
  for (uint32_t axis = 0; axis < shape->count; axis++, size = next(a, size)) {
    int64_t *to = (*shapes)++;
    RETURN_IF_FAILED(read_number(a, size, to));
    empty |= *to == 0;
    EXPECT(*to == 0 || (uint64_t)*to <= MAX_BYTES / made->bytes, "METADATA: an input or output is too large");
    if (*to) made->bytes *= (uint64_t)*to;
  }
  if (empty) made->bytes = 0;
  return NULL;
}

static mgec_status read_io(artifact *a) {
  const mgec_json_value *top = a->metadata.values;
  const mgec_json_value *lists[] = {GET(top, "inputs", '['), GET(top, "outputs", '[')};
  EXPECT(lists[0] && lists[1], "METADATA has no inputs or outputs");
  /* Each of these has at least one value of the document for itself. */
  a->io = calloc(a->metadata.count, sizeof *a->io);
  a->shapes = calloc(a->metadata.count, sizeof *a->shapes);
  if (!a->io || !a->shapes) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  int64_t *shapes = a->shapes;
  mgec_tensor *made = a->io;
  for (int i = 0; i < 2; i++) {
    const mgec_json_value *row = lists[i] + 1;
    for (uint32_t k = 0; k < lists[i]->count; k++, row = next(a, row))
      RETURN_IF_FAILED(read_tensor(a, row, made++, &shapes));
  }
  a->desc.io = a->io;
  a->desc.num_inputs = lists[0]->count;
  a->desc.program.num_io = lists[0]->count + lists[1]->count;
  return NULL;
}

static mgec_status read_metadata(artifact *a) {
  const section *section = &a->sections[0];
  EXPECT(is_utf8(section->data, section->bytes), "METADATA is not UTF-8");
  bool good = mgec_json_parse((const char *)section->data, section->bytes, &a->metadata);
  if (a->metadata.out_of_memory) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  EXPECT(good, "METADATA is not JSON");
  a->texts = a->room = malloc(section->bytes + a->metadata.count);
  if (!a->texts) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  const mgec_json_value *name = GET(a->metadata.values, "name", '"');
  EXPECT(name, "METADATA has no name");
  a->desc.name = mgec_json_text(&a->metadata, name, &a->room);
  return read_io(a);
}

/* ---- Target ------------------------------------------------------------------------------------------- */

/* Whether a triple such as aarch64-unknown-linux-gnu names this machine's architecture and system. */
static bool triple_matches(const char *triple) {
  size_t length = strlen(ARCHITECTURE);
  return !strncmp(triple, ARCHITECTURE, length) && triple[length] == '-' && strstr(triple + length, "-linux");
}

/* The flags of a target as one text. */
static mgec_status read_required(artifact *a, const mgec_json_value *features, const char **required) {
  char *text = a->room;
  const mgec_json_value *flag = features + 1;
  *text = 0;
  for (uint32_t i = 0; i < features->count; i++, flag = next(a, flag)) {
    EXPECT(flag->type == '"', "METADATA: a feature is no text");
    mgec_json_text(&a->metadata, flag, &a->room);
    a->room[-1] = i + 1 < features->count ? ' ' : 0;
  }
  if (!features->count) a->room++;
  *required = text;
  return NULL;
}

/* Finds the first target that this machine runs: its name and its kernels. */
static mgec_status choose_target(artifact *a, const char **name, const mgec_json_value **kernels) {
  const mgec_json_value *targets = GET(a->metadata.values, "targets", '[');
  EXPECT(targets && targets->count, "METADATA has no targets");
  const mgec_json_value *row = targets + 1;
  for (uint32_t i = 0; i < targets->count; i++, row = next(a, row)) {
    const mgec_json_value *label = GET(row, "name", '"'), *triple = GET(row, "triple", '"');
    const mgec_json_value *features = GET(row, "features", '[');
    *kernels = GET(row, "kernels", '[');
    EXPECT(label && triple && features && *kernels, "METADATA: a target lacks something");
    *name = mgec_json_text(&a->metadata, label, &a->room);
    bool matches = triple_matches(mgec_json_text(&a->metadata, triple, &a->room));
    RETURN_IF_FAILED(read_required(a, features, &a->desc.required));
    if (matches && mgec_cpu_runs(a->desc.required)) return NULL;
  }
  FAIL(MGEC_UNSUPPORTED, "model_load: the artifact has no code for this machine");
}

/* Points into the file: the tables have the same layout there. */
static mgec_status read_program(artifact *a, const char *target, uint32_t num_kernels) {
  const section *section = find(a, PROGRAM, target), *weights = find(a, WEIGHTS, target);
  mgec_program_desc *program = &a->desc.program;
  EXPECT(section && section->bytes >= HEADER_BYTES, "PROGRAM is missing or cut off");
  const unsigned char *header = section->data;
  program->num_kernels = load32(header);
  program->num_steps = load32(header + 4);
  program->num_slots = load32(header + 8);
  program->num_dims = load32(header + 12);
  program->arena_bytes = load64(header + 24);
  program->scratch_bytes = load64(header + 32);
  program->constants_bytes = load64(header + 40);
  EXPECT(load32(header + 16) == program->num_io, "PROGRAM and METADATA differ in the number of inputs and outputs");
  EXPECT(load32(header + 20) == 0 && all_zero(header + 48, 16), "PROGRAM: reserved bytes are not zero");
  EXPECT(program->num_kernels == num_kernels, "PROGRAM and METADATA differ in the number of kernels");
  EXPECT(program->arena_bytes <= MAX_BYTES && program->scratch_bytes <= MAX_BYTES, "PROGRAM: its memory is too large");
  uint64_t slots = HEADER_BYTES + (uint64_t)program->num_steps * sizeof(mgec_step);
  uint64_t dims = slots + (uint64_t)program->num_slots * sizeof(mgec_slot);
  EXPECT(section->bytes == dims + (uint64_t)program->num_dims * sizeof(int64_t), "PROGRAM has another size than it says");
  program->steps = (const mgec_step *)(const void *)(header + HEADER_BYTES);
  program->slots = (const mgec_slot *)(const void *)(header + slots);
  program->dims = (const int64_t *)(const void *)(header + dims);
  uint64_t slot = 0, dim = 0; /* steps share neither slots nor dims */
  for (uint32_t i = 0; i < program->num_steps; i++) {
    const mgec_step *step = &program->steps[i];
    EXPECT(step->first_slot == slot && step->first_dim == dim, "PROGRAM: the steps do not follow each other");
    slot += step->num_slots;
    dim += step->num_dims;
  }
  EXPECT(slot == program->num_slots && dim == program->num_dims, "PROGRAM has slots or dims that no step uses");
  EXPECT(program->constants_bytes == (weights ? weights->bytes : 0), "WEIGHTS has another size than PROGRAM says");
  program->constants = weights ? weights->data : NULL;
  return NULL;
}

/* ---- Code --------------------------------------------------------------------------------------------- */

/* A file without a name that holds the code. */
static int code_file(const section *code) {
  int file = (int)syscall(SYS_memfd_create, "mgec-code", 1u /* MFD_CLOEXEC */);
  if (file < 0) {
    char path[] = "/tmp/mgec-code-XXXXXX";
    file = mkstemp(path);
    if (file >= 0) unlink(path);
  }
  for (uint64_t done = 0; file >= 0 && done < code->bytes;) {
    ssize_t count = write(file, code->data + done, code->bytes - done);
    if (count <= 0) {
      close(file);
      return -1;
    }
    done += (uint64_t)count;
  }
  return file;
}

static mgec_status load_code(artifact *a, const char *target, const mgec_json_value *names) {
  const section *code = find(a, CODE, target);
  EXPECT(code && code->bytes, "CODE is missing");
  a->kernels = calloc(names->count + (size_t)1, sizeof *a->kernels);
  if (!a->kernels) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  a->code = code_file(code);
  if (a->code < 0) FAIL(MGEC_SYSTEM, "model_load: the system has no place for the machine code");
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", a->code);
  a->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  EXPECT(a->library, "the machine code cannot be loaded");
  const mgec_json_value *name = names + 1;
  for (uint32_t i = 0; i < names->count; i++, name = next(a, name)) {
    EXPECT(name->type == '"', "METADATA: the name of a kernel is no text");
    void *symbol = dlsym(a->library, mgec_json_text(&a->metadata, name, &a->room));
    EXPECT(symbol, "the machine code lacks a kernel");
    memcpy(&a->kernels[i], &symbol, sizeof symbol);
  }
  a->desc.program.kernels = a->kernels;
  return NULL;
}

/* ---- Model -------------------------------------------------------------------------------------------- */

static mgec_status read_artifact(artifact *a, const char *path) {
  const char *target;
  const mgec_json_value *kernels;
  RETURN_IF_FAILED(map_file(a, path));
  RETURN_IF_FAILED(read_sections(a));
  RETURN_IF_FAILED(read_metadata(a));
  RETURN_IF_FAILED(choose_target(a, &target, &kernels));
  RETURN_IF_FAILED(read_program(a, target, kernels->count));
  return load_code(a, target, kernels);
}

mgec_status mgec_model_load(const char *path, mgec_pool *pool, int32_t threads, mgec_model **out) {
  CHECK(path && out, "model_load: NULL argument");
  *out = NULL;
  artifact *a = calloc(1, sizeof *a);
  if (!a) FAIL(MGEC_OUT_OF_MEMORY, "out of memory");
  a->code = -1;
  mgec_status status = read_artifact(a, path);
  if (!status) status = mgec_model_create(&a->desc, pool, threads, out);
  if (status)
    release(a);
  else
    mgec_model_own(*out, release, a);
  return status;
}

#endif
