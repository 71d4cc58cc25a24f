/* JSON that somebody else wrote, with limits: as edgemoe_models.storage.json_text has them, and a number of values. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MOST_VALUES (1u << 20)
#define DEEPEST 32
#define LONGEST_NUMBER 64
#define MOST_DIGITS 25
#define MOST_MEMBERS 4096 /* of an object: each key is compared with all others */

struct parser {
    char *at, *end;
    struct emoe_json *values;
    uint32_t count, room;
    const char *why;
};

static bool refuse(struct parser *p, const char *why) {
    if (p->why == NULL) p->why = why;
    return false;
}

static void skip_space(struct parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')) p->at++;
}

static bool take_char(struct parser *p, char wanted) {
    skip_space(p);
    if (p->at >= p->end || *p->at != wanted) return false;
    p->at++;
    return true;
}

bool emoe_is_utf8(const char *text, size_t length) {
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < length) {
        const unsigned c = s[i];
        const size_t more = c < 0x80                ? 0
                            : c >= 0xc2 && c < 0xe0 ? 1
                            : c >= 0xe0 && c < 0xf0 ? 2
                            : c >= 0xf0 && c < 0xf5 ? 3
                                                    : 4;
        if (more == 4 || more > length - i - 1) return false;
        for (size_t k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80) return false;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) || (c == 0xf0 && s[i + 1] < 0x90) ||
            (c == 0xf4 && s[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

static bool hex4(struct parser *p, uint32_t *result) {
    if (p->end - p->at < 4) return false;
    *result = 0;
    for (unsigned i = 0; i < 4; i++) {
        const char c = *p->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return false;
        *result = *result << 4 | (uint32_t)digit;
    }
    return true;
}

static char *put_code(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 63));
        *to++ = (char)(0x80 | (code & 63));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 63));
        *to++ = (char)(0x80 | (code >> 6 & 63));
        *to++ = (char)(0x80 | (code & 63));
    }
    return to;
}

