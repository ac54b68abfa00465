/* row.c: the bytes of a row, taken apart: they come from another process, so nothing of them is believed. No I/O, no memory
 * of its own. What a field says to another one of this engine is seen where the client is made, in add.c. */
#include <errno.h>
#include <string.h>

#include "base/wire.h"
#include "moving/row.h"
#include "pysock.h"

typedef struct field_rule {
    uint32_t least, most; /* bytes */
    bool critical, needed, text;
} field_rule;

#define EXACTLY(n) .least = n, .most = n
#define ANY_SIZE .most = UINT32_MAX

static const field_rule rules[PS_ROW_TAGS] = {
    [PS_ROW_ID] = {EXACTLY(8), .critical = true, .needed = true},
    [PS_ROW_STATE] = {EXACTLY(1), .critical = true, .needed = true},
    [PS_ROW_LISTENER] = {EXACTLY(1), .critical = true},
    [PS_ROW_FEATURES] = {EXACTLY(1), .critical = true},
    [PS_ROW_NAME] = {.most = PS_NAME_MAX, .text = true},
    [PS_ROW_SOFTWARE] = {.most = 3 * PS_NAME_MAX},
    [PS_ROW_MAX_REPLY] = {EXACTLY(4), .critical = true, .needed = true},
    [PS_ROW_EXPECTED] = {.most = 255, .critical = true},
    [PS_ROW_ORIGIN] = {EXACTLY(PS_ROW_ADDRESS)},
    [PS_ROW_VIA] = {.least = PS_ROW_VIA_HEAD + 1, .most = PS_ROW_VIA_HEAD + PS_PROXY_KEPT},
    [PS_ROW_COUNTERS] = {EXACTLY(48)},
    [PS_ROW_DEADLINES] = {.most = 4 * PS_ROW_DEADLINE_SIZE},
    [PS_ROW_INPUT] = {ANY_SIZE, .critical = true},
    [PS_ROW_SKIP] = {EXACTLY(4), .critical = true},
    [PS_ROW_OUTPUT] = {ANY_SIZE, .critical = true},
    [PS_ROW_WINDOW] = {EXACTLY(4), .critical = true},
    [PS_ROW_GAP] = {EXACTLY(4), .critical = true},
    [PS_ROW_HEARD] = {EXACTLY(4)},
    [PS_ROW_GAVE_UP] = {EXACTLY(1), .critical = true},
    [PS_ROW_AWAITS_HEADER] = {EXACTLY(1), .critical = true},
    [PS_ROW_WAITED] = {EXACTLY(4)},
    [PS_ROW_DROPPED] = {EXACTLY(8)},
};

uint16_t ps__row_tag(unsigned number)
{
    return (uint16_t)(number | (rules[number].critical ? PS_ROW_CRITICAL : 0u));
}

uint32_t ps__get32le(const uint8_t *from)
{
    return (uint32_t)from[3] << 24 | (uint32_t)from[2] << 16 | (uint32_t)from[1] << 8 | from[0];
}

uint64_t ps__get64le(const uint8_t *from)
{
    return (uint64_t)ps__get32le(from + 4) << 32 | ps__get32le(from);
}

