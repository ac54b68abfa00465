/* cir.c: the framing pysock: request ids, the CIR and all that a server may answer. Payloads are compared, or thrown
 * away, as they arrive: only the first CIR_ACCEPTED and the words of a refusal or an error are ever kept. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "load/load.h"

enum { WELCOME_MAX = 1 << 20 }; /* bytes of a CIR_ACCEPTED */

/* -- requests in flight -------------------------------------------------------------------------------------------- */

static void free_slots(const ps_load *load, ps_load_conn *conn)
{
    for (uint32_t i = 0; i < load->options.in_flight; i++)
        conn->flights[i] = (ps_flight){.number = i, .slot = i};
}

/* The request with this id, if it waits for its answer. */
static ps_flight *find(const ps_load *load, const ps_load_conn *conn, uint32_t id)
{
    uint32_t slot = id & load->flight_mask;
    ps_flight *flight = &conn->flights[slot];
    return slot < load->options.in_flight && flight->number == id && flight->at_ns ? flight : NULL;
}

/* Its slot is behind the others in the ring of the free ones. */
static void settle(const ps_load *load, ps_load_conn *conn, ps_flight *flight)
{
    uint64_t last = conn->done + load->options.in_flight;
    conn->flights[last & load->flight_mask].slot = flight->number & load->flight_mask;
    flight->at_ns = 0;
    conn->done++;
}

static void make_one(const ps_load *load, ps_load_conn *conn, uint64_t at_ns)
{
    uint32_t mask = load->flight_mask;
    ps_flight *flight = &conn->flights[conn->flights[conn->made & mask].slot];
    flight->number += mask + 1; /* the low bits stay: they are the slot */
    if (flight->number <= mask)
        flight->number += mask + 1; /* round once: 0 would be no id */
    flight->at_ns = at_ns;
    conn->made++;
}

static void make(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t at_ns)
{
    while (count--)
        make_one(load, conn, at_ns);
}

static void write_ids(ps_load *load, const ps_load_conn *conn, uint64_t count)
{
    uint8_t *to = load->out + 8; /* where the id lies in a header */
    for (uint64_t i = 0; i < count; i++, to += load->frame) {
        uint32_t slot = conn->flights[(conn->sent + i) & load->flight_mask].slot;
        ps__put32(to, conn->flights[slot].number);
    }
}

static void write_head(uint8_t *to, uint32_t size)
{
    ps__write_header(to, size, PS_SRM, 0, 0, 0);
}

/* -- the CIR, and CIR_ACCEPTED ------------------------------------------------------------------------------------- */

static void greet(ps_load *load, ps_load_conn *conn)
{
    free_slots(load, conn);
    conn->phase = PS_LOAD_GREETING;
    ssize_t count = ps_sys.sendto(conn->fd, load->cir, load->options.cir_size, MSG_NOSIGNAL);
    if (count == -EPIPE || count == -ECONNRESET)
        conn->deaf = true; /* a server that is full refuses without reading: its words are there to be read */
    else if (count < (ssize_t)load->options.cir_size)
        ps__load_fail(load, PS_LOAD_SYSTEM, count < 0 ? (int)count : -ENOBUFS);
}

static void set_service(ps_load *load, uint16_t number)
{
    for (uint32_t i = 0; i < load->out_frames; i++)
        ps__put16(load->out + (size_t)i * load->frame + 6, number);
}

static void note_name(ps_load *load, const uint8_t *name, size_t size)
{
    ps_load_result *r = &load->result;
    size_t room = sizeof r->text - r->text_size;
    if (size + 4 < room)
        r->text_size += (uint32_t)snprintf(r->text + r->text_size, room, "%s'%.*s'", r->text_size ? ", " : "",
                                           (int)size, (const char *)name);
}

/* True: it is the service wanted. */
static bool read_service(ps_load *load, const ps_field *field)
{
    size_t size = strlen(load->service);
    if (field->size < 3 || field->value[2] != field->size - 3)
        return false;
    note_name(load, field->value + 3, field->size - 3u);
    if (size != field->size - 3u || memcmp(field->value + 3, load->service, size) != 0)
        return false;
    set_service(load, ps__get16(field->value));
    return true;
}

