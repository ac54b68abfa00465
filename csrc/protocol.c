/* protocol.c: what a connection initiation request (CIR) and a service request message (SRM) do to a connection: two
 * kinds of event, two functions. pysock/protocol.py is the counterpart; the tests hold the two together byte by byte. */
#include <stdio.h>
#include <string.h>

#include "internal.h"

/* -- violations ---------------------------------------------------------------------------------------------------- */

/* Before the CIR is accepted a violation is answered by a refusal, after it by an error; then the connection ends. */
static void violation(ps_engine *engine, ps_conn *conn, uint32_t request_id, uint16_t refusal, const char *text)
{
    if (conn->state == PS_CONN_ESTABLISHED) {
        PS_ADD(engine->stats.errors, 1u);
        ps__send_text(engine, conn, PS_ERROR, PS_MALFORMED, request_id, text);
    } else {
        PS_ADD(engine->stats.refused, 1u);
        ps__send_text(engine, conn, PS_CIR_REFUSED, refusal, 0, text);
    }
    ps__end(engine, conn, PS_EV_VIOLATION, PS_PROTOCOL_VIOLATION);
}

void ps__over_limit(ps_engine *engine, ps_conn *conn)
{
    ps__end(engine, conn, PS_EV_DRAIN, PS_OVER_A_LIMIT); /* earlier replies still go out */
}

/* -- headers ------------------------------------------------------------------------------------------------------- */

/* Why a frame of this kind may not come in this state; NULL if it may. */
static const char *wrong_kind(const ps_conn *conn, uint8_t kind)
{
    bool established = conn->state == PS_CONN_ESTABLISHED;
    switch (kind) {
    case PS_PING:
    case PS_BYE:
        return NULL;
    case PS_SRM:
        return established ? NULL : "a service request came before the CIR: send a CIR first";
    case PS_CIR:
        return established ? "a second CIR on an established connection" : NULL;
    case PS_PROOF:
        return "a PROOF that was not asked for";
    default:
        return kind > 0x80 && kind <= PS_CHALLENGE ? "a frame of a kind that only servers send"
                                                   : "not a frame of the pysock protocol: unknown kind";
    }
}

/* An SRM is never too long to live with; the others are. */
static const char *wrong_length(const ps_engine *engine, const ps_frame *frame)
{
    if (frame->kind == PS_PING && frame->size > PS_PING_MAX)
        return "a PING carries at most 64 bytes";
    if (frame->kind == PS_BYE && frame->size)
        return "a BYE carries no payload";
    if (frame->kind == PS_CIR && frame->size > engine->options.limits.max_cir_bytes)
        return "the CIR is too long";
    return NULL;
}

static enum ps_verdict judge_srm(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (frame->size <= engine->options.limits.max_payload)
        return PS_TAKE;
    PS_ADD(engine->stats.errors, 1u);
    if (frame->flags & PS_NO_REPLY)
        return PS_SKIP;
    char text[96];
    snprintf(text, sizeof text, "the request has %u bytes, this server takes at most %u", frame->size,
             engine->options.limits.max_payload);
    ps__send_text(engine, conn, PS_ERROR, PS_PAYLOAD_TOO_LARGE, frame->request_id, text);
    return PS_SKIP;
}

static enum ps_verdict judge_native(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    const char *wrong = wrong_kind(conn, frame->kind);
    if (!wrong && frame->flags & ~(frame->kind == PS_SRM ? PS_NO_REPLY : 0))
        wrong = "unknown flags: only bit 0 of an SRM has a meaning";
    if (!wrong && frame->kind == PS_CIR && frame->code != 1) {
        /* before the length: another version may well have longer CIRs */
        violation(engine, conn, 0, PS_REFUSED_VERSION, "this server speaks version 1 of the pysock protocol");
        return PS_BROKEN;
    }
    if (!wrong)
        wrong = wrong_length(engine, frame);
    if (wrong) {
        violation(engine, conn, frame->request_id, PS_REFUSED_MALFORMED, wrong);
        return PS_BROKEN;
    }
    return frame->kind == PS_SRM ? judge_srm(engine, conn, frame) : PS_TAKE;
}

