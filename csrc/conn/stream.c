/* stream.c: replies in pieces. A stream is a deferred request that has credit: each of its frames takes 16 and the size of
 * its payload from it, its client gives more by CREDIT. While there is none it isn't asked for more; nor is it while its
 * client doesn't take what waits to be sent: so a client that reads slowly, or not at all, costs what its window says.
 *
 * Most are asked by the loop for their pieces, once a turn, all in turn: see hooks.pull. Those that aren't, for they run in
 * a task or in another thread, are told when they may go on: hooks.flow. */
#include "base/host.h"
#include "base/texts.h"
#include "conn/dismiss.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/pending.h"
#include "conn/stream.h"
#include "table/table.h"

enum { STEP_NS = 200 * 1000 }; /* so long at most streams are asked in a row: then it is looked at what has come */

static int64_t credit_of(const ps_deferred *record)
{
    return (int64_t)(record->limit - record->sent);
}

static ps_conn *client_of(const ps_engine *engine, const ps_deferred *record)
{
    return ps__table_find(&engine->table, record->pending.client_id); /* there: else the record would be over */
}

static int64_t may_send(const ps_engine *engine, const ps_deferred *record)
{
    const ps_conn *conn = client_of(engine, record);
    int64_t credit = credit_of(record);
    return conn->flags & PS_PAUSED_OUTPUT || credit < 0 ? 0 : credit;
}

/* Where nothing is read any more, no credit comes. */
static void end_without_credit(ps_engine *engine, const ps_conn *conn, ps_deferred *record)
{
    if (conn->state == PS_CONN_DRAINING && credit_of(record) <= 0)
        ps__deferred_mark(engine, record, PS_WHY_GONE);
}

int ps__stream_send(ps_engine *engine, ps_conn *conn, ps_deferred *record, const void *data, size_t size, void *object,
                    uint64_t most)
{
    record->sent += size + PS_STREAM_COST;
    ps__send_piece(engine, conn, record->pending.frame.request_id, data, size, object);
    if (conn->state == PS_CONN_CLOSED)
        return -1;
    bool has_credit = credit_of(record) > 0;
    if (has_credit && conn->queued <= most)
        return 1;
    if (has_credit)
        ps__deferred_hold(engine, record);
    else
        end_without_credit(engine, conn, record);
    return 0;
}

/* -- what makes one go on ------------------------------------------------------------------------------------------ */

void ps__stream_tell(ps_engine *engine, ps_deferred *record)
{
    uint64_t most = record->sent + PS_STREAM_AHEAD;
    if (!record->object || record->is_answered || ps__enter(engine) < 0)
        return;
    record->told = record->limit < most ? record->limit : most;
    int64_t left = record->is_held ? 0 : may_send(engine, record);
    ps__fail(engine, engine->hooks.flow(engine->hooks.context, record->object, left, record->told));
}

void ps__stream_seen(ps_engine *engine, uint64_t handle)
{
    ps_deferred *record = ps__deferred_find(engine, handle);
    bool runs_low = record && record->told < record->limit && record->told < record->sent + PS_STREAM_AHEAD / 2;
    if (record && (runs_low || record->is_held))
        ps__stream_tell(engine, record);
}

static void go_on(ps_engine *engine, ps_deferred *record)
{
    if (record->is_answered || record->is_held || credit_of(record) <= 0)
        return;
    if (record->is_pulled)
        ps__deferred_ready(engine, record);
    else
        ps__stream_tell(engine, record);
}

void ps__stream_pull(ps_engine *engine, uint64_t handle)
{
    ps_deferred *record = ps__deferred_find(engine, handle);
    record->is_stream = record->is_pulled = true;
    go_on(engine, record);
}

void ps__stream_credit(ps_engine *engine, ps_conn *conn, const ps_frame *frame)
{
    uint64_t value = ps__ids_find(&engine->ids_in_flight, ps__id(conn), frame->request_id);
    ps_deferred *record = value & PS_ID_OF_DEFERRED ? ps__deferred_find(engine, value & ~PS_ID_OF_DEFERRED) : NULL;
    if (!record || !record->is_stream)
        return;
    record->limit += ps__get32(frame->payload);
    if (credit_of(record) > UINT32_MAX)
        ps__dismiss(engine, conn, PS_END_VIOLATION, frame->request_id, PS_TEXT_CREDIT_OVERFLOW);
    else
        go_on(engine, record);
}

void ps__streams_go_on(ps_engine *engine, ps_conn *conn)
{
    uint32_t slot = engine->deferred.held && !conn->out_head ? conn->deferred : PS_NO_SLOT;
    while (slot != PS_NO_SLOT) {
        ps_deferred *record = ps__deferred_at(engine, slot);
        slot = record->next;
        if (!record->is_held)
            continue;
        ps__deferred_release(engine, record);
        go_on(engine, record);
    }
}

bool ps__has_streams(const ps_engine *engine, const ps_conn *conn)
{
    uint32_t slot = conn->state == PS_CONN_CLOSED ? PS_NO_SLOT : conn->deferred;
    while (slot != PS_NO_SLOT && !ps__deferred_at(engine, slot)->is_stream)
        slot = ps__deferred_at(engine, slot)->next;
    return slot != PS_NO_SLOT;
}

/* -- the loop asks for pieces -------------------------------------------------------------------------------------- */

/* What those of one client send that follow one another is gathered. */
static void step(ps_engine *engine, ps_conn *conn, ps_deferred *record, uint64_t until_ns)
{
    uint64_t handle = ps__deferred_handle(engine, record);
    if (engine->out_conn != conn)
        ps__output_begin(engine, conn);
    ps__fail(engine, engine->hooks.pull(engine->hooks.context, conn, handle, record->object, until_ns));
    record = ps__deferred_find(engine, handle);
    if (record)
        go_on(engine, record);
}

/* The first of the list, and what was sent for others before is on its way; its slot, or PS_NO_SLOT. */
static uint32_t next_of(ps_engine *engine)
{
    uint32_t slot = engine->deferred.ready;
    const ps_conn *conn = slot == PS_NO_SLOT ? NULL : client_of(engine, ps__deferred_at(engine, slot));
    if (!engine->out_conn || engine->out_conn == conn)
        return slot;
    ps__output_end(engine, engine->out_conn);
    return engine->deferred.ready;
}

void ps__streams_step(ps_engine *engine)
{
    if (engine->deferred.ready == PS_NO_SLOT || ps__enter(engine) < 0)
        return;
    uint64_t end = ps__now_ns() + STEP_NS;
    uint32_t last = engine->deferred.last_ready, slot;
    while ((slot = next_of(engine)) != PS_NO_SLOT) {
        ps_deferred *record = ps__deferred_at(engine, slot);
        ps_conn *conn = client_of(engine, record);
        ps__deferred_unready(engine, record);
        if (conn->out_head)
            ps__deferred_hold(engine, record);
        else
            step(engine, conn, record, end);
        if (slot == last || engine->fatal || ps__now_ns() >= end)
            break;
    }
    ps__pending_flush(engine);
}