static void expect_replies(ps_load *load)
{
    uint8_t head[PS_HEADER_SIZE];
    ps__write_header(head, load->options.size, PS_REPLY, 0, 0, 0);
    memcpy(load->good_head, head, sizeof load->good_head);
}

/* What the first one says holds for all connections. */
static void read_welcome(ps_load *load, uint32_t size)
{
    const uint8_t *at = load->welcome, *end = at + size;
    bool found = !load->service[0];
    ps_field field;
    int more;
    while ((more = ps__next_field(&at, end, &field)) > 0) {
        if (field.tag == PS_TAG_MAX_PAYLOAD && field.size == 4 && ps__get32(field.value) < load->options.size)
            ps__load_wrong(load, PS_LOAD_TOO_LARGE, ps__get32(field.value), load->options.size);
        if (field.tag == PS_TAG_SERVICE && read_service(load, &field))
            found = true;
    }
    if (more < 0)
        ps__load_fail(load, PS_LOAD_NOT_PYSOCK, 0);
    else if (!found)
        ps__load_fail(load, PS_LOAD_NO_SERVICE, 0);
    if (found)
        load->result.text_size = 0;
}

static void keep_welcome(ps_load *load, uint32_t size)
{
    if (size > WELCOME_MAX)
        ps__load_fail(load, PS_LOAD_NOT_PYSOCK, 0);
    else if (!load->scouted && !(load->welcome = ps_sys.allocate(size + 1u)))
        ps__load_fail(load, PS_LOAD_SYSTEM, -ENOMEM);
}

/* -- frames -------------------------------------------------------------------------------------------------------- */

/* Its text is to be kept: the first error's, or that of what ends the run. */
static void listen_to(ps_load *load, ps_load_conn *conn, const ps_frame *frame, bool last)
{
    if (!last && (load->teller || load->told))
        return;
    load->teller = conn;
    load->result.code = frame->code;
    load->result.text_size = 0;
}

static void keep_text(ps_load *load, const ps_load_conn *conn, const uint8_t *data, size_t size)
{
    ps_load_result *r = &load->result;
    size_t room = sizeof r->text - r->text_size;
    if (load->teller != conn)
        return;
    memcpy(r->text + r->text_size, data, size < room ? size : room);
    r->text_size += (uint32_t)(size < room ? size : room);
}

/* The answer to a CIR begins. */
static void begin_greeting(ps_load *load, ps_load_conn *conn, const ps_frame *frame)
{
    if (frame->kind == PS_CIR_ACCEPTED)
        keep_welcome(load, frame->size);
    else if (frame->kind == PS_CIR_REFUSED)
        listen_to(load, conn, frame, true);
    else if (frame->kind == PS_CHALLENGE)
        ps__load_fail(load, PS_LOAD_CHALLENGED, 0);
    else
        ps__load_wrong(load, PS_LOAD_NOT_PYSOCK, PS_CIR_ACCEPTED, frame->kind);
}

static void begin_answer(ps_load *load, ps_load_conn *conn, const ps_frame *frame)
{
    bool answers = frame->kind == PS_REPLY || (frame->kind == PS_ERROR && frame->request_id);
    if (answers && !find(load, conn, frame->request_id))
        ps__load_wrong(load, PS_LOAD_WRONG_ID, 0, frame->request_id);
    else if (frame->kind == PS_REPLY && frame->size != load->options.size)
        ps__load_wrong(load, PS_LOAD_WRONG_LENGTH, load->options.size, frame->size);
    else if (frame->kind == PS_ERROR || frame->kind == PS_GOAWAY)
        listen_to(load, conn, frame, !answers);
    else if (frame->kind != PS_REPLY && frame->kind != PS_PUSH)
        ps__load_wrong(load, PS_LOAD_WRONG_KIND, PS_REPLY, frame->kind);
}

/* Some of the payload. */
static void take_payload(ps_load *load, ps_load_conn *conn, uint8_t kind, const uint8_t *data, size_t size)
{
    if (kind == PS_REPLY)
        ps__load_compare(load, PS_HEADER_SIZE + conn->in_at, data, size);
    else if (kind == PS_CIR_ACCEPTED && !load->scouted)
        memcpy(load->welcome + conn->in_at, data, size);
    else if (kind != PS_CIR_ACCEPTED && kind != PS_PUSH)
        keep_text(load, conn, data, size);
}

