/* wire.h: headers and fields of the wire protocol, in and out of bytes. */
#ifndef PYSOCK_BASE_WIRE_H
#define PYSOCK_BASE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One frame. For framings without a header kind is PS_SRM and the rest 0. While an SRM has PS_DEADLINE its payload begins
 * with the deadline still; see conn/cut.c. */
typedef struct ps_frame {
    const uint8_t *payload;
    uint32_t size; /* of the payload */
    uint32_t request_id;
    uint16_t code;
    uint8_t kind, flags;
    uint64_t deadline_ns; /* of a request, on the monotonic clock: nobody waits for it any longer; 0: none */
} ps_frame;

enum { PS_TRACE_SIZE = 26 };   /* the payload of a TRACE */
enum { PS_DEADLINE_SIZE = 4 }; /* of an SRM with PS_DEADLINE: microseconds, in front of the payload */

static inline uint32_t ps__get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline uint16_t ps__get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void ps__put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline void ps__put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

void ps__read_header(const uint8_t *data, ps_frame *frame);
void ps__write_header(uint8_t *data, uint32_t size, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id);

typedef struct ps_field {
    const uint8_t *value;
    uint16_t size;
    uint8_t tag;
} ps_field;

/* 1 and the field at *at, which then points behind it; 0 at the end; -EBADMSG if it is cut off. */
int ps__next_field(const uint8_t **at, const uint8_t *end, ps_field *field);
size_t ps__put_field(uint8_t *to, uint8_t tag, const void *value, uint16_t size);
bool ps__is_utf8(const uint8_t *data, size_t size);

#endif
