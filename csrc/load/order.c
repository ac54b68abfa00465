/* order.c: the framings without request ids: replies come in the order of the requests, and are, byte for byte, what was
 * sent. So they need no cutting, only comparing. */
#include "base/wire.h"
#include "load/load.h"

static void write_size(uint8_t *to, uint32_t size)
{
    ps__put32(to, size);
}

static void make(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t at_ns)
{
    ps_flight *flight = &conn->flights[conn->last_flight++ & load->flight_mask];
    *flight = (ps_flight){.at_ns = at_ns, .number = (uint32_t)count};
    conn->made += count;
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
static void take(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns)
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

const ps_load_framing_ops ps__load_u32 = {
    .head = 4, .write_head = write_size, .connected = ps__load_admitted, .make = make, .take = take,
};
const ps_load_framing_ops ps__load_line = {.tail = 1, .connected = ps__load_admitted, .make = make, .take = take};
const ps_load_framing_ops ps__load_raw = {.connected = ps__load_admitted, .make = make, .take = take};
