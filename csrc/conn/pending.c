/* pending.c: requests that have no answer yet: how many of one client, and how many bytes; when it isn't read for them; and
 * which of them get an answer. A connection that is ending isn't closed while one of its requests waits: see ps__settle.
 *
 * Where both ends speak of it a client may cancel a request: it is answered at once, and its id is free. But it counts until
 * whoever lets it wait has done with it, so that asking and cancelling can't pile up work.
 *
 * Where no id tells which request a reply is for, the order does: answers are given in the order of the requests, and after
 * one that stays without an answer none may come. */
#include "base/meter.h"
#include "base/texts.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "table/table.h"

/* One that may cancel is read while it has as many in flight as it was told: else its CANCELs would not be. */
static uint32_t most_in_flight(const ps_engine *engine, const ps_conn *conn)
{
    return engine->options.limits.max_in_flight + (conn->features & PS_FEATURE_CANCEL ? 1u : 0u);
}

void ps__pending_count(ps_engine *engine, ps_conn *conn, uint32_t size)
{
    PS_ADD(conn->in_flight, 1u);
    conn->in_flight_bytes += size;
    if (conn->in_flight >= most_in_flight(engine, conn) || conn->in_flight_bytes >= PS_PENDING_BYTES)
        conn->flags |= PS_PAUSED_PENDING;
}

/* Without memory for it, it is one that can't be cancelled. */
uint64_t ps__pending_hold_id(ps_engine *engine, const ps_conn *conn, const ps_frame *frame, uint64_t value)
{
    bool may_be_cancelled = conn->features & PS_FEATURE_CANCEL && !(frame->flags & PS_NO_REPLY);
    return may_be_cancelled && ps__ids_put(&engine->ids_in_flight, ps__id(conn), frame->request_id, value) ? value : 0;
}

ps_pending ps__pending_add(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    ps__pending_count(engine, conn, frame->size);
    return (ps_pending){ps__id(conn), *frame, ps__pending_hold_id(engine, conn, frame, ++engine->serial)};
}

void ps__pending_uncount(ps_engine *engine, ps_conn *conn, uint32_t size)
{
    PS_TAKE_ONE(conn->in_flight);
    conn->in_flight_bytes -= size;
    if (conn->in_flight <= engine->options.limits.max_in_flight / 2 && conn->in_flight_bytes <= PS_PENDING_BYTES / 2)
        conn->flags &= (uint16_t)~PS_PAUSED_PENDING;
    if (conn->unread || conn->state != PS_CONN_ESTABLISHED || !(conn->interest & PS_POLL_IN) || conn->flags & PS_REFUSES)
        ps__mark_dirty(engine, conn); /* to be read again, or closed */
}

bool ps__pending_free_id(ps_engine *engine, const ps_pending *pending)
{
    uint32_t request_id = pending->frame.request_id;
    return !pending->serial || ps__ids_take(&engine->ids_in_flight, pending->client_id, request_id, pending->serial);
}

ps_conn *ps__pending_done(ps_engine *engine, const ps_pending *pending)
{
    ps_conn *conn = ps__table_find(&engine->table, pending->client_id);
    bool waited = ps__pending_free_id(engine, pending);
    if (!conn)
        return NULL;
    if (engine->out_conn != conn) {
        ps__pending_flush(engine);
        ps__output_begin(engine, conn);
    }
    ps__pending_uncount(engine, conn, pending->frame.size);
    return !waited || conn->flags & PS_GAVE_UP ? NULL : conn;
}

void ps__pending_flush(ps_engine *engine)
{
    if (engine->out_conn)
        ps__output_end(engine, engine->out_conn);
}

void ps__pending_give_up(ps_conn *conn)
{
    conn->flags |= PS_GAVE_UP;
}

void ps__count_error(ps_engine *engine, const ps_frame *frame, uint16_t code)
{
    PS_ADD(engine->stats.errors, 1u);
    if (engine->meter)
        ps__meter_error(engine->meter, frame, code);
}