void ps__putle(uint8_t *to, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

uint64_t ps__row_number(const ps_moved_row *row, unsigned number)
{
    const uint8_t *value = row->value[number];
    switch (value ? row->size[number] : 0) {
    case 1:
        return value[0];
    case 4:
        return ps__get32le(value);
    case 8:
        return ps__get64le(value);
    default:
        return 0;
    }
}

/* Why this field may not be there as it is; NULL: it may. */
static const char *take_field(ps_moved_row *row, unsigned tag, const uint8_t *value, uint32_t size)
{
    unsigned number = tag & ~(unsigned)PS_ROW_CRITICAL;
    if (!number || number >= PS_ROW_TAGS)
        return tag & PS_ROW_CRITICAL ? "a critical field isn't known here" : number ? NULL : "a field has no tag";
    const field_rule *rule = &rules[number];
    if (rule->critical != !!(tag & PS_ROW_CRITICAL))
        return "a field's tag isn't marked as it should be";
    if (size < rule->least || size > rule->most)
        return "a field has the wrong size";
    if (rule->text && (memchr(value, 0, size) || !ps__is_utf8(value, size)))
        return "its name isn't UTF-8";
    row->value[number] = value;
    row->size[number] = size;
    return NULL;
}

static const char *read_fields(const uint8_t *at, const uint8_t *end, ps_moved_row *row)
{
    unsigned last = 0;
    while (at < end) {
        if (end - at < 6)
            return "a field is cut off";
        unsigned tag = at[0] | (unsigned)at[1] << 8, place = tag & ~(unsigned)PS_ROW_CRITICAL;
        uint32_t size = ps__get32le(at + 2);
        at += 6;
        if ((size_t)(end - at) < size)
            return "a field is cut off";
        if (place <= last)
            return "a field is out of order";
        const char *why = take_field(row, tag, at, size);
        if (why)
            return why;
        last = place;
        at += size;
    }
    return NULL;
}

/* The family, and behind the port the address, as many bytes as such a one has, and zeros; at: where that begins. */
static bool is_address(const uint8_t *value, unsigned least, unsigned at)
{
    static const uint8_t zeros[16] = {0}, sizes[] = {0, 0, 4, 16};
    unsigned family = value[0], size = family <= PS_ROW_IPV6 ? sizes[family] : 0;
    return family >= least && family <= PS_ROW_IPV6 && memcmp(value + at + size, zeros, 16 - size) == 0;
}

static bool are_deadlines(const ps_moved_row *row)
{
    const uint8_t *at = row->value[PS_ROW_DEADLINES];
    uint32_t size = at ? row->size[PS_ROW_DEADLINES] : 0;
    unsigned seen = 0;
    for (uint32_t i = 0; i + PS_ROW_DEADLINE_SIZE <= size; i += PS_ROW_DEADLINE_SIZE) {
        unsigned bit = at[i] < 4 ? 1u << at[i] : 0;
        if (!bit || seen & bit)
            return false;
        seen |= bit;
    }
    bool let_in = ps__row_number(row, PS_ROW_STATE) == PS_CONN_ESTABLISHED;
    return size % PS_ROW_DEADLINE_SIZE == 0 && !(let_in && seen & 1);
}

static const char *check_row(const ps_moved_row *row)
{
    uint64_t state = ps__row_number(row, PS_ROW_STATE);
    const uint8_t *via = row->value[PS_ROW_VIA], *origin = row->value[PS_ROW_ORIGIN];
    for (unsigned number = 1; number < PS_ROW_TAGS; number++)
        if (rules[number].needed && !row->value[number])
            return "a field that must be there isn't";
    if (!(ps__row_number(row, PS_ROW_ID) >> 32))
        return "its id has no generation";
    if (state < PS_CONN_ACCEPTED || state > PS_CONN_ESTABLISHED)
        return "no client moves in its state";
    if ((row->size[PS_ROW_EXPECTED] != 0) != (state == PS_CONN_CHALLENGED))
        return "a MAC is awaited of a challenged client, and of no other";
    if (row->value[PS_ROW_GAVE_UP] && row->value[PS_ROW_GAVE_UP][0] != 1)
        return "a mark is neither there nor not";
    if (row->value[PS_ROW_AWAITS_HEADER] &&
        (row->value[PS_ROW_AWAITS_HEADER][0] != 1 || state != PS_CONN_ACCEPTED || via))
        return "a proxy's header comes before all else";
    if (origin && (!via || via[1] & PS_ROW_HAS_PATH || !is_address(origin, PS_ROW_IPV4, 3)))
        return "its address isn't one";
    if (via && (!is_address(via, PS_ROW_UNIX, 4) || via[1] & ~PS_ROW_HAS_PATH))
        return "its proxy's address isn't one";
    return are_deadlines(row) ? NULL : "its deadlines aren't as they may be";
}

int ps__row_read(const uint8_t **at, const uint8_t *end, ps_moved_row *row, const char **why)
{
    memset(row, 0, sizeof *row);
    if (*at == end)
        return 0;
    *why = "it is cut off";
    if (end - *at < 4)
        return -EBADMSG;
    uint32_t size = ps__get32le(*at);
    if ((size_t)(end - *at - 4) < size)
        return -EBADMSG;
    const uint8_t *body = *at + 4;
    *at = body + size;
    *why = read_fields(body, *at, row);
    if (!*why)
        *why = check_row(row);
    return *why ? -EBADMSG : 1;
}
