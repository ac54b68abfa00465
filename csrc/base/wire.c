/* wire.c: headers and fields of the wire protocol, in and out of bytes. No I/O, no allocation, no state: every function
 * is given all it looks at. pysock/wire/format.py has the theory. */
#include <errno.h>
#include <string.h>

#include "base/wire.h"

void ps__read_header(const uint8_t *data, ps_frame *frame)
{
    frame->size = ps__get32(data);
    frame->kind = data[4];
    frame->flags = data[5];
    frame->code = ps__get16(data + 6);
    frame->request_id = ps__get32(data + 8);
    frame->deadline_ns = 0;
}

void ps__write_header(uint8_t *data, uint32_t size, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id)
{
    ps__put32(data, size);
    data[4] = kind;
    data[5] = flags;
    ps__put16(data + 6, code);
    ps__put32(data + 8, request_id);
}

int ps__next_field(const uint8_t **at, const uint8_t *end, ps_field *field)
{
    const uint8_t *p = *at;
    if (p == end)
        return 0;
    if (end - p < 3)
        return -EBADMSG;
    field->tag = p[0];
    field->size = ps__get16(p + 1);
    field->value = p + 3;
    if (end - field->value < field->size)
        return -EBADMSG;
    *at = field->value + field->size;
    return 1;
}

size_t ps__put_field(uint8_t *to, uint8_t tag, const void *value, uint16_t size)
{
    to[0] = tag;
    ps__put16(to + 1, size);
    memcpy(to + 3, value, size);
    return 3u + size;
}

/* How many bytes follow this first byte of a sequence, and the least code point they may make; -1: not a first byte. */
static int follows(uint8_t first, uint32_t *least)
{
    static const struct {
        uint8_t mask, bits;
        uint32_t least;
    } rows[] = {{0x80, 0x00, 0}, {0xE0, 0xC0, 0x80}, {0xF0, 0xE0, 0x800}, {0xF8, 0xF0, 0x10000}};
    for (int more = 0; more < 4; more++) {
        if ((first & rows[more].mask) != rows[more].bits)
            continue;
        *least = rows[more].least;
        return more;
    }
    return -1;
}

/* RFC 3629: shortest forms only, no surrogates, nothing above U+10FFFF. Python's decoder refuses the same. */
bool ps__is_utf8(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t least = 0;
        int more = follows(data[i], &least);
        if (more < 0 || size - i <= (size_t)more)
            return false;
        uint32_t point = more ? data[i] & (0x3Fu >> more) : data[i];
        for (int k = 1; k <= more; k++) {
            if ((data[i + (size_t)k] & 0xC0) != 0x80)
                return false;
            point = point << 6 | (data[i + (size_t)k] & 0x3Fu);
        }
        if (point < least || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
            return false;
        i += 1u + (size_t)more;
    }
    return true;
}