static void finish_error(ps_load *load, ps_load_conn *conn, const ps_frame *frame)
{
    ps_flight *flight = find(load, conn, frame->request_id);
    if (!flight) {
        ps__load_fail(load, PS_LOAD_GIVEN_UP, 0);
        return;
    }
    if (load->teller == conn) {
        load->teller = NULL;
        load->told = true;
    }
    settle(load, conn, flight);
    ps__load_count(&load->result.errors, 1);
}

static void finish_reply(ps_load *load, ps_load_conn *conn, uint32_t id, uint64_t now_ns)
{
    ps_flight *flight = find(load, conn, id);
    ps__load_record(load, flight->at_ns, now_ns, 1);
    settle(load, conn, flight);
}

static void finish_frame(ps_load *load, ps_load_conn *conn, const ps_frame *frame, uint64_t now_ns)
{
    switch (frame->kind) {
    case PS_CIR_ACCEPTED:
        if (!load->scouted) {
            expect_replies(load);
            read_welcome(load, frame->size);
        }
        if (ps__load_runs(load))
            ps__load_admitted(load, conn);
        return;
    case PS_CIR_REFUSED:
        ps__load_fail(load, PS_LOAD_REFUSED, 0);
        return;
    case PS_GOAWAY:
        ps__load_fail(load, PS_LOAD_SHUTTING_DOWN, 0);
        return;
    case PS_ERROR:
        finish_error(load, conn, frame);
        return;
    case PS_REPLY:
        finish_reply(load, conn, frame->request_id, now_ns);
        return;
    default:
        return; /* a PUSH: the server may */
    }
}

/* Bytes of one frame, however they are cut. Returns how many were taken. */
static size_t take_part(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns)
{
    size_t used = 0, missing = PS_HEADER_SIZE - conn->head_have;
    ps_frame frame;
    if (missing) {
        used = missing < size ? missing : size;
        memcpy(conn->head + conn->head_have, data, used);
        conn->head_have = (uint8_t)(conn->head_have + used);
        if (used < missing)
            return used;
    }
    ps__read_header(conn->head, &frame);
    if (missing)
        (conn->phase == PS_LOAD_READY ? begin_answer : begin_greeting)(load, conn, &frame);
    size_t part = frame.size - conn->in_at < size - used ? frame.size - conn->in_at : size - used;
    if (ps__load_runs(load) && part)
        take_payload(load, conn, frame.kind, data + used, part);
    conn->in_at += (uint32_t)part;
    if (ps__load_runs(load) && conn->in_at == frame.size) {
        conn->head_have = 0;
        conn->in_at = 0;
        finish_frame(load, conn, &frame, now_ns);
    }
    return used + part;
}

/* The common case: a whole small reply, as it must be. False: look closer. */
static inline bool take_good(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns)
{
    if (conn->head_have || load->large || size < load->frame)
        return false;
    if (memcmp(data, load->good_head, sizeof load->good_head) != 0)
        return false;
    ps_flight *flight = find(load, conn, ps__get32(data + sizeof load->good_head));
    if (!flight || memcmp(data + PS_HEADER_SIZE, load->out + PS_HEADER_SIZE, load->options.size) != 0)
        return false;
    ps__load_record(load, flight->at_ns, now_ns, 1);
    settle(load, conn, flight);
    return true;
}

static void take(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns)
{
    uint64_t before = conn->done;
    while (size && ps__load_runs(load)) {
        size_t used = load->frame;
        if (!take_good(load, conn, data, size, now_ns))
            used = take_part(load, conn, data, size, now_ns);
        data += used;
        size -= used;
    }
    if (conn->done != before && ps__load_runs(load))
        ps__load_answered(load, conn, conn->done - before, now_ns);
}

const ps_load_framing_ops ps__load_pysock = {
    .head = PS_HEADER_SIZE,
    .write_head = write_head,
    .connected = greet,
    .make = make,
    .write_ids = write_ids,
    .take = take,
};
