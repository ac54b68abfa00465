/* load_frames.c: what the load generator sends, prepared once, and the replies of the framings without request ids, which
 * come in order: what comes back must be, byte for byte, what was sent. So they need no cutting, only comparing. */
#include <errno.h>
#include <string.h>

#include "load.h"

/* Upper case, so that a service that makes letters large echoes as well; no line ends; 37 of them, no power of two, so that
 * bytes that moved by 2, 4, 8, ... are noticed. */
static const char pattern[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

enum {
    PERIOD = sizeof pattern - 1,
    PIECE = 4096, /* of expected bytes: they stay in the fastest cache, however large the message */
    LINE = 64,    /* of the cache: the kernel copies to its beginning faster */
};

static uint32_t head_size(const ps_load *load)
{
    return load->options.framing == PS_NATIVE ? PS_HEADER_SIZE : load->options.framing == PS_U32 ? 4 : 0;
}

static void write_request(const ps_load *load, uint8_t *to)
{
    uint32_t size = load->options.size;
    if (load->options.framing == PS_NATIVE)
        ps__write_header(to, size, PS_SRM, 0, 0, 0);
    else if (load->options.framing == PS_U32)
        ps__put32(to, size);
    for (uint32_t i = 0; i < size; i++)
        to[load->head + i] = (uint8_t)pattern[i % PERIOD];
    if (load->options.framing == PS_LINE)
        to[size] = '\n';
}

int ps__load_prepare(ps_load *load)
{
    uint8_t head[PS_HEADER_SIZE];
    load->head = head_size(load);
    load->frame = load->head + load->options.size + (load->options.framing == PS_LINE);
    load->out_frames = PS_LOAD_ROOM / load->frame + 1;
    load->memory = ps_sys.allocate(LINE + PS_LOAD_ROOM + (size_t)load->out_frames * load->frame);
    if (!load->memory)
        return -ENOMEM;
    load->in = load->memory + (LINE - (uintptr_t)load->memory % LINE);
    load->out = load->in + PS_LOAD_ROOM;
    write_request(load, load->out);
    for (uint32_t i = 1; i < load->out_frames; i++)
        memcpy(load->out + (size_t)i * load->frame, load->out, load->frame);
    ps__write_header(head, load->options.size, PS_REPLY, 0, 0, 0);
    memcpy(load->good_head, head, sizeof load->good_head);
    return 0;
}

void ps__load_set_service(ps_load *load, uint16_t number)
{
    for (uint32_t i = 0; i < load->out_frames; i++)
        ps__put16(load->out + (size_t)i * load->frame + 6, number);
}

/* -- comparing ----------------------------------------------------------------------------------------------------- */

/* What must come at this place of a reply, and behind it: *size bytes at most, in one piece. */
static const uint8_t *expected_at(const ps_load *load, size_t at, size_t *size)
{
    size_t most = 2 * PIECE - at;
    const uint8_t *expected = load->out + at;
    if (at >= PIECE) { /* the same bytes are at the beginning of the payload as well */
        most = load->frame - at < PIECE ? load->frame - at : PIECE;
        expected = load->out + load->head + (at - load->head) % PERIOD;
    }
    *size = *size < most ? *size : most;
    return expected;
}

/* Say which byte it was. A line that ends too early or too late has the wrong length, like one that is announced so. */
static void differs(ps_load *load, size_t at, const uint8_t *expected, const uint8_t *data)
{
    for (; *data == *expected; at++) {
        data++;
        expected++;
    }
    at %= load->frame;
    bool line = load->options.framing == PS_LINE && (*data == '\n' || *expected == '\n');
    load->result.position = at - load->head;
    ps__load_wrong(load, line || at < load->head ? PS_LOAD_WRONG_LENGTH : PS_LOAD_WRONG_BYTES, *expected, *data);
}

bool ps__load_compare(ps_load *load, size_t at, const uint8_t *data, size_t size)
{
    while (size) {
        size_t piece = size;
        const uint8_t *expected = expected_at(load, at, &piece);
        if (memcmp(data, expected, piece) != 0) {
            differs(load, at, expected, data);
            return false;
        }
        data += piece;
        size -= piece;
        at = (at + piece) % load->frame;
    }
    return true;
}

static void record_first(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns)
{
    while (count) {
        ps_flight *flight = &conn->flights[conn->first_flight & load->flight_mask];
        uint32_t answered = flight->number < count ? flight->number : (uint32_t)count;
        ps__load_record(load, flight->at_ns, now_ns, answered);
        flight->number -= answered;
        count -= answered;
        if (!flight->number)
            conn->first_flight++;
    }
}

uint64_t ps__load_take_stream(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns)
{
    size_t have = conn->in_at + size;
    uint64_t answers = have / load->frame;
    if (!ps__load_compare(load, conn->in_at, data, size))
        return 0;
    if (have > (conn->made - conn->done) * load->frame) {
        ps__load_fail(load, PS_LOAD_UNASKED, 0);
        return 0;
    }
    conn->in_at = (uint32_t)(have % load->frame);
    record_first(load, conn, answers, now_ns);
    conn->done += answers;
    return answers;
}
