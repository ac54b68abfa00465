/* load_frames.c: what the load generator sends, prepared once, and the replies of the framings without request ids, which
 * come in order: what comes back must be, byte for byte, what was sent. So they need no cutting, only comparing. */
#include <errno.h>
#include <string.h>

#include "load.h"

/* Upper case, so that a service that makes letters large echoes as well; no line ends; 37 is no power of two, so that
 * bytes that moved by 2, 4, 8, ... are noticed. */
static const char pattern[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

static uint32_t head_size(const ps_load *load)
{
    return load->options.framing == PS_NATIVE ? PS_HEADER_SIZE : load->options.framing == PS_U32 ? 4 : 0;
}

static void write_request(const ps_load *load, uint8_t *to)
{
    uint32_t size = load->options.size, head = head_size(load);
    if (load->options.framing == PS_NATIVE)
        ps__write_header(to, size, PS_SRM, 0, 0, 0);
    else if (load->options.framing == PS_U32)
        ps__put32(to, size);
    for (uint32_t i = 0; i < size; i++)
        to[head + i] = (uint8_t)pattern[i % (sizeof pattern - 1)];
    if (load->options.framing == PS_LINE)
        to[size] = '\n';
}

/* Room for one more request than is received at once: what arrived lies in one piece in what was expected, wherever in a
 * reply it begins. */
int ps__load_prepare(ps_load *load)
{
    uint8_t head[PS_HEADER_SIZE];
    load->frame = head_size(load) + load->options.size + (load->options.framing == PS_LINE);
    load->out_frames = PS_LOAD_ROOM / load->frame + 2;
    load->in = ps_sys.allocate(PS_LOAD_ROOM);
    load->out = ps_sys.allocate((size_t)load->out_frames * load->frame);
    if (!load->in || !load->out)
        return -ENOMEM;
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

/* Say which byte it was. A line that ends too early or too late has the wrong length, like one that is announced so. */
static void differs(ps_load *load, const ps_load_conn *conn, const uint8_t *data)
{
    size_t at = conn->in_at;
    while (*data == load->out[at]) {
        data++;
        at++;
    }
    uint32_t position = (uint32_t)(at % load->frame), head = head_size(load);
    bool line = load->options.framing == PS_LINE && (*data == '\n' || load->out[at] == '\n');
    load->result.position = position - head;
    ps__load_wrong(load, line || position < head ? PS_LOAD_WRONG_LENGTH : PS_LOAD_WRONG_BYTES, load->out[at], *data);
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
    if (memcmp(data, load->out + conn->in_at, size) != 0) {
        differs(load, conn, data);
        return 0;
    }
    if (have > (conn->made - conn->done) * load->frame) {
        ps__load_fail(load, PS_LOAD_UNASKED, 0);
        return 0;
    }
    conn->in_at = (uint32_t)(have % load->frame);
    record_first(load, conn, have / load->frame, now_ns);
    conn->done += have / load->frame;
    return have / load->frame;
}