/* After \u: one code, of two escapes where the first is half of a pair. */
static bool take_code(struct parser *p, uint32_t *code) {
    uint32_t low;
    if (!hex4(p, code)) return refuse(p, "it is not JSON: a \\u escape lacks digits");
    if (*code < 0xd800 || *code > 0xdfff) return true;
    if (*code > 0xdbff || p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u')
        return refuse(p, "it is not text in UTF-8");
    p->at += 2;
    if (!hex4(p, &low) || low < 0xdc00 || low > 0xdfff) return refuse(p, "it is not text in UTF-8");
    *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

/* A string, decoded where it stands: no escape is shorter than what it means. A zero replaces the closing quote. */
static bool take_string(struct parser *p, const char **text, uint32_t *length) {
    if (!take_char(p, '"')) return refuse(p, "it is not JSON: a string is missing");
    char *to = p->at;
    *text = to;
    for (;;) {
        if (p->at >= p->end) return refuse(p, "it is not JSON: a string is cut off");
        const unsigned char c = (unsigned char)*p->at++;
        if (c == '"') break;
        if (c < 0x20) return refuse(p, "it is not JSON: a string has a control character");
        if (c != '\\') {
            *to++ = (char)c;
            continue;
        }
        if (p->at >= p->end) return refuse(p, "it is not JSON: a string is cut off");
        const char escape = *p->at++;
        static const char known[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
        const char *found = escape == '\0' ? NULL : strchr(known, escape);
        if (found != NULL) {
            *to++ = meaning[found - known];
        } else {
            uint32_t code;
            if (escape != 'u') return refuse(p, "it is not JSON: an escape is unknown");
            if (!take_code(p, &code)) return false;
            to = put_code(to, code);
        }
    }
    *length = (uint32_t)(to - *text);
    *to = '\0';
    return true;
}

static bool take_digits(struct parser *p, bool *too_many) {
    const char *begin = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    *too_many = *too_many || p->at - begin > MOST_DIGITS;
    return p->at > begin;
}

static bool take_number(struct parser *p, struct emoe_json *value) {
    char copy[LONGEST_NUMBER + 1], *end;
    const char *begin = p->at;
    bool too_many = false, whole = true, good;
    if (p->at < p->end && *p->at == '-') p->at++;
    const char *digits = p->at;
    good = take_digits(p, &too_many) && (*digits != '0' || p->at == digits + 1);
    if (good && p->at < p->end && *p->at == '.') {
        p->at++, whole = false;
        good = take_digits(p, &too_many);
    }
    if (good && p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        p->at++, whole = false;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
        good = take_digits(p, &too_many);
    }
    const size_t length = (size_t)(p->at - begin);
    if (!good) return refuse(p, "it is not JSON: a value is missing");
    if (too_many || length > LONGEST_NUMBER) return refuse(p, "a number in it has too many digits");
    memcpy(copy, begin, length);
    copy[length] = '\0';
    value->kind = whole ? EMOE_INTEGER : EMOE_FLOAT;
    if (whole) {
        if (p->at - digits > 18) return refuse(p, "a number in it has more than 18 digits");
        value->integer = strtoll(copy, NULL, 10);
        value->number = (double)value->integer;
        return true;
    }
    char *point = strchr(copy, '.');
    if (point != NULL) *point = localeconv()->decimal_point[0]; /* what strtod expects */
    value->number = strtod(copy, &end);
    if (*end != '\0' || !(value->number - value->number == 0)) return refuse(p, "it holds a number that is not finite");
    return true;
}

static bool take_word(struct parser *p, struct emoe_json *value) {
    static const char *const words[] = {"null", "false", "true"};
    for (unsigned i = 0; i < 3; i++) {
        const size_t length = strlen(words[i]);
        if ((size_t)(p->end - p->at) >= length && memcmp(p->at, words[i], length) == 0) {
            value->kind = (enum emoe_json_kind)((unsigned)EMOE_NULL + i);
            p->at += length;
            return true;
        }
    }
    return take_number(p, value);
}

static bool take_value(struct parser *p, unsigned depth);

static bool key_is_new(const struct parser *p, uint32_t object, uint32_t member) {
    const struct emoe_json *own = p->values + member;
    for (uint32_t i = object + 1; i < member; i = p->values[i].next)
        if (p->values[i].key_length == own->key_length && memcmp(p->values[i].key, own->key, own->key_length) == 0)
            return false;
    return true;
}

static bool take_items(struct parser *p, uint32_t owner, unsigned depth) {
    const bool object = p->values[owner].kind == EMOE_OBJECT;
    const char close = object ? '}' : ']';
    if (depth >= DEEPEST) return refuse(p, "its lists and objects lie more than 32 deep within each other");
    if (take_char(p, close)) return true;
    do {
        const char *key = NULL;
        uint32_t key_length = 0, number = p->count;
        if (object) {
            skip_space(p);
            if (!take_string(p, &key, &key_length)) return false;
            if (!take_char(p, ':')) return refuse(p, "it is not JSON: ':' is missing");
        }
        if (!take_value(p, depth + 1)) return false;
        p->values[number].key = key;
        p->values[number].key_length = key_length;
        p->values[owner].count++;
        if (object && p->values[owner].count > MOST_MEMBERS) return refuse(p, "an object in it has too many members");
        if (object && !key_is_new(p, owner, number)) return refuse(p, "a key comes twice in one object");
    } while (take_char(p, ','));
    return take_char(p, close) ||
           refuse(p, object ? "it is not JSON: '}' is missing" : "it is not JSON: ']' is missing");
}

static bool take_value(struct parser *p, unsigned depth) {
    if (p->count >= p->room) return refuse(p, "it has too many values");
    const uint32_t number = p->count++;
    struct emoe_json *value = p->values + number;
    skip_space(p);
    bool good;
    if (p->at < p->end && (*p->at == '{' || *p->at == '[')) {
        value->kind = *p->at++ == '{' ? EMOE_OBJECT : EMOE_LIST;
        good = take_items(p, number, depth);
    } else if (p->at < p->end && *p->at == '"') {
        value->kind = EMOE_STRING;
        good = take_string(p, &value->text, &value->length);
    } else {
        good = take_word(p, value);
    }
    value->next = p->count;
    return good;
}

struct emoe_json *emoe_json_parse(char *text, size_t length, const char **why) {
    size_t room = 1;
    for (size_t i = 0; i < length && room < MOST_VALUES; i++)
        room += text[i] == ',' || text[i] == '[' || text[i] == '{';
    *why = NULL;
    if (!emoe_is_utf8(text, length)) {
        *why = "it is not text in UTF-8";
        return NULL;
    }
    struct parser p = {text, text + length, calloc(room, sizeof *p.values), 0, (uint32_t)room, NULL};
    if (p.values == NULL) {
        *why = "it is larger than the free memory";
        return NULL;
    }
    bool good = take_value(&p, 0);
    skip_space(&p);
    if (good && p.at != p.end) good = refuse(&p, "it is not JSON: something follows it");
    if (good) return p.values;
    free(p.values);
    *why = p.why;
    return NULL;
}

const struct emoe_json *emoe_json_get(const struct emoe_json *values, const struct emoe_json *object, const char *key) {
    if (object->kind != EMOE_OBJECT) return NULL;
    const size_t length = strlen(key);
    const uint32_t own = (uint32_t)(object - values);
    for (uint32_t i = own + 1; i < object->next; i = values[i].next)
        if (values[i].key_length == length && memcmp(values[i].key, key, length) == 0) return values + i;
    return NULL;
}

bool emoe_json_is(const struct emoe_json *value, const char *text) {
    return value->kind == EMOE_STRING && value->length == strlen(text) && memcmp(value->text, text, value->length) == 0;
}
