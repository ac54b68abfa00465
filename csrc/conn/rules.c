/* rules.c: which frames may come when, and what a service request message (SRM) does to a connection. The connection
 * initiation request (CIR) is another kind of event: see admit.c. pysock/wire/rules.py is the counterpart of both; the
 * tests hold them together byte by byte. */
#include <stdio.h>
#include <string.h>

#include "base/causes.h"
#include "base/host.h"
#include "base/state.h"
#include "conn/admit.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/rules.h"

void ps__over_limit(ps_engine *engine, ps_conn *conn)
{
    ps__note(engine, PS_CAUSE_TOO_LARGE);
    ps__end(engine, conn, PS_EV_DRAIN, PS_OVER_A_LIMIT); /* earlier replies still go out */
}

/* -- headers ------------------------------------------------------------------------------------------------------- */

/* Why a frame of this kind may not come in this state; NULL if it may. */
static const char *wrong_kind(const ps_conn *conn, uint8_t kind)
{
    bool established = conn->state == PS_CONN_ESTABLISHED, challenged = conn->state == PS_CONN_CHALLENGED;
    switch (kind) {
    case PS_PING:
    case PS_BYE:
        return NULL;
    case PS_SRM:
        return established ? NULL : "a service request came before the CIR: send a CIR first";
    case PS_CIR:
        return established ? "a second CIR on an established connection"
               : challenged ? "a second CIR: a PROOF is awaited" : NULL;
    case PS_PROOF:
        return challenged ? NULL : "a PROOF that was not asked for";
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
    if (frame->kind == PS_PROOF && frame->size > engine->options.limits.max_cir_bytes)
        return "the PROOF is too long";
    return NULL;
}

static enum ps_verdict judge_srm(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (frame->size <= engine->options.limits.max_payload)
        return PS_TAKE;
    PS_ADD(engine->stats.errors, 1u);
    ps__note(engine, PS_CAUSE_TOO_LARGE);
    if (frame->flags & PS_NO_REPLY)
        return PS_SKIP;
    char text[96];
    snprintf(text, sizeof text, "the request has %u bytes, this server takes at most %u", frame->size,
             engine->options.limits.max_payload);
    ps__send_text(engine, conn, PS_ERROR, PS_PAYLOAD_TOO_LARGE, frame->request_id, text);
    return PS_SKIP;
}

static enum ps_verdict judge_pysock(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    const char *wrong = wrong_kind(conn, frame->kind);
    if (!wrong && frame->flags & ~(frame->kind == PS_SRM ? PS_NO_REPLY : 0))
        wrong = "unknown flags: only bit 0 of an SRM has a meaning";
    if (!wrong && frame->kind == PS_CIR && frame->code != 1) {
        /* before the length: another version may well have longer CIRs */
        ps__violation(engine, conn, 0, PS_REFUSED_VERSION, "this server speaks version 1 of the pysock protocol");
        return PS_BROKEN;
    }
    if (!wrong)
        wrong = wrong_length(engine, frame);
    if (wrong) {
        ps__violation(engine, conn, frame->request_id, PS_REFUSED_MALFORMED, wrong);
        return PS_BROKEN;
    }
    return frame->kind == PS_SRM ? judge_srm(engine, conn, frame) : PS_TAKE;
}

enum ps_verdict ps__judge(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (ps__framing(engine, conn)->has_cir)
        return judge_pysock(engine, conn, frame);
    if (frame->size <= engine->options.limits.max_payload)
        return PS_TAKE;
    ps__over_limit(engine, conn);
    return PS_BROKEN;
}

/* -- the SRM: belongs to the data socket --------------------------------------------------------------------------- */

/* The request gets no reply. A framing that has no error frame must not leave the client waiting, nor let it take a later
 * reply for this one's: the connection ends behind the earlier replies. */
void ps__cannot_serve(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text,
                      size_t size)
{
    PS_ADD(engine->stats.errors, 1u);
    if (!ps__framing(engine, conn)->has_texts) {
        if (!engine->refusing) /* what is refused came after all that wait for their batch: those are answered still */
            conn->flags |= PS_IS_BROKEN;
        ps__end(engine, conn, PS_EV_DRAIN, engine->refusing ? PS_SERVER_STOPPING : PS_CLOSED_BY_SERVER);
    } else if (!(frame->flags & PS_NO_REPLY)) {
        ps__send(engine, conn, PS_ERROR, code, frame->request_id, text, size, NULL);
    }
}

/* A request is kept for a batch: too many of one client's, and it is not read until they are answered. */
void ps__waiting_add(ps_engine *engine, ps_conn *conn, uint32_t size)
{
    PS_ADD(conn->in_flight, 1u);
    conn->waiting += size;
    if (conn->in_flight >= engine->options.limits.max_in_flight || conn->waiting >= PS_WAITING_BYTES)
        conn->flags |= PS_PAUSED_BATCH;
}

void ps__waiting_done(ps_engine *engine, ps_conn *conn, uint32_t size)
{
    PS_TAKE_ONE(conn->in_flight);
    conn->waiting -= size;
    if (conn->in_flight <= engine->options.limits.max_in_flight / 2 && conn->waiting <= PS_WAITING_BYTES / 2)
        conn->flags &= (uint16_t)~PS_PAUSED_BATCH;
    if (conn->unread || conn->state != PS_CONN_ESTABLISHED || !(conn->interest & PS_POLL_IN))
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
        engine->hooks.object_unref(engine->hooks.context, object);
    }
}

