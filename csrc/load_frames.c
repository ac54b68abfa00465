/* load_frames.c: what the load generator sends, prepared once, and the replies of the framings without request ids,
 * which come in order: what comes back must be, byte for byte, what was sent. So they need no cutting, only
 * comparing. */
#include <errno.h>
#include <string.h>

#include "load.h"

/* Upper case, so that a service that makes letters large echoes as well; no line ends; 37 of them, no power of two,
 * so that bytes that moved by 2, 4, 8, ... are noticed. */
static const char pattern[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

enum {
    PERIOD = sizeof pattern - 1,
    LINE = 64, /* bytes of the processor's cache that go together: the kernel copies faster to where one begins */
};

static uint32_t head_size(const ps_load *load)
{
    return load->options.framing == PS_NATIVE ? PS_HEADER_SIZE : load->options.framing == PS_U32 ? 4 : 0;
}

/* One request, or the beginning of it. */
static void write_request(const ps_load *load, uint8_t *to, size_t room)
{
    uint32_t size = load->options.size;
    if (load->options.framing == PS_NATIVE)
        ps__write_header(to, size, PS_SRM, 0, 0, 0);
    else if (load->options.framing == PS_U32)
        ps__put32(to, size);
    for (size_t i = load->head; i < room && i < load->head + size; i++)
        to[i] = (uint8_t)pattern[(i - load->head) % PERIOD];
    if (load->options.framing == PS_LINE && size < room)
        to[size] = '\n';
}

int ps__load_prepare(ps_load *load)
{
    uint8_t head[PS_HEADER_SIZE];
    load->head = head_size(load);
    load->frame = load->head + load->options.size + (load->options.framing == PS_LINE);
    load->large = load->frame > PS_LOAD_PIECE;
    load->out_frames = load->large ? 1 : PS_LOAD_ROOM / load->frame + 1;
    size_t size = load->large ? load->head + PS_LOAD_PIECE : (size_t)load->out_frames * load->frame;
    load->memory = ps_sys.allocate(LINE + PS_LOAD_ROOM + size);
    if (!load->memory)
        return -ENOMEM;
    load->in = load->memory + (LINE - (uintptr_t)load->memory % LINE);
    load->in_room = PS_LOAD_ROOM;
    load->out = load->in + PS_LOAD_ROOM;
    for (uint32_t i = 0; i < load->out_frames; i++)
        write_request(load, load->out + (size_t)i * load->frame, size - (size_t)i * load->frame);
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

const uint8_t *ps__load_piece(const ps_load *load, size_t at, size_t *size)
{
    static const uint8_t line_end = '\n';
    size_t payload = load->options.size, most = 2 * PS_LOAD_PIECE - at;
    const uint8_t *piece = load->out + at;
    if (load->large && at == load->head + payload) {
        most = 1;
        piece = &line_end;
    } else if (load->large) {
        size_t before = at < load->head ? 0 : (at - load->head) / PS_LOAD_PIECE * PS_LOAD_PIECE;
        size_t end = before + PS_LOAD_PIECE < payload ? before + PS_LOAD_PIECE : payload;
        most = load->head + end - at;
        piece -= before;
    }
    *size = *size < most ? *size : most;
    return piece;
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
        const uint8_t *expected = ps__load_piece(load, at, &piece);
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

/* The next requests are sent before the bytes are looked at: the server need not wait for that. */
void ps__load_take_stream(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns)
{
    size_t at = conn->in_at, have = at + size;
    uint64_t answers = have / load->frame;
    if (have > (conn->made - conn->done) * load->frame) {
        if (ps__load_compare(load, at, data, size))
            ps__load_fail(load, PS_LOAD_UNASKED, 0);
        return;
    }
    conn->in_at = (uint32_t)(have % load->frame);
    record_first(load, conn, answers, now_ns);
    conn->done += answers;
    if (answers)
        ps__load_answered(load, conn, answers, now_ns);
    ps__load_compare(load, at, data, size);
}
