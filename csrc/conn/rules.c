/* rules.c: which frames may come when, and what a service request message (SRM) does to a connection. The connection
 * initiation request (CIR) is another kind of event: see admit.c. pysock/wire/rules.py is the counterpart of both; the
 * tests hold them together byte by byte. */
#include <stdio.h>
#include <string.h>

#include "base/causes.h"
#include "base/host.h"
#include "base/state.h"
#include "base/texts.h"
#include "conn/admit.h"
#include "conn/defer.h"
#include "conn/dismiss.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "conn/rules.h"
#include "conn/stream.h"
#include "table/deferred.h"
#include "table/table.h"

/* -- which frames may come when ------------------------------------------------------------------------------------ */

#define NEVER(text) {.wrong = {text, text, text}, .most = PS_MOST_NOTHING}

/* To an ASK. */
#define ANSWERS                                                                                                        \
    {.wrong = {PS_TEXT_UNKNOWN_KIND, PS_TEXT_UNKNOWN_KIND}, .needs = PS_FEATURE_ASK, .most = PS_MOST_ANSWER,               \
     .too_long = PS_TEXT_LONG_ANSWER}

static const ps_rule unknown = NEVER(PS_TEXT_UNKNOWN_KIND), from_servers = NEVER(PS_TEXT_SERVER_KIND);

static const ps_rule from_clients[] = {
    [PS_CIR] = {.wrong = {NULL, PS_TEXT_SECOND_CIR_WAITING, PS_TEXT_SECOND_CIR},
                .version = 1, .most = PS_MOST_CIR, .too_long = PS_TEXT_LONG_CIR},
    [PS_SRM] = {.wrong = {PS_TEXT_SRM_BEFORE_CIR, PS_TEXT_SRM_BEFORE_CIR},
                .flags = PS_NO_REPLY, .timed_flags = PS_DEADLINE, .stream_flags = PS_TAKES_STREAM,
                .most = PS_MOST_REQUEST},
    [PS_PING] = {.most = PS_MOST_PING, .too_long = PS_TEXT_LONG_PING},
    [PS_BYE] = {.most = PS_MOST_NOTHING, .too_long = PS_TEXT_LONG_BYE},
    [PS_CANCEL] = {.wrong = {PS_TEXT_UNKNOWN_KIND, PS_TEXT_UNKNOWN_KIND}, .needs = PS_FEATURE_CANCEL,
                   .most = PS_MOST_NOTHING, .too_long = PS_TEXT_LONG_CANCEL},
    [PS_CREDIT] = {.wrong = {PS_TEXT_UNKNOWN_KIND, PS_TEXT_UNKNOWN_KIND}, .needs = PS_FEATURE_STREAM,
                   .most = PS_MOST_CREDIT, .least = PS_CREDIT_SIZE, .too_long = PS_TEXT_CREDIT_SIZE},
    [PS_TRACE] = {.wrong = {PS_TEXT_UNKNOWN_KIND, PS_TEXT_UNKNOWN_KIND}, .needs = PS_FEATURE_TRACE,
                  .most = PS_MOST_PING, .too_long = PS_TEXT_LONG_TRACE},
    [PS_PROOF] = {.wrong = {PS_TEXT_UNASKED_PROOF, NULL, PS_TEXT_UNASKED_PROOF},
                  .most = PS_MOST_CIR, .too_long = PS_TEXT_LONG_PROOF},
    [PS_ANSWER] = ANSWERS,
    [PS_ANSWER_ERROR] = ANSWERS,
};

static const ps_rule *rule_of(uint8_t kind)
{
    if (kind > 0x80 && kind <= PS_ASK_CANCEL)
        return &from_servers;
    return kind > 0 && kind < sizeof from_clients / sizeof *from_clients ? &from_clients[kind] : &unknown;
}

const ps_rule *ps_rule_of(int kind)
{
    return kind >= 0 && kind <= UINT8_MAX ? rule_of((uint8_t)kind) : NULL;
}

/* -- headers ------------------------------------------------------------------------------------------------------- */

/* Without the deadline in front. */
static uint32_t payload_size(const ps_frame *frame)
{
    return frame->flags & PS_DEADLINE ? frame->size - PS_DEADLINE_SIZE : frame->size;
}

