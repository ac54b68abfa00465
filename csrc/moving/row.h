/* row.h: a client that moves to another process, as bytes; pysock/handover/rows.py has the same, and says more. */
#ifndef PYSOCK_MOVING_ROW_H
#define PYSOCK_MOVING_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ps_row_tag {
    PS_ROW_ID = 1, PS_ROW_STATE, PS_ROW_LISTENER, PS_ROW_FEATURES, PS_ROW_NAME, PS_ROW_SOFTWARE, PS_ROW_MAX_REPLY,
    PS_ROW_EXPECTED, PS_ROW_ORIGIN, PS_ROW_VIA, PS_ROW_COUNTERS, PS_ROW_DEADLINES, PS_ROW_INPUT, PS_ROW_SKIP,
    PS_ROW_OUTPUT, PS_ROW_WINDOW, PS_ROW_GAP, PS_ROW_HEARD, PS_ROW_GAVE_UP, PS_ROW_AWAITS_HEADER, PS_ROW_WAITED,
    PS_ROW_DROPPED, PS_ROW_TAGS
};

enum { PS_ROW_CRITICAL = 0x8000, PS_ROW_DEADLINE_SIZE = 5, PS_ROW_ADDRESS = 19, PS_ROW_VIA_HEAD = 20 };
enum { PS_ROW_UNIX = 1, PS_ROW_IPV4, PS_ROW_IPV6 }; /* families: the same numbers on each system */
enum { PS_ROW_HAS_PATH = 1 };

/* The value of each field where it lies; NULL: it isn't there, and has its default. */
typedef struct ps_moved_row {
    const uint8_t *value[PS_ROW_TAGS];
    uint32_t size[PS_ROW_TAGS];
} ps_moved_row;

/* The tag as it is written; 0: there is no such field. */
uint16_t ps__row_tag(unsigned number);
/* A number of a field, or 0 where that isn't there. */
uint64_t ps__row_number(const ps_moved_row *row, unsigned number);
uint32_t ps__get32le(const uint8_t *from);
uint64_t ps__get64le(const uint8_t *from);
void ps__putle(uint8_t *to, uint64_t value, unsigned size);
/* The row at *at, which then points behind it. 1; 0: that was all; -EBADMSG: it isn't as it may be, and *why. */
int ps__row_read(const uint8_t **at, const uint8_t *end, ps_moved_row *row, const char **why);

#endif