ps_measuring ps__answer_begins(ps_engine *engine, const ps_frame *frame)
{
    ps_meter *meter = engine->meter;
    if (!meter)
        return (ps_measuring){NULL, 0};
    ps_measuring outer = {meter->current, meter->outcome};
    ps__meter_answering(meter, frame);
    return outer;
}

void ps__answer_is_over(ps_engine *engine, uint64_t began_ns, ps_measuring outer)
{
    ps_meter *meter = engine->meter;
    if (!meter)
        return;
    ps__meter_answered(meter, began_ns, ps__now_ns());
    meter->current = outer.current;
    meter->outcome = outer.outcome;
}

/* -- requests whose handler isn't started -------------------------------------------------------------------------- */

static void say_not_started(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text)
{
    bool tells = conn->features & (PS_FEATURE_DEADLINE | PS_FEATURE_CANCEL);
    if (!(frame->flags & PS_NO_REPLY))
        ps__send_error(engine, conn, tells ? PS_NOT_STARTED : 0, code, frame->request_id, text);
}

void ps__not_started(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text)
{
    ps__count_error(engine, frame, code);
    say_not_started(engine, conn, frame, code, text);
}

bool ps__is_late(const ps_frame *frame)
{
    return frame->deadline_ns && ps__now_ns() >= frame->deadline_ns;
}

bool ps__is_in_flight(const ps_engine *engine, const ps_conn *conn, const ps_frame *frame)
{
    return conn->features & PS_FEATURE_CANCEL && !(frame->flags & PS_NO_REPLY) &&
           ps__ids_find(&engine->ids_in_flight, ps__id(conn), frame->request_id);
}

/* The client has closed its sending side, and such a one does so only when it is gone. What it didn't wait for is done all
 * the same. */
static bool is_abandoned(const ps_conn *conn, const ps_frame *frame)
{
    return conn->state == PS_CONN_DRAINING && conn->reason == PS_CLOSED_BY_PEER && conn->features & PS_FEATURE_CANCEL &&
           !(frame->flags & PS_NO_REPLY);
}

static bool is_cancelled(const ps_engine *engine, const ps_pending *pending)
{
    const ps_ids *ids = &engine->ids_in_flight;
    return pending->serial && ps__ids_find(ids, pending->client_id, pending->frame.request_id) != pending->serial;
}

bool ps__pending_may_start(ps_engine *engine, const ps_pending *pending)
{
    const ps_frame *frame = &pending->frame;
    const ps_conn *conn = ps__table_find(&engine->table, pending->client_id);
    bool is_wanted = conn && !is_abandoned(conn, frame) && !is_cancelled(engine, pending), late = ps__is_late(frame);
    if (is_wanted && !late)
        return true;
    if (engine->meter && is_cancelled(engine, pending))
        ps__meter_error(engine->meter, frame, PS_CANCELLED);
    else if (engine->meter && !is_wanted)
        ps__meter_gone(engine->meter, frame->code);
    ps_conn *told = ps__pending_done(engine, pending);
    if (told && is_wanted)
        ps__not_started(engine, told, frame, PS_DEADLINE_PASSED, PS_TEXT_TOO_LATE);
    return false;
}

void ps__cancel(ps_engine *engine, ps_conn *conn, uint32_t request_id)
{
    const ps_frame frame = {.request_id = request_id};
    uint64_t client_id = ps__id(conn), serial = ps__ids_find(&engine->ids_in_flight, client_id, request_id);
    if (!serial)
        return;
    ps__ids_take(&engine->ids_in_flight, client_id, request_id, serial);
    PS_ADD(engine->stats.errors, 1u); /* of which service it is will be known when its batch leaves it out */
    say_not_started(engine, conn, &frame, PS_CANCELLED, PS_TEXT_CANCELLED);
}