/* An SRM is never too long to live with; all other frames are. */
static enum ps_verdict oversized(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    ps__count_error(engine, frame, PS_PAYLOAD_TOO_LARGE);
    ps__note(engine, PS_CAUSE_TOO_LARGE);
    if (frame->flags & PS_NO_REPLY)
        return PS_SKIP;
    char text[96];
    snprintf(text, sizeof text, PS_TEXT_REQUEST_TOO_LARGE, payload_size(frame), engine->options.limits.max_payload);
    ps__send_text(engine, conn, PS_ERROR, PS_PAYLOAD_TOO_LARGE, frame->request_id, text);
    return PS_SKIP;
}

static uint32_t most_bytes(const ps_engine *engine, uint8_t most)
{
    const ps_limits *limits = &engine->options.limits;
    const uint32_t bytes[] = {
        [PS_MOST_REQUEST] = limits->max_payload, [PS_MOST_CIR] = limits->max_cir_bytes, [PS_MOST_PING] = PS_PING_MAX,
        [PS_MOST_NOTHING] = 0, [PS_MOST_CREDIT] = PS_CREDIT_SIZE, [PS_MOST_ANSWER] = limits->max_payload,
    };
    return bytes[most];
}

/* Why it may not come, now or from this client; NULL: it may. */
static const char *fault_of(const ps_conn *conn, const ps_rule *rule, const ps_frame *frame)
{
    const char *wrong = rule->wrong[conn->state - PS_CONN_ACCEPTED];
    int flags = rule->flags | (conn->features & PS_FEATURE_DEADLINE ? rule->timed_flags : 0) |
                (conn->features & PS_FEATURE_STREAM ? rule->stream_flags : 0);
    if (!wrong && rule->needs & ~conn->features)
        wrong = PS_TEXT_UNKNOWN_KIND;
    if (!wrong && frame->flags & ~flags)
        wrong = PS_TEXT_BAD_FLAGS;
    if (!wrong && frame->flags & PS_DEADLINE && frame->size < PS_DEADLINE_SIZE)
        wrong = PS_TEXT_SHORT_DEADLINE;
    return wrong;
}

/* Not a header, but how a connection with TLS begins: type 22, version 3, and a ClientHello's 1 behind the length
 * (RFC 8446, 5.1 and 4). */
static bool is_client_hello(const ps_conn *conn, const ps_frame *frame)
{
    return conn->state == PS_CONN_ACCEPTED && frame->size >> 16 == 0x1603 && frame->flags == 1;
}

static enum ps_verdict judge_pysock(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    const ps_rule *rule = rule_of(frame->kind);
    const char *wrong = fault_of(conn, rule, frame);
    if (!wrong && rule->version && frame->code != 1) {
        /* before the length: another version may well have longer ones */
        ps__dismiss(engine, conn, PS_END_VERSION, 0, PS_TEXT_BAD_VERSION);
        return PS_BROKEN;
    }
    bool too_long = !wrong && payload_size(frame) > most_bytes(engine, rule->most);
    if (too_long && rule->most == PS_MOST_REQUEST)
        return oversized(engine, conn, frame);
    if (too_long || (!wrong && frame->size < rule->least))
        wrong = rule->too_long;
    if (!wrong)
        return PS_TAKE;
    if (is_client_hello(conn, frame))
        ps__dismiss(engine, conn, PS_END_ONLY_TLS, 0, NULL);
    else
        ps__dismiss(engine, conn, PS_END_VIOLATION, frame->request_id, wrong);
    return PS_BROKEN;
}

enum ps_verdict ps__judge(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (ps__framing(engine, conn)->has_cir)
        return judge_pysock(engine, conn, frame);
    if (frame->size <= engine->options.limits.max_payload)
        return PS_TAKE;
    ps__dismiss(engine, conn, PS_END_TOO_LARGE, 0, NULL);
    return PS_BROKEN;
}

/* -- the SRM: belongs to the data socket --------------------------------------------------------------------------- */

/* object: what nobody takes of a large frame, or NULL. */
static void let_go(ps_engine *engine, void *object)
{
    if (!object)
        return;
    ps__enter(engine);
    engine->hooks.object_unref(engine->hooks.context, object);
}

/* The request gets no reply. A framing that has no error frame must not leave the client waiting, nor let it take a later
 * reply for this one's: the connection ends behind the earlier replies. */
