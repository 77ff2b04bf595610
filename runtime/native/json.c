/* JSON as a flat list of values: each is followed by what it contains. */
#include "internal.h"

#define MAX_DEPTH 64

typedef struct parser {
  const char *text;
  uint32_t length;
  uint32_t at;
  mgec_json *json;
} parser;

static int peek(const parser *p) { return p->at < p->length ? (unsigned char)p->text[p->at] : -1; }

static void skip_space(parser *p) {
  while (peek(p) == ' ' || peek(p) == '\n' || peek(p) == '\t' || peek(p) == '\r') p->at++;
}

static bool take(parser *p, int character) {
  if (peek(p) != character) return false;
  p->at++;
  return true;
}

/* Adds a value; returns its index, or 0 if memory ran out: index 0 is the document's own and made first. */
static uint32_t add(parser *p, char type) {
  mgec_json *json = p->json;
  if (json->count == json->room) {
    uint32_t room = json->room ? 2 * json->room : 256;
    mgec_json_value *grown = realloc(json->values, room * sizeof *grown);
    if (!grown) {
      json->out_of_memory = true;
      return 0;
    }
    json->values = grown;
    json->room = room;
  }
  json->values[json->count] = (mgec_json_value){.type = type, .begin = p->at};
  return json->count++;
}

static bool string(parser *p) {
  if (!take(p, '"')) return false;
  uint32_t index = add(p, '"');
  if (p->json->out_of_memory) return false;
  for (int c; (c = peek(p)) != '"'; p->at++) {
    if (c < 0x20) return false; /* a control character, or the end */
    if (c == '\\') {
      p->at++;
      c = peek(p);
      if (c <= 0 || !strchr("\"\\/bfnrtu", c)) return false;
      for (int i = 0; c == 'u' && i < 4; i++) {
        p->at++;
        int digit = peek(p);
        if (!((digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f') || (digit >= 'A' && digit <= 'F')))
          return false;
      }
    }
  }
  p->json->values[index].end = p->at++;
  return true;
}

static uint32_t digits(parser *p) {
  uint32_t before = p->at;
  while (peek(p) >= '0' && peek(p) <= '9') p->at++;
  return p->at - before;
}

static bool number(parser *p) {
  uint32_t index = add(p, '0');
  if (p->json->out_of_memory) return false;
  take(p, '-');
  bool zero = peek(p) == '0';
  uint32_t whole = digits(p);
  if (!whole || (zero && whole > 1)) return false;
  if (take(p, '.') && !digits(p)) return false;
  if (take(p, 'e') || take(p, 'E')) {
    if (!take(p, '+')) take(p, '-');
    if (!digits(p)) return false;
  }
  p->json->values[index].end = p->at;
  return true;
}

static bool word(parser *p, const char *expected) {
  uint32_t index = add(p, *expected);
  size_t length = strlen(expected);
  if (p->json->out_of_memory || p->length - p->at < length || memcmp(p->text + p->at, expected, length)) return false;
  p->at += (uint32_t)length;
  p->json->values[index].end = p->at;
  return true;
}

static bool value(parser *p, int depth);

static bool members(parser *p, char opening, int depth) {
  char closing = opening == '{' ? '}' : ']';
  uint32_t index = add(p, opening), count = 0;
  if (p->json->out_of_memory) return false;
  p->at++;
  skip_space(p);
  while (!(count == 0 && peek(p) == closing)) {
    skip_space(p);
    if (opening == '{') {
      if (!string(p)) return false;
      skip_space(p);
      if (!take(p, ':')) return false;
    }
    if (!value(p, depth + 1)) return false;
    count++;
    skip_space(p);
    if (peek(p) == closing) break;
    if (!take(p, ',')) return false;
  }
  p->at++;
  p->json->values[index].end = p->at;
  p->json->values[index].count = count;
  return true;
}

static bool value(parser *p, int depth) {
  if (depth > MAX_DEPTH) return false;
  skip_space(p);
  uint32_t index = p->json->count;
  bool good;
  switch (peek(p)) {
    case '{': good = members(p, '{', depth); break;
    case '[': good = members(p, '[', depth); break;
    case '"': good = string(p); break;
    case 't': good = word(p, "true"); break;
    case 'f': good = word(p, "false"); break;
    case 'n': good = word(p, "null"); break;
    default: good = number(p);
  }
  if (good) p->json->values[index].next = p->json->count;
  return good;
}

bool mgec_json_parse(const char *text, uint64_t length, mgec_json *json) {
  *json = (mgec_json){.text = text};
  if (length > INT32_MAX) return false;
  parser p = {text, (uint32_t)length, 0, json};
  bool good = value(&p, 0);
  skip_space(&p);
  return good && p.at == p.length;
}

void mgec_json_free(mgec_json *json) {
  free(json->values);
  json->values = NULL;
}

const mgec_json_value *mgec_json_get(const mgec_json *json, const mgec_json_value *object, const char *key, char type) {
  if (!object || object->type != '{') return NULL;
  const mgec_json_value *name = object + 1;
  for (uint32_t i = 0; i < object->count; i++) {
    const mgec_json_value *found = name + 1; /* a key contains nothing */
    if (name->end - name->begin == strlen(key) && !memcmp(json->text + name->begin, key, strlen(key)))
      return found->type == type ? found : NULL;
    name = json->values + found->next;
  }
  return NULL;
}

static unsigned hexadecimal(const char *text) {
  unsigned made = 0;
  for (int i = 0; i < 4; i++) {
    int c = text[i];
    made = made * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return made;
}

/* Surrogate pairs stay two characters: nothing that the runtime compares or looks up has any. */
static char *encode(unsigned code, char *to) {
  if (code < 0x80) {
    *to++ = (char)code;
  } else if (code < 0x800) {
    *to++ = (char)(0xC0 | code >> 6);
    *to++ = (char)(0x80 | (code & 0x3F));
  } else {
    *to++ = (char)(0xE0 | code >> 12);
    *to++ = (char)(0x80 | (code >> 6 & 0x3F));
    *to++ = (char)(0x80 | (code & 0x3F));
  }
  return to;
}

char *mgec_json_text(const mgec_json *json, const mgec_json_value *value, char **room) {
  char *made = *room, *to = made;
  for (uint32_t at = value->begin; at < value->end; at++) {
    char c = json->text[at];
    if (c != '\\') {
      *to++ = c;
      continue;
    }
    c = json->text[++at];
    static const char names[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    const char *name = strchr(names, c);
    if (c == 'u') {
      to = encode(hexadecimal(json->text + at + 1), to);
      at += 4;
    } else {
      *to++ = name ? meanings[name - names] : c;
    }
  }
  *to++ = 0;
  *room = to;
  return made;
}