enum ps_verdict ps__judge(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (engine->options.framing == PS_NATIVE)
        return judge_native(engine, conn, frame);
    if (frame->size <= engine->options.limits.max_payload)
        return PS_TAKE;
    ps__over_limit(engine, conn);
    return PS_BROKEN;
}

/* -- the CIR: belongs to the master's side ------------------------------------------------------------------------- */

static bool set_name(ps_engine *engine, ps_conn *conn, const ps_field *field)
{
    if (!field->size || field->size > PS_NAME_MAX || conn->name || !ps__is_utf8(field->value, field->size) ||
        memchr(field->value, 0, field->size))
        return false;
    char *name = ps_sys.allocate(field->size + 1u);
    if (!name)
        return false;
    memcpy(name, field->value, field->size);
    name[field->size] = 0;
    pthread_mutex_lock(&engine->lock); /* other threads look names up */
    conn->name = name;
    pthread_mutex_unlock(&engine->lock);
    return true;
}

static bool read_cir_fields(ps_engine *engine, ps_conn *conn, const uint8_t *at, const uint8_t *end)
{
    ps_field field;
    int more;
    while ((more = ps__next_field(&at, end, &field)) > 0) {
        if (field.tag == PS_TAG_NAME && !set_name(engine, conn, &field))
            return false;
        if (field.tag != PS_TAG_MAX_PAYLOAD)
            continue;
        if (field.size != 4)
            return false;
        uint32_t most = ps__get32(field.value);
        if (most < conn->max_reply)
            __atomic_store_n(&conn->max_reply, most, __ATOMIC_RELAXED); /* other threads look at it before a push */
    }
    return more == 0;
}

static void take_cir(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    static const char magic[4] = {'P', 'S', 'K', '1'};
    if (frame->size < sizeof magic) {
        violation(engine, conn, 0, PS_REFUSED_MALFORMED, "the CIR is too short to hold the magic PSK1");
        return;
    }
    if (memcmp(frame->payload, magic, sizeof magic) != 0) {
        violation(engine, conn, 0, PS_REFUSED_VERSION, "wrong magic: a CIR begins with PSK1");
        return;
    }
    if (!read_cir_fields(engine, conn, frame->payload + sizeof magic, frame->payload + frame->size)) {
        violation(engine, conn, 0, PS_REFUSED_MALFORMED, "the CIR has a broken field");
        return;
    }
    ps__let_in(engine, conn);
}

/* -- the SRM: belongs to the data socket --------------------------------------------------------------------------- */

/* The request gets no reply. A framing that has no error frame must not leave the client waiting, nor let it take a later
 * reply for this one's: the connection ends behind the earlier replies. */
void ps__cannot_serve(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text,
                      size_t size)
{
    PS_ADD(engine->stats.errors, 1u);
    if (engine->options.framing != PS_NATIVE) {
        conn->flags |= PS_IS_BROKEN;
        ps__end(engine, conn, PS_EV_DRAIN, PS_CLOSED_BY_SERVER);
    } else if (!(frame->flags & PS_NO_REPLY)) {
        ps__send(engine, conn, PS_ERROR, code, frame->request_id, text, size, NULL);
    }
}

/* A request is kept for a batch: too many of one client's, and it is not read until they are answered. */
void ps__kept(ps_engine *engine, ps_conn *conn)
{
    PS_ADD(conn->in_flight, 1u);
    if (conn->in_flight >= engine->options.limits.max_in_flight)
        conn->flags |= PS_PAUSED_BATCH;
}

void ps__not_kept(ps_engine *engine, ps_conn *conn)
{
    PS_TAKE_ONE(conn->in_flight);
    if (conn->in_flight <= engine->options.limits.max_in_flight / 2)
        conn->flags &= (uint16_t)~PS_PAUSED_BATCH;
    if (conn->held || conn->state != PS_CONN_ESTABLISHED || !(conn->interest & PS_POLL_IN))
        ps__mark_dirty(engine, conn); /* to be read again, or closed */
}