void ps__cannot_serve(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text,
                      size_t size)
{
    ps__count_error(engine, frame, code);
    if (!ps__framing(engine, conn)->has_texts) {
        if (!(conn->flags & PS_REFUSES)) /* what is refused came after all that are pending: those are answered still */
            ps__pending_give_up(conn);
        ps__end(engine, conn, PS_EV_DRAIN, conn->flags & PS_REFUSES ? PS_SERVER_STOPPING : PS_CLOSED_BY_SERVER);
    } else if (!(frame->flags & PS_NO_REPLY)) {
        ps__send(engine, conn, PS_ERROR, code, frame->request_id, text, size, NULL);
    }
}

static void refuse_srm(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    bool refuses = conn->flags & PS_REFUSES;
    if (refuses && ps__framing(engine, conn)->has_texts)
        ps__not_started(engine, conn, frame, PS_SHUTTING_DOWN, PS_TEXT_SHUTTING_DOWN);
    else if (refuses || !engine->fatal)
        ps__cannot_serve(engine, conn, frame, PS_NO_SUCH_SERVICE, PS_TEXT_NO_SUCH_SERVICE,
                         sizeof PS_TEXT_NO_SUCH_SERVICE - 1);
}

static void take_srm(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    if (conn->in_flight && ps__is_in_flight(engine, conn, frame)) {
        ps__dismiss(engine, conn, PS_END_VIOLATION, frame->request_id, PS_TEXT_ID_IN_FLIGHT);
        let_go(engine, object);
        return;
    }
    PS_ADD(conn->requests, 1u);
    PS_ADD(engine->stats.requests, 1u);
    if (!(conn->flags & PS_REFUSES) && !engine->fatal && frame->code < engine->options.services && ps__enter(engine) == 0) {
        ps__fail(engine, engine->hooks.request(engine->hooks.context, conn, frame, object));
        return;
    }
    refuse_srm(engine, conn, frame);
    let_go(engine, object);
}

/* Without Python: it tells of the loop, not of handlers. */
static void answer_ping(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    bool leaves = __atomic_load_n(&engine->lame, __ATOMIC_ACQUIRE) || engine->state == PS_SERVER_DRAINING;
    ps__conn_event(conn, PS_EV_PING);
    ps__send(engine, conn, PS_PONG, leaves ? PS_SHUTTING_DOWN : 0, frame->request_id, frame->payload, frame->size, NULL);
}

static void take_bye(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    (void)frame;
    ps__deferred_orphan(engine, conn, PS_WHY_GONE); /* it has said that it waits for nothing */
    ps__end(engine, conn, PS_EV_BYE, PS_LEFT);
}

static void take_cancel(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (!ps__defer_cancel(engine, conn, frame->request_id))
        ps__cancel(engine, conn, frame->request_id);
}

/* To what the host has asked; an end of the loop is no fault of the client's. */
static void take_answer(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (ps__enter(engine) < 0)
        return;
    int asked = engine->hooks.answered ? engine->hooks.answered(engine->hooks.context, conn, frame) : 0;
    ps__fail(engine, asked < 0 ? asked : 0);
    if (asked == 0)
        ps__dismiss(engine, conn, PS_END_VIOLATION, frame->request_id, PS_TEXT_UNASKED_ANSWER);
}

/* What it says is for the host alone. */
static void take_trace(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    if (engine->hooks.traced && ps__enter(engine) == 0)
        ps__fail(engine, engine->hooks.traced(engine->hooks.context, conn, frame));
}

/* An object: it was large enough for one of its own, though no SRM; a CIR is, if the limits allow such ones. */
static void take_control(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    static void (*const takes[])(ps_engine *, ps_conn *, const ps_frame *) = {
        [PS_CIR] = ps__take_cir,
        [PS_PROOF] = ps__take_proof,
        [PS_PING] = answer_ping,
        [PS_BYE] = take_bye,
        [PS_CANCEL] = take_cancel,
        [PS_CREDIT] = ps__stream_credit,
        [PS_TRACE] = take_trace,
        [PS_ANSWER] = take_answer,
        [PS_ANSWER_ERROR] = take_answer,
    };
    PS_ADD(ps__tally(&engine->table, conn)->frames_in, 1u);
    takes[frame->kind](engine, conn, frame); /* judged before: it is one of these */
    let_go(engine, object);
}

void ps__take_frame(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object)
{
    engine->frames++;
    if (frame->kind == PS_SRM && ps__conn_table[conn->state][PS_EV_SRM])
        take_srm(engine, conn, frame, object);
    else
        take_control(engine, conn, frame, object);
}