/* An object: it was large enough for one of its own, though no SRM; a CIR is, if the limits allow such ones. */
static void take_control(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    if (frame->kind == PS_CIR) {
        ps__take_cir(engine, conn, frame);
    } else if (frame->kind == PS_PROOF) {
        ps__take_proof(engine, conn, frame);
    } else if (frame->kind == PS_PING) {
        ps__conn_event(conn, PS_EV_PING);
        ps__send(engine, conn, PS_PONG, 0, frame->request_id, frame->payload, frame->size, NULL);
    } else { /* judged before: it is a BYE */
        ps__end(engine, conn, PS_EV_BYE, PS_LEFT);
    }
    if (object) {
        ps__enter(engine);
        engine->hooks.object_unref(engine->hooks.context, object);
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
    static const enum ps_cause causes[PS_TIMER_LISTS] = {
        [PS_TIMER_FRAME] = PS_CAUSE_FRAME_LATE,
        [PS_TIMER_OUTPUT] = PS_CAUSE_OUTPUT_STALLED,
        [PS_TIMER_IDLE] = PS_CAUSE_IDLE,
    };
    bool tells = ps__framing(engine, conn)->has_texts;
    if (list == PS_TIMER_CIR) {
        ps__turn_out(engine, conn, PS_CAUSE_LATE, "the CIR did not come in time", PS_TIMED_OUT);
        return;
    }
    ps__note(engine, causes[list]);
    if (list == PS_TIMER_FRAME) {
        if (tells)
            ps__send_text(engine, conn, PS_ERROR, PS_DEADLINE_PASSED, 0, "the rest of the frame did not come in time");
        ps__end(engine, conn, PS_EV_DRAIN, PS_TIMED_OUT);
    } else if (list == PS_TIMER_IDLE && conn->state != PS_CONN_DRAINING) {
        if (tells && conn->state == PS_CONN_ESTABLISHED)
            ps__send_text(engine, conn, PS_GOAWAY, 0, 0, "nothing came for too long");
        ps__end(engine, conn, PS_EV_DRAIN, PS_TIMED_OUT);
    }
    ps__send_last(engine, conn);
    ps__lost(engine, conn, PS_TIMED_OUT); /* unless that closed it already */
}

void ps__say_goodbye(ps_engine *engine, ps_conn *conn)
{
    static const char reason[] = "the server is shutting down";
    if (!ps__framing(engine, conn)->has_texts)
        return;
    if (conn->state == PS_CONN_ESTABLISHED) {
        ps__send_text(engine, conn, PS_GOAWAY, 0, 0, reason);
    } else if (conn->state == PS_CONN_ACCEPTED || conn->state == PS_CONN_CHALLENGED) {
        PS_ADD(engine->stats.refused, 1u);
        ps__send_text(engine, conn, PS_CIR_REFUSED, PS_REFUSED_SHUTTING_DOWN, 0, reason);
    }
}