static void unserved(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text)
{
    ps__cannot_serve(engine, conn, frame, code, text, strlen(text));
}

static void take_srm(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    PS_ADD(conn->requests, 1u);
    PS_ADD(engine->stats.requests, 1u);
    if (!engine->refusing && !engine->fatal && frame->code < engine->options.services && ps__enter(engine) == 0) {
        ps__fail(engine, engine->hooks.request(engine->hooks.context, conn, frame, object));
        return;
    }
    if (engine->refusing)
        unserved(engine, conn, frame, PS_SHUTTING_DOWN, "the server is shutting down");
    else if (!engine->fatal)
        unserved(engine, conn, frame, PS_NO_SUCH_SERVICE, "no such service");
    if (object) {
        ps__enter(engine);
        engine->hooks.object_release(engine->hooks.context, object);
    }
}

/* Large enough for an object of its own, though no SRM: a CIR, if the limits allow such ones. */
static void take_control(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    if (frame->kind == PS_CIR) {
        take_cir(engine, conn, frame);
    } else if (frame->kind == PS_PING) {
        ps__conn_event(conn, PS_EV_PING);
        ps__send(engine, conn, PS_PONG, 0, frame->request_id, frame->payload, frame->size, NULL);
    } else { /* judged before: it is a BYE */
        ps__end(engine, conn, PS_EV_BYE, PS_LEFT);
    }
    if (object) {
        ps__enter(engine);
        engine->hooks.object_release(engine->hooks.context, object);
    }
}

void ps__take_frame(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    engine->frames++;
    if (frame->kind == PS_SRM && ps__conn_table[conn->state][PS_EV_SRM])
        take_srm(engine, conn, frame, object);
    else
        take_control(engine, conn, frame, object);
}

/* -- the server's own words ---------------------------------------------------------------------------------------- */

void ps__too_late(ps_engine *engine, ps_conn *conn, enum ps_timer_list list)
{
    bool native = engine->options.framing == PS_NATIVE;
    if (list == PS_TIMER_CIR) {
        PS_ADD(engine->stats.refused, 1u);
        ps__send_text(engine, conn, PS_CIR_REFUSED, PS_REFUSED_TOO_LATE, 0, "the CIR did not come in time");
        ps__end(engine, conn, PS_EV_CIR_REFUSED, PS_TIMED_OUT);
    } else if (list == PS_TIMER_FRAME) {
        if (native)
            ps__send_text(engine, conn, PS_ERROR, PS_DEADLINE_PASSED, 0, "the rest of the frame did not come in time");
        ps__end(engine, conn, PS_EV_DRAIN, PS_TIMED_OUT);
    } else if (list == PS_TIMER_IDLE && conn->state != PS_CONN_DRAINING) {
        if (native && conn->state == PS_CONN_ESTABLISHED)
            ps__send_text(engine, conn, PS_GOAWAY, 0, 0, "nothing came for too long");
        ps__end(engine, conn, PS_EV_DRAIN, PS_TIMED_OUT);
    }
    ps__flush(engine, conn);
    ps__lost(engine, conn, PS_TIMED_OUT); /* unless that closed it already */
}

void ps__say_goodbye(ps_engine *engine, ps_conn *conn)
{
    static const char reason[] = "the server is shutting down";
    if (engine->options.framing != PS_NATIVE)
        return;
    if (conn->state == PS_CONN_ESTABLISHED) {
        ps__send_text(engine, conn, PS_GOAWAY, 0, 0, reason);
    } else if (conn->state == PS_CONN_ACCEPTED || conn->state == PS_CONN_CHALLENGED) {
        PS_ADD(engine->stats.refused, 1u);
        ps__send_text(engine, conn, PS_CIR_REFUSED, PS_REFUSED_SHUTTING_DOWN, 0, reason);
    }
}
